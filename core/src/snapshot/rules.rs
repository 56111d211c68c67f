//! For each operation: yes, or why not and what would make it possible. The window greys
//! actions by these functions, and the engine admits by the same ones.

use serde::{Deserialize, Serialize};

use super::validate::label_problem;
use crate::units::ByteCount;

use super::{DiskId, Machine, MachineKind, NodeRef, Snapshot, SnapshotId, Tree, change, trash};

/// Whether the machine runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// It is off (saved counts as off).
    #[default]
    Off,
    /// It runs, or stands still with its owner up.
    Running,
}

/// What a rule must know beside the manifest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Whether the machine runs.
    pub power: PowerState,
    /// Whether a job works on it.
    pub job_under_way: bool,
    /// Whether its files are only looked at.
    pub read_only: bool,
}

/// Why an operation is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason} {remedy}")]
pub struct WhyNot {
    /// The reason, one sentence.
    pub reason: String,
    /// What would make it possible, one sentence.
    pub remedy: String,
}

/// What a rule answers.
pub type Verdict = Result<(), WhyNot>;

fn no(reason: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Err(WhyNot { reason: reason.into(), remedy: remedy.into() })
}

/// What every change needs.
fn changeable(context: &Context) -> Verdict {
    if context.read_only {
        no("This folder is only looked at; its files belong to somebody else.", "Import it into the library first.")
    } else if context.job_under_way {
        no("A job is working on this machine.", "Wait until it has ended, or cancel it.")
    } else {
        Ok(())
    }
}

fn node(machine: &Machine, id: SnapshotId) -> Result<&Snapshot, WhyNot> {
    let gone = || WhyNot { reason: "This snapshot doesn't exist any more.".into(), remedy: "Look at the tree again.".into() };
    machine.snapshots.get(&id).ok_or_else(gone)
}

fn label_is_free(machine: &Machine, label: &str, except: Option<SnapshotId>) -> Verdict {
    if let Some(problem) = label_problem(label) {
        return no(format!("The label {problem}."), "Choose another label.");
    }
    let taken = machine.snapshots.iter().any(|(id, node)| node.label == label && Some(*id) != except);
    if taken { no(format!("There is a snapshot {label:?} already."), "Choose another label.") } else { Ok(()) }
}

/// May a snapshot be taken (with this label, where it is known yet)?
pub fn take(machine: &Machine, context: &Context, label: Option<&str>) -> Verdict {
    changeable(context)?;
    if let Some(label) = label {
        label_is_free(machine, label, None)?;
    }
    let (depth, most) = (Tree::of(machine).chain_depth(NodeRef::Now), machine.settings.max_depth as usize);
    if depth >= most {
        return no(
            format!("Now stands on {depth} images, and at most {most} are allowed."),
            "Delete snapshots that aren't needed and merge, or raise the limit in the machine's settings.",
        );
    }
    Ok(())
}

/// May the machine continue from this snapshot? (A running machine is stopped for it.)
pub fn apply(machine: &Machine, context: &Context, snapshot: SnapshotId) -> Verdict {
    changeable(context)?;
    node(machine, snapshot)?;
    Ok(())
}

/// May the last apply be undone? (A running machine is stopped for it.)
pub fn undo_apply(machine: &Machine, context: &Context) -> Verdict {
    changeable(context)?;
    if machine.applied.is_none() {
        return no(
            "There is no apply that can be undone: none was made, or what Now held before it is no longer in the trash.",
            "Apply a snapshot instead.",
        );
    }
    Ok(())
}

/// May these snapshots (with all that hangs from them) be deleted?
pub fn delete(machine: &Machine, context: &Context, snapshots: &[SnapshotId], subtree: bool) -> Verdict {
    changeable(context)?;
    if snapshots.is_empty() {
        return no("No snapshot is selected.", "Select one; Now can't be deleted.");
    }
    for id in snapshots {
        node(machine, *id)?;
    }
    let all = change::selection(machine, snapshots, subtree);
    match all.iter().filter_map(|id| machine.snapshots.get(id)).find(|node| node.protected) {
        Some(node) => no(format!("The snapshot {:?} is protected.", node.label), "Take its protection off first."),
        None => Ok(()),
    }
}

/// May the deletion that took this snapshot be taken back?
pub fn undelete(machine: &Machine, context: &Context, snapshot: SnapshotId) -> Verdict {
    changeable(context)?;
    let Some(ghost) = machine.ghosts.get(&snapshot) else {
        return no("This isn't a deleted snapshot, or nothing of it is left.", "Look at the tree again.");
    };
    match trash::why_lost(machine, ghost) {
        Some(why) => no(
            format!("The snapshot {:?} can't be put back: {why}.", ghost.snapshot.label),
            "A deletion can be undone until its merge has started or the trash was emptied.",
        ),
        None => Ok(()),
    }
}

