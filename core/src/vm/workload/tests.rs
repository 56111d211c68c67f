//! The built-in machine: exactness under load, the same future from the same state, and what verification finds.

use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

use super::*;
use crate::chain::Chain;
use crate::clock::SystemClock;
use crate::disk::{self, CreateOptions, Image};
use crate::host_file::{Host, HostFile, OsHost};
use crate::snapshot::{Configuration, DiskConfig, DiskId};
use crate::testing::RamImage;
use crate::vm::{Guest, VerifyReport};

/// A disk in memory. `fails` makes every write fail.
#[derive(Debug, Default)]
pub(super) struct RamDisk {
    bytes: Mutex<Vec<u8>>,
    fails: AtomicBool,
}

impl RamDisk {
    pub(super) fn new(size: ByteCount) -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(vec![0; size.0 as usize]), fails: AtomicBool::new(false) })
    }

    fn copy(&self) -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(lock(&self.bytes).clone()), fails: AtomicBool::new(false) })
    }

    fn change(&self, at: usize, bytes: &[u8]) {
        lock(&self.bytes)[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn piece(&self, at: usize, length: usize) -> Vec<u8> {
        lock(&self.bytes)[at..at + length].to_vec()
    }
}

impl BlockDevice for RamDisk {
    fn size(&self) -> ByteCount {
        ByteCount(lock(&self.bytes).len() as u64)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> disk::Result<()> {
        buf.copy_from_slice(&lock(&self.bytes)[offset as usize..][..buf.len()]);
        Ok(())
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> disk::Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(disk::DiskError::refused("ram".as_ref(), "the disk is full"));
        }
        self.change(offset as usize, buf);
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, length: u64) -> disk::Result<()> {
        self.write_at(&vec![0; length as usize], offset)
    }
    fn trim(&self, offset: u64, length: u64) -> disk::Result<()> {
        self.write_zeroes(offset, length)
    }
    fn flush(&self) -> disk::Result<()> {
        Ok(())
    }
}

pub(super) type Disks = Vec<Arc<RamDisk>>;

pub(super) fn disks() -> Disks {
    vec![RamDisk::new(ByteCount::mib(8)), RamDisk::new(ByteCount::mib(3))]
}

pub(super) fn copies(disks: &Disks) -> Disks {
    disks.iter().map(|disk| disk.copy()).collect()
}

pub(super) fn as_devices<D: BlockDevice + 'static>(disks: &[Arc<D>]) -> Vec<Arc<dyn BlockDevice>> {
    disks.iter().map(|disk| disk.clone() as _).collect()
}

pub(super) fn setup<D: BlockDevice + 'static>(memory: ByteCount, disks: &[Arc<D>], workload: WorkloadProfile) -> Setup {
    let config = |(index, disk): (usize, &Arc<D>)| DiskConfig {
        id: DiskId(format!("disk{index}")),
        size: disk.size(),
        format: disk::ImageFormat::Vhdx,
    };
    let configuration = Configuration { memory, disks: disks.iter().enumerate().map(config).collect(), workload, hardware: None };
    Setup { configuration, disks: as_devices(disks), saved_memory: None, clock: SystemClock::shared() }
}

/// As fast as it can, in everything.
pub(super) fn full_speed(seed: u64) -> WorkloadProfile {
    WorkloadProfile { seed, page_writes_per_second: 0, disk_writes_per_second: 0, hot_share: 0.6, frames_per_second: 500 }
}

pub(super) fn steady(seed: u64) -> WorkloadProfile {
    WorkloadProfile { seed, page_writes_per_second: 4000, disk_writes_per_second: 2000, hot_share: 0.7, frames_per_second: 100 }
}

pub(super) fn new_file(folder: &tempfile::TempDir, name: &str) -> Arc<dyn HostFile> {
    OsHost.create_new(&folder.path().join(name)).unwrap()
}

pub(super) fn verify<D: BlockDevice + 'static>(disks: &[Arc<D>], memory: Option<Arc<GuestMemory>>) -> VerifyReport {
    let mut verifier = Verifier::new(as_devices(disks), memory).unwrap();
    let mut before = ByteCount::ZERO;
    loop {
        let (done, total) = verifier.step(ByteCount::mib(2)).unwrap();
        assert!(done > before && done <= total);
        before = done;
        if done == total {
            return verifier.report();
        }
    }
}

