//! Operations on the tree of a machine whose lock we hold; each happens wholly or not at all.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::machine_store::SNAPSHOTS;
use super::recovery::{check_restore, complete, open_image, remove_images};
use super::{ChangeRecord, Journal, MachineStore, Result, StoreError, StoreErrorKind};
use crate::disk::{self, ImageFormat};
use crate::fresh;
use crate::host_file::Access;
use crate::snapshot::{
    self, Change, Context, DiskId, Hardware, ImageId, ImageRecord, Leaves, MergeRecord, SavedMemory, Settings, Snapshot,
    SnapshotId, Stamp, TrashItem, TrashSelection, rules,
};
use crate::units::ByteCount;

/// What a new leaf, its folder entry and the manifest may take before anything is written to it.
const NEW_LEAF: ByteCount = ByteCount::mib(8);
/// What must stay free beside it.
const RESERVE: ByteCount = ByteCount::mib(16);

impl MachineStore {
    /// Whether a snapshot can be applied as things are: for a machine that runs still, and shall run on where it can't.
    pub fn check_apply(&mut self, snapshot: SnapshotId) -> Result<()> {
        self.ready(rules::apply(&self.machine, &Context::default(), snapshot))?;
        let disks = self.machine.snapshots.get(&snapshot).map_or(0, |node| node.images.len());
        self.check_space(leaf_space(disks))
    }

    /// Continues from a snapshot: new leaves, its configuration, its memory. The machine is off.
    pub fn apply(&mut self, snapshot: SnapshotId) -> Result<()> {
        self.check_apply(snapshot)?;
        let images = self.machine.snapshots.get(&snapshot).map(|node| node.images.clone()).unwrap_or_default();
        let parents: Vec<_> = images
            .iter()
            .map(|(disk, image)| Ok((disk, *image, open_image(self, *image, Access::Read)?)))
            .collect::<Result<_>>()?;
        self.freeze_leaves()?;
        let leaves: Leaves = parents.iter().map(|(disk, image, _)| ((*disk).clone(), self.new_leaf(disk, *image))).collect();
        let change = snapshot::apply(&self.machine, snapshot, leaves.clone(), &self.stamp(fresh::uuid()));
        let created = leaves.values().map(|(_, record)| record.file.clone()).collect();
        self.commit_with("apply", change, created, |store| {
            for (disk, _, parent) in parents {
                let path = store.dir.join(&leaves[disk].1.file);
                disk::create_child(&store.host, &path, &*parent, None)?;
            }
            Ok(())
        })
    }

    /// Puts back what Now held before the last apply. The machine is off.
    pub fn undo_apply(&mut self) -> Result<()> {
        self.ready(rules::undo_apply(&self.machine, &Context::default()))?;
        self.freeze_leaves()?;
        let change = snapshot::undo_apply(&self.machine, &self.stamp(fresh::uuid()));
        check_restore(self, &change)?;
        self.commit("undo apply", change, Vec::new())
    }

    /// Deletes snapshots; returns what was moved to the trash.
    pub fn delete(&mut self, snapshots: &[SnapshotId], subtree: bool, free_now: bool) -> Result<Vec<TrashItem>> {
        self.ready(rules::delete(&self.machine, &Context::default(), snapshots, subtree))?;
        let action = fresh::uuid();
        let change = snapshot::delete(&self.machine, snapshots, subtree, free_now, &self.stamp(action));
        self.commit_giving_back("delete", change)?;
        Ok(self.machine.trash.iter().filter(|item| item.action == action).cloned().collect())
    }

    /// Takes back the action that deleted this snapshot; returns the snapshots that are back.
    pub fn undelete(&mut self, snapshot: SnapshotId) -> Result<Vec<SnapshotId>> {
        self.ready(rules::undelete(&self.machine, &Context::default(), snapshot))?;
        let change = snapshot::undelete(&self.machine, snapshot);
        check_restore(self, &change)?;
        let back = change.machine.snapshots.keys().filter(|id| !self.machine.snapshots.contains_key(id)).copied().collect();
        self.commit("undelete", change, Vec::new())?;
        Ok(back)
    }

    /// Makes one of Now's disks larger; what is new reads as zeros. The machine is off.
    pub fn resize(&mut self, disk: &DiskId, size: ByteCount) -> Result<()> {
        self.ready(rules::resize(&self.machine, &Context::default(), disk, size))?;
        self.check_space(leaf_space(1))?;
        // An image that can't be opened isn't found out only when the manifest says that it has grown.
        if let Some(image) = self.machine.now.images.get(disk) {
            drop(open_image(self, *image, Access::Write)?);
        }
        self.commit("resize", snapshot::resize(&self.machine, disk, size), Vec::new())
    }

