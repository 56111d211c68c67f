//! Nodes, deletions and advice on a machine's tree.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::cost::*;
use crate::disk::{Extent, ImageFormat, ImageType, Presence};
use crate::snapshot::{
    self, Configuration, DiskConfig, DiskId, ImageId, ImageRecord, Machine, MachineId, MachineKind, NodeRef, Now, SavedMemory,
    Settings, SnapshotId, Stamp, Taken, TrashItem, TrashReason, WorkloadProfile,
};
use crate::units::ByteCount;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 100 * MIB;

/// A machine with one disk, and what its images hold: stretches in MiB.
struct Fixture {
    machine: Machine,
    disk: DiskId,
    layouts: BTreeMap<ImageId, Vec<(u64, u64)>>,
    files: BTreeMap<ImageId, FileFacts>,
    census: BTreeMap<DiskId, Arc<Census>>,
    calibration: Calibration,
    volume: VolumeState,
    now: DateTime<Utc>,
}

impl Fixture {
    fn new() -> Self {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a date");
        let disk = DiskId("disk0".into());
        let config = DiskConfig { id: disk.clone(), size: ByteCount(SIZE), format: ImageFormat::Vhdx };
        let machine = Machine {
            format: "snaptree-machine".into(),
            version: 1,
            id: MachineId::new(),
            name: "WEB01".into(),
            kind: MachineKind::Workload,
            created: now,
            generation: 1,
            configuration: Configuration {
                memory: ByteCount::mib(1),
                disks: vec![config],
                workload: WorkloadProfile::default(),
                hardware: None,
            },
            images: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            now: Now { parent: None, images: BTreeMap::new(), memory: None },
            ghosts: BTreeMap::new(),
            trash: Vec::new(),
            merges: Vec::new(),
            applied: None,
            settings: Settings { warn_depth: 4, ..Settings::default() },
        };
        let volume = VolumeState { id: "v".into(), free: ByteCount::gib(100), punches_holes: true };
        let mut fixture = Self {
            machine,
            disk,
            now,
            volume,
            layouts: BTreeMap::new(),
            files: BTreeMap::new(),
            census: BTreeMap::new(),
            calibration: Calibration::default(),
        };
        let leaf = fixture.image(None);
        fixture.machine.now.images = leaf
            .into_iter()
            .map(|(disk, (id, record))| {
                fixture.machine.images.insert(id, record);
                (disk, id)
            })
            .collect();
        fixture
    }

    fn image(&mut self, parent: Option<ImageId>) -> BTreeMap<DiskId, (ImageId, ImageRecord)> {
        let id = ImageId::new();
        let file = PathBuf::from(format!("Snapshots/{id}.avhdx"));
        let record = ImageRecord { disk: self.disk.clone(), file, parent, format: ImageFormat::Vhdx, created: self.now };
        self.layouts.insert(id, Vec::new());
        BTreeMap::from([(self.disk.clone(), (id, record))])
    }

    fn leaf(&self) -> ImageId {
        self.machine.now.images[&self.disk]
    }

    /// Now's leaf gets data from here to there, in MiB.
    fn write(&mut self, from: u64, to: u64) {
        let leaf = self.leaf();
        self.layouts.get_mut(&leaf).expect("it has one").push((from * MIB, to * MIB));
    }

    fn take(&mut self, label: &str) -> SnapshotId {
        let id = SnapshotId::new();
        let leaves = self.image(Some(self.leaf()));
        let taken = Taken {
            id,
            label: label.into(),
            note: String::new(),
            taken: self.now,
            configuration: self.machine.configuration.clone(),
            memory: Some(SavedMemory { file: format!("{id}/memory").into(), held: ByteCount::mib(1) }),
            screen: None,
            leaves,
        };
        self.machine = snapshot::take(&self.machine, taken).machine;
        self.now += TimeDelta::hours(1);
        id
    }

    fn apply(&mut self, to: SnapshotId) {
        let parent = self.machine.snapshots[&to].images[&self.disk];
        let leaves = self.image(Some(parent));
        let stamp = Stamp { action: Uuid::new_v4(), now: self.now, held: Box::new(|_| ByteCount::mib(1)) };
        self.machine = snapshot::apply(&self.machine, to, leaves, &stamp).machine;
        // It has run since.
        self.machine.now.memory = None;
    }

    fn delete(&mut self, snapshots: &[SnapshotId]) {
        let stamp = Stamp { action: Uuid::new_v4(), now: self.now, held: Box::new(|_| ByteCount::mib(1)) };
        self.machine = snapshot::delete(&self.machine, snapshots, false, false, &stamp).machine;
    }