fn verify_stopped(running: &Running, disks: &Disks) -> VerifyReport {
    running.stop().unwrap();
    verify(disks, Some(running.machine.memory().clone()))
}

/// The machine's picture when it has this generation.
fn frame_at(machine: &Workload, generation: u64) -> Frame {
    while machine.frame().generation < generation {
        machine.tick(PICTURE_WORKER).unwrap();
    }
    machine.frame()
}

#[test]
fn a_snapshot_under_full_load_is_exact_and_has_the_same_future() {
    let folder = tempfile::tempdir().unwrap();
    let disks = disks();
    let setup = setup(ByteCount::mib(24), &disks, full_speed(11));
    let running = Running::start(setup.clone()).unwrap();
    let mut taken = Vec::new();
    for round in 0..4u128 {
        std::thread::sleep(Duration::from_millis(120));
        let file = new_file(&folder, &format!("{round}.stm"));
        assert!(running.begin_capture(file.clone(), Uuid::nil()).is_err(), "only while it stands still");
        running.pause();
        let then = copies(&disks);
        let frame = running.frame();
        let mut save = running.begin_capture(file.clone(), Uuid::from_u128(round)).unwrap();
        running.resume();
        // Nothing is saved yet, so the guest's next write is intercepted, however late it comes.
        let patience = std::time::Instant::now() + Duration::from_secs(10);
        while save.report().intercepted_writes == 0 && std::time::Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        while !save.step(ByteCount::mib(1)).unwrap().finished {}
        assert!(save.report().intercepted_writes > 0);
        taken.push((file, then, frame));
    }
    running.stop().unwrap();
    let counters = running.counters();
    assert!(counters.page_writes > 1000 && counters.disk_writes > 1000 && counters.verified.0 > 0, "{counters:?}");
    assert_eq!((counters.wrong, running.wrong(), running.problem()), (ByteCount::ZERO, vec![], None));
    assert!(verify(&disks, Some(running.machine.memory().clone())).wrong.is_empty());

    for (round, (file, then, frame)) in taken.iter().enumerate() {
        let memory = Arc::new(memory::restore(&**file).unwrap());
        let report = verify(then, Some(memory));
        assert_eq!(report.wrong, Vec::<String>::new(), "round {round}");
        assert_eq!((report.memory, report.disk), (ByteCount::mib(24), ByteCount::mib(11)));
        assert_eq!(report.picture_generation, frame.generation);
        assert_eq!(verify(then, None).wrong, Vec::<String>::new(), "round {round}, disks only");

        let continued = || {
            let disks = as_devices(&copies(then));
            Workload::new(&Setup { disks, saved_memory: Some(file.clone()), ..setup.clone() }).unwrap()
        };
        let (one, two) = (continued(), continued());
        assert_eq!(one.frame(), *frame, "round {round}");
        let later = frame_at(&one, frame.generation + 50);
        assert_ne!(later.checksum, frame.checksum);
        assert_eq!(frame_at(&two, frame.generation + 50).checksum, later.checksum, "round {round}");
        assert!(one.wrong().is_empty());
    }
    // Memory of one instant and disks of another are told apart.
    let memory = Arc::new(memory::restore(&*taken[1].0).unwrap());
    let report = verify(&taken[2].1, Some(memory));
    assert!(report.wrong.iter().any(|words| words.contains("memory expects write")), "{report:?}");
}

