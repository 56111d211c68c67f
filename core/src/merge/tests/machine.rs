//! A machine in a file system in memory: real manifest, journal and images; a random tree of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use crate::chain::{Chain, Gate};
use crate::clock::{Clock, SharedClock};
use crate::cost::{Calibration, Census, CensusImage, FileFacts, Layout, MachineFacts, VolumeState, census_of};
use crate::disk::{self, CreateOptions, Image, ImageFormat, ImageType};
use crate::host_file::{Access, Host, SharedHost, publish_file};
use crate::merge::complete_switch;
use crate::snapshot::{
    self, Configuration, DiskConfig, DiskId, ImageId, ImageRecord, Machine, MachineId, MachineKind, Now, Run, Settings, Snapshot,
    SnapshotId, Stamp, Tree, WorkloadProfile,
};
use crate::store::MachineStore;
use crate::testing::{FakeClock, MemHost, Random};
use crate::units::ByteCount;

pub const DIR: &str = "/library/m";

/// Per kept image: what it must read as.
pub type Contents = BTreeMap<ImageId, Vec<u8>>;

pub fn clock() -> SharedClock {
    FakeClock::noon()
}

/// How a random tree is made.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Images from the base to Now's leaf.
    pub depth: u64,
    /// Whether images differ in size and block size.
    pub uneven: bool,
    /// Of how many sectors the images' sectors are.
    pub sector: u32,
}

