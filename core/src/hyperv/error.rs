//! What can be wrong with a configuration: the file, the place in it, the field.

use std::io;
use std::path::{Path, PathBuf};

/// A result about a configuration.
pub type Result<T, E = HyperVError> = std::result::Result<T, E>;

/// What is wrong in a file's bytes, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// First byte of what is wrong.
    pub offset: u64,
    /// The field, or the name of the value.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Flaw {
    /// What is wrong at a place.
    pub fn new(offset: usize, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { offset: offset as u64, field: field.into(), problem: problem.into() }
    }
}

/// What is wrong with a configuration's file.
#[derive(Debug, thiserror::Error)]
pub enum HyperVError {
    /// The host's file system failed.
    #[error("{}: {operation}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// The host's error.
        source: io::Error,
    },
    /// The file says something that can't be.
    #[error("{}, at byte {offset}: {field} {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// First byte of what is wrong.
        offset: u64,
        /// The field, or the name of the value.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl HyperVError {
    /// What is wrong in the bytes of this file.
    pub(super) fn of(path: &Path, flaw: Flaw) -> Self {
        let Flaw { offset, field, problem } = flaw;
        Self::Invalid { path: path.into(), offset, field, problem }
    }
}
