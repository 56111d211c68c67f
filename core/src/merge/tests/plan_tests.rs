//! Plans, from made-up counts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::machine::{disk_id, empty};
use crate::cost::{BATCH, Calibration, Census, CensusImage, FileFacts, Layout, MachineFacts, VolumeState, census_of};
use crate::disk::{Extent, ImageFormat, ImageType, Presence};
use crate::merge::{MergeError, MergePlan, plan, plan_into};
use crate::snapshot::{DiskId, ImageId, ImageRecord, Machine, MergeRecord, Run};
use crate::units::ByteCount;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 1024;

/// A chain: per image, which MiB it holds.
struct Fixture {
    machine: Machine,
    run: Run,
    files: BTreeMap<ImageId, FileFacts>,
    census: BTreeMap<DiskId, Arc<Census>>,
    calibration: Calibration,
    volume: VolumeState,
}

impl Fixture {
    fn new(held: &[&[(u64, u64)]]) -> Self {
        let (mut machine, mut files, mut layouts) = (empty(SIZE * MIB), BTreeMap::new(), Vec::new());
        let mut images: Vec<ImageId> = Vec::new();
        for (place, stretches) in held.iter().enumerate() {
            let (id, parent) = (ImageId::new(), images.last().copied());
            let file = match place {
                0 => PathBuf::from("Virtual Hard Disks/disk0.vhdx"),
                _ => PathBuf::from(format!("Snapshots/X{}.avhdx", place + 1)),
            };
            let record = ImageRecord { disk: disk_id(), file, parent, format: ImageFormat::Vhdx, created: machine.created };
            machine.images.insert(id, record);
            let kind = if place == 0 { ImageType::Dynamic } else { ImageType::Differencing };
            let bytes = ByteCount(stretches.iter().map(|(from, to)| (to - from) * MIB).sum());
            let (virtual_size, block_size) = (ByteCount(SIZE * MIB), ByteCount::mib(2));
            files.insert(id, FileFacts { kind, virtual_size, block_size, file_size: bytes, held: bytes, problem: None });
            let extents = (0..SIZE).map(|mib| {
                let held = stretches.iter().any(|(from, to)| (*from..*to).contains(&mib));
                let presence = if held { Presence::Data { host_offset: 0 } } else { Presence::Absent };
                Extent { offset: mib * MIB, length: MIB, presence }
            });
            layouts.push((id, parent, Layout::new(SIZE * MIB, extents)));
            images.push(id);
        }
        machine.now.images.insert(disk_id(), images[images.len() - 1]);
        let counted: Vec<_> =
            layouts.iter().map(|(id, parent, layout)| CensusImage { id: *id, parent: *parent, layout }).collect();
        let census = BTreeMap::from([(disk_id(), Arc::new(census_of(&counted)))]);
        let volume = VolumeState { id: "v".into(), free: ByteCount::gib(10), punches_holes: true };
        let run = Run { disk: disk_id(), images, top_kept: true };
        Self { machine, run, files, census, calibration: Calibration::default(), volume }
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

    fn with_target(&self, place: usize) -> MergePlan {
        plan_into(&self.facts(), &self.run, self.run.images[place]).unwrap()
    }
}

/// The middle one owns most of the disk.
fn three() -> Fixture {
    Fixture::new(&[&[(0, 100)], &[(50, 500)], &[(0, 10), (490, 510)]])
}

#[test]
fn the_target_that_moves_fewest_bytes_is_taken() {
    let f = three();
    let plan = plan(&f.facts(), &f.run).unwrap();
    assert_eq!(plan.target, f.run.images[1]);
    let moves: Vec<_> = plan.candidates.iter().map(|candidate| candidate.bytes.data).collect();
    // The union is 510 MiB; the owners have 40, 440 and 30.
    assert_eq!(moves, [ByteCount::mib(470), ByteCount::mib(70), ByteCount::mib(480)]);
    assert_eq!(plan.data_bytes_to_move, ByteCount::mib(70));
    assert_eq!((plan.batch, plan.scratch_reasons.len()), (BATCH, 0));
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<MergePlan>(&text).unwrap(), plan);
}

#[test]
fn the_plan_says_which_file_stays() {
    let f = three();
    let (base, middle, top) = (f.with_target(0), f.with_target(1), f.with_target(2));
    assert_eq!(base.kept_file, PathBuf::from("Virtual Hard Disks/disk0.vhdx"));
    assert!(base.relinks_children && !base.becomes_base);
    assert_eq!(base.removed_files, [PathBuf::from("Snapshots/X2.avhdx"), PathBuf::from("Snapshots/X3.avhdx")]);
    for plan in [middle, top] {
        assert_eq!(plan.kept_file, PathBuf::from("Snapshots/X3.avhdx"));
        assert!(!plan.relinks_children && plan.becomes_base);
        assert_eq!(plan.removed_files, [PathBuf::from("Virtual Hard Disks/disk0.vhdx"), PathBuf::from("Snapshots/X2.avhdx")]);
    }
}

#[test]
fn a_target_that_does_not_fit_is_not_taken() {
    let mut f = three();
    f.volume.punches_holes = false;
    // Into the base 450 MiB come new, into the middle one 60, into the top 480.
    f.volume.free = ByteCount::mib(100);
    let fits = plan(&f.facts(), &f.run).unwrap();
    assert_eq!(fits.target, f.run.images[1]);
    assert_eq!(fits.scratch_reasons.len(), 1);
    f.volume.free = ByteCount::mib(30);
    let Err(MergeError::NoSpace { needed, free }) = plan(&f.facts(), &f.run) else { panic!("30 MiB aren't enough") };
    assert_eq!(free, f.volume.free);
    f.volume.free = needed;
    assert!(plan(&f.facts(), &f.run).is_ok());
    let other = f.run.images[2];
    assert!(matches!(plan_into(&f.facts(), &f.run, other), Err(MergeError::NoSpace { .. })));
}

#[test]
fn a_fixed_source_is_named() {
    let mut f = three();
    f.files.get_mut(&f.run.images[0]).unwrap().kind = ImageType::Fixed;
    let plan = plan(&f.facts(), &f.run).unwrap();
    assert_eq!(plan.scratch_reasons, ["disk0.vhdx has a fixed size and gives nothing back before the end"]);
}

#[test]
fn a_merge_that_has_started_keeps_its_target() {
    let mut f = three();
    f.machine.merges.push(MergeRecord {
        disk: disk_id(),
        run: f.run.images.clone(),
        target: f.run.images[0],
        new_ids: BTreeMap::new(),
        started: f.machine.created,
        planned: ByteCount::mib(470),
    });
    assert_eq!(plan(&f.facts(), &f.run).unwrap().target, f.run.images[0]);
}

#[test]
fn what_is_no_run_is_refused() {
    let mut f = three();
    let (other, record) = (ImageId::new(), f.machine.images[&f.run.images[2]].clone());
    f.machine.images.insert(other, record);
    let error = plan(&f.facts(), &f.run).unwrap_err().to_string();
    assert!(error.contains("something else reads through"), "{error}");
    f.machine.images.remove(&other);
    f.files.get_mut(&f.run.images[1]).unwrap().problem = Some("its BAT is torn".into());
    let error = plan(&f.facts(), &f.run).unwrap_err().to_string();
    assert!(error.contains("its BAT is torn"), "{error}");
    f.census.clear();
    assert!(plan(&f.facts(), &f.run).is_err());
}
