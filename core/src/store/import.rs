//! Images of others become a machine of ours.

use std::io;
use std::path::{Path, PathBuf};

use super::foreign::{Naming, Source, chain_error, family, machine_of, newest_leaf, sources};
use super::library::NewFolder;
use super::machine_store::DISKS;
use super::operations::child_file;
use super::{Library, MachineStore, Result, StoreError, StoreErrorKind};
use crate::chain::{Folder, ParentState};
use crate::disk::{self, ParentTarget};
use crate::host_file::{Access, SharedHost};
use crate::snapshot::{Computer, DiskId, ImageId, MachineId, MachineKind};
use crate::units::ByteCount;

/// What to bring in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRequest {
    /// A leaf, or a folder with the images of one disk.
    pub path: PathBuf,
    /// The machine's name.
    pub name: String,
    /// Whether the originals are removed once the machine is complete.
    pub remove_originals: bool,
    /// What QEMU shall run it with; otherwise it is known by its disks.
    pub computer: Option<Computer>,
}

/// What an import reports, and asks.
pub trait ImportControl {
    /// Bytes copied so far, of all; `false` cancels.
    fn progress(&mut self, done: ByteCount, total: ByteCount) -> bool;
}

impl<F: FnMut(ByteCount, ByteCount) -> bool> ImportControl for F {
    fn progress(&mut self, done: ByteCount, total: ByteCount) -> bool {
        self(done, total)
    }
}

const CHUNK: usize = 1 << 20;

impl Library {
    /// Brings images of others in as a machine; it is returned locked. The originals are only read; with
    /// `remove_originals` they are removed once the machine is complete, children before their parents. Where that is
    /// cut off, what is left of them stays.
    pub fn import(&self, request: &ImportRequest, control: &mut dyn ImportControl) -> Result<MachineStore> {
        let host = &self.host;
        let Found { sources, now, originals, total } = self.look(request)?;
        let disk_id = DiskId("disk0".into());
        let places: Vec<(ImageId, PathBuf)> = sources
            .iter()
            .map(|source| {
                let (id, format) = (ImageId::new(), source.info.format);
                match source.parent {
                    None => (id, Path::new(DISKS).join(format!("{disk_id}.{}", format.extension()))),
                    Some(_) => (id, child_file(&disk_id, id, format)),
                }
            })
            .collect();
        let naming = Naming { id: MachineId::new(), name: request.name.clone(), created: self.clock.now() };
        let mut machine = machine_of(naming, &sources, &places, now)?;
        if let Some(Computer { memory, hardware }) = &request.computer {
            machine.kind = MachineKind::Qemu;
            (machine.configuration.memory, machine.configuration.hardware) = (*memory, Some(hardware.clone()));
        }
        let folder = NewFolder::begin(self, machine)?;
        let copied = copy_all(&folder, &sources, &places, &originals, total, control);
        let mut store = folder.finish(copied)?;
        drop(originals);
        if request.remove_originals {
            for source in sources.iter().rev() {
                if let Err(error) = remove_original(host, &source.path) {
                    let left = format!(
                        "The original {} couldn't be removed, so it and its parents stay: {error}.",
                        source.path.display()
                    );
                    store.recovered.0.push(left);
                    break;
                }
            }
        }
        Ok(store)
    }

    /// Whether that can be brought in; nothing is begun.
    ///
    /// # Errors
    /// As [`Library::import`].
    pub fn check_import(&self, request: &ImportRequest) -> Result<()> {
        self.look(request).map(drop)
    }

    fn look(&self, request: &ImportRequest) -> Result<Found> {
        self.check_name(&request.name)?;
        let (sources, now) = self.find_sources(&request.path)?;
        let host = &self.host;
        let mut originals = Vec::new();
        for source in &sources {
            let file = host.open(&source.path, Access::Read).map_err(|error| StoreError::io(&source.path, "open it", error))?;
            let len = file.len().map_err(|error| StoreError::io(&source.path, "ask its length", error))?;
            originals.push((file, len));
        }
        let total = ByteCount(originals.iter().map(|(_, len)| len).sum());
        let free = host.free_bytes(self.folder()).unwrap_or(ByteCount(u64::MAX));
        if free < total + ByteCount::mib(16) {
            let reason = format!("{total} are to be copied and {free} are free: free some space first");
            return Err(StoreError::refused(self.folder(), reason));
        }
        Ok(Found { sources, now, originals, total })
    }

