//! What a Hyper-V administrator would type for a command, on a machine of the same name.

use std::path::Path;

use super::{Command, ConvertImage, CreateMachine};
use crate::chain::Target;
use crate::disk::{ImageFormat, ImageType};
use crate::hyperv::{pattern, quoted};
use crate::repair;
use crate::snapshot::{ImageId, Machine, SnapshotId, Tree};

/// Whether Hyper-V has something like it; there may still be nothing to do.
pub fn has_powershell(command: &Command) -> bool {
    match command {
        Command::Convert(convert) => self::convert(convert).is_some(),
        Command::Create(_)
        | Command::Repair(_)
        | Command::Start(_)
        | Command::Stop(_)
        | Command::TurnOff(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Take { .. }
        | Command::Apply { .. }
        | Command::Delete { .. }
        | Command::Rename { .. }
        | Command::Merge { .. }
        | Command::Resize { .. }
        | Command::Remove { .. } => true,
        _ => false,
    }
}

/// The lines, or `None` where Hyper-V has nothing like it. `machine` is the one that the command is about, `folder` its own.
pub fn powershell(command: &Command, machine: Option<(&Machine, &Path)>) -> Option<String> {
    let lines = match command {
        Command::Create(create) => self::create(create),
        Command::Convert(convert) => vec![self::convert(convert)?],
        Command::Repair(folder) => repair::powershell(folder.plan.as_ref()?),
        _ => on_machine(command, machine?.0, machine?.1)?,
    };
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn on_machine(command: &Command, machine: &Machine, folder: &Path) -> Option<Vec<String>> {
    let vm = pattern(&machine.name);
    // Labels are compared as a whole: there, too, patterns would be taken.
    let snapshot = |id: &SnapshotId| {
        let label = &machine.snapshots.get(id)?.label;
        Some(format!("Get-VMSnapshot -VMName {vm} | Where-Object Name -EQ {}", quoted(label)))
    };
    let take = |label: &str| format!("Checkpoint-VM -Name {vm} -SnapshotName {}", quoted(label));
    Some(match command {
        Command::Start(_) => vec![format!("Start-VM -Name {vm}")],
        Command::Stop(_) => vec![format!("Stop-VM -Name {vm}")],
        Command::TurnOff(_) => vec![format!("Stop-VM -Name {vm} -TurnOff")],
        Command::Pause(_) => vec![format!("Suspend-VM -Name {vm}")],
        Command::Resume(_) => vec![format!("Resume-VM -Name {vm}")],
        Command::Take { label, .. } => vec![take(label)],
        Command::Apply { snapshot: which, safety, .. } => {
            let restore = format!("{} | Restore-VMSnapshot", snapshot(which)?);
            safety.iter().map(|label| take(label)).chain([restore]).collect()
        }
        Command::Delete { snapshots, subtree, .. } => {
            let all = if *subtree { " -IncludeAllChildSnapshots" } else { "" };
            let remove = |id| Some(format!("{} | Remove-VMSnapshot{all}", snapshot(id)?));
            snapshots.iter().map(remove).collect::<Option<_>>()?
        }
        Command::Rename { snapshot: which, label, .. } => {
            vec![format!("{} | Rename-VMSnapshot -NewName {}", snapshot(which)?, quoted(label))]
        }
        Command::Merge { disk, .. } => merges(machine, folder, disk.as_ref().map(|disk| &*disk.0)),
        Command::Resize { disk, size, .. } => {
            let leaf = machine.now.images.get(disk)?;
            vec![format!("Resize-VHD -Path {} -SizeBytes {}", path(machine, folder, *leaf)?, size.0)]
        }
        Command::Remove { .. } => vec![format!("Remove-VM -Name {vm}")],
        _ => return None,
    })
}

/// Hyper-V merges by itself once a checkpoint is removed; this is for chains that it no longer knows of. Each merge goes from
/// the top into the lowest image, which is the only direction that it has; the machine must be off. What has used the top
/// image, which is gone then, uses the lowest afterwards.
fn merges(machine: &Machine, folder: &Path, disk: Option<&str>) -> Vec<String> {
    let runs = Tree::of(machine).runs();
    let wanted = runs.iter().filter(|run| disk.is_none_or(|disk| run.disk.0 == disk));
    let place = |image: &ImageId| path(machine, folder, *image);
    let merge = |images: &Vec<ImageId>| {
        let top = images.last()?;
        let (from, to) = (place(top)?, place(images.first()?)?);
        let mut lines = vec![format!("Merge-VHD -Path {from} -DestinationPath {to}")];
        let children = machine.images.iter().filter(|(_, record)| record.parent == Some(*top));
        let relink = |child| format!("Set-VHD -Path {child} -ParentPath {to} -IgnoreIdMismatch");
        lines.extend(children.filter_map(|(child, _)| place(child)).map(relink));
        if machine.now.images.values().any(|image| image == top) {
            let drive = format!("Get-VMHardDiskDrive -VMName {} | Where-Object Path -EQ {from}", pattern(&machine.name));
            lines.push(format!("{drive} | Set-VMHardDiskDrive -Path {to}"));
        }
        Some(lines)
    };
    wanted.filter_map(|run| merge(&run.images)).flatten().collect()
}

fn path(machine: &Machine, folder: &Path, image: ImageId) -> Option<String> {
    Some(quoted(&folder.join(&machine.images.get(&image)?.file).to_string_lossy()))
}

fn create(create: &CreateMachine) -> Vec<String> {
    let name = quoted(&create.name);
    let file = |number: usize| quoted(&format!("{}-disk{number}.{}", create.name, create.format.extension()));
    let disk = |(number, size): (usize, &crate::units::ByteCount)| {
        format!("New-VHD -Path {} -SizeBytes {} -Dynamic", file(number), size.0)
    };
    let mut lines: Vec<String> = create.disks.iter().enumerate().map(disk).collect();
    // The second generation starts from VHDX files only.
    let generation = if create.format == ImageFormat::Vhdx { 2 } else { 1 };
    lines.push(format!("New-VM -Name {name} -MemoryStartupBytes {} -Generation {generation} -NoVHD", create.memory.0));
    lines.extend(
        create
            .hardware
            .iter()
            .map(|hardware| format!("Set-VMProcessor -VMName {} -Count {}", pattern(&create.name), hardware.processors)),
    );
    lines.extend(
        (0..create.disks.len())
            .map(|number| format!("Add-VMHardDiskDrive -VMName {} -Path {}", pattern(&create.name), file(number))),
    );
    lines
}

/// Hyper-V converts between its own formats, of its own images.
fn convert(convert: &ConvertImage) -> Option<String> {
    let Target::Image { kind, .. } = convert.target else { return None };
    if convert.raw {
        return None;
    }
    let kind = match kind {
        ImageType::Fixed => "Fixed",
        ImageType::Dynamic => "Dynamic",
        ImageType::Differencing => return None,
    };
    let [from, to] = [&convert.image, &convert.to].map(|path| quoted(&path.to_string_lossy()));
    Some(format!("Convert-VHD -Path {from} -DestinationPath {to} -VHDType {kind}"))
}
