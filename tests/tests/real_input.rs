//! A machine made of Windows' own images: snapshots, branches, deletions and merges, and everything that is kept
//! reads back byte for byte, here and in other programs.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use snaptree_core::chain::{Chain, Gate, Source, Target, convert};
use snaptree_core::disk::{ImageFormat, ImageType};
use snaptree_core::engine::{Answer, Command, Import, ImportMode};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::merge::merge_files;
use snaptree_core::snapshot::{MachineId, SnapshotId, Tree};
use snaptree_core::testing::{Random, ReferenceDisk};
use snaptree_core::units::ByteCount;
use snaptree_tests::driver::Driver;
use snaptree_tests::witness::{Witness, samples, sha256_of, sha256_of_chain, skip, unpack};

/// A base and its child.
struct Sample {
    parent: &'static str,
    child: &'static str,
    /// How the hashes of their contents begin.
    contents: [&'static str; 2],
}

const VHDX: Sample = Sample {
    parent: "windows10/ntfs-parent.vhdx",
    child: "windows10/ntfs-differential.vhdx",
    contents: ["c5523065bc6ef822", "1ef1fb5360247aa7"],
};
const VHD: Sample = Sample {
    parent: "windows10/ntfs-parent.vhd",
    child: "windows10/ntfs-differential.vhd",
    contents: ["c91d1766dd4b3327", "b7922a46a6b08fa4"],
};

/// What every kept node must read as.
struct Model {
    machine: MachineId,
    snapshots: BTreeMap<SnapshotId, ReferenceDisk>,
    now: ReferenceDisk,
    random: Random,
    witnesses: Vec<Witness>,
    /// Images that were read by qemu-img.
    alone: usize,
}

fn sha256_of_model(model: &ReferenceDisk) -> Result<String> {
    let mut digest = Sha256::new();
    for offset in (0..model.size()).step_by(1 << 20) {
        digest.update(model.read(offset, (model.size() - offset).min(1 << 20)));
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn content_of(chain: &Chain) -> Result<ReferenceDisk> {
    let mut content = ReferenceDisk::new(chain.virtual_size().0, chain.logical_sector_size());
    let mut offset = 0;
    while offset < content.size() {
        let mut bytes = vec![0; (content.size() - offset).min(1 << 20) as usize];
        chain.read_at(&mut bytes, offset)?;
        content.write(&bytes, offset);
        offset += bytes.len() as u64;
    }
    Ok(content)
}

fn only<T>(map: BTreeMap<snaptree_core::snapshot::DiskId, T>) -> T {
    assert_eq!(map.len(), 1, "one disk");
    map.into_values().next().expect("a disk")
}

impl Model {
    fn of(driver: &mut Driver, machine: MachineId) -> Result<Self> {
        let witnesses = [Witness::SevenZip, Witness::QemuImg].into_iter().filter(|witness| witness.is_there()).collect();
        let mut snapshots = BTreeMap::new();
        for id in driver.state(machine).machine.snapshots.keys() {
            snapshots.insert(*id, content_of(&only(driver.chains(machine, Some(*id), Access::Look)))?);
        }
        let now = content_of(&only(driver.chains(machine, None, Access::Look)))?;
        Ok(Self { machine, snapshots, now, random: Random::new(0x57a9), witnesses, alone: 0 })
    }

    /// Every kept node reads as it must, and its leaf so in others.
    fn check(&mut self, driver: &mut Driver, step: &str) -> Result<()> {
        let nodes = driver.nodes(self.machine);
        let kept: Vec<_> = self.snapshots.keys().copied().map(Some).chain([None]).collect();
        ensure!(nodes == kept, "{step}: the nodes are {nodes:?}, must be {kept:?}");
        for node in nodes {
            let model = node.map_or(&self.now, |id| &self.snapshots[&id]);
            let what = format!("{step}, {node:?}");
            let chain = only(driver.chains(self.machine, node, Access::Look));
            ensure!(chain.virtual_size().0 == model.size(), "{what}: its size");
            model.assert_same(&what, |buf, offset| chain.read_at(buf, offset).unwrap());
            let expected = sha256_of_model(model)?;
            ensure!(sha256_of_chain(&chain)? == expected, "{what}: its hash");
            drop(chain);
            let files = only(driver.files(self.machine, node));
            for witness in &self.witnesses {
                if *witness == Witness::QemuImg {
                    if files.len() > 1 {
                        continue;
                    }
                    self.alone += 1;
                }
                let theirs = witness.sha256(&files).with_context(|| format!("{witness:?} reads {what}"))?;
                ensure!(theirs == expected, "{witness:?} reads {what} otherwise: {files:?}");
            }
        }
        Ok(())
    }

    /// Writes to Now's leaf, and to the model.
    fn write(&mut self, driver: &mut Driver) -> Result<()> {
        let chain = only(driver.chains(self.machine, None, Access::Write));
        let sector = u64::from(chain.logical_sector_size());
        let sectors = self.now.size() / sector;
        for round in 0..24 {
            // Near one of a few places, so that layers overlap; now and then a long stretch.
            let first = (self.random.below(4) * (sectors / 4) + self.random.below(300)).min(sectors - 1);
            let most = if round % 8 == 0 { 3000 } else { 40 };
            let length = (1 + self.random.below(most)).min(sectors - first) * sector;
            if round % 5 == 4 {
                chain.write_zeroes(first * sector, length)?;
                self.now.zero(first * sector, length);
            } else {
                let bytes = self.random.bytes(length as usize);
                chain.write_at(&bytes, first * sector)?;
                self.now.write(&bytes, first * sector);
            }
        }
        chain.flush()?;
        Ok(())
    }

    fn take(&mut self, driver: &mut Driver, label: &str) -> SnapshotId {
        let (id, _) = driver.take(self.machine, label, false);
        self.snapshots.insert(id, self.now.clone());
        id
    }

    fn apply(&mut self, driver: &mut Driver, snapshot: SnapshotId) {
        driver.done(Command::Apply { machine: self.machine, snapshot, safety: None });
        self.now = self.snapshots[&snapshot].clone();
    }

    fn delete(&mut self, driver: &mut Driver, snapshots: &[SnapshotId]) -> Vec<(SnapshotId, ReferenceDisk)> {
        driver.delete(self.machine, snapshots);
        snapshots.iter().map(|id| (*id, self.snapshots.remove(id).expect("a kept node"))).collect()
    }
}

/// Files that nobody may change.
struct Originals {
    files: Vec<PathBuf>,
    before: Vec<String>,
}

/// The originals in a folder of their own, and the machine made of them.
fn import(
    driver: &mut Driver,
    (samples, sample): (&Path, &Sample),
    path: impl Fn(&Path, &Path) -> PathBuf,
) -> Result<(MachineId, Originals)> {
    let folder = driver.folder().join("originals");
    std::fs::create_dir(&folder)?;
    let parent = unpack(samples, sample.parent, &folder)?;
    let child = unpack(samples, sample.child, &folder)?;
    let files = vec![parent, child.clone()];
    let originals = Originals { before: hashes(&files)?, files };
    let import =
        Command::Import(Import { path: path(&folder, &child), name: "windows".into(), mode: ImportMode::Copy, computer: None });
    match driver.done(import) {
        Answer::Created(machine) => Ok((machine, originals)),
        other => panic!("{other:?}"),
    }
}

fn hashes(files: &[PathBuf]) -> Result<Vec<String>> {
    files.iter().map(|file| sha256_of(File::open(file)?)).collect()
}

/// Imports, takes three, applies the first, branches, deletes, merges; checks after every step.
fn story(samples: &Path, sample: &Sample, undelete_first: bool, whole_folder: bool) -> Result<()> {
    let mut driver = Driver::new();
    let (machine, originals) =
        import(&mut driver, (samples, sample), |folder, child| if whole_folder { folder.into() } else { child.into() })?;
    let mut model = Model::of(&mut driver, machine)?;
    let base = driver.labelled(machine, "ntfs-parent");
    for (content, expected) in [(&model.snapshots[&base], sample.contents[0]), (&model.now, sample.contents[1])] {
        let hash = sha256_of_model(content)?;
        ensure!(hash.starts_with(expected), "{hash}, must be {expected}");
    }
    model.check(&mut driver, "imported")?;

    let mut taken = Vec::new();
    for label in ["first", "second", "third"] {
        model.write(&mut driver)?;
        model.check(&mut driver, &format!("written before {label}"))?;
        taken.push(model.take(&mut driver, label));
        model.check(&mut driver, label)?;
    }
    let [first, second, third] = taken[..] else { panic!("three snapshots") };
    model.write(&mut driver)?;
    model.apply(&mut driver, first);
    model.check(&mut driver, "first was applied")?;
    model.write(&mut driver)?;
    let branch = model.take(&mut driver, "branch");
    model.write(&mut driver)?;
    model.check(&mut driver, "branched")?;

    let mut deleted = model.delete(&mut driver, &[base, second, branch]);
    model.check(&mut driver, "the middle ones were deleted")?;
    if undelete_first {
        // Back as they were, each with all that was deleted with it.
        driver.done(Command::Undelete { machine, snapshot: second });
        model.snapshots.extend(deleted);
        model.check(&mut driver, "undeleted")?;
        driver = driver.reopen();
        driver.pass(std::time::Duration::from_millis(20));
        model.check(&mut driver, "undeleted, and opened again")?;
        deleted = model.delete(&mut driver, &[branch]);
        deleted.extend(model.delete(&mut driver, &[second]));
        deleted.extend(model.delete(&mut driver, &[base]));
        model.check(&mut driver, "deleted again, one by one")?;
    }
    ensure!(deleted.len() == 3);
    ensure!(Tree::of(&driver.state(machine).machine).runs().len() == 3, "three merges are due");
    let alone = model.alone;
    driver.merge(machine);
    model.check(&mut driver, "merged")?;
    ensure!(Tree::of(&driver.state(machine).machine).runs().is_empty() && driver.state(machine).machine.ghosts.is_empty());
    ensure!(only(driver.files(machine, Some(first))).len() == 1, "the first is an image without a parent now");
    if model.witnesses.contains(&Witness::QemuImg) {
        ensure!(model.alone > alone, "qemu-img has read the merged image");
    }

    // Go on: writes, and what is left becomes one image.
    model.write(&mut driver)?;
    model.check(&mut driver, "written after the merge")?;
    driver = driver.reopen();
    driver.pass(std::time::Duration::from_millis(20));
    model.delete(&mut driver, &[first, third]);
    model.check(&mut driver, "only Now is left")?;
    driver.merge(machine);
    model.check(&mut driver, "one image is left")?;
    let state = driver.state(machine);
    ensure!(state.machine.images.len() == 1 && state.machine.trash.is_empty());
    ensure!(state.machine.configuration.disks[0].size == ByteCount(model.now.size()));
    ensure!(hashes(&originals.files)? == originals.before, "the originals are as they were");
    Ok(())
}

fn with_samples(test: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    match samples() {
        Some(samples) => test(&samples),
        None => {
            skip("there are no sample images");
            Ok(())
        }
    }
}

#[test]
fn windows_images_live_through_a_whole_tree() -> Result<()> {
    with_samples(|samples| story(samples, &VHDX, false, false))
}

#[test]
fn what_was_deleted_of_windows_images_comes_back_and_merges_later() -> Result<()> {
    with_samples(|samples| story(samples, &VHDX, true, true))
}

#[test]
fn windows_vhds_live_through_a_whole_tree() -> Result<()> {
    with_samples(|samples| {
        story(samples, &VHD, false, false)?;
        story(samples, &VHD, true, true)
    })
}

/// blktap's chain of three, merged into each of the lower ones, and written to one file: everybody reads what its
/// topmost image showed.
#[test]
fn a_chain_of_blktap_is_merged_and_written_to_one_file() -> Result<()> {
    const CONTENT: &str = "da27984d447565ef185d2055e8c9de7dc6f1415bdc9b6fdfb51296714c78eafe";
    with_samples(|samples| {
        let host = OsHost::shared();
        for into in ["l0.vhd", "l1.vhd"] {
            let folder = tempfile::tempdir()?;
            let [base, middle, top] = ["l0.vhd", "l1.vhd", "l2.vhd"]
                .map(|name| unpack(samples, &format!("vhdutil-chain3/{name}"), folder.path()))
                .map(|path| path.expect("a sample"));
            let gate = Gate::around(&top);
            let flat = folder.path().join("flat.vhd");
            let source = Source::Chain(Box::new(Chain::open(&host, &top, Access::Read, &gate)?));
            let target = Target::Image { format: ImageFormat::Vhd, kind: ImageType::Dynamic, block_size: None };
            convert(&host, &source, &flat, target, &mut |_| true)?.context("not ended")?;
            drop(source);
            let target = folder.path().join(into);
            merge_files(&host, &top, Some(&target), &gate, &mut |_| true)?.context("not ended")?;
            ensure!(!top.exists() && (target == middle) == middle.exists(), "what is left");
            let chain = if target == base { vec![base] } else { vec![target, base] };
            for files in [chain, vec![flat]] {
                let ours = sha256_of_chain(&Chain::open(&host, &files[0], Access::Look, &gate)?)?;
                ensure!(ours == CONTENT, "{files:?}: {ours}");
                for witness in [Witness::SevenZip, Witness::QemuImg].into_iter().filter(|witness| witness.is_there()) {
                    // Nobody but 7-Zip reads a chain of VHDs right.
                    if witness == Witness::SevenZip || files.len() == 1 {
                        ensure!(witness.sha256(&files)? == CONTENT, "{witness:?} reads {files:?} otherwise");
                    }
                }
            }
        }
        Ok(())
    })
}