#[test]
fn chains_that_get_new_leaves_under_load_keep_each_instant() {
    let folder = tempfile::tempdir().unwrap();
    let image =
        |index: usize| RamImage::create(format!("disk{index}"), &CreateOptions::dynamic(ByteCount::mib(4 + index as u64)));
    let layers: Vec<Arc<dyn Image>> = (0..4).map(|index| image(index) as _).collect();
    let chains: Vec<Arc<Chain>> = layers.iter().map(|base| Arc::new(Chain::from_images(vec![base.clone()]).unwrap())).collect();
    let running = Running::start(setup(ByteCount::mib(8), &chains, full_speed(31))).unwrap();
    let mut taken = Vec::new();
    for round in 0..3 {
        std::thread::sleep(Duration::from_millis(100));
        let file = new_file(&folder, &format!("{round}.stm"));
        running.pause();
        // What a take does: from here on the images below are frozen.
        let frozen: Vec<Vec<Arc<dyn Image>>> = chains.iter().map(|chain| chain.images()).collect();
        for (index, chain) in chains.iter().enumerate() {
            let parent = chain.images().pop().unwrap();
            parent.pin_data_write_id().unwrap();
            chain.push_leaf(RamImage::create_child(format!("disk{index}-{round}"), &*parent, None)).unwrap();
        }
        let mut save = running.begin_capture(file.clone(), Uuid::nil()).unwrap();
        running.resume();
        while !save.step(ByteCount::mib(1)).unwrap().finished {}
        taken.push((file, frozen));
    }
    running.stop().unwrap();
    assert_eq!((running.wrong(), running.problem()), (vec![], None));
    for (round, (file, frozen)) in taken.into_iter().enumerate() {
        let then: Vec<_> = frozen.into_iter().map(|images| Arc::new(Chain::from_images(images).unwrap())).collect();
        let memory = Arc::new(memory::restore(&*file).unwrap());
        assert_eq!(verify(&then, Some(memory)).wrong, Vec::<String>::new(), "round {round}");
        assert_eq!(verify(&then, None).wrong, Vec::<String>::new(), "round {round}, disks only");
    }
    assert!(verify(&chains, Some(running.machine.memory().clone())).wrong.is_empty());
}

#[test]
fn a_restored_machine_that_runs_on_threads_has_the_same_future_too() {
    let folder = tempfile::tempdir().unwrap();
    let disks = disks();
    let setup = setup(ByteCount::mib(4), &disks, full_speed(5));
    let machine = Workload::new(&setup).unwrap();
    machine.run_for(Duration::from_millis(50)).unwrap();
    let file = new_file(&folder, "memory.stm");
    memory::save(machine.memory(), file.clone(), Uuid::nil(), setup.clock.clone()).unwrap();
    let then = copies(&disks);
    let running = Running::start(Setup { disks: as_devices(&then), saved_memory: Some(file), ..setup.clone() }).unwrap();
    let patience = std::time::Instant::now() + Duration::from_secs(10);
    while running.frame().generation < machine.frame().generation + 5 && std::time::Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(10));
    }
    running.pause();
    let frame = running.frame();
    assert!(frame.generation > machine.frame().generation);
    assert_eq!(frame_at(&machine, frame.generation).checksum, frame.checksum);
    running.resume();
    assert!(verify_stopped(&running, &then).wrong.is_empty());
}

#[test]
fn the_same_seed_does_the_same() {
    let run = |seed| {
        let disks = disks();
        let machine = Workload::new(&setup(ByteCount::mib(2), &disks, steady(seed))).unwrap();
        machine.run_for(Duration::from_millis(700)).unwrap();
        let memory: Vec<_> = (0..machine.memory().pages()).map(|page| machine.memory().read(page, |content| *content)).collect();
        (
            disks.iter().map(|disk| disk.piece(0, disk.size().0 as usize)).collect::<Vec<_>>(),
            memory,
            machine.counters().page_writes,
        )
    };
    let (one, again, other) = (run(3), run(3), run(4));
    assert_eq!(one.2, 2800);
    assert!(one.0 == again.0 && one.1 == again.1);
    assert!(one.0 != other.0 && one.1 != other.1);
}

#[test]
fn a_machine_boots_from_what_its_disks_hold() {
    let disks = disks();
    let first = Workload::new(&setup(ByteCount::mib(2), &disks, steady(8))).unwrap();
    first.run_for(Duration::from_millis(500)).unwrap();
    let generation = first.frame().generation;
    // Killed in the middle of a write: the first sectors of the unit are new.
    let unit = (0..8 << 20).step_by(UNIT).skip(100).find(|at| disks[0].piece(*at, 8) == *b"SNAPSECT").unwrap();
    let old = look_at_unit(&disks[0].piece(unit, UNIT), 0, unit as u64);
    let Found::Whole(old) = old else { panic!("{old:?}") };
    let write = stamp::UnitWrite {
        seed: 8,
        disk: 0,
        offset: unit as u64,
        tick: 9999,
        boot: 1,
        sequence: old.sequence.get() + 1,
        previous: (stamp::NO_UNIT, 0),
        worker: 2,
    };
    disks[0].change(unit, &write.render(|_, _| {})[..3 * 512]);
    assert!(verify(&disks, None).wrong.is_empty());

    let second = Workload::new(&setup(ByteCount::mib(4), &disks, steady(9))).unwrap();
    assert!(second.wrong().is_empty() && second.boot == 2);
    assert!(second.frame().generation <= generation && second.frame().generation + 5 > generation);
    assert!(matches!(look_at_unit(&disks[0].piece(unit, UNIT), 0, unit as u64), Found::Whole(_)), "mended");
    second.run_for(Duration::from_millis(300)).unwrap();
    assert!(verify(&disks, Some(second.memory().clone())).wrong.is_empty());
    let report = verify(&disks, None);
    assert!(report.wrong.is_empty() && report.picture_generation > generation, "{report:?}");
    assert_eq!(second.counters().wrong, ByteCount::ZERO);
}

