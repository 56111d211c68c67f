//! Merging under a machine that goes on writing and flushing between the steps, cut off at the merge's every step (drawn
//! by a seed; with `SNAPTREE_EVERY_STEP=1`, at every one) by a kill and by losses of power. Afterwards every kept snapshot
//! reads as it did; what the machine flushed is there, and after a kill all that was acknowledged; all of that stays when
//! the machine starts, flushes, and power is lost then. Then the merge is done to its end: all that was moved is at most
//! the plan, a batch for the crash, and what the machine wrote meanwhile.

use std::sync::Arc;

use snaptree_core::chain::Chain;
use snaptree_core::disk::ImageFormat;
use snaptree_core::host_file::Access;
use snaptree_core::merge::{self, Execution, StepOutcome};
use snaptree_core::snapshot::{NodeRef, Tree};
use snaptree_core::store::MachineStore;
use snaptree_core::testing::{CrashMode, EveryStep, MemHost, Random};
use snaptree_core::units::ByteCount;
use snaptree_tests::campaign::model::{Now, Written};
use snaptree_tests::content::Content;
use snaptree_tests::lab::{self, Contents, Counted, Moved, NOW, Shape};

/// Small, so that a merge has several batches.
const BUDGET: ByteCount = ByteCount::kib(256);
/// What is moved in one batch at most: whole blocks of the image that is written to.
const BATCH: u64 = 2 << 20;

const EVEN: Shape =
    Shape { format: ImageFormat::Vhdx, sectors: 12_291, sector: 512, blocks: &[2, 1, 2, 1, 2], fixed: false, grows: 0 };
const UNEVEN: Shape =
    Shape { format: ImageFormat::Vhdx, sectors: 6_001, sector: 512, blocks: &[1, 2, 1, 2, 1], fixed: true, grows: 700 };
const VHD: Shape = Shape { format: ImageFormat::Vhd, ..EVEN };
const VHD_UNEVEN: Shape = Shape { format: ImageFormat::Vhd, ..UNEVEN };

/// The machine: its disk, what it knows of it, and its dice.
struct Guest {
    chain: Arc<Chain>,
    now: Now,
    random: Random,
    /// Bytes written or zeroed.
    written: u64,
}

impl Guest {
    /// A few writes, zeroings and flushes, more of them at the beginning of the disk; `false` when one failed.
    fn act(&mut self) -> bool {
        let sector = u64::from(self.chain.logical_sector_size());
        let sectors = self.chain.virtual_size().0 / sector;
        for _ in 0..1 + self.random.below(6) {
            if self.random.chance(1, 4) {
                if self.chain.flush().is_err() {
                    return false;
                }
                self.now.flushed();
                continue;
            }
            let most = if self.random.chance(1, 2) { 96 } else { sectors };
            let first = self.random.below(most);
            let (offset, length) = (first * sector, (1 + self.random.below(64)).min(sectors - first) * sector);
            let bytes = (!self.random.chance(1, 4)).then(|| vec![self.random.next_u64() as u8 | 1; length as usize]);
            let result = match &bytes {
                Some(bytes) => self.chain.write_at(bytes, offset),
                None => self.chain.write_zeroes(offset, length),
            };
            self.written += length;
            self.now.write(Written { disk: 0, offset, length, bytes, acknowledged: result.is_ok() });
            if result.is_err() {
                return false;
            }
        }
        true
    }
}

/// Merges the run that is due into the image at `place` of it, while the guest works.
fn merge_live(store: &mut MachineStore, guest: &mut Guest, place: usize, moved: &mut Moved) -> merge::Result<bool> {
    let open = lab::open_images(store, &guest.chain);
    let counted = Counted::of_running(store.host(), store.dir(), store.machine(), true, &open)?;
    let Some(run) = Tree::of(store.machine()).runs().into_iter().next() else { return Ok(guest.act()) };
    let plan = merge::plan_into(&counted.facts(), &run, run.images[place])?;
    moved.planned = plan.data_bytes_to_move.0;
    let mut execution = Execution::begin_live(store, &plan, lab::clock().now(), &guest.chain)?;
    loop {
        if !guest.act() {
            return Ok(false);
        }
        let outcome = execution.step(store, BUDGET);
        moved.moved = execution.progress().moved.0;
        if let StepOutcome::Done(_) = outcome? {
            return Ok(guest.act());
        }
    }
}

/// What came of it.
#[derive(Debug)]
struct Ended {
    /// `Err` says why it wasn't done to its end.
    done: Result<(), String>,
    /// `None` where the machine didn't come up.
    guest: Option<(Now, u64)>,
    moved: Moved,
}

fn run(host: &MemHost, contents: &Contents, place: usize, seed: u64) -> Ended {
    let mut moved = Moved::default();
    let started = lab::open(host).and_then(|store| Ok((lab::chain(&store, NodeRef::Now, Access::Write)?, store)));
    let (chain, mut store) = match started {
        Ok(started) => started,
        Err(problem) => return Ended { done: Err(problem), guest: None, moved },
    };
    let now = Now::exactly(vec![contents[NOW].clone()]);
    let mut guest = Guest { chain: Arc::new(chain), now, random: Random::new(seed), written: 0 };
    let done = match merge_live(&mut store, &mut guest, place, &mut moved) {
        Ok(true) => Ok(()),
        Ok(false) => Err("the machine can't write".into()),
        Err(error) => Err(error.to_string()),
    };
    Ended { done, guest: Some((guest.now, guest.written)), moved }
}

