//! What QEMU is started with: a pure function of the machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::find::Acceleration;
use crate::snapshot::{Configuration, DiskBus};
use crate::units::ByteCount;
use crate::vm::{Places, Result, VmError};

/// How long the guest's requests wait for a disk's server that went away.
const RECONNECT_SECONDS: u32 = 30;

/// The monitor's socket in a machine's folder.
pub(super) fn monitor(folder: &Path) -> PathBuf {
    folder.join("monitor")
}

/// The disks' socket.
pub(super) fn disks(folder: &Path) -> PathBuf {
    folder.join("disks")
}

/// Where a viewer program can connect to the screen.
pub(super) fn viewer(folder: &Path) -> PathBuf {
    folder.join("vnc")
}

/// A value of an option that ends at a comma.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The arguments for a machine; one that continues waits for its memory.
///
/// # Errors
/// What such a machine can't be.
pub(super) fn arguments(
    configuration: &Configuration,
    acceleration: Acceleration,
    places: &Places,
    continues: bool,
) -> Result<Vec<OsString>> {
    let hardware = configuration.hardware.clone().unwrap_or_default();
    let folder = &*places.sockets;
    if let Some(problem) = hardware.problem(configuration.disks.len()) {
        return Err(VmError::Refused(problem));
    }
    if configuration.memory < ByteCount::mib(1) || !configuration.memory.0.is_multiple_of(1 << 20) {
        return Err(VmError::Refused(format!("QEMU's memory is whole MiB, not {} bytes", configuration.memory.0)));
    }
    let paths = [Some(folder), places.console.as_deref()];
    if let Some(path) = paths.into_iter().flatten().find(|path| path.to_str().is_none()) {
        return Err(VmError::Refused(format!("{} isn't UTF-8: QEMU takes no such path", path.display())));
    }
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: String| arguments.extend([option.into(), value.into()]);
    let (accel, cpu) = match acceleration {
        Acceleration::Kvm => ("kvm", "host"),
        Acceleration::Emulated => ("tcg,thread=multi", "max"),
    };
    add("-machine", "q35".into());
    add("-accel", accel.into());
    add("-cpu", cpu.into());
    add("-m", format!("{}M", configuration.memory.0 >> 20));
    add("-smp", hardware.processors.to_string());
    add("-display", "none".into());
    add("-device", "VGA".into());
    add("-chardev", format!("socket,id=monitor,path={},server=on,wait=off", escaped(&monitor(folder))));
    add("-mon", "chardev=monitor,mode=control".into());
    for (index, disk) in configuration.disks.iter().enumerate() {
        let node = format!("node{index}");
        let server = json!({"type": "unix", "path": disks(folder)});
        let block = json!({
            "driver": "nbd", "node-name": node, "server": server, "export": disk.id.0, "discard": "unmap",
            "cache": {"direct": true}, "reconnect-delay": RECONNECT_SECONDS,
        });
        add("-blockdev", block.to_string());
        let (driver, bus) = match hardware.bus {
            DiskBus::Virtio => ("virtio-blk-pci", None),
            DiskBus::Sata => ("ide-hd", Some(format!("ide.{index}"))),
        };
        let mut device = json!({
            // 0 is the kernel's that is started without a boot loader.
            "driver": driver, "id": format!("disk{index}"), "drive": node, "bootindex": index + 1,
            "werror": "stop", "rerror": "stop",
        });
        if let Some(bus) = bus {
            device["bus"] = bus.into();
        }
        add("-device", device.to_string());
    }
    if hardware.network {
        add("-netdev", "user,id=net0".into());
        // Without a boot ROM, which is another package.
        add("-device", json!({"driver": "virtio-net-pci", "netdev": "net0", "romfile": ""}).to_string());
    }
    add("-vnc", format!("unix:{}", escaped(&viewer(folder))));
    if let Some(console) = &places.console {
        let append = if continues { "on" } else { "off" };
        add("-chardev", format!("file,id=console,path={},append={append}", escaped(console)));
        add("-serial", "chardev:console".into());
    }
    if let Some(boot) = &hardware.boot {
        add("-kernel", boot.kernel.display().to_string());
        if let Some(initrd) = &boot.initrd {
            add("-initrd", initrd.display().to_string());
        }
        add("-append", boot.command_line.clone());
    }
    if continues {
        add("-incoming", "defer".into());
    }
    arguments.extend(["-nodefaults", "-no-user-config"].map(OsString::from));
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::ImageFormat;
    use crate::snapshot::{Boot, DiskConfig, DiskId, Hardware, WorkloadProfile};

    fn machine(disks: usize, memory: ByteCount, hardware: Hardware) -> Configuration {
        let disk = |index| DiskConfig { id: DiskId(format!("d,{index}")), size: ByteCount::mib(8), format: ImageFormat::Vhdx };
        let disks = (0..disks).map(disk).collect();
        Configuration { memory, disks, workload: WorkloadProfile::default(), hardware: Some(hardware) }
    }

    fn line(machine: &Configuration, continues: bool) -> Result<String> {
        let places = Places { sockets: "/run/a,b".into(), console: Some("/m/c,d".into()) };
        let arguments = arguments(machine, Acceleration::Emulated, &places, continues)?;
        Ok(arguments.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_machine_is_described_whole() {
        let boot = Boot { kernel: "/k".into(), initrd: Some("/i".into()), command_line: "quiet a=b".into() };
        let all = Hardware { processors: 4, network: true, boot: Some(boot), ..Hardware::default() };
        let said = line(&machine(2, ByteCount::mib(256), all), true).unwrap();
        for part in [
            "-m 256M",
            "-smp 4",
            "-accel tcg,thread=multi",
            "path=/run/a,,b/monitor,server=on",
            r#""export":"d,1""#,
            r#""server":{"path":"/run/a,b/disks","type":"unix"}"#,
            r#"{"bootindex":1,"drive":"node0""#,
            r#""drive":"node1","driver":"virtio-blk-pci","id":"disk1","rerror":"stop","werror":"stop""#,
            "-netdev user",
            "-vnc unix:/run/a,,b/vnc",
            "path=/m/c,,d,append=on",
            "-kernel /k -initrd /i -append quiet a=b",
            "-incoming defer",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let sata = Hardware { bus: DiskBus::Sata, ..Hardware::default() };
        let plain = line(&machine(1, ByteCount::mib(256), sata), false).unwrap();
        assert!(plain.contains(r#""bus":"ide.0""#) && plain.contains("append=off"), "{plain}");
        for part in ["-netdev", "-incoming", "-kernel"] {
            assert!(!plain.contains(part), "{part}: {plain}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let sata = || Hardware { bus: DiskBus::Sata, ..Hardware::default() };
        let processors = |processors| Hardware { processors, ..Hardware::default() };
        let kernel = |kernel: &str| {
            let boot = Boot { kernel: kernel.into(), initrd: None, command_line: String::new() };
            Hardware { boot: Some(boot), ..Hardware::default() }
        };
        let can = |disks, memory, hardware| line(&machine(disks, memory, hardware), false).is_ok();
        assert!(can(6, ByteCount::mib(64), sata()));
        assert!(!can(7, ByteCount::mib(64), sata()));
        assert!(!can(17, ByteCount::mib(64), Hardware::default()));
        assert!(!can(1, ByteCount(4096), Hardware::default()));
        assert!(!can(1, ByteCount::mib(64), processors(0)) && !can(1, ByteCount::mib(64), processors(256)));
        assert!(can(1, ByteCount::mib(64), kernel("/boot/vmlinuz")));
        assert!(!can(1, ByteCount::mib(64), kernel("vmlinuz")), "who starts it has another folder");
    }
}