    /// The images to bring in, parents first, and the index of the one that becomes Now.
    fn find_sources(&self, path: &Path) -> Result<(Vec<Source>, usize)> {
        let host = &self.host;
        let wrong = |error| StoreError::io(path, "find it", error);
        let path = host.canonical(path).map_err(wrong)?;
        let is_dir = host.list(&path).is_ok();
        let above = || path.parent().map(Path::to_owned).unwrap_or_default();
        let folder = Folder::scan(host, &if is_dir { path.clone() } else { above() })?;
        if is_dir {
            if let Some((file, problem)) = folder.unreadable.first() {
                return Err(StoreError::refused(
                    file,
                    format!("{problem}. Name one image instead of the folder to leave it out"),
                ));
            }
            if let Some(error) = (0..folder.images.len()).find_map(|index| chain_error(&folder, index)) {
                return Err(error.into());
            }
            let mut bases = (0..folder.images.len()).filter(|index| folder.images[*index].parent == ParentState::Base);
            let (first, second) = (bases.next(), bases.next());
            let Some(base) = first else { return Err(StoreError::refused(&path, "there is no image in this folder")) };
            if let Some(second) = second {
                let names = [base, second].map(|index| folder.images[index].path.display().to_string());
                return Err(StoreError::refused(
                    &path,
                    format!("it holds several disks ({}): name one image instead", names.join(", ")),
                ));
            }
            let family = family(host, &folder, base);
            let now = newest_leaf(&family).unwrap_or(0);
            return Ok((family, now));
        }
        if let Some((file, problem)) = folder.unreadable.iter().find(|(file, _)| *file == path) {
            return Err(StoreError::refused(file, problem.clone()));
        }
        let Some(leaf) = folder.images.iter().position(|image| image.path == path) else {
            return Err(StoreError::refused(&path, "it isn't a .vhdx, .avhdx, .vhd or .avhd image"));
        };
        if let Some(error) = chain_error(&folder, leaf) {
            return Err(error.into());
        }
        let chain = sources(host, &folder, folder.chain_of(leaf).unwrap_or_default().into_iter());
        let now = chain.len() - 1;
        Ok((chain, now))
    }
}

/// What would be brought in.
struct Found {
    /// Parents first.
    sources: Vec<Source>,
    /// Which becomes Now.
    now: usize,
    /// The files, open.
    originals: Vec<Original>,
    total: ByteCount,
}

type Original = (std::sync::Arc<dyn crate::host_file::HostFile>, u64);

/// Copies every image, and links the copies to each other.
fn copy_all(
    folder: &NewFolder,
    sources: &[Source],
    places: &[(ImageId, PathBuf)],
    originals: &[Original],
    total: ByteCount,
    control: &mut dyn ImportControl,
) -> Result<()> {
    let mut done = ByteCount::ZERO;
    let host = &folder.store.host;
    for (index, source) in sources.iter().enumerate() {
        let to = folder.store.path(&places[index].1);
        let step = &mut |bytes| {
            done += ByteCount(bytes);
            control.progress(done, total)
        };
        copy(host, &originals[index], &to, step)?;
        for (side, to) in disk::side_files(&source.path).into_iter().zip(disk::side_files(&to)) {
            if host.exists(&side) {
                let file = host.open(&side, Access::Look).map_err(|error| StoreError::io(&side, "open it", error))?;
                let len = file.len().map_err(|error| StoreError::io(&side, "ask its length", error))?;
                copy(host, &(file, len), &to, &mut |_| true)?;
            }
        }
        if let Some(dir) = to.parent() {
            host.flush_dir(dir).map_err(|error| StoreError::io(dir, "flush the folder", error))?;
        }
        let format = source.info.format;
        let image = disk::open(host, &to, format, Access::Write)?;
        if let Some(parent) = source.parent {
            let path = folder.store.path(&places[parent].1);
            let data_write_id = disk::open(host, &path, sources[parent].info.format, Access::Look)?.info().data_write_id;
            image.set_parent(&ParentTarget { path, data_write_id })?;
        }
        image.freeze()?;
    }
    Ok(())
}

/// Removes an image with what stands beside it, durably: what is left of a chain is whole, whenever power is lost.
fn remove_original(host: &SharedHost, path: &Path) -> io::Result<()> {
    // An image without its side file may lack what was written last.
    for file in [path].into_iter().chain(disk::side_files(path).iter().map(|file| &**file)).filter(|file| host.exists(file)) {
        host.remove_file(file)?;
    }
    host.flush_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Copies a file durably; stretches of zeros stay holes.
fn copy(host: &SharedHost, (from, len): &Original, to: &Path, step: &mut dyn FnMut(u64) -> bool) -> Result<()> {
    let read = |error| StoreError::io(from.path(), "read it", error);
    let write = |error| StoreError::io(to, "write the copy", error);
    let file = host.create_new(to).map_err(write)?;
    file.set_len(*len).map_err(write)?;
    let mut buf = vec![0; CHUNK];
    let mut offset = 0;
    while offset < *len {
        let part = &mut buf[..usize::try_from(len - offset).unwrap_or(CHUNK).min(CHUNK)];
        from.read_exact_at(part, offset).map_err(read)?;
        if part.iter().any(|byte| *byte != 0) {
            file.write_all_at(part, offset).map_err(write)?;
        }
        offset += part.len() as u64;
        if !step(part.len() as u64) {
            return Err(StoreError::new(to, StoreErrorKind::Cancelled));
        }
    }
    file.flush().map_err(write)
}
