//! What is known of a machine's files: looked at a few images at a time, so that a library of
//! ten thousand images never holds up a request, and counted into a census per disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::chain::Gate;
use crate::cost::{Census, CensusImage, FileFacts, Layout, census_of};
use crate::disk::{self, DiskError, DiskErrorKind, Image, ImageInfo};
use crate::host_file::{Access, SharedHost};
use crate::snapshot::{DiskId, ImageId, ImageRecord, Machine};
use crate::units::ByteCount;

/// Images that this process has open; they are asked instead of their files.
pub(super) type OpenImages = BTreeMap<ImageId, Arc<dyn Image>>;

/// What an image's layout was counted from. While it stays the same, so does the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    info: ImageInfo,
    file_size: ByteCount,
    held: ByteCount,
}

/// What is known of a machine's files.
#[derive(Debug, Default)]
pub(super) struct Sight {
    pub files: BTreeMap<ImageId, FileFacts>,
    pub census: BTreeMap<DiskId, Arc<Census>>,
    layouts: BTreeMap<ImageId, (Version, Layout)>,
    to_look_at: BTreeSet<ImageId>,
    to_count: BTreeSet<DiskId>,
}

impl Sight {
    /// Everything is to be looked at again; what is known stays until then.
    pub fn look_again(&mut self, machine: &Machine) {
        self.files.retain(|id, _| machine.images.contains_key(id));
        self.layouts.retain(|id, _| machine.images.contains_key(id));
        self.to_look_at = machine.images.keys().copied().collect();
        self.to_count = machine.configuration.disks.iter().map(|disk| disk.id.clone()).collect();
        // A census that knows all the images still serves; the others would name images that are gone.
        self.census.retain(|disk, census| {
            let images: BTreeSet<_> = machine.images.iter().filter(|(_, r)| r.disk == *disk).map(|(id, _)| *id).collect();
            images == census.images.iter().copied().collect()
        });
    }

    /// Only these images are to be looked at again (a running machine's leaves).
    pub fn look_again_at(&mut self, machine: &Machine, images: impl IntoIterator<Item = ImageId>) {
        for id in images {
            if let Some(record) = machine.images.get(&id) {
                self.to_count.insert(record.disk.clone());
                self.to_look_at.insert(id);
            }
        }
    }

    /// An image's layout may have changed without its file's looks telling (after a merge).
    pub fn forget_layouts(&mut self) {
        self.layouts.clear();
    }

    /// Whether something is left to look at or to count.
    pub fn is_behind(&self) -> bool {
        !self.to_look_at.is_empty() || !self.to_count.is_empty()
    }

    /// Looks at one image, or counts one disk. Returns whether a disk has been counted, which is worth publishing.
    pub fn advance(&mut self, host: &SharedHost, folder: &Path, machine: &Machine, open: &OpenImages) -> bool {
        if let Some(id) = self.to_look_at.pop_first() {
            if let Some(record) = machine.images.get(&id)
                && let Err(error) = self.look_at(host, folder, id, record, open)
            {
                self.layouts.remove(&id);
                self.files.insert(id, unreadable(host, folder, record, &error));
            }
            return false;
        }
        let Some(disk) = self.to_count.pop_first() else { return false };
        let of_disk = machine.images.iter().filter(|(_, record)| record.disk == disk);
        let counted: Option<Vec<_>> = of_disk
            .map(|(id, record)| {
                let (_, layout) = self.layouts.get(id)?;
                Some(CensusImage { id: *id, parent: record.parent, layout })
            })
            .collect();
        // With an image that can't be read there is no count; the problem is told with the file.
        if let Some(images) = counted {
            self.census.insert(disk, Arc::new(census_of(&images)));
        } else {
            self.census.remove(&disk);
        }
        true
    }

    fn look_at(
        &mut self,
        host: &SharedHost,
        folder: &Path,
        id: ImageId,
        record: &ImageRecord,
        open: &OpenImages,
    ) -> disk::Result<()> {
        let path = folder.join(&record.file);
        let image = match open.get(&id) {
            Some(image) => image.clone(),
            // A folder that is only looked at may be a stranger's, and hold links that lead anywhere.
            None if host.exists(&path) && !Gate::new([folder.to_owned()]).admits(&**host, &path) => {
                return Err(DiskError::new(&path, DiskErrorKind::OutsideGate(path.clone())));
            }
            None => disk::open(host, &path, record.format, Access::Look)?,
        };
        let info = image.info();
        let held = image.held_bytes()?;
        let file = host.open(&path, Access::Look).map_err(|error| DiskError::io(&path, "open", error))?;
        let file_size = ByteCount(file.len().map_err(|error| DiskError::io(&path, "ask the length", error))?);
        self.files.insert(
            id,
            FileFacts {
                kind: info.kind,
                virtual_size: info.virtual_size,
                block_size: info.block_size,
                file_size,
                held,
                problem: None,
            },
        );
        let version = Version { info, file_size, held };
        let known = self.layouts.get(&id).is_some_and(|(known, _)| *known == version);
        if open.contains_key(&id) || !known {
            let size = version.info.virtual_size.0;
            let layout = Layout::new(size, image.extents(0, size)?);
            self.layouts.insert(id, (version, layout));
        }
        Ok(())
    }
}

fn unreadable(host: &SharedHost, folder: &Path, record: &ImageRecord, error: &DiskError) -> FileFacts {
    let path = folder.join(&record.file);
    let inside = Gate::new([folder.to_owned()]).admits(&**host, &path);
    let file = if inside { host.open(&path, Access::Look) } else { Err(std::io::ErrorKind::NotFound.into()) };
    let file_size = file.as_ref().ok().and_then(|file| file.len().ok()).unwrap_or_default();
    let held = file.ok().and_then(|file| file.held_bytes().ok()).unwrap_or_default();
    FileFacts {
        kind: if record.parent.is_some() { disk::ImageType::Differencing } else { disk::ImageType::Dynamic },
        virtual_size: ByteCount::ZERO,
        block_size: ByteCount::ZERO,
        file_size: ByteCount(file_size),
        held,
        problem: Some(error.to_string()),
    }
}
