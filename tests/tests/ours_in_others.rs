//! Images of ours that were created, written, snapshotted and merged, in several block and sector sizes: read by other
//! programs they are what we read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use snaptree_core::chain::Chain;
use snaptree_core::clock::SystemClock;
use snaptree_core::disk::{self, CreateOptions, ImageFormat};
use snaptree_core::engine::{Answer, Command, Import, ImportMode};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::merge::{self, Execution, StepOutcome};
use snaptree_core::snapshot::{DiskId, ImageId, MachineId, SnapshotId, Tree};
use snaptree_core::store::MachineStore;
use snaptree_core::testing::{Random, ReferenceDisk};
use snaptree_core::units::ByteCount;
use snaptree_tests::driver::Driver;
use snaptree_tests::witness::{Witness, sha256_of_chain};

/// Not whole blocks, and an even number of sectors: 7-Zip 26 takes other sizes for errors.
const SIZE: u64 = (9 << 20) + 6 * 4096;
/// Images that are written before the machine is made of them.
const LAYERS: usize = 4;

/// What a machine's images shall be, and how they are merged.
#[derive(Debug, Clone, Copy)]
struct Spec {
    format: ImageFormat,
    block_mib: u64,
    sector: u32,
    /// Into which image of the run of three: 0 is the bottom, 2 the top.
    place: usize,
    /// Whether the run begins with the base, so that what comes out has no parent.
    from_base: bool,
}

struct Story {
    spec: Spec,
    driver: Driver,
    machine: MachineId,
    disk: DiskId,
    snapshots: BTreeMap<SnapshotId, ReferenceDisk>,
    now: ReferenceDisk,
    random: Random,
}

/// Sectors near a few places, so that layers overlap; no zeros, which some readers ask the parent for.
fn change(chain: &Chain, content: &mut ReferenceDisk, random: &mut Random, rounds: usize) -> Result<()> {
    let sector = u64::from(chain.logical_sector_size());
    let sectors = content.size() / sector;
    for round in 0..rounds {
        let first = (random.below(5) * (sectors / 5) + random.below(200)).min(sectors - 1);
        let most = if round % 5 == 4 { (1 << 20) / sector } else { 60 };
        let count = (1 + random.below(most)).min(sectors - first);
        let bytes = random.bytes((count * sector) as usize);
        chain.write_at(&bytes, first * sector)?;
        content.write(&bytes, first * sector);
    }
    Ok(chain.flush()?)
}

impl Story {
    /// Writes a chain, and makes a machine of it.
    fn begin(spec: Spec) -> Result<Self> {
        let (host, mut driver) = (OsHost::shared(), Driver::new());
        let folder = driver.folder().join("written");
        std::fs::create_dir(&folder)?;
        let mut random = Random::new(spec.block_mib * 8 + u64::from(spec.sector) + spec.place as u64);
        let mut now = ReferenceDisk::new(SIZE, spec.sector);
        let block_size = Some(ByteCount::mib(spec.block_mib));
        let options = CreateOptions { block_size, logical_sector_size: spec.sector, ..CreateOptions::dynamic(ByteCount(SIZE)) };
        let path = |layer: usize| folder.join(format!("layer{layer}.{}", spec.format.extension()));
        let chain = Chain::from_images(vec![disk::create(&host, &path(0), spec.format, &options)?])?;
        let mut contents = Vec::new();
        for layer in 0..LAYERS {
            if layer > 0 {
                let old = chain.images().pop().context("a leaf")?;
                old.pin_data_write_id()?;
                chain.push_leaf(disk::create_child(&host, &path(layer), &*old, block_size)?)?;
                old.freeze()?;
            }
            change(&chain, &mut now, &mut random, if layer == 0 { 20 } else { 7 })?;
            contents.push(now.clone());
        }
        chain.images().pop().context("a leaf")?.freeze()?;
        drop(chain);
        let import = Command::Import(Import { path: path(LAYERS - 1), name: "m".into(), mode: ImportMode::Move, computer: None });
        let Answer::Created(machine) = driver.done(import) else { panic!("no machine") };
        let labelled = |layer: usize| driver.labelled(machine, &format!("layer{layer}"));
        let ids: Vec<SnapshotId> = (0..LAYERS - 1).map(labelled).collect();
        let snapshots = ids.into_iter().zip(contents).collect();
        Ok(Self { spec, driver, machine, disk: DiskId("disk0".into()), snapshots, now, random })
    }

    fn layer(&mut self, layer: usize) -> SnapshotId {
        self.driver.labelled(self.machine, &format!("layer{layer}"))
    }

    /// Every kept node is what it was.
    fn check(&mut self, step: &str) -> Result<()> {
        let nodes = self.driver.nodes(self.machine);
        self.check_nodes(step, &nodes, &nodes)
    }

    /// Nodes are what they were here, and some of them to the others too.
    fn check_nodes(&mut self, step: &str, nodes: &[Option<SnapshotId>], shown: &[Option<SnapshotId>]) -> Result<()> {
        for &node in nodes {
            let what = format!("{:?}, {step}, {node:?}", self.spec);
            let model = node.map_or(&self.now, |id| &self.snapshots[&id]);
            let chain = self.driver.chains(self.machine, node, Access::Look).remove(&self.disk).context("a disk")?;
            model.assert_same(&what, |buf, offset| chain.read_at(buf, offset).unwrap());
            let ours = sha256_of_chain(&chain)?;
            drop(chain);
            if !shown.contains(&node) {
                continue;
            }
            let files: Vec<PathBuf> = self.driver.files(self.machine, node).remove(&self.disk).context("a disk")?;
            for witness in witnesses(&self.spec, files.len()) {
                let theirs = witness.sha256(&files).with_context(|| format!("{witness:?} reads {what}"))?;
                ensure!(theirs == ours, "{witness:?} reads {what} otherwise: {files:?}");
            }
        }
        Ok(())
    }

