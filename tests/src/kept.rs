//! A machine's folder seen from outside, by a test: its manifest, what each of its nodes holds, and
//! whether every byte of them is as the built-in machine wrote it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::clock::SystemClock;
use snaptree_core::engine::{Answer, Command, Engine, EngineOptions, Mode, RequestId};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::snapshot::{DiskId, ImageId, Machine, SnapshotId};
use snaptree_core::store::MachineStore;

/// How much is read at once, and skipped where it is all zeros.
const PIECE: u64 = 64 << 10;

/// A machine's folder.
#[derive(Debug, Clone)]
pub struct MachineFolder(PathBuf);

impl MachineFolder {
    /// The folder of the machine of this name, anywhere below `top`.
    pub fn find(top: &Path, name: &str) -> Option<Self> {
        let mut folders = vec![top.to_path_buf()];
        while let Some(folder) = folders.pop() {
            if folder.file_name().is_some_and(|n| n == name) && folder.join("machine.json").exists() {
                return Some(Self(folder));
            }
            folders.extend(fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()));
        }
        None
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The library that it lies in.
    pub fn library(&self) -> &Path {
        self.0.parent().unwrap_or(&self.0)
    }

    /// What its manifest says now.
    pub fn machine(&self) -> Result<Machine> {
        MachineStore::look(&OsHost::shared(), &self.0).with_context(|| self.0.display().to_string())
    }

    /// A digest of what every disk of every snapshot holds, by label and disk; with `now`, of Now too, as "Now".
    pub fn contents(&self, now: bool) -> Result<BTreeMap<(String, DiskId), String>> {
        let machine = self.machine()?;
        let snapshots = machine.snapshots.values().map(|snapshot| (snapshot.label.clone(), &snapshot.images));
        let nodes = snapshots.chain(now.then(|| ("Now".to_owned(), &machine.now.images)));
        let mut found = BTreeMap::new();
        for (label, images) in nodes {
            for (disk, image) in images {
                let digest = self.content(&machine, *image).with_context(|| format!("{label}, {disk}"))?;
                found.insert((label.clone(), disk.clone()), digest);
            }
        }
        Ok(found)
    }

    /// A digest of what an image shows. Pieces of zeros count as nothing, wherever they come from.
    fn content(&self, machine: &Machine, image: ImageId) -> Result<String> {
        let record = machine.images.get(&image).context("an image that the manifest doesn't have")?;
        let gate = Gate::new([self.0.clone()]);
        let chain = Chain::open(&OsHost::shared(), &self.0.join(&record.file), Access::Look, &gate)?;
        let size = chain.virtual_size().0;
        let mut digest = Sha256::new();
        let mut buf = vec![0; PIECE as usize];
        // Whole pieces that somebody holds data in, each once.
        let mut next = 0;
        for stretch in chain.stretches(0, size)?.into_iter().filter(|stretch| stretch.owner.is_some() && !stretch.zero) {
            let mut offset = next.max(stretch.offset / PIECE * PIECE);
            while offset < stretch.offset + stretch.length {
                let piece = &mut buf[..(size - offset).min(PIECE) as usize];
                chain.read_at(piece, offset)?;
                if piece.iter().any(|&byte| byte != 0) {
                    digest.update(offset.to_le_bytes());
                    digest.update(&*piece);
                }
                offset += PIECE;
            }
            next = offset;
        }
        Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Has the engine read every byte of Now and of every snapshot, and compare it with what was written.
    /// The machine must be off. Returns the number of nodes.
    pub fn verify(&self) -> Result<usize> {
        let machine = self.machine()?;
        let clock = SystemClock::shared();
        let library = self.library().to_path_buf();
        let engine = Engine::start(EngineOptions { host: OsHost::shared(), clock, library, executable: None })?;
        let nodes: Vec<Option<SnapshotId>> = machine.snapshots.keys().copied().map(Some).chain([None]).collect();
        for (number, at) in nodes.iter().enumerate() {
            let label = at.and_then(|id| machine.snapshots.get(&id)).map_or("Now", |snapshot| &snapshot.label);
            let command = Command::Verify { machine: machine.id, at: *at };
            match engine.call(RequestId(number as u64), command, Mode::Do, |_| {}).with_context(|| label.to_owned())? {
                Answer::Verified(report) => {
                    ensure!(report.wrong.is_empty(), "{label}: {}", report.wrong.join("; "));
                    ensure!(report.disk.0 > 0, "{label}: nothing was compared");
                }
                other => bail!("{label}: verifying was answered with {other:?}"),
            }
        }
        Ok(nodes.len())
    }
}
