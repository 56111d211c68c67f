//! The shapes of `--json`: one document per call, on the standard output.
//!
//! Sizes are bytes, times are seconds, instants are RFC 3339 in UTC, identifiers are UUIDs, rates are
//! bytes a second. Fields may be added in later versions; none is renamed or removed. A figure that isn't
//! known (yet) is `null`. The same in short is at the end of `snaptree --help`: [`HELP`].

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::Serialize;
use snaptree_core::cost::{Action, Estimate, FindingKind, Freeable, MergeOrders, MergeTotal, PastError, Severity};
use snaptree_core::disk::{Extent, ImageInfo};
use snaptree_core::engine::{LatencyReport, Plan, Power};
use snaptree_core::snapshot::{MachineId, SnapshotId};
use snaptree_core::units::ByteCount;
use snaptree_core::window::{PlanAction, PlanFindingKind};

use crate::text;

/// The end of `--help`.
pub const HELP: &str = "\
Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by a rule.

With --json a call prints one document. Sizes are bytes, times are seconds, instants are UTC. A machine's memory is 0 where
nobody knows it.
  any failure            {error: {kind: failed|usage|rule, reason}}
  --what-if              {plan: \"other\" or {take|apply|delete|merge|empty_trash|remove: {figures}}}
  machine list           [{name, id, power, kind, place, folder, disks: [{disk, size}], memory, hardware, outside,
                           snapshots, depth, read_mean, held, merges_due, trash, no_room, problems}]; machine show: one of these
  machine create|import  {machine: id}
  tree                   {machine, id, power, generation, rows: [...], merges_due, merges, past_error, trash}; a row is {node:
                           snapshot|ghost|now, id, label, note, parent, on_path, taken, held, depth,
                           read_mean, read_p95, first_write, memory, protected, deletion, ghost}
  tree --folder          {folder, machines: [a tree with {memory, processors}], problems}
  snapshot take          {snapshot: id, latency: {pause, save, intercepted_writes, longest_stall, memory}}
  workload verify        {disk, memory, picture_generation, wrong: [...]}
  disk info              {file, chain: [{file, image}], problem}, the base first
  disk inspect           {images: [{path, info, length, held, parts: [{name, offset, length, says: [[name, value]]}],
                           blocks: {data, partial, zero, absent}, problems}], broken, map: {square, squares: [{owner, data}]}}
  disk map               {file, size, stretches: [{offset, length, owner, kind: data|zero|absent}]}
  disk check             {file, problems: [{file, problem}]}
  disk check --folder    {folder, kind, images: [{path, info, held, role, in_use, defect, parent, expects, candidates,
                           children, broken_below, reason}], problems, in_use, merges_pending: [machine]}
  disk repair            {folder, undone, done}; what is planned: {folder, steps: [{change, words, warnings}],
                           refused: [{image, reason}], in_use}; a change that is a relink has
                           may_differ: {bytes, blocks, ranges: [{offset, length}], more}
  disk hash              {file, size, sha256}
  disk merge             {moved, freed, finished}
  disk serve, nbd        {socket, exports: [{name, size, read_only, uri}]}, once they are served
  advise                 [{machine, id, severity, kind, action, sentence}], what is safe to delete among them
  plan                   {made, until, windows, merges: [{machine, id, disk, volume, verdict, sentence, pieces:
                           [{window, occurrence, window_end, start, p50_end, p90_end, bytes, resumes, down_from,
                           down_to}], pinned, bytes, scratch, comes_back, seconds, stopped_seconds, deadline,
                           latest_safe_start, late, if_skipped, reason, reason_sentence}], volumes: [{id, floor,
                           free, growth, samples, history_from, history_to, full, full_as_planned, points,
                           sentence}], findings, missed, agent_seen}
  agent --status         {is_at_work, service, sentence}
  window list            [{id, name, when, machines, mode, limit, enabled, next, sentence}]
  everything else        {done: sentence}
Fields may be added; none is renamed or removed. What isn't known yet is null.";

/// Something was done; a sentence says what came of it.
#[derive(Debug, Serialize)]
pub struct Done {
    pub done: String,
}

/// What would be done.
#[derive(Debug, Serialize)]
pub struct Planned<'a> {
    pub plan: &'a Plan,
}

/// A machine was created or imported.
#[derive(Debug, Serialize)]
pub struct Created {
    pub machine: MachineId,
}

/// A snapshot was taken.
#[derive(Debug, Serialize)]
pub struct Taken {
    pub snapshot: SnapshotId,
    /// What it cost, where the machine ran.
    pub latency: Option<Latency>,
}

/// What taking a snapshot cost a running machine, in seconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    pub pause: f64,
    pub save: f64,
    pub intercepted_writes: u64,
    pub longest_stall: f64,
    pub memory: ByteCount,
}

