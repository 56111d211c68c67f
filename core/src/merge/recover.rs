//! Completes a switch that was cut short.

use super::switch::{Hands, change_files, remove_files};
use super::{MergeError, Result};
use crate::snapshot::{FileRef, SwitchRecord, finish_merge};
use crate::store::MachineStore;
use crate::units::ByteCount;

/// Completes the switch that the journal names, if it names one. To be called after a machine was opened, before
/// anything else. Returns whether there was one.
pub fn complete_switch(store: &mut MachineStore) -> Result<bool> {
    let Some(record) = store.pending_switch().cloned() else { return Ok(false) };
    let host = store.host().clone();
    carry_out(store, &record, &Hands::stopped(&host), || Ok(()))?;
    store.clear_journal()?;
    Ok(true)
}

/// Files, manifest, removals; each part may have happened already. The store has checked the paths. `published` is
/// called before anything is removed.
pub(super) fn carry_out(
    store: &mut MachineStore,
    record: &SwitchRecord,
    hands: &Hands<'_>,
    published: impl FnOnce() -> Result<()>,
) -> Result<ByteCount> {
    let files = &record.files;
    if files.run.len() < 2 || files.run.len() != record.run.len() || files.target >= files.run.len() {
        return Err(MergeError::Refused("the journal names a run that can't be".into()));
    }
    let (host, dir) = (store.host().clone(), store.dir().to_path_buf());
    change_files(hands, &dir, files)?;
    if record.run.first().is_some_and(|first| store.machine().images.contains_key(first)) {
        let change = finish_merge(store.machine(), &record.run, files.kept.clone());
        store.publish(change.machine)?;
    }
    published()?;
    let named =
        |file: &FileRef| store.machine().images.values().any(|record| record.file == file.file && file.file != files.kept);
    if let Some(file) = files.run.iter().find(|file| named(file)) {
        let text = format!("{} would be removed, but the machine still needs it", file.file.display());
        return Err(MergeError::Refused(text));
    }
    remove_files(&host, &dir, files)
}