/// May this snapshot get this label (where it is known yet)?
pub fn rename(machine: &Machine, context: &Context, snapshot: SnapshotId, label: Option<&str>) -> Verdict {
    edit(machine, context, snapshot)?;
    label.map_or(Ok(()), |label| label_is_free(machine, label, Some(snapshot)))
}

/// May this snapshot's note or protection be changed?
pub fn edit(machine: &Machine, context: &Context, snapshot: SnapshotId) -> Verdict {
    changeable(context)?;
    node(machine, snapshot)?;
    Ok(())
}

/// May the machine's settings be changed?
pub fn settings(context: &Context) -> Verdict {
    changeable(context)
}

/// May it consist of something else from now on, or QEMU run it?
pub fn hardware(machine: &Machine, context: &Context) -> Verdict {
    changeable(context)?;
    if machine.kind == MachineKind::Workload {
        return no("The built-in machine has no hardware.", "Create a machine that QEMU runs.");
    }
    if context.power == PowerState::Running {
        return no("The machine is running.", "Stop it: what runs it sees the change when it starts.");
    }
    if machine.now.memory.is_some() {
        return no(
            "The machine's memory is saved, and fits only the machine that it was.",
            "Start it and stop it, or apply a snapshot without memory.",
        );
    }
    Ok(())
}

/// May a disk of Now become larger?
pub fn resize(machine: &Machine, context: &Context, disk: &DiskId, size: ByteCount) -> Verdict {
    const SECTOR: u64 = 4096;
    const MOST: ByteCount = ByteCount(64 << 40);
    changeable(context)?;
    let Some(config) = machine.configuration.disks.iter().find(|config| config.id == *disk) else {
        return no(format!("There is no disk {disk}."), "Choose one that the machine has.");
    };
    if context.power == PowerState::Running {
        return no("The machine is running.", "Stop it: what runs it sees the new size when it starts.");
    }
    if machine.now.memory.is_some() {
        return no(
            "The machine's memory is saved, and knows the old size.",
            "Start it and stop it, or apply a snapshot without memory.",
        );
    }
    if size <= config.size {
        return no(format!("The disk has {} already.", config.size), "Disks only become larger here.");
    }
    if size > MOST || !size.0.is_multiple_of(SECTOR) {
        return no(format!("A disk of {} bytes can't be.", size.0), "Sizes are multiples of 4 KiB, at most 64 TiB.");
    }
    Ok(())
}

/// May it be run for a while without being started, scrambled, or verified? Only the built-in machine can.
pub fn workload(machine: &Machine) -> Verdict {
    match machine.kind {
        MachineKind::Workload => Ok(()),
        MachineKind::Qemu => no(
            "QEMU runs this machine, and only its own operating system knows what its disks should hold.",
            "Look into it from inside.",
        ),
        MachineKind::Disks => run(machine),
    }
}

/// May it be started?
pub fn run(machine: &Machine) -> Verdict {
    match machine.kind {
        MachineKind::Workload | MachineKind::Qemu => Ok(()),
        MachineKind::Disks => no(
            "This machine is known by its disks only: nothing here runs it, or knows what they should hold.",
            "Run it where it belongs; snapshots of its disks are taken, applied, deleted and merged here.",
        ),
    }
}

/// May the merges that are due (of one disk, or of all) be carried out?
pub fn merge(machine: &Machine, context: &Context, disk: Option<&DiskId>) -> Verdict {
    changeable(context)?;
    if !Tree::of(machine).runs().iter().any(|run| disk.is_none_or(|disk| run.disk == *disk)) {
        return no("No merge is due.", "A merge becomes due when a snapshot is deleted that one other branch reads through.");
    }
    Ok(())
}

/// May the trash be emptied?
pub fn empty_trash(machine: &Machine, context: &Context) -> Verdict {
    changeable(context)?;
    if machine.trash.is_empty() { no("The trash is empty.", "Nothing needs to be done.") } else { Ok(()) }
}

/// May the machine be forgotten, or its files be deleted?
pub fn remove(machine: &Machine, context: &Context, delete_files: bool) -> Verdict {
    if context.read_only {
        return no("This folder is only looked at; its files belong to somebody else.", "Close the folder instead.");
    }
    changeable(context)?;
    if context.power == PowerState::Running {
        return no("The machine is running.", "Stop it first.");
    }
    match machine.snapshots.values().find(|node| delete_files && node.protected) {
        Some(node) => no(format!("The snapshot {:?} is protected.", node.label), "Take its protection off first."),
        None => Ok(()),
    }
}