impl Latency {
    pub fn of(report: &LatencyReport) -> Self {
        Self {
            pause: report.pause.as_secs_f64(),
            save: report.save.as_secs_f64(),
            intercepted_writes: report.intercepted_writes,
            longest_stall: report.longest_stall.as_secs_f64(),
            memory: report.memory,
        }
    }
}

/// A machine.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub name: String,
    pub id: MachineId,
    /// `off`, `saved`, `starting`, `running`, `paused` or `failed`.
    pub power: &'static str,
    /// Where it is paused for want of room: what is free, with how much it goes on, and what can be freed now.
    pub no_room: Option<NoRoom>,
    /// `workload`, `qemu`, or `disks` where nothing here runs it.
    pub kind: snaptree_core::snapshot::MachineKind,
    /// `library`, or `folder` where it is only looked at.
    pub place: &'static str,
    pub folder: PathBuf,
    pub disks: Vec<DiskSize>,
    pub memory: ByteCount,
    /// Where it runs as a process of its own: its sockets, screen and console, and whether the processor itself runs it.
    pub outside: Option<snaptree_core::engine::Outside>,
    /// What else it consists of, where QEMU runs it.
    pub hardware: Option<snaptree_core::snapshot::Hardware>,
    /// How many snapshots it has.
    pub snapshots: usize,
    /// Images in Now's deepest chain.
    pub depth: u32,
    /// Images that a plain stack consults per read of Now, mean.
    pub read_mean: Option<f64>,
    /// Bytes of all its images and saved memory.
    pub held: ByteCount,
    pub merges_due: MergeTotal,
    /// Bytes in the trash.
    pub trash: ByteCount,
    pub problems: Vec<String>,
}

/// Why a machine is paused for want of room.
#[derive(Debug, Serialize)]
pub struct NoRoom {
    pub free: ByteCount,
    pub go_on_free: ByteCount,
    pub freeable: Freeable,
}

/// What `power` says: a machine that waits for room is paused.
pub fn power(power: &Power) -> &'static str {
    if *power == Power::NoRoom { text::power(&Power::Paused) } else { text::power(power) }
}

/// A disk of a machine.
#[derive(Debug, Serialize)]
pub struct DiskSize {
    pub disk: String,
    pub size: ByteCount,
}

/// A picture of a machine's screen.
#[derive(Debug, Serialize)]
pub struct Picture {
    pub file: PathBuf,
    /// Pixels.
    pub width: u32,
    pub height: u32,
}

/// Where a viewer sees a machine's screen.
#[derive(Debug, Serialize)]
pub struct Viewer {
    /// A unix socket that speaks VNC.
    pub socket: PathBuf,
}

/// What does the same on a Hyper-V host.
#[derive(Debug, Serialize)]
pub struct PowerShell {
    pub powershell: String,
}

/// What was given back.
#[derive(Debug, Serialize)]
pub struct Freed {
    pub freed: ByteCount,
}

/// A machine's tree.
#[derive(Debug, Serialize)]
pub struct Tree {
    pub machine: String,
    pub id: MachineId,
    pub power: &'static str,
    /// Grows with every change of the tree.
    pub generation: u64,
    /// Parents before children.
    pub rows: Vec<Row>,
    pub merges_due: MergeTotal,
    /// The merges that are due, one by one.
    pub merges: Vec<Due>,
    /// How far past estimates were off here.
    pub past_error: PastErrors,
    /// Bytes in the trash.
    pub trash: ByteCount,
}

/// `tree --folder`.
#[derive(Debug, Serialize)]
pub struct FolderTrees<'a> {
    pub folder: PathBuf,
    pub machines: Vec<FolderTree<'a>>,
    /// What couldn't be read or doesn't fit together.
    pub problems: Vec<String>,
}

/// A machine of a folder.
#[derive(Debug, Serialize)]
pub struct FolderTree<'a> {
    #[serde(flatten)]
    pub tree: &'a Tree,
    pub memory: ByteCount,
    /// As a configuration of Hyper-V's says; null where none does.
    pub processors: Option<u32>,
}

/// A merge that is due.
#[derive(Debug, Serialize)]
pub struct Due {
    pub disk: String,
    /// Bytes to move.
    pub bytes: ByteCount,
    pub scratch: ByteCount,
    /// Whether that is free.
    pub fits: bool,
    pub comes_back: ByteCount,
    pub seconds: Option<Estimate>,
    /// What other orders would move.
    pub orders: Option<MergeOrders>,
}

/// How far past estimates were off, as a share of what it took (median): merges of stopped machines, and of running ones.
#[derive(Debug, Serialize)]
pub struct PastErrors {
    pub stopped: Option<PastError>,
    pub live: Option<PastError>,
}

