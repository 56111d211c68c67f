//! What QEMU is started with: a pure function of the machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::find::Acceleration;
use crate::snapshot::Configuration;
use crate::units::ByteCount;
use crate::vm::{Result, VmError};

/// What disks are attached to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskBus {
    /// Quick; needs a driver in the guest.
    #[default]
    Virtio,
    /// Known to every guest; six disks at most.
    Sata,
}

/// A kernel that is started without a boot loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's file.
    pub kernel: PathBuf,
    /// Its first file system.
    pub initrd: PathBuf,
    /// Its arguments.
    pub command_line: String,
}

/// What a machine consists of beside memory and disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Virtual processors.
    pub processors: u32,
    /// What disks are attached to.
    pub bus: DiskBus,
    /// A network card behind the user's own connections.
    pub network: bool,
    /// Whether a viewer can connect to the screen, at `folder/vnc`.
    pub viewer: bool,
    /// Instead of what the first disk boots.
    pub boot: Option<Boot>,
    /// Where the serial port's output goes.
    pub console: Option<PathBuf>,
}

impl Default for Hardware {
    fn default() -> Self {
        Self { processors: 1, bus: DiskBus::Virtio, network: false, viewer: false, boot: None, console: None }
    }
}

/// Most disks at a time: by bus, and on the one PCI bus.
const SATA_MAX: usize = 6;
const VIRTIO_MAX: usize = 16;
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

/// A value of an option that ends at a comma.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The arguments for a machine whose sockets are in `folder`; one that continues waits for its memory.
///
/// # Errors
/// What such a machine can't be.
pub(super) fn arguments(
    configuration: &Configuration,
    hardware: &Hardware,
    acceleration: Acceleration,
    folder: &Path,
    continues: bool,
) -> Result<Vec<OsString>> {
    let most = if hardware.bus == DiskBus::Sata { SATA_MAX } else { VIRTIO_MAX };
    if configuration.disks.len() > most {
        return Err(VmError::Refused(format!("{} disks; there is room for {most} on this bus", configuration.disks.len())));
    }
    if configuration.memory < ByteCount::mib(1) || !configuration.memory.0.is_multiple_of(1 << 20) {
        return Err(VmError::Refused(format!("QEMU's memory is whole MiB, not {} bytes", configuration.memory.0)));
    }
    if folder.to_str().is_none() {
        return Err(VmError::Refused(format!("{} isn't UTF-8: QEMU takes no such path", folder.display())));
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
    add("-smp", hardware.processors.max(1).to_string());
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
            "driver": driver, "id": format!("disk{index}"), "drive": node, "bootindex": index,
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
    if hardware.viewer {
        add("-vnc", format!("unix:{}", escaped(&folder.join("vnc"))));
    }
    if let Some(console) = &hardware.console {
        add("-chardev", format!("file,id=console,path={}", escaped(console)));
        add("-serial", "chardev:console".into());
    }
    if let Some(boot) = &hardware.boot {
        add("-kernel", boot.kernel.display().to_string());
        add("-initrd", boot.initrd.display().to_string());
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
    use crate::snapshot::{DiskConfig, DiskId, WorkloadProfile};

    fn machine(disks: usize, memory: ByteCount) -> Configuration {
        let disk = |index| DiskConfig { id: DiskId(format!("d,{index}")), size: ByteCount::mib(8), format: ImageFormat::Vhdx };
        Configuration { memory, disks: (0..disks).map(disk).collect(), workload: WorkloadProfile::default() }
    }

    fn line(machine: &Configuration, hardware: &Hardware, continues: bool) -> Result<String> {
        let folder = Path::new("/run/a,b");
        let arguments = arguments(machine, hardware, Acceleration::Emulated, folder, continues)?;
        Ok(arguments.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_machine_is_described_whole() {
        let all = Hardware { processors: 4, network: true, viewer: true, ..Hardware::default() };
        let said = line(&machine(2, ByteCount::mib(256)), &all, true).unwrap();
        for part in [
            "-m 256M",
            "-smp 4",
            "-accel tcg,thread=multi",
            "path=/run/a,,b/monitor,server=on",
            r#""export":"d,1""#,
            r#""server":{"path":"/run/a,b/disks","type":"unix"}"#,
            r#""drive":"node1","driver":"virtio-blk-pci","id":"disk1","rerror":"stop","werror":"stop""#,
            "-netdev user",
            "-vnc unix:/run/a,,b/vnc",
            "-incoming defer",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let plain =
            line(&machine(1, ByteCount::mib(256)), &Hardware { bus: DiskBus::Sata, ..Hardware::default() }, false).unwrap();
        assert!(plain.contains(r#""bus":"ide.0""#), "{plain}");
        for part in ["-netdev", "-vnc", "-incoming", "-kernel", "-serial"] {
            assert!(!plain.contains(part), "{part}: {plain}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let sata = Hardware { bus: DiskBus::Sata, ..Hardware::default() };
        assert!(line(&machine(6, ByteCount::mib(64)), &sata, false).is_ok());
        assert!(line(&machine(7, ByteCount::mib(64)), &sata, false).is_err());
        assert!(line(&machine(17, ByteCount::mib(64)), &Hardware::default(), false).is_err());
        assert!(line(&machine(1, ByteCount(4096)), &Hardware::default(), false).is_err());
    }
}