/// Deletes these snapshots, so that their images and the next one's are a run.
fn make_run(host: &MemHost, shape: &Shape, seed: u64, deleted: &[&str], length: usize) -> Contents {
    let mut contents = lab::make_machine(host, shape, seed);
    let mut store = lab::open(host).expect("a machine");
    for label in deleted {
        let snapshot = lab::labelled(&store, label);
        store.delete(&[snapshot], false, false).expect("deleted");
        contents.remove(*label);
    }
    let runs = Tree::of(store.machine()).runs();
    assert!(runs.len() == 1 && runs[0].images.len() == length, "{runs:?}");
    contents
}

fn merge_under_a_machine(name: &str, seed: u64, shape: &Shape, deleted: &[&str], place: usize) {
    let every = std::env::var_os("SNAPTREE_EVERY_STEP").is_some();
    let (power_losses, most_points) = if every { (3, u64::MAX) } else { (2, 30) };
    let every = EveryStep { name, seed, power_losses, least_steps: 150, most_points };
    every.crash(
        |host| {
            let contents = make_run(host, shape, seed, deleted, deleted.len() + 1);
            let whole = run(&host.fork(), &contents, place, seed);
            assert_eq!(whole.done, Ok(()));
            assert!(whole.moved.planned > 64 << 10, "{:?}", whole.moved);
            assert!(whole.guest.is_some_and(|(_, written)| written > 128 << 10), "the machine writes too little");
            (contents, whole.moved.planned)
        },
        |host, (contents, _)| run(host, contents, place, seed),
        |host, (contents, planned), ended, point| {
            assert!(ended.done.is_ok() || point.step < point.steps);
            let host = lab::recover(host, point, false);
            let mut store = lab::open(&host).unwrap_or_else(|error| panic!("it doesn't open: {error}"));
            lab::check_folder(&store);
            let mut contents = contents.clone();
            let chain = lab::chain(&store, NodeRef::Now, Access::Write).unwrap_or_else(|error| panic!("Now: {error}"));
            let found = vec![Content::of(&chain).unwrap_or_else(|error| panic!("Now: {error}"))];
            let power_lost = point.mode == CrashMode::PowerLoss;
            let written = match &ended.guest {
                None => 0,
                Some((now, written)) => {
                    assert_eq!(now.difference(&found, power_lost), None, "Now, after the crash");
                    *written
                }
            };
            chain.flush().unwrap_or_else(|error| panic!("{error}"));
            drop(chain);
            contents.insert(NOW.into(), found.into_iter().next().expect("a disk"));
            assert_eq!(lab::difference(&store, &contents), None, "after the crash");
            // What the machine has seen and flushed since then is durable, in whichever image it stands.
            let later = lab::open(&host.crash(CrashMode::PowerLoss, point.seed)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(lab::difference(&later, &contents), None, "after the crash, a flush and a loss of power");
            drop(later);
            let mut moved = Moved::default();
            lab::merge_all(&mut store, place, BUDGET, &mut moved).unwrap_or_else(|error| panic!("{error}"));
            assert!(Tree::of(store.machine()).runs().is_empty() && (moved.moved == 0 || ended.done.is_err()));
            drop(store);
            let store = lab::open(&host).unwrap_or_else(|error| panic!("{error}"));
            lab::check_folder(&store);
            assert_eq!(lab::difference(&store, &contents), None, "at the end");
            let (all, most) = (ended.moved.moved + moved.moved, planned + BATCH + written);
            assert!(all <= most, "{all} bytes were moved in all, at most {most} are right");
        },
    );
}

#[test]
fn what_lies_under_the_disk_that_is_written() {
    let deleted = ["x0", "x1", "x2"];
    merge_under_a_machine("live merge into the lowest, a base", 40, &EVEN, &deleted, 0);
    merge_under_a_machine("live merge into the middle", 41, &EVEN, &deleted, 1);
    merge_under_a_machine("live merge into the topmost", 42, &EVEN, &deleted, 3);
    merge_under_a_machine("live merge of VHDs into the lowest, a base", 60, &VHD, &deleted, 0);
    merge_under_a_machine("live merge of VHDs into the middle", 61, &VHD, &deleted, 1);
    merge_under_a_machine("live merge of VHDs into the lowest, fixed", 64, &VHD_UNEVEN, &deleted, 0);
}

#[test]
fn up_to_the_disk_that_is_written() {
    let deleted = ["x1", "x2", "x3"];
    merge_under_a_machine("live merge of what is written into the lowest", 43, &EVEN, &deleted, 0);
    merge_under_a_machine("live merge of what is written into the middle", 44, &EVEN, &deleted, 1);
    merge_under_a_machine("live merge into what is written", 45, &UNEVEN, &deleted, 3);
    let all = ["x0", "x1", "x2", "x3"];
    merge_under_a_machine("live merge of all, into the base", 46, &EVEN, &all, 0);
    merge_under_a_machine("live merge of all VHDs, into the base", 62, &VHD, &all, 0);
    merge_under_a_machine("live merge of VHDs into what is written", 63, &VHD, &deleted, 3);
}
