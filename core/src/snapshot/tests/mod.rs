//! The tree against a plain model: for each node, what every block of its disk reads as.

mod operations;
mod random;
mod shapes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Duration, Utc};
use uuid::Uuid;

use super::*;
use crate::disk::ImageFormat;
use crate::units::ByteCount;

/// What a disk reads as: block to value; blocks that nobody holds are left out.
type Content = BTreeMap<u8, u32>;

/// A machine, and beside it what its images hold and its nodes must read as.
struct World {
    machine: Machine,
    disks: Vec<DiskId>,
    /// What each image holds, those in the trash too.
    held: BTreeMap<ImageId, Content>,
    /// What each snapshot was when it was taken.
    taken: BTreeMap<SnapshotId, BTreeMap<DiskId, Content>>,
    /// What Now must read as, and what it was before the last apply.
    now: BTreeMap<DiskId, Content>,
    before_apply: Option<BTreeMap<DiskId, Content>>,
    time: DateTime<Utc>,
    writes: u32,
}

impl World {
    fn new(disks: usize) -> Self {
        let disks: Vec<DiskId> = (0..disks).map(|n| DiskId(format!("disk{n}"))).collect();
        let time = DateTime::UNIX_EPOCH + Duration::days(20_000);
        let config = |id: &DiskId| DiskConfig { id: id.clone(), size: ByteCount::mib(1), format: ImageFormat::Vhdx };
        let mut machine = Machine {
            format: "snaptree-machine".into(),
            version: 1,
            id: MachineId::new(),
            name: "web".into(),
            kind: MachineKind::Workload,
            created: time,
            generation: 1,
            configuration: Configuration {
                memory: ByteCount::mib(1),
                disks: disks.iter().map(config).collect(),
                hardware: None,
                workload: WorkloadProfile::default(),
            },
            images: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            now: Now { parent: None, images: BTreeMap::new(), memory: None },
            ghosts: BTreeMap::new(),
            trash: Vec::new(),
            merges: Vec::new(),
            applied: None,
            settings: Settings::default(),
        };
        let mut held = BTreeMap::new();
        for disk in &disks {
            let (id, file) = (ImageId::new(), PathBuf::from(format!("Virtual Hard Disks/{disk}.vhdx")));
            let record = ImageRecord { disk: disk.clone(), file, parent: None, format: ImageFormat::Vhdx, created: time };
            machine.images.insert(id, record);
            machine.now.images.insert(disk.clone(), id);
            held.insert(id, Content::new());
        }
        let now = disks.iter().map(|disk| (disk.clone(), Content::new())).collect();
        let mut world = Self { machine, disks, held, taken: BTreeMap::new(), now, before_apply: None, time, writes: 0 };
        world.check();
        world
    }

