//! Why a folder can't be repaired.

use std::io;
use std::path::{Path, PathBuf};

use crate::diagnose::DiagnoseError;
use crate::disk::DiskError;

/// A result of this room.
pub type Result<T, E = RepairError> = std::result::Result<T, E>;

/// Why a folder can't be repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A rule forbids it; nothing was touched.
    #[error("{0}")]
    Refused(String),
    /// What was kept can't be right.
    #[error("{}: offset {offset}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// The folder can't be looked at.
    #[error(transparent)]
    Diagnose(#[from] DiagnoseError),
    /// An image failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The host's file system failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
}

impl RepairError {
    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.into(), source }
    }

    /// Whether it was refused by a rule, as against failed.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}
