//! What changes the tree and moves or removes files, but moves no image's bytes: delete, undelete,
//! rename, note, protect, settings, hardware, resize, empty the trash.

use super::{Context, Job, Step};
use crate::engine::{Answer, Command, Refusal};
use crate::snapshot::Tree;
use crate::units::ByteCount;

pub(super) struct Edit(pub Command);

impl Job for Edit {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let store = &mut context.owned.store;
        let text = match &self.0 {
            Command::Delete { snapshots, subtree, free_now, .. } => {
                let trashed = store.delete(snapshots, *subtree, *free_now)?;
                let held: ByteCount = trashed.iter().map(|item| item.held).sum();
                let in_trash = if trashed.is_empty() { String::new() } else { format!("; {held} went to the trash") };
                let due = match Tree::of(store.machine()).runs().len() {
                    0 => "",
                    1 => "; a merge is due",
                    _ => "; merges are due",
                };
                format!("deleted{in_trash}{due}")
            }
            Command::Undelete { snapshot, .. } => {
                let back = store.undelete(*snapshot)?;
                format!("{} {} back", back.len(), if back.len() == 1 { "snapshot is" } else { "snapshots are" })
            }
            Command::Rename { snapshot, label, .. } => {
                store.rename(*snapshot, label)?;
                format!("it is called {label} now")
            }
            Command::SetNote { snapshot, note, .. } => {
                store.set_note(*snapshot, note)?;
                "the note is kept".to_owned()
            }
            Command::Protect { snapshot, protected, .. } => {
                store.protect(*snapshot, *protected)?;
                if *protected { "it is protected".to_owned() } else { "it is no longer protected".to_owned() }
            }
            Command::SetSettings { settings, .. } => {
                store.set_settings(settings.clone())?;
                "the settings are changed".to_owned()
            }
            Command::SetHardware { memory, hardware, .. } => {
                store.set_hardware(*memory, hardware.clone())?;
                "QEMU runs it so from its next start on".to_owned()
            }
            Command::Resize { disk, size, .. } => {
                store.resize(disk, *size)?;
                format!("{disk} has {size} now")
            }
            Command::EmptyTrash { all, .. } => {
                let freed = store.empty_trash(*all)?;
                format!("emptied; {freed} came back")
            }
            other => return Err(Refusal::failed(format!("{other:?} is not an edit"))),
        };
        Ok(Step::Done(Answer::Done(text.clone()), text))
    }
}