    fn stamp(&mut self) -> Stamp<'static> {
        self.time += Duration::minutes(1);
        Stamp { action: Uuid::new_v4(), now: self.time, held: Box::new(|_| ByteCount::mib(1)) }
    }

    fn write(&mut self, disk: usize, block: u8) {
        self.writes += 1;
        let disk = self.disks[disk].clone();
        let leaf = self.machine.now.images[&disk];
        self.held.get_mut(&leaf).unwrap().insert(block, self.writes);
        self.now.get_mut(&disk).unwrap().insert(block, self.writes);
    }

    fn leaves(&mut self, parents: BTreeMap<DiskId, ImageId>) -> Leaves {
        let mut leaves = Leaves::new();
        for (disk, parent) in parents {
            let id = ImageId::new();
            let file = PathBuf::from(format!("Snapshots/{disk}_{id}.avhdx"));
            let (format, created) = (ImageFormat::Vhdx, self.time);
            leaves.insert(disk.clone(), (id, ImageRecord { disk, file, parent: Some(parent), format, created }));
            self.held.insert(id, Content::new());
        }
        leaves
    }

    fn take(&mut self, label: &str, memory: bool) -> SnapshotId {
        rules::take(&self.machine, &Context::default(), Some(label)).unwrap();
        let id = SnapshotId::new();
        let taken = self.stamp().now;
        let leaves = self.leaves(self.machine.now.images.clone());
        let file = |name: &str| PathBuf::from(format!("Snapshots/{id}/{name}"));
        let node = Taken {
            id,
            label: label.into(),
            note: String::new(),
            taken,
            configuration: self.machine.configuration.clone(),
            memory: memory.then(|| SavedMemory { file: file("memory.saved"), held: ByteCount::mib(1) }),
            screen: memory.then(|| file("screen.png")),
            leaves,
        };
        let change = take(&self.machine, node);
        self.taken.insert(id, self.now.clone());
        self.follow(change);
        id
    }

    fn apply(&mut self, snapshot: SnapshotId) {
        rules::apply(&self.machine, &Context::default(), snapshot).unwrap();
        let stamp = self.stamp();
        let leaves = self.leaves(self.machine.snapshots[&snapshot].images.clone());
        let change = apply(&self.machine, snapshot, leaves, &stamp);
        let now = self.taken[&snapshot].clone();
        self.before_apply = Some(std::mem::replace(&mut self.now, now));
        self.follow(change);
    }

    fn undo_apply(&mut self) {
        rules::undo_apply(&self.machine, &Context::default()).unwrap();
        let stamp = self.stamp();
        let change = undo_apply(&self.machine, &stamp);
        let back = self.before_apply.take().unwrap();
        self.before_apply = Some(std::mem::replace(&mut self.now, back));
        self.follow(change);
    }

    fn delete(&mut self, snapshots: &[SnapshotId], subtree: bool) -> DeletionOutcome {
        rules::delete(&self.machine, &Context::default(), snapshots, subtree).unwrap();
        let outcome = deletion_outcome(&self.machine, snapshots, subtree);
        let stamp = self.stamp();
        self.follow(delete(&self.machine, snapshots, subtree, false, &stamp));
        outcome
    }

    fn undelete(&mut self, ghost: SnapshotId) {
        rules::undelete(&self.machine, &Context::default(), ghost).unwrap();
        self.follow(undelete(&self.machine, ghost));
    }

    /// Merges a run: what the images hold moves into the top one.
    fn merge(&mut self, run: &Run) {
        let record = MergeRecord {
            disk: run.disk.clone(),
            run: run.images.clone(),
            target: run.images[0],
            new_ids: BTreeMap::new(),
            started: self.time,
            planned: ByteCount::ZERO,
        };
        self.follow(begin_merge(&self.machine, record));
        let mut merged = Content::new();
        for image in &run.images {
            merged.extend(self.held[image].clone());
        }
        let top = *run.images.last().unwrap();
        self.held.insert(top, merged);
        let file = self.machine.images[&top].file.clone();
        self.follow(finish_merge(&self.machine, &run.images, file));
    }

    fn follow(&mut self, change: Change) {
        self.machine = change.machine;
        self.check();
    }

    fn content(&self, images: &BTreeMap<DiskId, ImageId>) -> BTreeMap<DiskId, Content> {
        let tree = Tree::of(&self.machine);
        let of = |image: &ImageId| tree.chain(*image).iter().flat_map(|image| self.held[image].clone()).collect();
        images.iter().map(|(disk, image)| (disk.clone(), of(image))).collect()
    }

    /// The manifest is right, and every node reads as it must.
    fn check(&mut self) {
        validate(&self.machine).unwrap_or_else(|problems| panic!("{problems:#?}"));
        for (id, node) in &self.machine.snapshots {
            assert_eq!(self.content(&node.images), self.taken[id], "{}", node.label);
        }
        assert_eq!(self.content(&self.machine.now.images), self.now, "Now");
        let text = serde_json::to_string(&self.machine).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&text).unwrap(), self.machine);
    }

    fn tree(&self) -> Tree<'_> {
        Tree::of(&self.machine)
    }

    fn label(&self, node: NodeRef) -> String {
        match node {
            NodeRef::Now => "Now".into(),
            NodeRef::Snapshot(id) => self.machine.snapshots[&id].label.clone(),
            NodeRef::Ghost(id) => format!("({})", self.machine.ghosts[&id].snapshot.label),
        }
    }

    /// The drawn tree as text, a row a word: `depth:label`, with `*` on the path to Now.
    fn drawn(&self) -> String {
        let row = |row: &TreeRow| format!("{}:{}{}", row.depth, self.label(row.node), if row.on_path { "*" } else { "" });
        self.tree().rows().iter().map(row).collect::<Vec<_>>().join(" ")
    }

    fn image(&self, snapshot: SnapshotId) -> ImageId {
        *self.machine.snapshots[&snapshot].images.values().next().unwrap()
    }
}

#[test]
fn names_are_sorted_as_people_look_for_them() {
    let mut names = ["web2", "Web1", "DB01", "b", "web1", "A"];
    names.sort_by(|a, b| super::by_name(a, b));
    assert_eq!(names, ["A", "b", "DB01", "Web1", "web1", "web2"]);
}
