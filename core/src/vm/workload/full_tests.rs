//! What the machine does when the volume under its disks is full.

use std::io::ErrorKind;
use std::sync::atomic::AtomicU64;

use uuid::Uuid;

use super::tests::{Disks, RamDisk, copies, disks, full_speed, new_file, setup, steady, verify};
use super::*;
use crate::clock::SystemClock;
use crate::disk::{self, DiskError};
use crate::vm::Guest;

/// A disk whose volume has room for so many writes and flushes only.
#[derive(Debug)]
struct Tight {
    disk: Arc<RamDisk>,
    room: Arc<AtomicU64>,
}

impl Tight {
    fn over(disks: &Disks, room: u64) -> (Vec<Arc<Self>>, Arc<AtomicU64>) {
        let room = Arc::new(AtomicU64::new(room));
        (disks.iter().map(|disk| Arc::new(Self { disk: disk.clone(), room: room.clone() })).collect(), room)
    }

    fn take_room(&self) -> disk::Result<()> {
        let took = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1));
        took.map(drop).map_err(|_| DiskError::io("ram".as_ref(), "write data", ErrorKind::StorageFull.into()))
    }
}

impl BlockDevice for Tight {
    fn size(&self) -> ByteCount {
        self.disk.size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> disk::Result<()> {
        self.disk.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> disk::Result<()> {
        self.take_room()?;
        self.disk.write_at(buf, offset)
    }
    fn write_zeroes(&self, offset: u64, length: u64) -> disk::Result<()> {
        self.write_at(&vec![0; length as usize], offset)
    }
    fn trim(&self, offset: u64, length: u64) -> disk::Result<()> {
        self.write_zeroes(offset, length)
    }
    fn flush(&self) -> disk::Result<()> {
        self.take_room()
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let clock = SystemClock::shared();
    while !done() {
        assert!(clock.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn ticks_that_met_a_full_volume_are_done_again_as_they_were() {
    let (one, other) = (disks(), disks());
    let undisturbed = Workload::new(&setup(ByteCount::mib(2), &one, steady(6))).unwrap();
    undisturbed.run_for(Duration::from_millis(1200)).unwrap();

    let (tight, room) = Tight::over(&other, u64::MAX);
    let machine = Workload::new(&setup(ByteCount::mib(2), &tight, steady(6))).unwrap();
    room.store(0, Ordering::Relaxed);
    let (mut full, mut left) = (0, 120);
    while left > 0 {
        match machine.run_for(Duration::from_millis(10)) {
            Ok(()) => left -= 1,
            Err(error) => {
                assert!(error.is_full(), "{error}");
                full += 1;
                room.store(full % 7, Ordering::Relaxed);
            }
        }
    }
    assert!(full > 500, "{full} times full");
    for (a, b) in one.iter().zip(&other) {
        assert!(a.piece(0, a.size().0 as usize) == b.piece(0, b.size().0 as usize), "the disks differ");
    }
    for page in 0..machine.memory().pages() {
        let content = |memory: &GuestMemory| memory.read(page, |content| *content);
        assert!(content(machine.memory()) == content(undisturbed.memory()), "page {page} differs");
    }
}

#[test]
fn a_full_volume_makes_it_stand_still_and_it_goes_on_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let disks = disks();
    let (tight, room) = Tight::over(&disks, 3000);
    let running = Running::start(setup(ByteCount::mib(4), &tight, full_speed(3))).unwrap();
    for round in 0..6u128 {
        wait_until("it stands still by itself", || running.met_full());
        assert_eq!(running.problem(), None);
        // To take a snapshot of it is as good as at any other time.
        running.pause();
        let then = copies(&disks);
        let file = new_file(&folder, &format!("{round}.stm"));
        let mut save = running.begin_capture(file.clone(), Uuid::from_u128(round)).unwrap();
        while !save.step(ByteCount::mib(1)).unwrap().finished {}
        let memory = memory::restore(&*file).unwrap();
        assert_eq!(verify(&then, Some(Arc::new(memory))).wrong, Vec::<String>::new());
        let writes = running.counters().disk_writes;
        running.resume();
        wait_until("it meets it again", || running.met_full());
        assert_eq!(running.counters().disk_writes, writes, "nothing is taken for written");
        room.store(2000, Ordering::Relaxed);
        running.resume();
        wait_until("it goes on", || running.counters().disk_writes > writes + 500);
    }
    room.store(u64::MAX, Ordering::Relaxed);
    running.resume();
    running.stop().unwrap();
    assert_eq!(running.wrong(), Vec::<String>::new());
    let report = verify(&disks, Some(running.machine.memory().clone()));
    assert_eq!(report.wrong, Vec::<String>::new());
}

#[test]
fn a_flush_that_met_a_full_volume_is_done_again() {
    let disks = disks();
    let (tight, room) = Tight::over(&disks, u64::MAX);
    // It writes nothing: only the flush of each second meets it.
    let still = WorkloadProfile { page_writes_per_second: 1, disk_writes_per_second: 1, frames_per_second: 0, ..steady(2) };
    let running = Running::start(setup(ByteCount::mib(2), &tight, still)).unwrap();
    wait_until("a first flush", || running.counters().disk_flushes >= 2);
    room.store(0, Ordering::Relaxed);
    wait_until("it stands still", || running.met_full());
    let flushes = running.counters().disk_flushes;
    room.store(u64::MAX, Ordering::Relaxed);
    running.resume();
    wait_until("it flushes again", || running.counters().disk_flushes > flushes);
    assert_eq!(running.problem(), None);
    running.stop().unwrap();
}
