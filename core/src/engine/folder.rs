//! The machines of a folder for whoever asks once, and needs no engine for that.

use std::path::Path;
use std::sync::Arc;

use super::sight::{OpenImages, Sight};
use super::{MachineState, Place, Power, Refusal};
use crate::cost::{Calibration, VolumeState};
use crate::host_file::SharedHost;
use crate::store::open_folder;

/// What a folder holds.
#[derive(Debug, Clone, PartialEq)]
pub struct FolderLook {
    /// Its machines, their disks counted as far as they can be read. Whether another program runs one can't be seen.
    pub machines: Vec<MachineState>,
    /// What couldn't be read or doesn't fit together, in words.
    pub problems: Vec<String>,
}

/// Looks at a folder of Hyper-V's, of a machine, or of images, in place; nothing is written.
///
/// # Errors
/// Where the folder can't be read, or has no image.
pub fn look_into(host: &SharedHost, folder: &Path) -> Result<FolderLook, Refusal> {
    let failed = |error| Refusal::failed(format!("find {}: {error}", folder.display()));
    let root = host.canonical(folder).map_err(failed)?;
    let view = open_folder(host, &root)?;
    if view.machines.is_empty() {
        let why = view.problems.first().map_or_else(String::new, |problem| format!(": {problem}"));
        return Err(Refusal::rule(format!("no disk image was found in {}{why}", folder.display())));
    }
    let volume = VolumeState {
        id: host.volume(&root).unwrap_or_default(),
        free: host.free_bytes(&root).unwrap_or_default(),
        punches_holes: false,
    };
    let looked_at = view.machines.into_iter().map(|machine| {
        let mut sight = Sight::default();
        sight.look_again(&machine);
        while sight.is_behind() {
            sight.advance(host, &root, &machine, &OpenImages::new());
        }
        MachineState {
            power: if machine.now.memory.is_some() { Power::Saved } else { Power::Off },
            folder: root.clone(),
            place: Place::Folder(root.clone()),
            files: sight.files,
            census: sight.census,
            calibration: Calibration::default(),
            volume: volume.clone(),
            guest: None,
            outside: None,
            probing: false,
            processors: view.processors.get(&machine.id).copied(),
            problems: Vec::new(),
            machine: Arc::new(machine),
        }
    });
    Ok(FolderLook { machines: looked_at.collect(), problems: view.problems })
}
