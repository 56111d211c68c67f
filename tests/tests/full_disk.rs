//! Merging on a volume that is nearly full: what is used at most, against the scratch that the plan states; and with
//! 64 MiB free it works, or is refused with the bytes that it needs.

use snaptree_core::disk::ImageFormat;
use snaptree_core::host_file::Access;
use snaptree_core::merge::{self, Execution, MergeError, MergePlan, StepOutcome};
use snaptree_core::snapshot::{NodeRef, Run, Tree};
use snaptree_core::store::MachineStore;
use snaptree_core::testing::{MemHost, Random};
use snaptree_core::units::ByteCount;
use snaptree_tests::lab::{self, Contents, Counted, NOW, Shape};

const MIB: u64 = 1 << 20;
/// Free space with which a merge must do, if it can.
const LITTLE: ByteCount = ByteCount::mib(64);

/// A machine with a run of three that ends in x2, which Now reads through. Each image holds many small stretches and a
/// few long ones; `long` of each kind.
fn make_run(host: &MemHost, shape: &Shape, long: u64, seed: u64) -> Contents {
    let mut contents = lab::make_machine(host, shape, seed);
    let mut store = lab::open(host).expect("a machine");
    let random = &mut Random::new(seed);
    for label in ["a", "b", "c"] {
        let chain = lab::chain(&store, NodeRef::Now, Access::Write).expect("Now's disk");
        let now = contents.get_mut(NOW).expect("Now");
        for number in 0..long + 60 {
            let length = if number < long { 6 * MIB } else { 4096 };
            let offset = random.below((now.size() - length) / 4096) * 4096;
            let bytes = random.bytes(4096).repeat((length / 4096) as usize);
            chain.write_at(&bytes, offset).expect("written");
            now.write(&bytes, offset);
        }
        chain.flush().expect("flushed");
        drop(chain);
        let taken = store.clock().now();
        let prepared = store.prepare_take(label, "", &Default::default(), ByteCount::ZERO).expect("room");
        store.publish_take(&prepared, None, false, taken).expect("taken");
        contents.insert(label.into(), contents[NOW].clone());
    }
    for label in ["x0", "x1", "a", "b"] {
        if contents.remove(label).is_some() {
            let snapshot = lab::labelled(&store, label);
            store.delete(&[snapshot], false, true).expect("deleted");
        }
    }
    contents
}

fn run_of(store: &MachineStore) -> Run {
    let runs = Tree::of(store.machine()).runs();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.into_iter().next().expect("one")
}

/// Carries a plan out.
fn execute(store: &mut MachineStore, plan: &MergePlan) -> merge::Result<()> {
    let mut execution = Execution::begin(store, plan, lab::clock().now())?;
    while !matches!(execution.step(store, ByteCount::mib(64))?, StepOutcome::Done(_)) {}
    Ok(())
}

fn counted(host: &MemHost, store: &MachineStore, punches: bool) -> Counted {
    Counted::of(&host.shared(), store.dir(), store.machine(), punches).expect("counted")
}

struct Measured {
    place: usize,
    scratch: ByteCount,
    peak: ByteCount,
}

/// What merging into each image of the run uses at most, beside what its plan says.
fn measure(host: &MemHost, contents: &Contents, punches: bool) -> Vec<Measured> {
    let images = run_of(&lab::open(host).expect("a machine")).images;
    let into = |(place, target): (usize, &_)| {
        let host = host.fork();
        let mut store = lab::open(&host).expect("a machine");
        let counted = counted(&host, &store, punches);
        let plan = merge::plan_into(&counted.facts(), &run_of(&store), *target).expect("a plan");
        let before = host.used();
        host.watch_peak();
        execute(&mut store, &plan).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(lab::difference(&store, contents), None);
        Measured { place, scratch: plan.scratch, peak: host.peak() - before }
    };
    images.iter().enumerate().map(into).collect()
}

/// With so much free, it works; or it is refused, and works with what is then said to be needed.
fn with_little_space(host: &MemHost, contents: &Contents, punches: bool, free: ByteCount) -> String {
    let host = host.fork();
    let mut store = lab::open(&host).expect("a machine");
    host.set_capacity(Some(host.used() + free));
    let refused = match merge::plan(&counted(&host, &store, punches).facts(), &run_of(&store)) {
        Ok(_) => None,
        Err(MergeError::NoSpace { needed, free: found }) => {
            assert!(needed > free && found == free, "{needed} are said to be needed of {found}");
            host.set_capacity(Some(host.used() + needed));
            Some(needed)
        }
        Err(other) => panic!("{other}"),
    };
    let plan = merge::plan(&counted(&host, &store, punches).facts(), &run_of(&store)).unwrap_or_else(|error| panic!("{error}"));
    execute(&mut store, &plan).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(lab::difference(&store, contents), None);
    refused.map_or_else(|| "works".into(), |needed| format!("needs {needed}"))
}

fn all(shape: &Shape, long: u64, seed: u64) {
    for punches in [true, false] {
        let host = MemHost::new();
        host.set_can_punch(punches);
        let contents = make_run(&host, shape, long, seed);
        let blocks = shape.blocks;
        let what =
            format!("blocks of {blocks:?} MiB, base {}, punching {punches}", if shape.fixed { "fixed" } else { "dynamic" });
        for Measured { place, scratch, peak } in measure(&host, &contents, punches) {
            println!("{what}: into image {place}: scratch {scratch}, used at most {peak}");
            assert!(peak <= scratch, "{what}: into image {place}: {peak} were used, the plan says {scratch}");
        }
        println!("{what}: with {LITTLE} free: {}", with_little_space(&host, &contents, punches, LITTLE));
        println!("{what}: with 1 MiB free: {}", with_little_space(&host, &contents, punches, ByteCount::mib(1)));
    }
}

const SMALL: Shape =
    Shape { format: ImageFormat::Vhdx, sectors: 192 * 2048, sector: 512, blocks: &[2, 2, 2], fixed: false, grows: 0 };

#[test]
fn blocks_of_two_mebibytes() {
    all(&SMALL, 12, 1);
    all(&Shape { fixed: true, ..SMALL }, 12, 2);
}

/// A VHD has no blocks that say zeros: they are written, and take what data takes.
#[test]
fn vhds() {
    let shape = Shape { format: ImageFormat::Vhd, ..SMALL };
    all(&shape, 12, 7);
    all(&Shape { fixed: true, ..shape }, 12, 8);
}

#[test]
fn blocks_of_thirty_two_mebibytes() {
    let shape = Shape { sectors: 256 * 2048, blocks: &[32, 32, 32], ..SMALL };
    all(&shape, 12, 3);
    all(&Shape { fixed: true, ..shape }, 12, 4);
}

#[test]
fn blocks_of_two_hundred_and_fifty_six_mebibytes() {
    let shape = Shape { sectors: 512 * 2048, blocks: &[256, 256, 256], ..SMALL };
    all(&shape, 12, 5);
    all(&Shape { fixed: true, ..shape }, 12, 6);
}
