//! Operations on the tree as functions from one manifest to the next, with what they mean for files.
//! They assume that the rule of the same name has said yes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::trash::{collect, owned_files, prune, restore, waits_for};
use super::{
    AppliedRecord, Configuration, DiskId, Forest, Ghost, Hardware, ImageId, ImageRecord, Machine, MachineKind, MergeRecord, Now,
    SavedMemory, Snapshot, SnapshotId, TrashItem, TrashReason, Tree,
};
use crate::units::ByteCount;

/// A file that changes its place; both are relative to the machine's folder.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileMove {
    /// Where it is.
    pub from: PathBuf,
    /// Where it goes.
    pub to: PathBuf,
}

/// An image that gets a larger disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// Which.
    pub image: ImageId,
    /// The disk's new size.
    pub size: ByteCount,
}

/// The next manifest, and what must follow for it to be true.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The next manifest (its generation not yet raised).
    pub machine: Machine,
    /// Files to move once it is published.
    pub moves: Vec<FileMove>,
    /// Files to remove once it is published.
    pub removes: Vec<PathBuf>,
    /// Images that came back from the trash: their locators are checked against their parents' places.
    pub restored: Vec<ImageId>,
    /// Images that grow once it is published.
    pub grown: Vec<Growth>,
}

impl Change {
    pub(super) fn of(machine: Machine) -> Self {
        Self { machine, moves: Vec::new(), removes: Vec::new(), restored: Vec::new(), grown: Vec::new() }
    }
}

/// New leaves of Now, per disk.
pub type Leaves = BTreeMap<DiskId, (ImageId, ImageRecord)>;

/// Who does it and when.
pub struct Stamp<'a> {
    /// Names the action in ghosts and trash.
    pub action: Uuid,
    /// The time.
    pub now: DateTime<Utc>,
    /// Bytes that a file (relative to the machine's folder) takes.
    pub held: Box<dyn Fn(&Path) -> ByteCount + 'a>,
}

/// What [`take`] makes into a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Its identifier.
    pub id: SnapshotId,
    /// Its label.
    pub label: String,
    /// A note.
    pub note: String,
    /// The instant whose state it is.
    pub taken: DateTime<Utc>,
    /// The configuration at that instant.
    pub configuration: Configuration,
    /// The memory, if it was saved.
    pub memory: Option<SavedMemory>,
    /// The picture of the screen.
    pub screen: Option<PathBuf>,
    /// Per disk, Now's new leaf.
    pub leaves: Leaves,
}

/// Which part of the trash to empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrashSelection {
    /// Everything.
    All,
    /// What went there before this time.
    Before(DateTime<Utc>),
    /// What one action put there.
    Action(Uuid),
}

/// Now becomes a node, and goes on in new leaves. Memory that it is to continue from stays.
pub fn take(machine: &Machine, taken: Taken) -> Change {
    let mut next = machine.clone();
    let mut forest = Forest::of(machine);
    let images = put_leaves(&mut next, taken.leaves);
    let node = Snapshot {
        label: taken.label,
        note: taken.note,
        taken: taken.taken,
        parent: None,
        images,
        configuration: taken.configuration,
        memory: taken.memory,
        screen: taken.screen,
        protected: false,
    };
    next.snapshots.insert(taken.id, node);
    forest.parents.insert(taken.id, forest.now);
    forest.now = Some(taken.id);
    forest.write(&mut next);
    Change::of(next)
}

/// Now goes on in new leaves without a node: the old ones are retained, and a merge is due
/// (a take that failed after the machine had switched).
pub fn keep_on_new_leaves(machine: &Machine, leaves: Leaves) -> Change {
    let mut next = machine.clone();
    put_leaves(&mut next, leaves);
    Change::of(next)
}

/// Makes these Now's leaves; answers with the old ones.
fn put_leaves(next: &mut Machine, leaves: Leaves) -> BTreeMap<DiskId, ImageId> {
    let ids = leaves.iter().map(|(disk, (id, _))| (disk.clone(), *id)).collect();
    next.images.extend(leaves.into_values());
    std::mem::replace(&mut next.now.images, ids)
}

/// Now continues from a snapshot in new leaves; what it held goes to the trash.
pub fn apply(machine: &Machine, snapshot: SnapshotId, leaves: Leaves, stamp: &Stamp<'_>) -> Change {
    let mut next = machine.clone();
    let mut forest = Forest::of(machine);
    let Some(node) = machine.snapshots.get(&snapshot) else { return Change::of(next) };
    let old = remember_now(machine, &forest, stamp, false);
    put_leaves(&mut next, leaves);
    next.now.memory.clone_from(&node.memory);
    next.configuration = node.configuration.clone();
    next.applied = Some(old);
    forest.now = Some(snapshot);
    forest.write(&mut next);
    let mut change = Change::of(next);
    collect(machine, &mut change, TrashReason::Applied, stamp);
    change
}