    /// Gives a snapshot another label.
    pub fn rename(&mut self, snapshot: SnapshotId, label: &str) -> Result<()> {
        self.ready(rules::rename(&self.machine, &Context::default(), snapshot, Some(label)))?;
        self.edit(snapshot, |node| label.clone_into(&mut node.label))
    }

    /// Sets a snapshot's note.
    pub fn set_note(&mut self, snapshot: SnapshotId, note: &str) -> Result<()> {
        self.ready(rules::edit(&self.machine, &Context::default(), snapshot))?;
        self.edit(snapshot, |node| note.clone_into(&mut node.note))
    }

    /// Protects a snapshot from deletion, or no longer.
    pub fn protect(&mut self, snapshot: SnapshotId, protected: bool) -> Result<()> {
        self.ready(rules::edit(&self.machine, &Context::default(), snapshot))?;
        self.edit(snapshot, |node| node.protected = protected)
    }

    fn edit(&mut self, snapshot: SnapshotId, change: impl FnOnce(&mut Snapshot)) -> Result<()> {
        let change = snapshot::edit(&self.machine, snapshot, change);
        self.commit("edit", change, Vec::new())
    }

    /// Changes the machine's settings.
    pub fn set_settings(&mut self, settings: Settings) -> Result<()> {
        self.ready(Ok(()))?;
        let mut next = self.machine.clone();
        next.settings = settings;
        self.publish(next)
    }

    /// Lets QEMU run the machine, with this memory and hardware.
    pub fn set_hardware(&mut self, memory: ByteCount, hardware: Hardware) -> Result<()> {
        self.ready(rules::hardware(&self.machine, &Context::default()))?;
        let next = snapshot::hardware(&self.machine, memory, &hardware);
        self.publish(next)
    }

    /// Empties the trash: everything, or what is older than the setting says; returns the bytes that came back.
    pub fn empty_trash(&mut self, all: bool) -> Result<ByteCount> {
        self.ready(Ok(()))?;
        let hours = chrono::Duration::hours(self.machine.settings.trash_hours.into());
        let oldest = self.clock.now().checked_sub_signed(hours).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let change = snapshot::empty_trash(&self.machine, if all { TrashSelection::All } else { TrashSelection::Before(oldest) });
        let held = |items: &[TrashItem]| items.iter().map(|item| item.held).sum::<ByteCount>();
        let freed = held(&self.machine.trash).saturating_sub(held(&change.machine.trash));
        if change.machine != self.machine {
            self.commit_giving_back("empty the trash", change)?;
        }
        Ok(freed)
    }

    /// The trash: what, how much, since when.
    pub fn trash_files(&self) -> &[TrashItem] {
        &self.machine.trash
    }

    /// The machine runs: Now's saved memory isn't needed any more.
    pub fn clear_memory(&mut self) -> Result<()> {
        self.ready(Ok(()))?;
        if self.machine.now.memory.is_none() {
            return Ok(());
        }
        let change = snapshot::clear_memory(&self.machine);
        self.commit("start", change, Vec::new())
    }

    /// A path (absolute, its folder made) for the memory of a machine that is stopped and saved.
    pub fn new_memory_path(&self) -> Result<PathBuf> {
        let folder = self.new_folder(fresh::uuid())?;
        Ok(self.dir.join(folder).join("memory.saved"))
    }

    /// The memory was saved (durably) at a path from [`MachineStore::new_memory_path`], absolute or relative.
    pub fn save_memory(&mut self, memory: SavedMemory) -> Result<()> {
        self.ready(Ok(()))?;
        let file = memory.file.strip_prefix(&self.dir).unwrap_or(&memory.file).to_owned();
        let change = snapshot::save_memory(&self.machine, SavedMemory { file, ..memory });
        self.commit("stop", change, Vec::new())
    }

    /// A merge starts: recorded durably; what it dooms in the trash is removed first.
    pub fn begin_merge(&mut self, record: MergeRecord) -> Result<()> {
        self.ready(Ok(()))?;
        let change = snapshot::begin_merge(&self.machine, record);
        self.commit("start a merge", change, Vec::new())
    }

