//! What the journal says about the switch that ends a merge: enough to complete it without anything else.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DiskId, ImageId};
use crate::disk::ImageFormat;

/// An image file, as a journal names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRef {
    /// Where it is: relative to the machine's folder, or absolute.
    pub file: PathBuf,
    /// Its format.
    pub format: ImageFormat,
}

/// The files of a switch: X1..Xk become the one file `kept`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchFiles {
    /// X1..Xk, bottom to top.
    pub run: Vec<FileRef>,
    /// Index of the target in `run`.
    pub target: usize,
    /// The name that stays: the top's (the target is renamed over it) or the target's own.
    pub kept: PathBuf,
    /// What the merged image reads through to, and its data-write identifier; `None` makes it a base.
    pub parent: Option<(PathBuf, Uuid)>,
    /// The top's data-write identifier, which the target takes over.
    pub data_write_id: Uuid,
    /// Children of the top that must be linked to another name.
    pub children: Vec<FileRef>,
}

/// The switch of one disk's run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchRecord {
    /// The disk.
    pub disk: DiskId,
    /// X1..Xk, bottom to top. The last one's identifier and record stay, with the target's file.
    pub run: Vec<ImageId>,
    /// The files.
    pub files: SwitchFiles,
}