    /// Counts what there is now.
    fn count(&mut self) -> MachineFacts<'_> {
        let layouts: Vec<_> = self
            .machine
            .images
            .iter()
            .map(|(id, record)| {
                let mut held = vec![false; (SIZE / MIB) as usize];
                for &(from, to) in &self.layouts[id] {
                    held[(from / MIB) as usize..(to / MIB) as usize].fill(true);
                }
                let extents = held.iter().enumerate().map(|(i, held)| Extent {
                    offset: i as u64 * MIB,
                    length: MIB,
                    presence: if *held { Presence::Data { host_offset: 0 } } else { Presence::Absent },
                });
                let bytes = held.iter().filter(|h| **h).count() as u64 * MIB;
                (*id, record.parent, Layout::new(SIZE, extents), bytes)
            })
            .collect();
        let images: Vec<_> =
            layouts.iter().map(|(id, parent, layout, _)| CensusImage { id: *id, parent: *parent, layout }).collect();
        self.census = BTreeMap::from([(self.disk.clone(), Arc::new(census_of(&images)))]);
        self.files = layouts
            .iter()
            .map(|(id, parent, _, bytes)| {
                let facts = FileFacts {
                    kind: if parent.is_some() { ImageType::Differencing } else { ImageType::Dynamic },
                    virtual_size: ByteCount(SIZE),
                    block_size: ByteCount::mib(2),
                    file_size: ByteCount(*bytes),
                    held: ByteCount(*bytes),
                    problem: None,
                };
                (*id, facts)
            })
            .collect();
        self.facts()
    }

    fn facts(&self) -> MachineFacts<'_> {
        MachineFacts {
            machine: &self.machine,
            files: &self.files,
            census: &self.census,
            calibration: &self.calibration,
            volume: &self.volume,
            running: false,
            guest: None,
        }
    }
}

/// Base 60 MiB, then A (20 MiB), B (10 MiB), Now (5 MiB), each over the start of the one before.
fn three() -> (Fixture, SnapshotId, SnapshotId, SnapshotId) {
    let mut f = Fixture::new();
    f.write(0, 60);
    let base = f.take("base");
    f.write(0, 20);
    let a = f.take("A");
    f.write(0, 10);
    let b = f.take("B");
    f.write(5, 10);
    f.count();
    (f, base, a, b)
}

#[test]
fn a_node_costs_what_its_chain_makes_it_cost() {
    let (f, base, a, _) = three();
    let now = node_cost(&f.facts(), NodeRef::Now, &[]).expect("Now is there");
    assert_eq!((now.depth, now.held), (4, ByteCount::mib(5)));
    // 5 MiB from the leaf, 5 from B, 10 from A, 40 from the base.
    assert_eq!(now.read_mean, Some((5.0 + 5.0 * 2.0 + 10.0 * 3.0 + 40.0 * 4.0) / 60.0));
    assert_eq!(now.read_p95, Some(4));
    assert_eq!(now.first_write, Some(0.95));
    let at_a = node_cost(&f.facts(), NodeRef::Snapshot(a), &[]).expect("A is there");
    assert_eq!((at_a.depth, at_a.held), (2, ByteCount::mib(21)));
    let at_base = node_cost(&f.facts(), NodeRef::Snapshot(base), &[]).expect("the base is there");
    assert_eq!((at_base.depth, at_base.read_mean, at_base.first_write), (1, Some(1.0), Some(0.4)));
    assert_eq!(node_cost(&f.facts(), NodeRef::Snapshot(SnapshotId::new()), &[]), None);

    let uncounted = MachineFacts { census: &BTreeMap::new(), ..f.facts() };
    let now = node_cost(&uncounted, NodeRef::Now, &[]).expect("Now is there");
    assert_eq!((now.depth, now.read_mean, now.first_write), (4, None, None));
}