fn remember_now(machine: &Machine, forest: &Forest, stamp: &Stamp<'_>, undo: bool) -> AppliedRecord {
    let now = Now { parent: forest.now, ..machine.now.clone() };
    AppliedRecord { action: stamp.action, now, configuration: machine.configuration.clone(), applied: stamp.now, undo }
}

/// Now is again what it was before the last apply; what it held meanwhile goes to the trash, and can be had back the same way.
pub fn undo_apply(machine: &Machine, stamp: &Stamp<'_>) -> Change {
    let mut change = Change::of(machine.clone());
    let Some(back) = change.machine.applied.take() else { return change };
    let mut forest = Forest::of(machine);
    change.machine.applied = Some(remember_now(machine, &forest, stamp, !back.undo));
    restore(&mut change, back.now.images.values().copied(), back.now.memory.iter().map(|memory| memory.file.clone()));
    forest.now = back.now.parent.filter(|id| forest.parents.contains_key(id));
    change.machine.now = back.now;
    change.machine.configuration = back.configuration;
    forest.write(&mut change.machine);
    collect(machine, &mut change, TrashReason::Applied, stamp);
    change
}

/// Everything that a deletion deletes, parents first; unknown ones are left out.
pub(super) fn selection(machine: &Machine, snapshots: &[SnapshotId], subtree: bool) -> Vec<SnapshotId> {
    let tree = Tree::of(machine);
    let known = snapshots.iter().filter(|id| machine.snapshots.contains_key(id));
    let mut seen = std::collections::BTreeSet::new();
    let all = known.flat_map(|id| if subtree { tree.subtree(*id) } else { vec![*id] });
    all.filter(|id| seen.insert(*id)).collect()
}

/// Snapshots become ghosts; files that nothing reads through go to the trash, or are removed at once.
pub fn delete(machine: &Machine, snapshots: &[SnapshotId], subtree: bool, free_now: bool, stamp: &Stamp<'_>) -> Change {
    let mut next = machine.clone();
    let forest = Forest::of(machine);
    for id in selection(machine, snapshots, subtree) {
        if let Some(snapshot) = next.snapshots.remove(&id) {
            let (children, was_parent_of_now, action) = (Vec::new(), false, stamp.action);
            next.ghosts.insert(id, Ghost { snapshot, deleted: stamp.now, children, was_parent_of_now, action, sealed: false });
        }
    }
    forest.write(&mut next);
    let mut change = Change::of(next);
    collect(machine, &mut change, TrashReason::Deleted, stamp);
    if free_now {
        let kept = |item: &TrashItem| item.action != stamp.action;
        change.removes.extend(change.machine.trash.iter().filter(|item| !kept(item)).map(|item| item.original.clone()));
        change.machine.trash.retain(kept);
        change.moves.clear();
        prune(&mut change.machine);
    }
    change
}

/// Takes back the action that deleted this ghost: it, and every other one of the action that can still be put back.
pub fn undelete(machine: &Machine, ghost: SnapshotId) -> Change {
    let mut change = Change::of(machine.clone());
    let Some(action) = machine.ghosts.get(&ghost).map(|ghost| ghost.action) else { return change };
    let forest = Forest::of(machine);
    let of_action = machine.ghosts.iter().filter(|(_, ghost)| ghost.action == action);
    for (id, ghost) in of_action.filter(|(_, ghost)| super::trash::why_lost(machine, ghost).is_none()) {
        let files = ghost.snapshot.memory.iter().map(|memory| &memory.file).chain(&ghost.snapshot.screen);
        restore(&mut change, ghost.snapshot.images.values().copied(), files.cloned());
        let label = free_label(&change.machine, &ghost.snapshot.label);
        change.machine.ghosts.remove(id);
        change.machine.snapshots.insert(*id, Snapshot { label, ..ghost.snapshot.clone() });
    }
    forest.write(&mut change.machine);
    change
}

/// The label, or the first "label (2)", "label (3)" ... that nobody has.
fn free_label(machine: &Machine, label: &str) -> String {
    let taken = |label: &str| machine.snapshots.values().any(|node| node.label == label);
    let numbered = (2u64..).map(|n| format!("{label} ({n})"));
    std::iter::once(label.to_owned()).chain(numbered).find(|label| !taken(label)).unwrap_or_default()
}

/// Changes a snapshot's label, note or protection.
pub fn edit(machine: &Machine, snapshot: SnapshotId, change: impl FnOnce(&mut Snapshot)) -> Change {
    let mut next = machine.clone();
    if let Some(node) = next.snapshots.get_mut(&snapshot) {
        change(node);
    }
    Change::of(next)
}

