//! What `machine.json` says: plain data. Paths are relative to the machine's folder.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DiskId, Hardware, ImageId, MachineId, SnapshotId, unique};
use crate::disk::ImageFormat;
use crate::units::ByteCount;

/// What runs a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineKind {
    /// The built-in machine.
    Workload,
    /// QEMU: a computer that boots an operating system.
    Qemu,
    /// Nothing here: the disks of a machine that others run.
    Disks,
}

/// How the built-in machine behaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadProfile {
    /// Everything it does follows from this.
    pub seed: u64,
    /// Pages of 4 KiB that it rewrites per second; 0 is as fast as it can.
    pub page_writes_per_second: u32,
    /// Disk writes per second; 0 is as fast as it can.
    pub disk_writes_per_second: u32,
    /// Share of writes (0 to 1) that go to the hot tenth of memory and disk.
    pub hot_share: f64,
    /// Steps of the picture per second.
    pub frames_per_second: u32,
}

impl Default for WorkloadProfile {
    fn default() -> Self {
        Self { seed: 1, page_writes_per_second: 2000, disk_writes_per_second: 50, hot_share: 0.8, frames_per_second: 10 }
    }
}

/// One disk in a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// Its name in this machine.
    pub id: DiskId,
    /// Size of the disk.
    pub size: ByteCount,
    /// Format of new images.
    pub format: ImageFormat,
}

/// A machine's configuration; a snapshot keeps a copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Memory, a multiple of 4 KiB; zero where nobody knows.
    pub memory: ByteCount,
    /// The disks, in order.
    pub disks: Vec<DiskConfig>,
    /// How the built-in machine behaves.
    pub workload: WorkloadProfile,
    /// What else a machine that QEMU runs consists of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
}

/// One image file of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// The disk that it belongs to.
    pub disk: DiskId,
    /// Its file, relative to the machine's folder.
    pub file: PathBuf,
    /// The image that it reads through to.
    pub parent: Option<ImageId>,
    /// Its format, recorded once and never probed again.
    pub format: ImageFormat,
    /// When it was created here or adopted.
    pub created: DateTime<Utc>,
}

/// The saved memory of a snapshot or of Now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedMemory {
    /// Its file, relative to the machine's folder.
    pub file: PathBuf,
    /// Bytes of the file.
    pub held: ByteCount,
}

/// A node of the tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The name that a person gave it. Unique in a machine.
    pub label: String,
    /// A person's note.
    pub note: String,
    /// The instant whose state it is.
    pub taken: DateTime<Utc>,
    /// The snapshot below it (older), if any.
    pub parent: Option<SnapshotId>,
    /// Per disk, the image that *is* this node.
    #[serde(deserialize_with = "unique")]
    pub images: BTreeMap<DiskId, ImageId>,
    /// The configuration's copy.
    pub configuration: Configuration,
    /// The saved memory, if it was saved.
    pub memory: Option<SavedMemory>,
    /// A picture of the screen (PNG), relative to the machine's folder.
    pub screen: Option<PathBuf>,
    /// Whether deleting it is refused.
    pub protected: bool,
}

/// The machine's current state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Now {
    /// The snapshot that it continues from.
    pub parent: Option<SnapshotId>,
    /// Per disk, the leaf.
    #[serde(deserialize_with = "unique")]
    pub images: BTreeMap<DiskId, ImageId>,
    /// Memory to continue from at the next start: set by apply, or by a stop that saves.
    /// The file may be a snapshot's own. Cleared once the machine runs.
    pub memory: Option<SavedMemory>,
}

/// A deleted snapshot some of whose bytes are still on disk: in images that others read through (then the
/// tree shows it), or only in the trash (then the trash lists it). Undelete works for both.
///
/// Snapshots, ghosts and Now together form the *full tree*; what the tree shows as a parent is the nearest
/// ancestor that isn't deleted. `snapshot.parent`, `children` and `was_parent_of_now` are kept up to date
/// as links of the full tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ghost {
    /// What it was. `parent` is the snapshot or ghost that it hung from.
    pub snapshot: Snapshot,
    /// When it was deleted.
    pub deleted: DateTime<Utc>,
    /// The snapshots and ghosts that hang directly from it, so that undeleting puts them back.
    pub children: Vec<SnapshotId>,
    /// Whether Now hangs directly from it.
    pub was_parent_of_now: bool,
    /// Ghosts deleted by one action share this, and are undeleted together.
    pub action: Uuid,
    /// Whether a merge has started on an image of it: no undelete from then on.
    pub sealed: bool,
}

/// Why a file is in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrashReason {
    /// A snapshot was deleted that nothing reads through.
    Deleted,
    /// What Now held before an apply.
    Applied,
    /// A merge has made the file superfluous.
    Merged,
}