#[test]
fn a_deletion_in_the_middle_merges_and_says_how_much() {
    let (mut f, _, a, b) = three();
    let sample = MergeSample {
        bytes: MIB,
        stretches: 1,
        seconds: 0.1,
        estimated_seconds: None,
        probe: false,
        mode: MergeMode::Stopped,
        guest_bytes: None,
    };
    f.calibration.record(sample);
    let one = deletion_cost(&f.facts(), &[a], false).expect("A is there");
    assert_eq!(one.merges.merges, 1);
    assert_eq!(one.frees, ByteCount::mib(1), "its memory");
    let merge = &one.disks[0].merges[0];
    // A and B become one image: A's upper 10 MiB or B's 10 MiB move.
    assert_eq!(merge.bytes.data, ByteCount::mib(10));
    assert_eq!(merge.bytes.union, ByteCount::mib(20));
    assert_eq!(merge.bytes.shadowed, ByteCount::mib(10));
    assert_eq!(one.merges.comes_back, ByteCount::mib(10));
    assert!(one.merges.time.is_some_and(|t| t.p10 < t.p50 && t.p50 < t.p90));
    // Into A no data is added, so that only tables may need space: A is the better target.
    assert_eq!(merge.target, f.machine.snapshots[&a].images[&f.disk]);
    assert!(merge.scratch < ByteCount::mib(6), "{}", merge.scratch);
    assert_eq!((one.before.depth, one.after.depth), (4, 3));
    assert!(one.after.read_mean < one.before.read_mean);

    // Both: one run of three.
    let both = deletion_cost(&f.facts(), &[a, b], false).expect("both are there");
    assert_eq!(both.merges.merges, 1);
    assert_eq!(both.disks[0].merges[0].run.len(), 3);
    assert_eq!(both.merges.data, ByteCount::mib(10));
    assert_eq!(both.after.depth, 2);
    assert_eq!(deletion_cost(&f.facts(), &[SnapshotId::new()], false), None);

    // Done, it is due, with the same figures.
    f.delete(&[a]);
    let due = merges_due(&f.facts());
    assert_eq!(due, one.disks[0].merges);
}

#[test]
fn a_deletion_at_the_end_frees_and_under_branches_frees_nothing() {
    let (mut f, base, a, b) = three();
    f.apply(a);
    f.write(90, 95);
    f.count();
    // B hangs alone on its branch: its file and its memory come back.
    let end = deletion_cost(&f.facts(), &[b], false).expect("B is there");
    assert_eq!((end.frees, end.merges.merges, end.retained), (ByteCount::mib(11), 0, ByteCount::ZERO));
    // A has two branches: nothing of its image comes back.
    let branches = deletion_cost(&f.facts(), &[a], false).expect("A is there");
    assert_eq!((branches.frees, branches.retained), (ByteCount::mib(1), ByteCount::mib(20)));
    let by = &branches.disks[0].retained[0].by;
    assert!(by.contains(&NodeRef::Now) && by.contains(&NodeRef::Snapshot(b)), "{by:?}");
    // A and B together: B frees, and A merges into Now.
    let both = deletion_cost(&f.facts(), &[a, b], false).expect("both are there");
    assert_eq!((both.frees, both.merges.merges, both.retained), (ByteCount::mib(12), 1, ByteCount::ZERO));
    assert_eq!(both.merges.data, ByteCount::mib(5));
    // The base has one child: it merges with A.
    let lowest = deletion_cost(&f.facts(), &[base], false).expect("the base is there");
    assert_eq!(lowest.merges.data, ByteCount::mib(20));
}

#[test]
fn scratch_is_what_does_not_come_back_early() {
    let (mut f, _, a, b) = three();
    let into = |f: &Fixture, target: ImageId| {
        let run = [f.machine.snapshots[&a].images[&f.disk], f.machine.snapshots[&b].images[&f.disk]];
        scratch(&f.facts(), &f.census[&f.disk], &run, target).expect("a run")
    };
    let upper = f.machine.snapshots[&b].images[&f.disk];
    let tables = ByteCount::kib(1060);
    let grows = into(&f, upper);
    assert!(
        (ByteCount::mib(10)..ByteCount::mib(10) + tables).contains(&grows.bytes),
        "no more than B grows, with tables: {grows:?}"
    );
    // 10 GiB worth would need a batch only; without holes, all that moves.
    f.volume.punches_holes = false;
    assert_eq!(into(&f, upper), grows);
    // A smaller batch, where that much isn't free; and at last only the target that no data is added to.
    f.volume.punches_holes = true;
    f.volume.free = ByteCount::mib(9);
    let small = into(&f, upper);
    assert!(small.batch < BATCH && small.bytes <= f.volume.free, "{small:?}");
    f.volume.free = ByteCount::mib(6);
    f.volume.punches_holes = false;
    let merge = &deletion_cost(&f.facts(), &[a], false).expect("A is there").disks[0].merges[0];
    assert!(merge.fits && merge.target != upper);
}