/// Lets QEMU run the machine, with this memory and hardware. Its snapshots keep what they had, but for those of a machine
/// that nothing ran before.
pub fn hardware(machine: &Machine, memory: ByteCount, hardware: &Hardware) -> Machine {
    let mut next = machine.clone();
    let change = |configuration: &mut Configuration| {
        configuration.memory = memory;
        configuration.hardware = Some(hardware.clone());
    };
    change(&mut next.configuration);
    if machine.kind != MachineKind::Qemu {
        let ghosts = next.ghosts.values_mut().map(|ghost| &mut ghost.snapshot);
        next.snapshots.values_mut().chain(ghosts).for_each(|node| change(&mut node.configuration));
        next.kind = MachineKind::Qemu;
    }
    next
}

/// Makes one of Now's disks larger. Snapshots keep the size that they had.
pub fn resize(machine: &Machine, disk: &DiskId, size: ByteCount) -> Change {
    let mut change = Change::of(machine.clone());
    let disks = &mut change.machine.configuration.disks;
    disks.iter_mut().filter(|config| config.id == *disk).for_each(|config| config.size = size);
    change.grown.extend(machine.now.images.get(disk).map(|image| Growth { image: *image, size }));
    change
}

/// Removes files from the trash, and forgets what could only be undone with them.
pub fn empty_trash(machine: &Machine, selection: TrashSelection) -> Change {
    let goes = |item: &TrashItem| match selection {
        TrashSelection::All => true,
        TrashSelection::Before(time) => item.removed < time,
        TrashSelection::Action(action) => item.action == action,
    };
    let mut change = Change::of(machine.clone());
    drop_items(&mut change, goes);
    change
}

fn drop_items(change: &mut Change, goes: impl Fn(&TrashItem) -> bool) {
    change.removes.extend(change.machine.trash.iter().filter(|item| goes(item)).map(|item| item.file.clone()));
    change.machine.trash.retain(|item| !goes(item));
    prune(&mut change.machine);
}

/// What in the trash can't be put back any more once this run's merge starts: it reads through X1..X(k-1), or
/// is the memory or picture of a snapshot whose image one of them is.
pub fn doomed_by_merge<'a>(machine: &'a Machine, run: &[ImageId]) -> Vec<&'a TrashItem> {
    let Some((_, sources)) = run.split_last() else { return Vec::new() };
    let sealed = machine.ghosts.values().filter(|ghost| ghost.snapshot.images.values().any(|image| sources.contains(image)));
    let files: Vec<_> =
        sealed.flat_map(|ghost| ghost.snapshot.memory.iter().map(|memory| &memory.file).chain(&ghost.snapshot.screen)).collect();
    let goes = |item: &&TrashItem| match &item.image {
        Some((id, _)) => waits_for(machine, *id, sources),
        None => files.contains(&&item.original),
    };
    machine.trash.iter().filter(goes).collect()
}

/// A merge starts: the ghosts of X1..X(k-1) are sealed, and what it dooms in the trash is removed.
/// An earlier record about any of these images is replaced.
pub fn begin_merge(machine: &Machine, record: MergeRecord) -> Change {
    let mut change = Change::of(machine.clone());
    let doomed: Vec<_> = doomed_by_merge(machine, &record.run).into_iter().map(|item| item.file.clone()).collect();
    let sources = record.run.split_last().map_or(&[][..], |(_, sources)| sources);
    for ghost in change.machine.ghosts.values_mut() {
        ghost.sealed |= ghost.snapshot.images.values().any(|image| sources.contains(image));
    }
    change.machine.merges.retain(|other| !other.run.iter().any(|image| record.run.contains(image)));
    change.machine.merges.push(record);
    drop_items(&mut change, |item| doomed.contains(&item.file));
    change
}

/// A merge has ended: Xk's record names `file` and has X1's parent, X1..X(k-1) are gone, ghosts without bytes too.
/// The files themselves are the switch's business.
pub fn finish_merge(machine: &Machine, run: &[ImageId], file: PathBuf) -> Change {
    let mut next = machine.clone();
    if let [first, .., top] = run {
        let parent = machine.images.get(first).and_then(|record| record.parent);
        if let Some(record) = next.images.get_mut(top) {
            record.parent = parent;
            record.file = file;
        }
        for source in &run[..run.len() - 1] {
            next.images.remove(source);
        }
    }
    next.merges.retain(|merge| !merge.run.iter().any(|image| run.contains(image)));
    prune(&mut next);
    Change::of(next)
}

/// The machine runs: the memory that Now continued from isn't needed any more. A snapshot's own stays.
pub fn clear_memory(machine: &Machine) -> Change {
    set_memory(machine, None)
}

/// The machine was stopped and its memory saved: the next start continues from it.
pub fn save_memory(machine: &Machine, memory: SavedMemory) -> Change {
    set_memory(machine, Some(memory))
}

fn set_memory(machine: &Machine, memory: Option<SavedMemory>) -> Change {
    let mut next = machine.clone();
    let old = std::mem::replace(&mut next.now.memory, memory);
    let mut change = Change::of(next);
    let owned = owned_files(&change.machine);
    change.removes.extend(old.map(|memory| memory.file).filter(|file| !owned.contains(file)));
    change
}
