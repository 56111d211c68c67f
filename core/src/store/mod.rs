//! The library on disk, and one machine's folder: manifest, journal, lock, recovery, trash.
//!
//! ```text
//! Library ── scan / find / create / import / remove
//!    └─> MachineStore::look   no lock, nothing written
//!        MachineStore::open   takes the lock, completes or undoes what the journal says
//!            └─ operation = check ─> journal ─> new files ─> manifest (commit) ─> moves, removals ─> journal cleared
//! ```
//!
//! An operation is undone as long as the manifest of the generation before it stands, and completed from
//! then on, so that it happened wholly or not at all, whenever the computer stops.

mod error;
mod folder;
mod foreign;
mod history;
mod hyperv_tree;
mod import;
mod journal;
mod json;
mod library;
mod machine_store;
mod names;
mod operations;
mod recovery;
mod reserve;
mod take;

#[cfg(test)]
mod tests;

pub use error::{Result, StoreError, StoreErrorKind};
pub use folder::{FolderView, open_folder};
pub use foreign::MEMORY_UNKNOWN;
pub use history::{History, HistoryRecord};
pub use import::{ImportControl, ImportRequest};
pub use journal::{ChangeRecord, CreateRecord, Journal, NewLeaf, TakeRecord};
pub use library::{Found, Library, NewMachine, Scan};
pub use machine_store::{CONSOLE, JOURNAL, MANIFEST, MachineStore, Orphan, Recovered, TRIAL};
pub use names::name_problem;
pub use take::{Prepared, PreparedLeaf};