/// A file in `Deleted/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrashItem {
    /// Where it is now, relative to the machine's folder.
    pub file: PathBuf,
    /// Where it was, relative to the machine's folder.
    pub original: PathBuf,
    /// Bytes that it holds.
    pub held: ByteCount,
    /// When it went to the trash.
    pub removed: DateTime<Utc>,
    /// Why.
    pub reason: TrashReason,
    /// The action that put it there (undo brings back all of one action).
    pub action: Uuid,
    /// The image's record, if it is an image, so that undo can put it back.
    pub image: Option<(ImageId, ImageRecord)>,
}

/// A merge that has started; from then on undelete is refused for its sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeRecord {
    /// The disk.
    pub disk: DiskId,
    /// X1..Xk, bottom to top.
    pub run: Vec<ImageId>,
    /// The image into which everything moves.
    pub target: ImageId,
    /// The new data-write identifiers of X1..X(k-1), so that a crash in between is completed and not repeated.
    #[serde(deserialize_with = "unique")]
    pub new_ids: BTreeMap<ImageId, Uuid>,
    /// When it started.
    pub started: DateTime<Utc>,
    /// Data bytes that it had to move when it started.
    pub planned: ByteCount,
}

/// The order in which people look for names: letters of both cases together.
pub fn by_name(a: &str, b: &str) -> Ordering {
    a.to_lowercase().cmp(&b.to_lowercase()).then_with(|| a.cmp(b))
}

/// What a person may set per machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Snapshots are advised against from this depth on.
    pub warn_depth: u32,
    /// Taking is refused from this depth on.
    pub max_depth: u32,
    /// A snapshot older than this many hours is warned about.
    pub warn_age_hours: u32,
    /// The trash is emptied after this many hours.
    pub trash_hours: u32,
    /// While less than this is free on its volume, the machine is paused.
    pub pause_free: ByteCount,
    /// Below this much free on its volume, machines soon stop: urgent.
    pub urgent_free: ByteCount,
    /// Below this much free on its volume, it is time to look.
    pub warn_free: ByteCount,
}

impl Settings {
    /// A machine that was paused for want of room goes on when this much is free: a little more, so that it doesn't
    /// stop again at once.
    pub fn go_on_free(&self) -> ByteCount {
        self.pause_free + ByteCount(self.pause_free.0 / 4).max(ByteCount::mib(16))
    }
}

impl Default for Settings {
    /// Depth: VMware advises 2-3 and allows 32, Xen flags more than 5, Hyper-V allows 50; age: VMware's 72 hours; free
    /// space: Hyper-V warns at 2 GB and pauses its machines at 200 MB. The trash's day and the 8 GiB, which leave
    /// somebody time to act, are our own.
    fn default() -> Self {
        Self {
            warn_depth: 6,
            max_depth: 64,
            warn_age_hours: 72,
            trash_hours: 24,
            pause_free: ByteCount::mib(200),
            urgent_free: ByteCount::gib(2),
            warn_free: ByteCount::gib(8),
        }
    }
}

/// What an apply replaced, so that it can be undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppliedRecord {
    /// The action, as in the trash items that it made.
    pub action: Uuid,
    /// Now as it was; its parent may be a ghost by now.
    pub now: Now,
    /// The configuration as it was.
    pub configuration: Configuration,
    /// When.
    pub applied: DateTime<Utc>,
    /// Whether it was itself an undo of an apply, so that undoing it does that apply again.
    pub undo: bool,
}

/// A machine: all of `machine.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Always "snaptree-machine".
    pub format: String,
    /// Version of this shape, 1.
    pub version: u32,
    /// Its identifier.
    pub id: MachineId,
    /// Its name; also the name of its folder when it was created.
    pub name: String,
    /// What runs it.
    pub kind: MachineKind,
    /// When it was created here.
    pub created: DateTime<Utc>,
    /// Grows with every published change.
    pub generation: u64,
    /// What the machine is now.
    pub configuration: Configuration,
    /// Every image that a node is or that others read through (not those in the trash).
    #[serde(deserialize_with = "unique")]
    pub images: BTreeMap<ImageId, ImageRecord>,
    /// The nodes.
    #[serde(deserialize_with = "unique")]
    pub snapshots: BTreeMap<SnapshotId, Snapshot>,
    /// The current state.
    pub now: Now,
    /// Deleted snapshots that still hold bytes, on disk or in the trash.
    #[serde(deserialize_with = "unique")]
    pub ghosts: BTreeMap<SnapshotId, Ghost>,
    /// The trash.
    pub trash: Vec<TrashItem>,
    /// Merges that have started and not ended.
    pub merges: Vec<MergeRecord>,
    /// The last apply that can still be undone.
    pub applied: Option<AppliedRecord>,
    /// Settings.
    pub settings: Settings,
}
