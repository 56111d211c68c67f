//! Machines that QEMU runs on disks of ours. Their guest is a boot sector: it counts in memory, and writes each number to
//! the disk before it goes on with the next.
#![cfg(unix)]

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use snaptree_core::chain::{BlockDevice, Chain, Gate};
use snaptree_core::clock::SystemClock;
use snaptree_core::disk::{self, CreateOptions, ImageFormat};
use snaptree_core::host_file::{Access, Host, HostFile, OsHost};
use snaptree_core::snapshot::{Configuration, DiskConfig, DiskId, WorkloadProfile};
use snaptree_core::units::ByteCount;
use snaptree_core::vm::qemu::{Acceleration, DiskBus, Hardware, Qemu, Running};
use snaptree_core::vm::{Guest, Setup};
use snaptree_tests::witness::{skip, tool};
use tempfile::TempDir;
use uuid::Uuid;

/// Records lie in a ring of so many sectors, from the second one on.
const RING: u64 = 1024;
const SECTOR: u64 = 512;
/// Where the guest has its number, at the beginning of what it writes.
const NUMBER: u64 = 0x8000;
const PATIENCE: Duration = Duration::from_secs(60);
const MEMORY: ByteCount = ByteCount::mib(32);

/// The guest. It ends in a loop without a record where a write fails.
fn boot_sector() -> Vec<u8> {
    #[rustfmt::skip]
    let mut code = vec![
        0x31, 0xc0,                         //      xor ax, ax
        0x8e, 0xd8,                         //      mov ds, ax
        0x8e, 0xd0,                         //      mov ss, ax
        0xbc, 0x00, 0x7c,                   //      mov sp, 0x7c00
        0x66, 0xff, 0x06, 0x00, 0x80,       // next: inc dword [0x8000]
        0x66, 0xa1, 0x00, 0x80,             //      mov eax, [0x8000]
        0x66, 0x25, 0xff, 0x03, 0x00, 0x00, //      and eax, RING - 1
        0x66, 0x40,                         //      inc eax
        0x66, 0xa3, 0x38, 0x7c,             //      mov [packet + 8], eax
        0xbe, 0x30, 0x7c,                   //      mov si, packet
        0xb8, 0x00, 0x43,                   //      mov ax, 0x4300: write
        0xb2, 0x80,                         //      mov dl, 0x80: the first disk
        0xcd, 0x13,                         //      int 0x13
        0x73, 0xdf,                         //      jnc next
        0xeb, 0xfe,                         //      jmp here
    ];
    assert_eq!(code.len(), 0x2c);
    code.resize(0x30, 0);
    // One sector from 0000:8000 to the place that is filled in.
    code.extend([0x10, 0, 1, 0, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code
}

/// QEMU, if it is installed. What else is wrong with it is an error.
fn qemu() -> Result<Option<Qemu>> {
    if tool("qemu-system-x86_64").is_none() {
        skip("qemu-system-x86_64 is not installed");
        return Ok(None);
    }
    let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
    Ok(Some(Qemu::find(folder.path())?))
}

struct Lab {
    folder: TempDir,
    qemu: Qemu,
    hardware: Hardware,
}

impl Lab {
    fn new(qemu: &Qemu, bus: DiskBus) -> Result<Self> {
        let lab = Self {
            folder: tempfile::Builder::new().prefix("snaptree-").tempdir()?,
            qemu: qemu.clone(),
            hardware: Hardware { bus, ..Hardware::default() },
        };
        let options = CreateOptions::dynamic(ByteCount::mib(8));
        let base = disk::create(&OsHost::shared(), &lab.path("base.vhdx"), ImageFormat::Vhdx, &options)?;
        base.write_at(&boot_sector(), 0)?;
        base.freeze()?;
        Ok(lab)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// A new leaf on top of an image.
    fn leaf(&self, name: &str, parent: &str) -> Result<Arc<Chain>> {
        let host = OsHost::shared();
        let below = disk::open(&host, &self.path(parent), ImageFormat::Vhdx, Access::Look)?;
        disk::create_child(&host, &self.path(name), &*below, None)?;
        drop(below);
        Ok(Arc::new(Chain::open(&host, &self.path(name), Access::Write, &Gate::around(&self.path(name)))?))
    }

    fn start(&self, disk: &Arc<Chain>, saved_memory: Option<Arc<dyn HostFile>>) -> Result<Running> {
        let config = DiskConfig { id: DiskId("disk0".into()), size: disk.virtual_size(), format: ImageFormat::Vhdx };
        let configuration = Configuration { memory: MEMORY, disks: vec![config], workload: WorkloadProfile::default() };
        let disks = vec![disk.clone() as Arc<dyn BlockDevice>];
        let setup = Setup { configuration, disks, saved_memory, clock: SystemClock::shared() };
        Ok(Running::start(setup, &self.hardware, &self.qemu, self.folder.path())?)
    }
}

/// The newest record on a disk. Each record of the ring must be there, but for the newest ones of a ring not yet filled.
fn newest(disk: &Chain) -> Result<u64> {
    let mut bytes = vec![0; (RING * SECTOR) as usize];
    disk.read_at(&mut bytes, SECTOR)?;
    let sectors = bytes.chunks(SECTOR as usize);
    let numbers: Vec<u64> = sectors.map(|s| u32::from_le_bytes([s[0], s[1], s[2], s[3]]).into()).collect();
    let newest = numbers.iter().copied().max().unwrap_or(0);
    for number in newest.saturating_sub(RING - 1).max(1)..=newest {
        let found = numbers[(number % RING) as usize];
        ensure!(found == number, "record {number} is missing: there is {found}, and {newest} is the newest");
    }
    Ok(newest)
}

/// The number in the guest's memory.
fn number(guest: &Running) -> Result<u64> {
    let said = guest.ask("human-monitor-command", json!({"command-line": format!("xp /1wx {NUMBER:#x}")}))?;
    let text = said.as_str().unwrap_or_default().trim().to_owned();
    let word = text.rsplit("0x").next().with_context(|| text.clone())?;
    u64::from_str_radix(word, 16).with_context(|| text.clone())
}

fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds()? {
        ensure!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What was found at the instant of a snapshot.
struct Taken {
    number: u64,
    pause: Duration,
    save: Duration,
}

/// As the engine takes a snapshot of a running machine.
fn take(lab: &Lab, guest: &Running, disk: &Chain, leaf: &str, memory: &Path) -> Result<Taken> {
    let old = disk.images().pop().context("a leaf")?;
    old.pin_data_write_id()?;
    let new = disk::create_child(&OsHost::shared(), &lab.path(leaf), &*old, None)?;
    let file = OsHost.create_new(memory)?;
    disk.flush()?;
    let began = Instant::now();
    guest.pause();
    disk.push_leaf(new)?;
    let mut save = guest.begin_capture(file, Uuid::new_v4())?;
    let number = number(guest)?;
    guest.resume();
    let pause = began.elapsed();
    old.freeze()?;
    while !save.step(ByteCount::mib(16))?.finished {}
    let report = save.report();
    ensure!(report.file > ByteCount::ZERO && guest.problem().is_none(), "{:?}", guest.problem());
    Ok(Taken { number, pause, save: report.elapsed })
}

/// Three snapshots of a guest that writes all the time; each is gone back to.
fn taken_and_gone_back_to(bus: DiskBus) -> Result<()> {
    let Some(qemu) = qemu()? else { return Ok(()) };
    let lab = Lab::new(&qemu, bus)?;
    let disk = lab.leaf("0.avhdx", "base.vhdx")?;
    let guest = lab.start(&disk, None)?;
    ensure!(guest.stands_still_to_save().is_none(), "{:?}", guest.stands_still_to_save());
    wait_until("the guest writes", || Ok(newest(&disk)? > 20))?;
    let mut taken = Vec::new();
    for round in 0..3 {
        let before = newest(&disk)?;
        let memory = lab.path(&format!("{round}.memory"));
        taken.push(take(&lab, &guest, &disk, &format!("{}.avhdx", round + 1), &memory)?);
        wait_until("the guest goes on", || Ok(newest(&disk)? > before + 20))?;
    }
    guest.stop()?;
    assert!(guest.problem().is_some(), "it has ended");
    drop((guest, disk));
    for (round, taken) in taken.iter().enumerate() {
        println!("{bus:?}, {:?}: stood still for {:?}, saved in {:?}", qemu.acceleration, taken.pause, taken.save);
        let disk = lab.leaf(&format!("back{round}.avhdx"), &format!("{round}.avhdx"))?;
        let stored = newest(&disk)?;
        // The disk's instant is the memory's: the number is on the disk, or it is the very next.
        ensure!(stored == taken.number || stored + 1 == taken.number, "{stored} on the disk, {} in memory", taken.number);
        let file = OsHost.open(&lab.path(&format!("{round}.memory")), Access::Read)?;
        let began = Instant::now();
        let guest = lab.start(&disk, Some(file))?;
        println!("    goes on after {:?}", began.elapsed());
        // It goes on with the very next number: a gap would be found.
        wait_until("the guest goes on", || Ok(newest(&disk)? > taken.number + 20))?;
        guest.pause();
        let (stored, number) = (newest(&disk)?, number(&guest)?);
        ensure!(stored == number || stored + 1 == number, "{stored} on the disk, {number} in memory");
        // Nor does it begin anew, which would show no gap either.
        ensure!(number > taken.number);
        drop(guest);
        let images = disk.images();
        drop(disk);
        for image in images {
            ensure!(image.check()? == [""; 0], "{}", image.path().display());
        }
    }
    Ok(())
}

#[test]
fn a_running_machine_is_taken_and_gone_back_to() -> Result<()> {
    taken_and_gone_back_to(DiskBus::Virtio)
}

#[test]
fn the_same_with_sata() -> Result<()> {
    taken_and_gone_back_to(DiskBus::Sata)
}

#[test]
fn a_picture_and_a_shutdown() -> Result<()> {
    let Some(qemu) = qemu()? else { return Ok(()) };
    let lab = Lab::new(&qemu, DiskBus::Virtio)?;
    let disk = lab.leaf("0.avhdx", "base.vhdx")?;
    let guest = lab.start(&disk, None)?;
    wait_until("the guest writes", || Ok(newest(&disk)? > 5))?;
    let frame = guest.frame();
    ensure!((frame.width, frame.height, frame.rgb.len()) == (720, 400, 720 * 400 * 3), "{} x {}", frame.width, frame.height);
    wait_until("the firmware's words are seen", || Ok(guest.frame().rgb.iter().any(|byte| *byte != 0)))?;
    // This guest doesn't listen to its power button.
    ensure!(!guest.shut_down(Duration::from_millis(300))?);
    ensure!(guest.problem().is_none());
    guest.stop()?;
    ensure!(!lab.path("monitor").exists() || guest.problem().is_some());
    Ok(())
}

#[test]
fn what_cannot_be_started_is_said() -> Result<()> {
    let Some(qemu) = qemu()? else { return Ok(()) };
    let lab = Lab::new(&qemu, DiskBus::Virtio)?;
    let disk = lab.leaf("0.avhdx", "base.vhdx")?;
    std::fs::write(lab.path("wrong.memory"), vec![7; 100_000])?;
    let file = OsHost.open(&lab.path("wrong.memory"), Access::Read)?;
    let error = lab.start(&disk, Some(file)).err().context("it was started")?;
    ensure!(error.to_string().contains("QEMU"), "{error}");
    let broken = Qemu { program: "/bin/false".into(), version: (10, 0), acceleration: Acceleration::Emulated };
    let lab = Lab { qemu: broken, ..lab };
    let error = lab.start(&disk, None).err().context("it was started")?.to_string();
    ensure!(error.contains("QEMU has ended"), "{error}");
    Ok(())
}
