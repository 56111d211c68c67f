//! Machines on a file system in memory, with chains of images in which every kind of block occurs, and what must hold
//! of a machine's folder whenever it was opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snaptree_core::chain::{Chain, Gate};
use snaptree_core::clock::SharedClock;
use snaptree_core::cost::{Calibration, Census, CensusImage, FileFacts, Layout, MachineFacts, VolumeState, census_of};
use snaptree_core::disk::{self, CreateOptions, Image, ImageFormat, ImageType};
use snaptree_core::host_file::{Access, Host, SharedHost};
use snaptree_core::merge::{self, complete_switch};
use snaptree_core::snapshot::{DiskId, ImageId, Machine, NodeRef, SnapshotId, Tree};
use snaptree_core::store::{ImportRequest, Library, MachineStore};
use snaptree_core::testing::{CrashMode, CrashPoint, FakeClock, MemHost, Random};
use snaptree_core::units::ByteCount;

use crate::content::Content;

/// Where the library is.
pub const LIBRARY: &str = "/library";
/// The machine's name.
pub const NAME: &str = "m";
/// Where the images of others are, of which the machine is made.
pub const FOREIGN: &str = "/foreign";

/// How the images of a chain are made.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Of all of them.
    pub format: ImageFormat,
    /// Size of the disk, in sectors.
    pub sectors: u64,
    /// Bytes of a sector: 512 or 4096.
    pub sector: u32,
    /// Block sizes in MiB, the base first: as many images.
    pub blocks: &'static [u64],
    /// Whether the base has a fixed size.
    pub fixed: bool,
    /// Sectors by which each image is larger than its parent.
    pub grows: u64,
}

/// What every node of a machine shows, by its label; Now under its own name.
pub type Contents = BTreeMap<String, Content>;

/// The label of Now.
pub const NOW: &str = "Now";

/// A clock that stands.
pub fn clock() -> SharedClock {
    FakeClock::noon()
}

/// The machine's folder.
pub fn folder() -> PathBuf {
    Path::new(LIBRARY).join(NAME)
}

/// The library, opened as the program does it.
pub fn library(host: &MemHost) -> snaptree_core::store::Result<Library> {
    Library::open(&host.shared(), &clock(), Path::new(LIBRARY))
}

/// Opens the machine as the engine does it: what was cut short is completed or undone.
pub fn open(host: &MemHost) -> Result<MachineStore, String> {
    library(host).map_err(|error| error.to_string())?;
    let mut store = MachineStore::open(&host.shared(), &clock(), &folder()).map_err(|error| error.to_string())?;
    complete_switch(&mut store).map_err(|error| error.to_string())?;
    Ok(store)
}

/// A file's name in the folder of others.
fn foreign_name(format: ImageFormat, place: usize) -> String {
    format!("x{place}.{}", if place == 0 { format.extension() } else { format.child_extension() })
}

/// Makes a chain of images as others make them: x0 to xn. Each has blocks of which a part is present, whole ones, zeroed ones,
/// and others with a zeroed part.
pub fn make_foreign(host: &MemHost, shape: &Shape, seed: u64) -> Vec<Content> {
    let (shared, random) = (host.shared(), &mut Random::new(seed));
    host.create_dir_all(Path::new(FOREIGN)).expect("a folder");
    host.flush_dir(Path::new("/")).expect("flushed");
    let mut content = Content::zeros(shape.sectors * u64::from(shape.sector));
    let mut contents = Vec::new();
    let mut below: Option<Arc<dyn Image>> = None;
    for (place, block) in shape.blocks.iter().enumerate() {
        let path = Path::new(FOREIGN).join(foreign_name(shape.format, place));
        let block = ByteCount::mib(*block);
        let image = match &below {
            None => {
                let kind = if shape.fixed { ImageType::Fixed } else { ImageType::Dynamic };
                let options = CreateOptions {
                    kind,
                    block_size: Some(block),
                    logical_sector_size: shape.sector,
                    disk_id: Some(uuid::Uuid::from_u128(seed.into())),
                    ..CreateOptions::dynamic(ByteCount(content.size()))
                };
                disk::create(&shared, &path, shape.format, &options)
            }
            Some(parent) => disk::create_child(&shared, &path, &**parent, Some(block)),
        };
        let image = image.expect("an image");
        if place > 0 && shape.grows > 0 {
            content.resize(content.size() + shape.grows * u64::from(shape.sector));
            image.grow(ByteCount(content.size())).expect("it grows");
        }
        fill(&*image, &mut content, random);
        image.freeze().expect("frozen");
        contents.push(content.clone());
        below = Some(image);
    }
    contents
}

/// Adds another child to an image of that folder; both are named without their endings. Returns what it shows.
pub fn add_foreign(host: &MemHost, format: ImageFormat, parent: &str, name: &str, below: &Content, seed: u64) -> Content {
    let (shared, mut content) = (host.shared(), below.clone());
    let path = |name: &str| Path::new(FOREIGN).join(format!("{name}.{}", format.child_extension()));
    let parent = disk::open(&shared, &path(parent), format, Access::Look).expect("its parent");
    let image = disk::create_child(&shared, &path(name), &*parent, None).expect("an image");
    fill(&*image, &mut content, &mut Random::new(seed));
    image.freeze().expect("frozen");
    content
}

