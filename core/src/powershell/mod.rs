//! What is done here, as commands for Hyper-V's own host (module Hyper-V of PowerShell). Pure text.
//!
//! Cmdlets take names as patterns: so a machine or a checkpoint is picked by comparing its name, and a path by its parts.

mod quote;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use quote::quote;

use crate::engine::Command;
use crate::repair::{Change, Plan};
use crate::snapshot::{Machine, SnapshotId};

/// The commands that do the same to a machine of Hyper-V with the same name and checkpoints; `None` where Hyper-V has nothing
/// like it.
pub fn as_powershell(command: &Command, machine: &Machine) -> Option<Vec<String>> {
    let vm = format!("Get-VM | Where-Object Name -EQ {}", quote(&machine.name));
    let label = |id: &SnapshotId| {
        let ghost = || machine.ghosts.get(id).map(|ghost| &ghost.snapshot);
        machine.snapshots.get(id).or_else(ghost).map(|snapshot| quote(&snapshot.label))
    };
    let checkpoint = |id: &SnapshotId| Some(format!("{vm} | Get-VMSnapshot | Where-Object Name -EQ {}", label(id)?));
    let one = |text: String| Some(vec![text]);
    match command {
        Command::Start(_) => one(format!("{vm} | Start-VM")),
        Command::Stop(_) => one(format!("{vm} | Stop-VM")),
        Command::TurnOff(_) => one(format!("{vm} | Stop-VM -TurnOff")),
        Command::Pause(_) => one(format!("{vm} | Suspend-VM")),
        Command::Resume(_) => one(format!("{vm} | Resume-VM")),
        Command::Take { label, .. } => one(format!("{vm} | Checkpoint-VM -SnapshotName {}", quote(label))),
        Command::Apply { snapshot, safety, .. } => {
            let safety = safety.iter().map(|label| format!("{vm} | Checkpoint-VM -SnapshotName {}", quote(label)));
            let apply = format!("{} | Restore-VMSnapshot -Confirm:$false", checkpoint(snapshot)?);
            Some(safety.chain([apply]).collect())
        }
        Command::Delete { snapshots, subtree, .. } => {
            let children = if *subtree { " -IncludeAllChildSnapshots" } else { "" };
            let delete = |id| Some(format!("{} | Remove-VMSnapshot{children}", checkpoint(id)?));
            snapshots.iter().map(delete).collect()
        }
        Command::Rename { snapshot, label, .. } => {
            one(format!("{} | Rename-VMSnapshot -NewName {}", checkpoint(snapshot)?, quote(label)))
        }
        _ => None,
    }
}

/// The commands by which Hyper-V takes over what a repair has changed: it writes the links with its own paths, and checks
/// each chain. The first line says where the folder is on the host.
pub fn of_repair(plan: &Plan) -> Vec<String> {
    let at = |path: &Path| {
        let inside = path.strip_prefix(&plan.folder).unwrap_or(path);
        let parts: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        format!("(Join-Path $folder {})", quote(&parts.join("\\")))
    };
    let mut lines = vec![format!("$folder = {} # where the folder is on the host", quote(&plan.folder.to_string_lossy()))];
    for step in &plan.steps {
        match &step.change {
            Change::Reconnect { child, parent, .. } => {
                lines.push(format!("Set-VHD -Path {} -ParentPath {}", at(child), at(parent)));
            }
            Change::Relink { child, parent, .. } => {
                lines.push(format!("Set-VHD -Path {} -ParentPath {} -IgnoreIdMismatch", at(child), at(parent)));
            }
            Change::Merge { into, parent, .. } => {
                lines.push(format!("Set-VHD -Path {} -ParentPath {}", at(into), at(parent)));
            }
            Change::SetAside { .. } => {}
        }
    }
    let linked = plan.steps.iter().filter(|step| !matches!(step.change, Change::SetAside { .. }));
    lines.extend(linked.map(|step| format!("Test-VHD -Path {}", at(step.change.image()))));
    lines
}
