//! The TREE of a machine, without I/O: what the manifest says, which operations are
//! allowed and why not, and what a deletion leads to.
//!
//! ```text
//! Machine ── validate ──> Tree (who is whose child, which image is kept, what is due)
//!    │                      ├─ rules:   yes, or why not and what would make it possible
//!    │                      └─ outcome: what a deletion frees, merges, or leaves held
//!    └─ change: Machine ──> Change { the next Machine, files to move, files to remove }
//! ```

mod change;
mod forest;
mod hardware;
mod ids;
mod machine;
mod outcome;
pub mod rules;
mod switch;
mod trash;
mod tree;
mod unique;
mod validate;

#[cfg(test)]
mod tests;

use forest::Forest;

pub use change::{
    Change, FileMove, Growth, Leaves, Stamp, Taken, TrashSelection, apply, begin_merge, clear_memory, delete, doomed_by_merge,
    edit, empty_trash, finish_merge, hardware, keep_on_new_leaves, resize, save_memory, take, undelete, undo_apply,
};
pub use hardware::{Boot, Computer, DiskBus, Hardware};
pub use ids::{DiskId, ImageId, MachineId, SnapshotId};
pub use machine::{
    AppliedRecord, Configuration, DiskConfig, Ghost, ImageRecord, Machine, MachineKind, MergeRecord, Now, SavedMemory, Settings,
    Snapshot, TrashItem, TrashReason, WorkloadProfile, by_name,
};
pub use outcome::{DeletionOutcome, Fate, ImageOutcome, deletion_outcome};
pub use rules::{Context, PowerState, WhyNot};
pub use switch::{FileRef, SwitchFiles, SwitchRecord};
pub use tree::{NodeRef, Reader, Run, Tree, TreeRow};
pub(crate) use unique::unique;
pub use validate::validate;
pub(crate) use validate::{label_problem, path_problem};