/// Changes an image in every way that makes another kind of block.
pub fn fill(image: &dyn Image, content: &mut Content, random: &mut Random) {
    let info = image.info();
    let (sector, block) = (u64::from(info.logical_sector_size), info.block_size.0);
    let sectors = content.size() / sector;
    let write = |content: &mut Content, first: u64, count: u64, byte: u64| {
        let count = count.min(sectors - first);
        let mut bytes = vec![byte as u8 | 1; (count * sector) as usize];
        bytes[0] = byte as u8;
        image.write_at(&bytes, first * sector).expect("written");
        content.write(&bytes, first * sector);
    };
    let zero = |content: &mut Content, first: u64, count: u64| {
        let count = count.min(sectors - first);
        image.write_zeroes(first * sector, count * sector).expect("zeroed");
        content.zero(first * sector, count * sector);
    };
    let per_block = block / sector;
    // Parts of blocks, near each other in all images so that they hide each other in part.
    for _ in 0..3 {
        write(content, random.below(48), 1 + random.below(24), random.next_u64());
        write(content, random.below(sectors), 1 + random.below(40), random.next_u64());
    }
    // A whole block, or as much as is quick.
    let whole = random.below(sectors.div_ceil(per_block)) * per_block;
    write(content, whole, per_block.min((2 << 20) / sector), random.next_u64());
    // A zeroed block, and parts of others.
    zero(content, random.below(sectors.div_ceil(per_block)) * per_block, per_block);
    zero(content, random.below(sectors), 1 + random.below(64));
    zero(content, random.below(96), 1 + random.below(16));
}

/// A machine whose snapshots x0 to x(n-1) are a chain of such images, and Now the last one.
pub fn make_machine(host: &MemHost, shape: &Shape, seed: u64) -> Contents {
    let contents = make_foreign(host, shape, seed);
    let library = library(host).expect("a library");
    let request = ImportRequest { path: FOREIGN.into(), name: NAME.into(), remove_originals: true, computer: None };
    drop(library.import(&request, &mut |_, _| true).expect("imported"));
    host.remove_dir_all(Path::new(FOREIGN)).expect("removed");
    host.flush_dir(Path::new("/")).expect("flushed");
    name_contents(contents)
}

/// The contents of a chain by the labels that an import gives them.
pub fn name_contents(contents: Vec<Content>) -> Contents {
    let last = contents.len() - 1;
    let label = |place| if place == last { NOW.to_owned() } else { format!("x{place}") };
    contents.into_iter().enumerate().map(|(place, content)| (label(place), content)).collect()
}

/// The snapshot with a label.
pub fn labelled(store: &MachineStore, label: &str) -> SnapshotId {
    let found = store.machine().snapshots.iter().find(|(_, snapshot)| snapshot.label == label);
    *found.unwrap_or_else(|| panic!("no snapshot is called {label}")).0
}

/// The disk of such a machine.
pub fn disk0() -> DiskId {
    DiskId("disk0".into())
}

/// A node's disk.
pub fn chain(store: &MachineStore, node: NodeRef, access: Access) -> Result<Chain, String> {
    let image = Tree::of(store.machine()).images_of(node).expect("a node")[&disk0()];
    let gate = Gate::new([store.dir().to_path_buf()]);
    let path = store.image_path(image).expect("an image");
    Chain::open(store.host(), &path, access, &gate).map_err(|error| error.to_string())
}

/// The images of Now's disk, as its chain has them open.
pub fn open_images(store: &MachineStore, chain: &Chain) -> BTreeMap<ImageId, Arc<dyn Image>> {
    let leaf = store.machine().now.images[&disk0()];
    Tree::of(store.machine()).chain(leaf).into_iter().zip(chain.images()).collect()
}

/// The labels of all nodes.
pub fn labels(machine: &Machine) -> BTreeMap<String, NodeRef> {
    let nodes = machine.snapshots.iter().map(|(id, node)| (node.label.clone(), NodeRef::Snapshot(*id)));
    nodes.chain([(NOW.to_owned(), NodeRef::Now)]).collect()
}

/// Whether the machine has exactly these nodes, and each of them shows what it must: what isn't so, in words.
pub fn difference(store: &MachineStore, expected: &Contents) -> Option<String> {
    let nodes = labels(store.machine());
    if !nodes.keys().eq(expected.keys()) {
        return Some(format!("the nodes are {:?}, not {:?}", nodes.keys(), expected.keys()));
    }
    nodes.iter().find_map(|(label, node)| {
        let differs = match chain(store, *node, Access::Look) {
            Ok(chain) => expected[label].difference(&chain),
            Err(error) => Some(error),
        };
        differs.map(|what| format!("{label}: {what}"))
    })
}