/// A manifest with one disk and no images.
pub fn empty(size: u64) -> Machine {
    let now = FakeClock::noon().now();
    let disk = DiskConfig { id: disk_id(), size: ByteCount(size), format: ImageFormat::Vhdx };
    Machine {
        format: "snaptree-machine".into(),
        version: 1,
        id: MachineId::new(),
        name: "m".into(),
        kind: MachineKind::Workload,
        created: now,
        generation: 1,
        configuration: Configuration {
            memory: ByteCount::mib(1),
            disks: vec![disk],
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
        settings: Settings::default(),
    }
}

pub fn disk_id() -> DiskId {
    DiskId("disk0".into())
}

fn random_id(random: &mut Random) -> Uuid {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

pub fn fill(image: &dyn Image, random: &mut Random) {
    let info = image.info();
    let sector = u64::from(info.logical_sector_size);
    let sectors = info.virtual_size.0 / sector;
    for _ in 0..random.below(7) {
        let first = if random.chance(1, 2) { random.below(64) } else { random.below(sectors) };
        let most = if random.chance(1, 4) { sectors } else { 48 };
        let count = (1 + random.below(most)).min(sectors - first).min((3 << 20) / sector);
        if random.chance(1, 3) {
            image.write_zeroes(first * sector, count * sector).unwrap();
        } else {
            let mut bytes = random.bytes((count.min(96) * sector) as usize);
            bytes[0] |= 1;
            image.write_at(&bytes, first * sector).unwrap();
        }
    }
}

/// Makes the machine's folder; returns what its kept images show.
pub fn build(host: &MemHost, shape: Shape, random: &mut Random) -> Contents {
    let shared = host.shared();
    let dir = Path::new(DIR);
    for folder in ["Virtual Hard Disks", "Snapshots", "Deleted"] {
        host.create_dir_all(&dir.join(folder)).unwrap();
    }
    let size = (3 + random.below(3)) << 20;
    let mut machine = empty(size);
    let side = random.below(3);
    let mut order: Vec<ImageId> = Vec::new();
    for place in 0..shape.depth + side {
        let id = ImageId(random_id(random));
        let parent = match place {
            0 => None,
            _ if place < shape.depth => order.last().copied(),
            _ => Some(order[random.below(order.len() as u64) as usize]),
        };
        let file = match place {
            0 => PathBuf::from("Virtual Hard Disks/disk0.vhdx"),
            _ => PathBuf::from(format!("Snapshots/disk0_{place}.avhdx")),
        };
        let block = ByteCount::mib(1 << if shape.uneven { random.below(3) } else { 1 });
        let image = match parent.map(|parent| machine.images[&parent].clone()) {
            None => {
                let kind = if shape.uneven && random.chance(1, 3) { ImageType::Fixed } else { ImageType::Dynamic };
                let options = CreateOptions { kind, block_size: Some(block), ..CreateOptions::dynamic(ByteCount(size)) };
                let options = CreateOptions { logical_sector_size: shape.sector, ..options };
                disk::create(&shared, &dir.join(&file), ImageFormat::Vhdx, &options).unwrap()
            }
            Some(below) => {
                let below = disk::open(&shared, &dir.join(&below.file), ImageFormat::Vhdx, Access::Read).unwrap();
                disk::create_child(&shared, &dir.join(&file), &*below, Some(block)).unwrap()
            }
        };
        if place > 0 && shape.uneven && random.chance(1, 4) {
            let grown = image.info().virtual_size.0 + (1 + random.below(20)) * 65536;
            image.grow(ByteCount(grown)).unwrap();
        }
        fill(&*image, random);
        image.freeze().unwrap();
        let created = FakeClock::noon().now();
        machine.images.insert(id, ImageRecord { disk: disk_id(), file, parent, format: ImageFormat::Vhdx, created });
        order.push(id);
    }
    name_nodes(&mut machine, &order, shape, random);
    let size = open_image(&shared, &machine, machine.now.images[&disk_id()]).info().virtual_size;
    machine.configuration.disks[0].size = size;
    let json = serde_json::to_vec_pretty(&machine).unwrap();
    publish_file(host, &dir.join("machine.json"), &json).unwrap();
    for folder in ["/", "/library", DIR] {
        host.flush_dir(Path::new(folder)).unwrap();
    }
    contents(host, &machine)
}

/// Every image becomes a node, the end of the main chain Now's; then some snapshots are deleted that others read through.
fn name_nodes(machine: &mut Machine, order: &[ImageId], shape: Shape, random: &mut Random) {
    let mut leaf = order[shape.depth as usize - 1];
    while let Some((child, _)) = machine.images.iter().find(|(_, record)| record.parent == Some(leaf)) {
        leaf = *child;
    }
    let nodes: BTreeMap<ImageId, SnapshotId> = order.iter().map(|id| (*id, SnapshotId(random_id(random)))).collect();
    let parent_node = |id: &ImageId| machine.images[id].parent.map(|parent| nodes[&parent]);
    for (place, id) in order.iter().enumerate().filter(|(_, id)| **id != leaf) {
        let snapshot = Snapshot {
            label: format!("S{place}"),
            note: String::new(),
            taken: machine.created,
            parent: parent_node(id),
            images: BTreeMap::from([(disk_id(), *id)]),
            configuration: machine.configuration.clone(),
            memory: None,
            screen: None,
            protected: false,
        };
        machine.snapshots.insert(nodes[id], snapshot);
    }
    machine.now = Now { parent: parent_node(&leaf), images: BTreeMap::from([(disk_id(), leaf)]), memory: None };
    for id in order {
        let read = machine.images.values().any(|record| record.parent == Some(*id));
        if *id != leaf && read && random.chance(3, 4) {
            let stamp = Stamp { action: random_id(random), now: machine.created, held: Box::new(|_| ByteCount::ZERO) };
            *machine = snapshot::delete(machine, &[nodes[id]], false, false, &stamp).machine;
        }
    }
}

fn open_image(host: &SharedHost, machine: &Machine, id: ImageId) -> Arc<dyn Image> {
    let record = &machine.images[&id];
    disk::open(host, &Path::new(DIR).join(&record.file), record.format, Access::Look).unwrap()
}

/// The kept images.
pub fn kept(machine: &Machine) -> BTreeSet<ImageId> {
    let nodes = machine.snapshots.values().map(|snapshot| &snapshot.images).chain([&machine.now.images]);
    nodes.flat_map(|images| images.values().copied()).collect()
}

/// What every kept image shows, found through the parent locators alone.
pub fn contents(host: &MemHost, machine: &Machine) -> Contents {
    let shared = host.shared();
    let gate = Gate::new([PathBuf::from(DIR)]);
    let read = |id: ImageId| {
        let path = Path::new(DIR).join(&machine.images[&id].file);
        let chain = Chain::open(&shared, &path, Access::Look, &gate).unwrap_or_else(|error| panic!("{error}"));
        let mut bytes = vec![0; chain.virtual_size().0 as usize];
        chain.read_at(&mut bytes, 0).unwrap();
        (id, bytes)
    };
    kept(machine).into_iter().map(read).collect()
}

/// Opens the machine, and completes what was cut short.
pub fn open(host: &MemHost) -> MachineStore {
    let mut store = MachineStore::open(&host.shared(), &clock(), Path::new(DIR)).unwrap_or_else(|error| panic!("{error}"));
    complete_switch(&mut store).unwrap_or_else(|error| panic!("{error}"));
    store
}

/// The runs that are due.
pub fn runs(machine: &Machine) -> Vec<Run> {
    Tree::of(machine).runs()
}

/// What plans are made from, counted from the files.
#[derive(Debug)]
pub struct Counted {
    machine: Machine,
    files: BTreeMap<ImageId, FileFacts>,
    census: BTreeMap<DiskId, Arc<Census>>,
    calibration: Calibration,
    pub volume: VolumeState,
    pub running: bool,
}

impl Counted {
    pub fn of(host: &SharedHost, machine: &Machine) -> Self {
        let (mut files, mut layouts) = (BTreeMap::new(), BTreeMap::new());
        for id in machine.images.keys() {
            let image = open_image(host, machine, *id);
            let (info, held) = (image.info(), image.held_bytes().unwrap());
            let size = info.virtual_size;
            let (kind, block_size) = (info.kind, info.block_size);
            files.insert(*id, FileFacts { kind, virtual_size: size, block_size, file_size: held, held, problem: None });
            layouts.insert(*id, Layout::new(size.0, image.extents(0, size.0).unwrap()));
        }
        let images: Vec<_> = machine
            .images
            .iter()
            .map(|(id, record)| CensusImage { id: *id, parent: record.parent, layout: &layouts[id] })
            .collect();
        let census = BTreeMap::from([(disk_id(), Arc::new(census_of(&images)))]);
        let volume = VolumeState { id: "v".into(), free: ByteCount::gib(1), punches_holes: true };
        Self { machine: machine.clone(), files, census, calibration: Calibration::default(), volume, running: false }
    }

    pub fn facts(&self) -> MachineFacts<'_> {
        MachineFacts {
            machine: &self.machine,
            files: &self.files,
            census: &self.census,
            calibration: &self.calibration,
            volume: &self.volume,
            running: self.running,
            guest: None,
        }
    }
}