#[test]
fn damage_is_found() {
    let disks = disks();
    let machine = Workload::new(&setup(ByteCount::mib(2), &disks, steady(21))).unwrap();
    machine.run_for(Duration::from_millis(800)).unwrap();
    let is_stamped = |at: &usize| disks[0].piece(*at, 8) == *b"SNAPSECT";
    let stamped: Vec<usize> = (64 * 1024..8 << 20).step_by(UNIT).filter(is_stamped).collect();
    let (one, two) = (stamped[5], stamped[9]);
    let found = |disks: &Disks, words: &str| {
        let with = verify(disks, Some(machine.memory().clone()));
        assert_eq!(with.wrong.len(), 1, "{with:?}");
        let without = verify(disks, None);
        assert!(without.wrong.iter().any(|wrong| wrong.contains(words)), "{words}: {without:?}");
    };
    let flipped = copies(&disks);
    flipped[0].change(one + 700, &[flipped[0].piece(one + 700, 1)[0] ^ 1]);
    found(&flipped, "checksum doesn't match");
    let moved = copies(&disks);
    moved[0].change(one, &disks[0].piece(two, UNIT));
    found(&moved, "holds the sector of disk 0");
    let mixed = copies(&disks);
    mixed[0].change(one + 512, &[0; 512]);
    found(&mixed, "sectors of different writes");

    // An old state of a unit whose later write another write names.
    let mut state = *lock(&machine.workers[MEMORY_WORKERS]);
    let unit = u64::from(state.previous_unit.get());
    let (disk, offset) = machine.layout.units.place(unit);
    let then = disks[disk].piece(offset as usize, UNIT);
    machine.write_unit(MEMORY_WORKERS, unit, &mut state, |_, _| {}).unwrap();
    machine.write_unit(MEMORY_WORKERS, unit ^ 1, &mut state, |_, _| {}).unwrap();
    let lost = copies(&disks);
    lost[disk].change(offset as usize, &then);
    found(&lost, "was done before a later one");

    // Memory: a data page, a page of a table, the last page.
    for page in [machine.layout.data.start, machine.layout.page_table, machine.layout.pages - 1] {
        let memory = GuestMemory::new(machine.memory().pages());
        for page in 0..memory.pages() {
            let content = machine.memory().read(page, |content| *content);
            memory.write(page, |to| *to = content);
        }
        memory.write(page, |content| content[100] ^= 1);
        let report = verify(&disks, Some(Arc::new(memory)));
        assert!(report.wrong.iter().any(|words| words.starts_with(&format!("page {page}"))), "{report:?}");
    }
    // What the machine reads back itself.
    disks[0].change(0, &[0; 512]);
    (0..16).for_each(|_| machine.tick(PICTURE_WORKER).unwrap());
    assert!(machine.counters().wrong.0 >= UNIT as u64 && machine.wrong()[0].starts_with("disk 0, byte 0:"));
}

#[test]
fn a_bad_update_is_seen_and_is_no_corruption() {
    let disks = disks();
    let running = Running::start(setup(ByteCount::mib(2), &disks, steady(2))).unwrap();
    running.pause();
    let (before, tiles) = (running.frame(), disks[0].piece(0, 16 * UNIT));
    assert!(running.bad_update().is_err(), "not while it stands still");
    running.resume();
    running.bad_update().unwrap();
    running.pause();
    let after = running.frame();
    let pixels = |frame: &Frame| frame.rgb.as_chunks::<3>().0.to_vec();
    let different = pixels(&before).iter().zip(&pixels(&after)).filter(|(a, b)| a != b).count();
    assert!(different > 10_000, "{different} pixels");
    assert_ne!(disks[0].piece(0, 16 * UNIT), tiles);
    running.resume();
    let report = verify_stopped(&running, &disks);
    assert!(report.wrong.is_empty(), "{report:?}");
    assert!(verify(&disks, None).wrong.is_empty());
    assert_eq!(running.counters().wrong, ByteCount::ZERO);
}