/// What is left of a machine after a crash; in a third of the cases its opening is cut off as well. In another third a
/// killed one is opened, and then power is lost: what was acknowledged and not flushed may be lost then.
pub fn recover(host: &MemHost, point: CrashPoint, all_is_flushed: bool) -> MemHost {
    let random = &mut Random::new(point.seed);
    match random.below(3) {
        0 => {
            host.crash_at(random.below(30));
            drop(open(host));
            host.crash(point.mode, random.next_u64())
        }
        1 if all_is_flushed => {
            drop(open(host));
            host.crash(CrashMode::PowerLoss, random.next_u64())
        }
        _ => host.fork(),
    }
}

/// What must hold of the folder whenever the machine was opened: every file that is named is there, and is whole in itself;
/// no other file is; nothing is under way any more.
pub fn check_folder(store: &MachineStore) {
    let orphans = store.orphans().expect("a list");
    assert!(orphans.is_empty(), "files that nothing names: {orphans:?}");
    assert!(!store.host().exists(&store.path(Path::new("journal.json"))), "a journal is left");
    assert!(store.pending_switch().is_none());
    let machine = store.machine();
    let trash = machine.trash.iter().map(|item| &item.file);
    for file in machine.images.values().map(|record| &record.file).chain(trash) {
        assert!(store.host().exists(&store.path(file)), "{} is missing", file.display());
    }
    for record in machine.images.values() {
        let path = store.path(&record.file);
        let image = disk::open(store.host(), &path, record.format, Access::Look).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(image.check().expect("readable"), Vec::<String>::new(), "{}", path.display());
    }
}

/// What plans of merges are made from, counted from the files.
#[derive(Debug)]
pub struct Counted {
    machine: Machine,
    files: BTreeMap<ImageId, FileFacts>,
    census: BTreeMap<DiskId, Arc<Census>>,
    calibration: Calibration,
    /// The volume.
    pub volume: VolumeState,
    running: bool,
}

impl Counted {
    /// Counts the blocks of every image.
    pub fn of(host: &SharedHost, dir: &Path, machine: &Machine, punches_holes: bool) -> disk::Result<Self> {
        Self::of_running(host, dir, machine, punches_holes, &BTreeMap::new())
    }

    /// The same of a running machine, which has some of them open.
    pub fn of_running(
        host: &SharedHost,
        dir: &Path,
        machine: &Machine,
        punches_holes: bool,
        open: &BTreeMap<ImageId, Arc<dyn Image>>,
    ) -> disk::Result<Self> {
        let (mut files, mut layouts) = (BTreeMap::new(), Vec::new());
        for (id, record) in &machine.images {
            let image = match open.get(id) {
                Some(image) => image.clone(),
                None => disk::open(host, &dir.join(&record.file), record.format, Access::Look)?,
            };
            let (info, held) = (image.info(), image.held_bytes()?);
            let (kind, virtual_size, block_size) = (info.kind, info.virtual_size, info.block_size);
            files.insert(*id, FileFacts { kind, virtual_size, block_size, file_size: held, held, problem: None });
            layouts.push((*id, Layout::new(virtual_size.0, image.extents(0, virtual_size.0)?)));
        }
        let mut images: BTreeMap<DiskId, Vec<CensusImage>> = BTreeMap::new();
        for (id, layout) in &layouts {
            let record = &machine.images[id];
            images.entry(record.disk.clone()).or_default().push(CensusImage { id: *id, parent: record.parent, layout });
        }
        let census = images.into_iter().map(|(disk, images)| (disk, Arc::new(census_of(&images)))).collect();
        let free = host.free_bytes(dir).unwrap_or_default();
        let volume = VolumeState { id: "v".into(), free, punches_holes };
        Ok(Self {
            machine: machine.clone(),
            files,
            census,
            calibration: Calibration::default(),
            volume,
            running: !open.is_empty(),
        })
    }

    /// The same, as the cost room takes it.
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

/// Bytes that merges have moved, and that were planned when each began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Data bytes moved.
    pub moved: u64,
    /// Data bytes planned.
    pub planned: u64,
}

/// Carries out every merge that is due, in steps of `budget` data bytes; each into the image at `place` of its run (the
/// last one where it is shorter), or where it was going already.
pub fn merge_all(store: &mut MachineStore, place: usize, budget: ByteCount, moved: &mut Moved) -> merge::Result<()> {
    loop {
        let counted = Counted::of(store.host(), store.dir(), store.machine(), true)?;
        let Some(run) = Tree::of(store.machine()).runs().into_iter().next() else { return Ok(()) };
        let started = store.machine().merges.iter().find(|record| record.run == run.images);
        let target = started.map_or(run.images[place.min(run.images.len() - 1)], |record| record.target);
        let plan = merge::plan_into(&counted.facts(), &run, target)?;
        moved.planned += plan.data_bytes_to_move.0;
        let before = moved.moved;
        let mut execution = merge::Execution::begin(store, &plan, clock().now())?;
        loop {
            let outcome = execution.step(store, budget);
            moved.moved = before + execution.progress().moved.0;
            if let merge::StepOutcome::Done(_) = outcome? {
                break;
            }
        }
    }
}
