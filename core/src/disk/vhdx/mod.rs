//! VHDX images ([MS-VHDX]).

use std::path::Path;
use std::sync::Arc;

use super::{CreateOptions, Image, Result};
use crate::host_file::{Access, SharedHost};
use crate::units::ByteCount;

/// Opens a VHDX file. A log that isn't empty is replayed: into the file when it is opened for
/// writing, in memory otherwise.
pub fn open(_host: &SharedHost, _path: &Path, _access: Access) -> Result<Arc<dyn Image>> {
    todo!()
}

/// Creates a fixed or dynamic VHDX file.
pub fn create(_host: &SharedHost, _path: &Path, _options: &CreateOptions) -> Result<Arc<dyn Image>> {
    todo!()
}

/// Creates a differencing VHDX file.
pub fn create_child(
    _host: &SharedHost,
    _path: &Path,
    _parent: &dyn Image,
    _block_size: Option<ByteCount>,
) -> Result<Arc<dyn Image>> {
    todo!()
}

/// Whether the file starts as a VHDX file does.
pub fn probe(_host: &SharedHost, _path: &Path) -> Result<()> {
    todo!()
}