#[test]
fn what_others_wrote_is_left_alone() {
    let disks = disks();
    let theirs: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8 + 1).collect();
    disks[0].change(0, &theirs);
    disks[0].change(2 << 20, &theirs);
    let machine = Workload::new(&setup(ByteCount::mib(2), &disks, steady(1))).unwrap();
    machine.run_for(Duration::from_millis(1500)).unwrap();
    machine.bad_update().unwrap();
    assert!(disks[0].piece(0, 1 << 20) == theirs && disks[0].piece(2 << 20, 1 << 20) == theirs);
    assert!(machine.counters().disk_writes > 1000);
    assert!(verify(&disks, Some(machine.memory().clone())).wrong.is_empty() && verify(&disks, None).wrong.is_empty());
}

#[test]
fn a_disk_that_fails_stops_the_machine_and_says_why() {
    let disks = disks();
    let running = Running::start(setup(ByteCount::mib(2), &disks, full_speed(1))).unwrap();
    disks[1].fails.store(true, Ordering::Relaxed);
    let clock = SystemClock::shared();
    while running.problem().is_none() {
        assert!(clock.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(2));
    }
    running.pause();
    assert!(running.problem().unwrap().contains("the disk is full"));
    running.stop().unwrap();
}

#[test]
fn memory_that_does_not_belong_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let disks = disks();
    let good = setup(ByteCount::mib(2), &disks, steady(1));
    let machine = Workload::new(&good).unwrap();
    let file = new_file(&folder, "memory.stm");
    memory::save(machine.memory(), file.clone(), Uuid::nil(), good.clock.clone()).unwrap();
    let refused = |memory, disks: &[Arc<RamDisk>], file: &Arc<dyn HostFile>, words: &str| {
        let setup = Setup { saved_memory: Some(file.clone()), ..setup(memory, disks, steady(1)) };
        let error = Workload::new(&setup).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(ByteCount::mib(4), &disks, &file, "has 512 pages, the machine 1024");
    refused(ByteCount::mib(2), &disks[..1], &file, "other sizes of memory or disks");
    refused(ByteCount(5000), &disks, &file, "multiple of 4 KiB");
    let blank = new_file(&folder, "blank.stm");
    memory::save(&Arc::new(GuestMemory::new(512)), blank.clone(), Uuid::nil(), good.clock.clone()).unwrap();
    refused(ByteCount::mib(2), &disks, &blank, "isn't that of a built-in machine");
}

#[test]
fn units_lie_apart_and_inside_the_disks() {
    for sizes in [vec![], vec![1 << 20], vec![8 << 20, 3 << 20], vec![1 << 40, 10 << 20, 3 << 30], vec![300 << 20; 64]] {
        let units = Units::new(&sizes).unwrap();
        let mut places: Vec<_> = (0..units.total()).map(|unit| units.place(unit)).collect();
        assert!(places.iter().all(|(disk, offset)| offset + UNIT as u64 <= sizes[*disk]));
        let mut unit = 0;
        while unit < units.total() {
            let count = units.contiguous(unit, READ_UNITS);
            let (disk, offset) = units.place(unit);
            assert!((0..count).all(|n| units.place(unit + n) == (disk, offset + n * UNIT as u64)));
            unit += count;
        }
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len() as u64, units.total());
    }
}

#[test]
fn the_screen_is_a_picture() {
    let disks = disks();
    let machine = Workload::new(&setup(ByteCount::mib(2), &disks, steady(1))).unwrap();
    machine.run_for(Duration::from_millis(300)).unwrap();
    let screen = machine.frame().encode();
    let decoded = image::load_from_memory(&screen.png).unwrap();
    assert_eq!((decoded.width(), decoded.height(), screen.generation), (160, 150, 30));
    assert_eq!(decoded.to_rgb8().into_raw(), machine.frame().rgb);
}