    /// Merges the one run that is due into the image at a place of it, or where the engine's plan says.
    fn merge(&mut self, place: Option<usize>) -> Result<()> {
        let Some(place) = place else {
            self.driver.merge(self.machine);
            return Ok(());
        };
        self.driver.pass(Duration::from_millis(50));
        let (machine, disk) = (self.machine, self.disk.clone());
        self.driver.pass_until("the blocks are counted", |driver| {
            driver
                .known(machine)
                .is_some_and(|state| state.census.get(&disk).is_some_and(|census| census.images.len() == LAYERS + 1))
        });
        let state = self.driver.state(machine);
        let runs = Tree::of(&state.machine).runs();
        ensure!(runs.len() == 1 && runs[0].images.len() == 3, "{runs:?}");
        let target: ImageId = runs[0].images[place];
        let plan = merge::plan_into(&state.facts(), &runs[0], target)?;
        let (host, clock) = (OsHost::shared(), SystemClock::shared());
        let mut store = MachineStore::open(&host, &clock, &state.folder)?;
        let mut execution = Execution::begin(&mut store, &plan, clock.now())?;
        while !matches!(execution.step(&mut store, ByteCount::mib(2))?, StepOutcome::Done(_)) {}
        ensure!(execution.progress().moved == plan.data_bytes_to_move, "the plan says what moves");
        drop(store);
        self.driver.done(Command::Rescan);
        Ok(())
    }
}

/// Who is installed; a missing one is told of once.
fn there() -> &'static [Witness] {
    static THERE: OnceLock<Vec<Witness>> = OnceLock::new();
    THERE.get_or_init(|| Witness::ALL.into_iter().filter(|witness| witness.is_there()).collect())
}

/// Who reads such a chain right: qemu-img knows no parents and no sectors of 4096 bytes, dissect counts bits wrong where
/// a partial block's parent is partial too; of a chain of VHDs only 7-Zip reads every sector from where it is.
fn witnesses(spec: &Spec, images: usize) -> impl Iterator<Item = Witness> {
    let (sector, is_vhd) = (spec.sector, spec.format == ImageFormat::Vhd);
    Witness::ALL.into_iter().filter(move |witness| {
        let right = match witness {
            Witness::SevenZip => true,
            Witness::Libvhdi => images == 1 || !is_vhd,
            Witness::QemuImg => images == 1 && sector == 512,
            Witness::Dissect => images == 1 || (images == 2 && !is_vhd),
        };
        right && there().contains(witness)
    })
}

fn story(spec: Spec) -> Result<()> {
    let mut story = Story::begin(spec)?;
    let nodes = story.driver.nodes(story.machine);
    story.check_nodes("created and written", &nodes, &[None])?;
    let (top, _) = story.driver.take(story.machine, "top", false);
    story.snapshots.insert(top, story.now.clone());
    let chain = story.driver.chains(story.machine, None, Access::Write).remove(&story.disk).context("a disk")?;
    change(&chain, &mut story.now, &mut story.random, 8)?;
    drop(chain);
    let nodes = story.driver.nodes(story.machine);
    story.check_nodes("a snapshot was taken", &nodes, &[None])?;
    let first = usize::from(!spec.from_base);
    let deleted = [story.layer(first), story.layer(first + 1)];
    let rest = story.layer(if spec.from_base { 2 } else { 0 });
    story.driver.delete(story.machine, &deleted);
    story.merge(Some(spec.place))?;
    story.check("three were merged")?;
    let files = story.driver.files(story.machine, Some(top)).remove(&story.disk).context("a disk")?;
    ensure!(files.len() == 2, "{files:?}");
    // What is left below becomes one image without a parent, into whichever the plan finds best.
    story.driver.delete(story.machine, &[rest]);
    story.merge(None)?;
    story.check("all were merged")?;
    let files = story.driver.files(story.machine, Some(top)).remove(&story.disk).context("a disk")?;
    ensure!(files.len() == 1 && Path::exists(&files[0]), "{files:?}");
    Ok(())
}

fn stories(sector: u32, block_mib: u64, places: &[usize]) -> Result<()> {
    for &place in places {
        let from_base = (place + usize::from(sector == 4096) + block_mib.trailing_zeros() as usize).is_multiple_of(2);
        story(Spec { format: ImageFormat::Vhdx, block_mib, sector, place, from_base })?;
    }
    Ok(())
}

#[test]
fn blocks_of_1_mib_are_read_by_others_through_snapshots_and_merges() -> Result<()> {
    stories(512, 1, &[0, 2])?;
    stories(4096, 1, &[1])
}

#[test]
fn blocks_of_2_mib_are_read_by_others_through_snapshots_and_merges() -> Result<()> {
    stories(512, 2, &[0, 1, 2])?;
    stories(4096, 2, &[0])
}

#[test]
fn blocks_of_32_mib_are_read_by_others_through_snapshots_and_merges() -> Result<()> {
    stories(512, 32, &[1])?;
    stories(4096, 32, &[2])
}

#[test]
fn blocks_of_256_mib_are_read_by_others_through_snapshots_and_merges() -> Result<()> {
    stories(512, 256, &[1])?;
    stories(4096, 256, &[2])
}

#[test]
fn vhds_are_read_by_others_through_snapshots_and_merges() -> Result<()> {
    for (block_mib, place, from_base) in [(2, 0, true), (2, 1, false), (2, 2, true), (1, 0, false)] {
        story(Spec { format: ImageFormat::Vhd, block_mib, sector: 512, place, from_base })?;
    }
    Ok(())
}