#[test]
fn advice_names_what_matters_and_what_to_do() {
    let (mut f, base, a, _) = three();
    let kinds = |f: &Fixture| advise(&f.facts(), f.now);
    let found = kinds(&f);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].severity, Severity::Warning);
    assert_eq!(found[0].action, Some(Action::Delete(vec![base])));
    assert!(matches!(found[0].kind, FindingKind::ChainTooDeep { depth: 4, depth_after: 3, .. }), "{found:?}");

    f.machine.snapshots.get_mut(&base).expect("there").protected = true;
    assert_eq!(kinds(&f)[0].action, Some(Action::Delete(vec![a])));

    f.delete(&[a]);
    let found = kinds(&f);
    assert_eq!(found[0].action, Some(Action::Merge));
    assert!(matches!(&found[1].kind, FindingKind::MergeDue { total } if total.merges == 1), "{found:?}");

    f.volume.free = ByteCount::gib(1);
    f.now += TimeDelta::hours(80);
    f.machine.trash.push(TrashItem {
        file: "Deleted/x".into(),
        original: "x".into(),
        held: ByteCount::mib(50),
        removed: f.now,
        reason: TrashReason::Deleted,
        action: Uuid::new_v4(),
        image: None,
    });
    let found = kinds(&f);
    assert!(
        matches!(found[0].kind, FindingKind::DiskFilling { free, trash } if free == ByteCount::gib(1) && trash == ByteCount::mib(51))
    );
    assert_eq!((found[0].severity, &found[0].action), (Severity::Urgent, &Some(Action::EmptyTrash)));
    let old = found.iter().find_map(|f| match f.kind {
        FindingKind::SnapshotTooOld { snapshot, age_hours, count, .. } => Some((snapshot, age_hours, count)),
        _ => None,
    });
    assert_eq!(old, Some((base, 83, 2)));
    assert!(found.iter().any(|f| matches!(f.kind, FindingKind::TrashHolds { files: 2, .. })));

    // The person decides when free space is short.
    let filling =
        |f: &Fixture| kinds(f).into_iter().find(|f| matches!(f.kind, FindingKind::DiskFilling { .. })).map(|f| f.severity);
    f.machine.settings.urgent_free = ByteCount::mib(512);
    assert_eq!(filling(&f), Some(Severity::Warning));
    f.machine.settings.warn_free = ByteCount::gib(1);
    assert_eq!(filling(&f), None);
}

#[test]
fn what_nothing_reads_through_is_safe_to_delete() {
    let (mut f, _, a, b) = three();
    assert_eq!(safe_to_delete(&f.facts()), [], "Now reads through all of them");
    f.apply(a);
    f.count();
    let frees = deletion_cost(&f.facts(), &[b], false).expect("B is there").frees;
    assert!(frees > ByteCount::mib(1), "its image and its memory: {frees}");
    assert_eq!(safe_to_delete(&f.facts()), [SafeDeletion { snapshot: b, frees }]);
    f.machine.snapshots.get_mut(&b).expect("B is there").protected = true;
    assert_eq!(safe_to_delete(&f.facts()), []);
}

#[test]
fn all_targets_of_a_merge_are_told_and_the_best_is_among_them() {
    let (mut f, _, a, _) = three();
    f.delete(&[a]);
    let run = crate::snapshot::Tree::of(&f.machine).runs().remove(0);
    let facts = f.facts();
    let all = merge_costs(&facts, &run.disk, &run.images);
    assert_eq!(all.iter().map(|cost| cost.target).collect::<Vec<_>>(), run.images);
    let best = merge_cost(&facts, &run.disk, &run.images).expect("it is counted");
    assert!(all.contains(&best) && all.iter().all(|cost| cost.bytes.data >= best.bytes.data));
    let uncounted = MachineFacts { census: &BTreeMap::new(), ..facts };
    assert_eq!(merge_costs(&uncounted, &run.disk, &run.images), []);
    // While the machine runs, a merge takes what it takes live.
    let running = MachineFacts { running: true, ..facts };
    assert_eq!((facts.load(), running.load()), (MergeLoad::Stopped, MergeLoad::Live(None)));
    // As options of a plan: this run isn't the leaf's, and can be done while the machine runs.
    let options = crate::window::MergeOption::all(&running, &run.disk, &run.images);
    assert!(options.len() == all.len() && options.iter().all(|o| o.live && !o.grows), "{options:?}");
    assert_eq!(options[0].bytes, all[0].bytes.data);
    let mut calibration = facts.calibration.clone();
    calibration.record(sample(MergeMode::Stopped, 1.0));
    calibration.record(sample(MergeMode::Live, 20.0));
    let total =
        |running| MergeTotal::of(&MachineFacts { running, calibration: &calibration, ..facts }, std::slice::from_ref(&best));
    assert_eq!(total(true).idle_time, total(false).time);
    assert!(total(true).time.expect("taught").p50 > 1.5 * total(true).idle_time.expect("taught").p50);
}

/// A merge of 8 MiB, whose guest wrote much where it was live.
fn sample(mode: MergeMode, seconds: f64) -> MergeSample {
    let guest_bytes = (mode == MergeMode::Live).then_some(1 << 30);
    MergeSample { bytes: 8 << 20, stretches: 100, seconds, estimated_seconds: None, probe: false, mode, guest_bytes }
}
