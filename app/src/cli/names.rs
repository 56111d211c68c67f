//! Names and labels that people give, and what they stand for.

use std::sync::Arc;

use snaptree_core::engine::MachineState;
use snaptree_core::snapshot::{DiskId, Machine, Snapshot, SnapshotId};
use snaptree_core::window::MaintenanceWindow;

use super::Failure;

/// The shortest beginning of an identifier that is taken for one.
const SHORTEST: usize = 4;

/// The machine with this name, or with an identifier that begins so.
pub fn machine<'a>(
    machines: impl Iterator<Item = &'a Arc<MachineState>> + Clone,
    name: &str,
) -> Result<Arc<MachineState>, Failure> {
    let by_name = machines.clone().filter(|m| m.machine.name == name);
    let by_id = machines.clone().filter(|m| begins(&m.machine.id.to_string(), name));
    let found = one(by_name, by_id, name, "machine", |m| format!("{} ({})", m.machine.name, m.machine.id))?;
    found.cloned().ok_or_else(|| {
        let mut names: Vec<&str> = machines.map(|m| m.machine.name.as_str()).collect();
        names.sort_unstable();
        Failure::usage(match names.len() {
            0 => format!("there is no machine {name}: the library is empty"),
            1..=12 => format!("there is no machine {name}; there are {}", names.join(", ")),
            n => format!("there is no machine {name} among the {n} of this library"),
        })
    })
}

/// The window with this name, or with an identifier that begins so.
pub fn window<'a>(windows: &'a [MaintenanceWindow], name: &str) -> Result<&'a MaintenanceWindow, Failure> {
    let by_name = windows.iter().filter(|window| window.name == name);
    let by_id = windows.iter().filter(|window| begins(&window.id.0.to_string(), name));
    one(by_name, by_id, name, "window", |window| format!("{} ({})", window.name, window.id.0))?.ok_or_else(|| {
        let names: Vec<&str> = windows.iter().map(|window| window.name.as_str()).collect();
        Failure::usage(match names.len() {
            0 => format!("there is no window {name}: there is none at all"),
            _ => format!("there is no window {name}; there are {}", names.join(", ")),
        })
    })
}

/// The disk with this name.
pub fn disk(machine: &Machine, name: &str) -> Result<DiskId, Failure> {
    let known = machine.configuration.disks.iter().map(|config| &config.id).find(|id| id.0 == name);
    known.cloned().ok_or_else(|| Failure::usage(format!("{} has no disk {name}", machine.name)))
}

/// The snapshot with this label, or with an identifier that begins so.
pub fn snapshot(machine: &Machine, label: &str) -> Result<SnapshotId, Failure> {
    among(machine.snapshots.iter(), label, "snapshot")?.ok_or_else(|| {
        let deleted = machine.ghosts.values().any(|g| g.snapshot.label == label);
        let hint = if deleted { "; a deleted one has this label, see `snapshot undelete`" } else { "" };
        Failure::usage(format!("{} has no snapshot {label}{hint}", machine.name))
    })
}

/// The deleted snapshot with this label, or with an identifier that begins so.
pub fn deleted(machine: &Machine, label: &str) -> Result<SnapshotId, Failure> {
    let ghosts = machine.ghosts.iter().map(|(id, ghost)| (id, &ghost.snapshot));
    among(ghosts, label, "deleted snapshot")?
        .ok_or_else(|| Failure::usage(format!("{} has no deleted snapshot {label} left", machine.name)))
}

fn among<'a>(
    snapshots: impl Iterator<Item = (&'a SnapshotId, &'a Snapshot)> + Clone,
    label: &str,
    what: &str,
) -> Result<Option<SnapshotId>, Failure> {
    let by_label = snapshots.clone().filter(|(_, s)| s.label == label);
    let by_id = snapshots.filter(|(id, _)| begins(&id.to_string(), label));
    let describe = |(id, s): &(&SnapshotId, &Snapshot)| format!("{} ({id}, {})", s.label, s.taken.format("%Y-%m-%d %H:%M:%S"));
    Ok(one(by_label, by_id, label, what, describe)?.map(|(id, _)| *id))
}

fn begins(id: &str, text: &str) -> bool {
    text.len() >= SHORTEST && id.starts_with(&text.to_ascii_lowercase())
}

/// The only one by name, else the only one by identifier; several are an error that lists them.
fn one<T>(
    by_name: impl Iterator<Item = T>,
    by_id: impl Iterator<Item = T>,
    name: &str,
    what: &str,
    describe: impl Fn(&T) -> String,
) -> Result<Option<T>, Failure> {
    let mut found: Vec<T> = by_name.collect();
    if found.is_empty() {
        found = by_id.collect();
    }
    if found.len() > 1 {
        let all: Vec<String> = found.iter().map(describe).collect();
        return Err(Failure::usage(format!("{name} can be more than one {what}: {}; give the identifier", all.join(", "))));
    }
    Ok(found.pop())
}
