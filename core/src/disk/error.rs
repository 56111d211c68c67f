//! What can be wrong with an image: a kind, the file, the offset, the field.

use std::io;
use std::path::{Path, PathBuf};

/// A result about an image.
pub type Result<T, E = DiskError> = std::result::Result<T, E>;

/// What kind of thing went wrong.
#[derive(Debug, thiserror::Error)]
pub enum DiskErrorKind {
    /// The host's file system failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done, such as "read the BAT".
        operation: &'static str,
        /// The host's error.
        source: io::Error,
    },
    /// Somebody else has the file open.
    #[error("it is in use by another process")]
    InUse,
    /// A field has a value that the format doesn't allow.
    #[error("{field} {problem}")]
    Invalid {
        /// The field, in the specification's words.
        field: &'static str,
        /// What is wrong with it, such as "is 3, must be 1".
        problem: String,
    },
    /// The file is right, but needs something that this program doesn't have.
    #[error("{0}")]
    Unsupported(String),
    /// The caller asked for something that can't be, such as a range past the end.
    #[error("{0}")]
    Refused(String),
    /// The parent isn't where the child says.
    #[error("its parent {name} (identifier {linkage}) was not found")]
    ParentMissing {
        /// The parent's path as the child has it.
        name: String,
        /// The identifier that the child expects.
        linkage: uuid::Uuid,
    },
    /// The parent is there, but its content was changed since the child was made.
    #[error("its parent {} has identifier {found}, but {expected} is expected: the parent was changed under its child", parent.display())]
    ParentChanged {
        /// The parent's path.
        parent: PathBuf,
        /// The identifier that the child expects.
        expected: uuid::Uuid,
        /// The identifier that the parent has.
        found: uuid::Uuid,
    },
    /// The path of a parent leads out of the folders that were opened.
    #[error("its parent {} lies outside the folders that were opened: open one with both in it", .0.display())]
    OutsideGate(PathBuf),
}

/// Whether a host's error says that there is no room: on the volume, or for this user.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What is wrong, and where.
#[derive(Debug)]
pub struct DiskError {
    /// The image's file.
    pub path: PathBuf,
    /// Where in the file, if it is about a place.
    pub offset: Option<u64>,
    /// What is wrong.
    pub kind: Box<DiskErrorKind>,
}

impl std::fmt::Display for DiskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, ", at byte {offset}")?;
        }
        write!(f, ": {}", self.kind)
    }
}

impl std::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.kind {
            DiskErrorKind::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl DiskError {
    /// An error about the whole file.
    pub fn new(path: &Path, kind: DiskErrorKind) -> Self {
        Self { path: path.into(), offset: None, kind: Box::new(kind) }
    }

    /// An error at a place in the file.
    pub fn at(path: &Path, offset: u64, kind: DiskErrorKind) -> Self {
        Self { path: path.into(), offset: Some(offset), kind: Box::new(kind) }
    }

    /// A host's error while doing `operation`; a lock held elsewhere becomes `InUse`.
    pub fn io(path: &Path, operation: &'static str, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::WouldBlock => DiskErrorKind::InUse,
            _ => DiskErrorKind::Io { operation, source },
        };
        Self::new(path, kind)
    }

    /// Whether there was no room on the volume: what was to be written can be written again when there is.
    pub fn is_full(&self) -> bool {
        matches!(&*self.kind, DiskErrorKind::Io { source, .. } if is_full(source))
    }

    /// A field that the format doesn't allow.
    pub fn invalid(path: &Path, offset: u64, field: &'static str, problem: impl Into<String>) -> Self {
        Self::at(path, offset, DiskErrorKind::Invalid { field, problem: problem.into() })
    }

    /// A refusal of what the caller asked for.
    pub fn refused(path: &Path, reason: impl Into<String>) -> Self {
        Self::new(path, DiskErrorKind::Refused(reason.into()))
    }
}
