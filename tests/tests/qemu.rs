//! Machines that QEMU runs on disks of ours, without the engine.
#![cfg(unix)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use snaptree_core::chain::{BlockDevice, Chain, Gate, Layer};
use snaptree_core::clock::SystemClock;
use snaptree_core::disk::{self, CreateOptions, DiskError, ImageFormat};
use snaptree_core::host_file::{Access, Host, HostFile, OsHost};
use snaptree_core::snapshot::{Configuration, DiskBus, DiskConfig, DiskId, Hardware, WorkloadProfile};
use snaptree_core::units::ByteCount;
use snaptree_core::vm::qemu::{Acceleration, Qemu, Running};
use snaptree_core::vm::{Ended, Guest, Places, Setup};
use snaptree_tests::boot_sector::{self, NUMBER, boot_sector, qemu, wait_until};
use tempfile::TempDir;
use uuid::Uuid;

const MEMORY: ByteCount = ByteCount::mib(32);

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
        let setup = self.setup(disk.clone(), saved_memory);
        Ok(Running::start(setup, &self.qemu, &self.places())?)
    }

    fn places(&self) -> Places {
        Places { sockets: self.folder.path().into(), console: None }
    }

    fn setup(&self, disk: Arc<dyn BlockDevice>, saved_memory: Option<Arc<dyn HostFile>>) -> Setup {
        let config = DiskConfig { id: DiskId("disk0".into()), size: disk.size(), format: ImageFormat::Vhdx };
        let configuration = Configuration {
            memory: MEMORY,
            disks: vec![config],
            workload: WorkloadProfile::default(),
            hardware: Some(self.hardware.clone()),
        };
        Setup { configuration, disks: vec![disk], saved_memory, clock: SystemClock::shared() }
    }
}

/// The newest record, while the guest may write the next.
fn seen(disk: &Chain) -> Result<u64> {
    Ok(boot_sector::ring(|buf, offset| disk.read_at(buf, offset))?.into_iter().max().unwrap_or(0))
}

/// The newest record of a guest that stands still; nothing of the ring may be missing.
fn newest(disk: &Chain) -> Result<u64> {
    boot_sector::newest(|buf, offset| disk.read_at(buf, offset))
}

/// The number in the guest's memory.
fn number(guest: &Running) -> Result<u64> {
    let said = guest.ask("human-monitor-command", json!({"command-line": format!("xp /1wx {NUMBER:#x}")}))?;
    let text = said.as_str().unwrap_or_default().trim().to_owned();
    let word = text.rsplit("0x").next().with_context(|| text.clone())?;
    u64::from_str_radix(word, 16).with_context(|| text.clone())
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
    let outside = guest.outside().context("a process")?;
    ensure!(outside.stands_still_to_save.is_none(), "{outside:?}");
    wait_until("the guest writes", || Ok(seen(&disk)? > 20))?;
    let mut taken = Vec::new();
    for round in 0..3 {
        let before = seen(&disk)?;
        let memory = lab.path(&format!("{round}.memory"));
        taken.push(take(&lab, &guest, &disk, &format!("{}.avhdx", round + 1), &memory)?);
        wait_until("the guest goes on", || Ok(seen(&disk)? > before + 20))?;
    }
    guest.stop()?;
    assert_eq!(guest.ended(), Some(Ended::ShutDown));
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
        wait_until("the guest goes on", || Ok(seen(&disk)? > taken.number + 20))?;
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
    wait_until("the guest writes", || Ok(seen(&disk)? > 5))?;
    let frame = guest.frame();
    ensure!((frame.width, frame.height, frame.rgb.len()) == (720, 400, 720 * 400 * 3), "{} x {}", frame.width, frame.height);
    wait_until("the firmware's words are seen", || Ok(guest.frame().rgb.iter().any(|byte| *byte != 0)))?;
    // This guest doesn't listen to its power button.
    ensure!(guest.press_power_button()?);
    sleep(Duration::from_millis(300));
    assert_eq!((guest.ended(), guest.problem()), (None, None));
    guest.stop()?;
    assert_eq!(guest.ended(), Some(Ended::ShutDown));
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

/// A disk whose writes fail as long as that is wanted.
#[derive(Debug)]
struct Failing {
    chain: Arc<Chain>,
    fails: AtomicBool,
}

impl BlockDevice for Failing {
    fn size(&self) -> ByteCount {
        self.chain.virtual_size()
    }
    fn sector_size(&self) -> u32 {
        self.chain.logical_sector_size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> disk::Result<()> {
        self.chain.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> disk::Result<()> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err(DiskError::io("a disk".as_ref(), "write to it", std::io::ErrorKind::Other.into())),
            false => self.chain.write_at(buf, offset),
        }
    }
    fn write_zeroes(&self, offset: u64, length: u64) -> disk::Result<()> {
        self.chain.write_zeroes(offset, length)
    }
    fn trim(&self, offset: u64, length: u64) -> disk::Result<()> {
        self.chain.trim(offset, length)
    }
    fn flush(&self) -> disk::Result<()> {
        self.chain.flush()
    }
    fn layers(&self, offset: u64, length: u64) -> disk::Result<Vec<Layer>> {
        self.chain.layers(offset, length)
    }
}

#[test]
fn a_guest_that_was_left_goes_on_and_a_disk_that_fails_then_is_told_of() -> Result<()> {
    let Some(qemu) = qemu()? else { return Ok(()) };
    let lab = Lab::new(&qemu, DiskBus::Virtio)?;
    let disk = lab.leaf("0.avhdx", "base.vhdx")?;
    let guest = lab.start(&disk, None)?;
    wait_until("the guest writes", || Ok(seen(&disk)? > 20))?;
    guest.leave();
    let left = seen(&disk)?;
    sleep(Duration::from_millis(300));
    assert_eq!(seen(&disk)?, left, "nobody serves its disk");
    let failing = Arc::new(Failing { chain: disk.clone(), fails: AtomicBool::new(false) });
    let guest = Running::adopt(&lab.setup(failing.clone(), None), &lab.places())?.context("a guest")?;
    wait_until("the guest goes on", || Ok(seen(&disk)? > left + 20))?;
    assert_eq!(guest.problem(), None);
    failing.fails.store(true, Ordering::SeqCst);
    let began = Instant::now();
    wait_until("the failure is told of", || Ok(guest.problem().is_some()))?;
    ensure!(began.elapsed() < Duration::from_secs(20), "only after {:?}", began.elapsed());
    let still = seen(&disk)?;
    failing.fails.store(false, Ordering::SeqCst);
    sleep(Duration::from_millis(100));
    assert_eq!(seen(&disk)?, still, "it stands still until somebody lets it go on");
    guest.resume();
    wait_until("the guest goes on", || Ok(seen(&disk)? > still + 20))?;
    assert_eq!(guest.problem(), None);
    guest.stop()?;
    newest(&disk).map(drop)
}
