//! Completes a switch that was cut short.

use std::path::{Component, Path};

use super::switch::{change_files, remove, remove_files};
use super::{MergeError, Result};
use crate::snapshot::{SwitchRecord, finish_merge};
use crate::store::MachineStore;
use crate::units::ByteCount;

/// Completes the switch that the journal names, if it names one. To be called after a machine was opened, before
/// anything else. Returns whether there was one.
pub fn complete_switch(store: &mut MachineStore) -> Result<bool> {
    let Some(record) = store.pending_switch().cloned() else { return Ok(false) };
    carry_out(store, &record)?;
    store.clear_journal()?;
    Ok(true)
}

/// Files, manifest, removals; each part may have happened already.
pub(super) fn carry_out(store: &mut MachineStore, record: &SwitchRecord) -> Result<ByteCount> {
    check_paths(record)?;
    let (host, dir) = (store.host().clone(), store.dir().to_path_buf());
    change_files(&host, &dir, &record.files)?;
    if record.run.first().is_some_and(|first| store.machine().images.contains_key(first)) {
        let change = finish_merge(store.machine(), &record.run, record.files.kept.clone());
        store.publish(change.machine)?;
    }
    let mut freed = remove_files(&host, &dir, &record.files)?;
    for file in &record.removes {
        freed += remove(&*host, &dir.join(file))?;
    }
    Ok(freed)
}

/// A journal is input: its paths stay inside the machine's folder.
fn check_paths(record: &SwitchRecord) -> Result<()> {
    let files = &record.files;
    let images = files.run.iter().chain(&files.children).map(|file| &file.file);
    for path in images.chain([&files.kept]).chain(files.parent.iter().map(|(path, _)| path)).chain(&record.removes) {
        if !is_inside(path) {
            return Err(MergeError::Refused(format!(
                "the journal names {}, which isn't in the machine's folder",
                path.display()
            )));
        }
    }
    if files.run.len() < 2 || files.run.len() != record.run.len() || files.target >= files.run.len() {
        return Err(MergeError::Refused("the journal names a run that can't be".into()));
    }
    Ok(())
}

fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}
