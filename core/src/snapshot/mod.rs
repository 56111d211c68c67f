//! The TREE of a machine, without I/O: what the manifest says, which operations are
//! allowed and why not, and what a deletion leads to.

mod ids;
mod machine;
mod switch;

pub use ids::{DiskId, ImageId, MachineId, SnapshotId};
pub use machine::{
    AppliedRecord, Configuration, DiskConfig, Ghost, ImageRecord, Machine, MachineKind, MergeRecord, Now, SavedMemory, Settings,
    Snapshot, TrashItem, TrashReason, WorkloadProfile,
};
pub use switch::{FileRef, SwitchFiles, SwitchRecord};
