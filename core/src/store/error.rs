//! What can go wrong with a machine's folder: a kind and the file.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{DiskError, is_full};
use crate::snapshot::WhyNot;

/// A result about a machine's folder.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// What kind of thing went wrong.
#[derive(Debug, thiserror::Error)]
pub enum StoreErrorKind {
    /// The host's file system failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done, such as "publish the manifest".
        operation: &'static str,
        /// The host's error.
        source: io::Error,
    },
    /// Another process owns the machine.
    #[error("the machine is in use by another process")]
    InUse,
    /// A file says something that can't be.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field, or the line and column.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A rule forbids it; nothing was touched.
    #[error("{0}")]
    Rule(WhyNot),
    /// It can't be carried out; nothing was touched.
    #[error("{0}")]
    Refused(String),
    /// The caller cancelled; nothing of it is left.
    #[error("cancelled")]
    Cancelled,
    /// An image is wrong.
    #[error("{0}")]
    Disk(DiskError),
}

/// What is wrong, and where.
#[derive(Debug)]
pub struct StoreError {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong.
    pub kind: Box<StoreErrorKind>,
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.kind {
            StoreErrorKind::Disk(error) => error.fmt(f),
            StoreErrorKind::Rule(why) => why.fmt(f),
            kind => write!(f, "{}: {kind}", self.path.display()),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.kind {
            StoreErrorKind::Io { source, .. } => Some(source),
            StoreErrorKind::Disk(error) => Some(error),
            _ => None,
        }
    }
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        Self { path: error.path.clone(), kind: Box::new(StoreErrorKind::Disk(error)) }
    }
}

impl StoreError {
    /// An error about a file or folder.
    pub fn new(path: &Path, kind: StoreErrorKind) -> Self {
        Self { path: path.into(), kind: Box::new(kind) }
    }

    /// A host's error while doing `operation`; a lock held elsewhere becomes `InUse`.
    pub fn io(path: &Path, operation: &'static str, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::WouldBlock => StoreErrorKind::InUse,
            _ => StoreErrorKind::Io { operation, source },
        };
        Self::new(path, kind)
    }

    /// A file that says something that can't be.
    pub fn invalid(path: &Path, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::new(path, StoreErrorKind::Invalid { field: field.into(), problem: problem.into() })
    }

    /// A refusal before anything was touched.
    pub fn refused(path: &Path, reason: impl Into<String>) -> Self {
        Self::new(path, StoreErrorKind::Refused(reason.into()))
    }

    /// A rule's refusal.
    pub fn rule(path: &Path, why: WhyNot) -> Self {
        Self::new(path, StoreErrorKind::Rule(why))
    }

    /// Whether there was no room on the volume.
    pub fn is_full(&self) -> bool {
        match &*self.kind {
            StoreErrorKind::Io { source, .. } => is_full(source),
            StoreErrorKind::Disk(error) => error.is_full(),
            _ => false,
        }
    }

    /// Whether it was refused before anything was touched (exit status 3), rather than tried and failed.
    pub fn is_refusal(&self) -> bool {
        matches!(*self.kind, StoreErrorKind::Rule(_) | StoreErrorKind::Refused(_) | StoreErrorKind::InUse)
    }
}
