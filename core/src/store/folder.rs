//! A folder of images that isn't ours: looked at in place; nothing is written.

use std::path::Path;

use super::Result;
use crate::host_file::SharedHost;
use crate::snapshot::Machine;

/// What a folder holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FolderView {
    /// One machine for each base image (and each machine of this program); paths are relative to the folder.
    pub machines: Vec<Machine>,
    /// What couldn't be read or doesn't fit together, in words.
    pub problems: Vec<String>,
}

/// Looks at a folder: its images (and those of its subfolders `Virtual Hard Disks` and `Snapshots`) as trees. The identifiers
/// are the same each time for the same files.
#[expect(unused_variables, reason = "to be written")]
pub fn open_folder(host: &SharedHost, path: &Path) -> Result<FolderView> {
    todo!()
}