    /// Carries out a change of the tree whose new files (`created`) stand already: journal, manifest, moves and removals.
    pub fn commit(&mut self, operation: &str, change: Change, created: Vec<PathBuf>) -> Result<()> {
        self.commit_with(operation, change, created, |_| Ok(()))
    }

    /// The same for what gives space back: it needs no free space.
    fn commit_giving_back(&mut self, operation: &str, change: Change) -> Result<()> {
        self.gives_back = true;
        let done = self.commit(operation, change, Vec::new());
        self.gives_back = false;
        done
    }

    /// The same; `create` makes the new files once the journal names them.
    fn commit_with(
        &mut self,
        operation: &str,
        change: Change,
        created: Vec<PathBuf>,
        create: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let Change { machine, moves, removes, restored, grown } = change;
        if created.is_empty() && moves.is_empty() && removes.is_empty() && restored.is_empty() && grown.is_empty() {
            return self.publish(machine);
        }
        let generation = self.machine.generation;
        let record = ChangeRecord { generation, operation: operation.into(), created, moves, removes, restored, grown };
        self.begin_journal(Journal::Change(record.clone()))?;
        let published = create(self).and_then(|()| self.publish(machine));
        if self.machine.generation == generation {
            if published.is_err() && remove_images(self, &record.created).is_ok() {
                let _ = self.clear_journal();
            }
            return published;
        }
        published?;
        complete(self, &record)?;
        self.forget_journal();
        Ok(())
    }

    /// What every operation needs: the rule's yes, and no other operation half done.
    pub(super) fn ready(&mut self, verdict: rules::Verdict) -> Result<()> {
        if self.pending_switch().is_some() {
            return Err(StoreError::refused(&self.dir, "a merge was cut short in its last step, which must be completed first"));
        }
        if let Some(Journal::Change(record)) = self.journal.clone() {
            // The files of the operation before couldn't be moved; perhaps they can now.
            if self.machine.generation > record.generation {
                complete(self, &record)?;
            } else {
                remove_images(self, &record.created)?;
            }
            self.clear_journal()?;
        }
        if self.journal.is_some() {
            return Err(StoreError::refused(&self.dir, "another operation on this machine is under way"));
        }
        verdict.map_err(|why| StoreError::rule(&self.dir, why))
    }

    pub(super) fn stamp(&self, action: Uuid) -> Stamp<'_> {
        Stamp { action, now: self.clock.now(), held: Box::new(|file| self.held(file)) }
    }

    /// An identifier and record for a new leaf: `Snapshots/<disk>_<GUID>.avhdx`, or `.avhd`.
    pub(super) fn new_leaf(&self, disk: &DiskId, parent: ImageId) -> (ImageId, ImageRecord) {
        let id = ImageId::new();
        let format = self.machine.images.get(&parent).map_or(ImageFormat::Vhdx, |record| record.format);
        let file = child_file(disk, id, format);
        (id, ImageRecord { disk: disk.clone(), file, parent: Some(parent), format, created: self.clock.now() })
    }

    /// A new folder in `Snapshots/`, durably there; relative.
    pub(super) fn new_folder(&self, id: Uuid) -> Result<PathBuf> {
        let folder = Path::new(SNAPSHOTS).join(id.hyphenated().to_string().to_uppercase());
        let path = self.dir.join(&folder);
        let wrong = |error| StoreError::io(&path, "create the folder", error);
        self.host.create_dir_all(&path).map_err(wrong)?;
        self.host.flush_dir(&self.dir.join(SNAPSHOTS)).map_err(wrong)?;
        Ok(folder)
    }

    /// Now's leaves are complete for every reader before they go to the trash. One that can't be read goes as it is.
    fn freeze_leaves(&self) -> Result<()> {
        for image in self.machine.now.images.values() {
            let frozen = open_image(self, *image, Access::Write).and_then(|leaf| Ok(leaf.freeze()?));
            if let Err(error) = frozen
                && matches!(&*error.kind, StoreErrorKind::Disk(error) if matches!(*error.kind, disk::DiskErrorKind::InUse))
            {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Hyper-V's naming of differencing images.
pub(super) fn child_file(disk: &DiskId, id: ImageId, format: ImageFormat) -> PathBuf {
    let guid = id.0.hyphenated().to_string().to_uppercase();
    Path::new(SNAPSHOTS).join(format!("{disk}_{guid}.{}", format.child_extension()))
}

/// Space that so many new leaves may take, and what must stay free.
pub(super) fn leaf_space(leaves: usize) -> ByteCount {
    ByteCount(NEW_LEAF.0 * leaves as u64) + RESERVE
}