/// A row of the tree.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `snapshot`, `ghost` (deleted, but some of its bytes are still there) or `now`.
    pub node: &'static str,
    pub id: Option<SnapshotId>,
    pub label: String,
    pub note: String,
    /// The row's node that it hangs from.
    pub parent: Option<SnapshotId>,
    /// Whether Now continues from it.
    pub on_path: bool,
    pub taken: Option<DateTime<Utc>>,
    /// Bytes of its own images and saved memory.
    pub held: ByteCount,
    pub depth: u32,
    /// Images that a plain stack consults per read: mean, and 95th percentile.
    pub read_mean: Option<f64>,
    pub read_p95: Option<u32>,
    /// Share (0 to 1) of the disks whose first write must allocate.
    pub first_write: Option<f64>,
    /// Bytes of saved memory, if it was saved.
    pub memory: Option<ByteCount>,
    pub protected: bool,
    /// What deleting it would do; only of snapshots.
    pub deletion: Option<Deletion>,
    /// Why it is still there; only of ghosts.
    pub ghost: Option<Ghost>,
}

/// What a deletion would do.
#[derive(Debug, Serialize)]
pub struct Deletion {
    /// Bytes that come back when the trash is emptied.
    pub frees: ByteCount,
    /// Bytes that merges have to move.
    pub moves: ByteCount,
    /// Bytes that come back once they are merged.
    pub comes_back: ByteCount,
    /// Free space that the merges need.
    pub scratch: ByteCount,
    /// Bytes that other branches go on holding.
    pub retained: ByteCount,
    pub seconds: Option<Estimate>,
}

/// Why a deleted snapshot's bytes are still there.
#[derive(Debug, Serialize)]
pub struct Ghost {
    pub deleted: DateTime<Utc>,
    /// Whether a merge is due that would give them back.
    pub merge_due: bool,
    /// The nodes that hold it, by label.
    pub held_by: Vec<String>,
}

/// One image of a chain.
#[derive(Debug, Serialize)]
pub struct ChainImage {
    pub file: PathBuf,
    pub image: ImageInfo,
}

/// `disk info`.
#[derive(Debug, Serialize)]
pub struct DiskInfo {
    pub file: PathBuf,
    /// The base first.
    pub chain: Vec<ChainImage>,
    /// Why the chain ends early.
    pub problem: Option<String>,
}

/// A stretch of `disk map`.
#[derive(Debug, Serialize)]
pub struct Stretch {
    pub offset: u64,
    pub length: u64,
    /// The file that holds it.
    pub owner: Option<PathBuf>,
    /// `data`, `zero` or `absent`.
    pub kind: &'static str,
}

impl Stretch {
    /// Of one image alone.
    pub fn of(extent: &Extent, file: &std::path::Path) -> Self {
        use snaptree_core::disk::Presence;
        let (kind, owner) = match extent.presence {
            Presence::Data { .. } => ("data", Some(file.to_path_buf())),
            Presence::Zero => ("zero", Some(file.to_path_buf())),
            Presence::Absent => ("absent", None),
        };
        Self { offset: extent.offset, length: extent.length, owner, kind }
    }
}

/// `disk map`.
#[derive(Debug, Serialize)]
pub struct DiskMap {
    pub file: PathBuf,
    pub size: ByteCount,
    pub stretches: Vec<Stretch>,
}

/// `disk check`.
#[derive(Debug, Serialize)]
pub struct DiskCheck {
    pub file: PathBuf,
    pub problems: Vec<FileProblem>,
}

/// `disk repair`.
#[derive(Debug, Serialize)]
pub struct DiskRepaired {
    pub folder: PathBuf,
    /// Whether a repair was undone.
    pub undone: bool,
    /// What was changed, in words.
    pub done: Vec<String>,
}

/// Something wrong with a file.
#[derive(Debug, Serialize)]
pub struct FileProblem {
    pub file: PathBuf,
    pub problem: String,
}

/// `disk hash`.
#[derive(Debug, Serialize)]
pub struct DiskHash {
    pub file: PathBuf,
    pub size: ByteCount,
    pub sha256: String,
}

/// A finding of `advise`.
#[derive(Debug, Serialize)]
pub struct Advice {
    /// `null` where it is about a volume.
    pub machine: Option<String>,
    pub id: Option<MachineId>,
    pub severity: Severity,
    pub kind: AdviceKind,
    pub action: Option<AdviceAction>,
    pub sentence: String,
}

/// What was found: of a machine, or of the plan.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum AdviceKind {
    Machine(FindingKind),
    Plan(PlanFindingKind),
    Other(OtherKind),
}

/// What else `advise` says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherKind {
    /// A window that nobody used.
    MissedWindow(crate::export::json::Missed),
    /// A snapshot that can go without a merge and with undo, each for itself.
    SafeToDelete {
        snapshot: SnapshotId,
        label: String,
        /// Bytes that come back when the trash is emptied.
        frees: ByteCount,
    },
}

/// The one thing to do about it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum AdviceAction {
    Machine(Action),
    Plan(PlanAction),
}
