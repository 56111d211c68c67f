//! What the pure functions are told about a machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Calibration, Census, MergeLoad};
use crate::disk::ImageType;
use crate::snapshot::{DiskId, ImageId, Machine};
use crate::units::{ByteCount, ByteRate};

/// What is known of one image file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Fixed, dynamic or differencing.
    pub kind: ImageType,
    /// Size of the disk that it shows.
    pub virtual_size: ByteCount,
    /// Unit of allocation.
    pub block_size: ByteCount,
    /// Length of the file.
    pub file_size: ByteCount,
    /// Bytes that it takes on the volume.
    pub held: ByteCount,
    /// What is wrong with it, in words.
    pub problem: Option<String>,
}

/// The volume that a machine stands on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeState {
    /// Names it.
    pub id: String,
    /// Free bytes for this user.
    pub free: ByteCount,
    /// Whether space inside a file can be given back.
    pub punches_holes: bool,
}

/// All that the costs of a machine follow from.
#[derive(Debug, Clone, Copy)]
pub struct MachineFacts<'a> {
    /// The manifest.
    pub machine: &'a Machine,
    /// Facts per image.
    pub files: &'a BTreeMap<ImageId, FileFacts>,
    /// Per disk, which images hold how much of it. A disk that is still being counted is missing.
    pub census: &'a BTreeMap<DiskId, Arc<Census>>,
    /// What finished merges have taught on this volume.
    pub calibration: &'a Calibration,
    /// The volume.
    pub volume: &'a VolumeState,
    /// Whether the machine runs: then it writes to the leaves of Now.
    pub running: bool,
    /// What its guest writes in a second, where it runs and that is known.
    pub guest: Option<ByteRate>,
}

impl MachineFacts<'_> {
    /// Whether the running machine writes to an image.
    pub fn is_written(&self, image: ImageId) -> bool {
        self.running && self.machine.now.images.values().any(|leaf| *leaf == image)
    }

    /// Whether an image of a run may be the target, by its place in it. While the machine writes to the top, no
    /// other image than the base can become one without a parent.
    pub fn may_be_target(&self, run: &[ImageId], place: usize) -> bool {
        let top_is_written = run.last().is_some_and(|top| self.is_written(*top));
        let on_base = run.first().and_then(|first| self.machine.images.get(first)).is_some_and(|first| first.parent.is_none());
        place == 0 || !top_is_written || !on_base
    }

    /// What a merge of it has to share the volume with.
    pub fn load(&self) -> MergeLoad {
        if self.running { MergeLoad::Live(self.guest) } else { MergeLoad::Stopped }
    }

    /// Bytes that an image's file takes on the volume.
    pub fn held(&self, image: ImageId) -> ByteCount {
        self.files.get(&image).map_or(ByteCount::ZERO, |f| f.held)
    }

    /// Size of a disk of Now's configuration.
    pub(super) fn disk_size(&self, disk: &DiskId) -> ByteCount {
        let disks = &self.machine.configuration.disks;
        disks.iter().find(|d| d.id == *disk).map_or(ByteCount::ZERO, |d| d.size)
    }
}
