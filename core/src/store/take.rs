//! Taking a snapshot, in two halves around the pause.
//!
//! ```text
//! prepare_take ─> (pause, switch to the new leaves, resume; save memory) ─> publish_take
//!      └────────────────────────────────────────────────────────────────> abandon_take
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::machine_store::SNAPSHOTS;
use super::operations::leaf_space;
use super::recovery::{open_image, remove_folder, undo_take};
use super::{Journal, MachineStore, NewLeaf, Result, StoreError, TakeRecord};
use crate::disk::{self, Image};
use crate::host_file::Access;
use crate::snapshot::{self, Context, DiskId, ImageId, Leaves, SavedMemory, SnapshotId, Taken, keep_on_new_leaves, rules};
use crate::units::ByteCount;

/// A disk's old and new leaf.
#[derive(Debug, Clone)]
pub struct PreparedLeaf {
    /// The leaf that will be the node's image; its identifier is pinned.
    pub old: Arc<dyn Image>,
    /// Its new child, complete and durable, open for writing, empty.
    pub new: Arc<dyn Image>,
    /// The new one's identifier.
    pub image: ImageId,
}

/// A take that is prepared.
#[derive(Debug)]
pub struct Prepared {
    /// The node that it will be.
    pub snapshot: SnapshotId,
    /// Its label.
    pub label: String,
    /// A note.
    pub note: String,
    /// Per disk, the leaves.
    pub leaves: BTreeMap<DiskId, PreparedLeaf>,
    /// The folder of its files, absolute; it exists.
    pub folder: PathBuf,
    /// Where the memory is to be written, absolute.
    pub memory_path: PathBuf,
    /// Where the picture of the screen is to be written, absolute.
    pub screen_path: PathBuf,
}

impl MachineStore {
    /// Creates the new leaves, completely and durably. `open_leaves` are the leaves of a running machine; those
    /// that are missing are opened here. Refused before anything is touched when the label, the depth or
    /// the free space (`memory` bytes and the new leaves) don't allow it.
    pub fn prepare_take(
        &mut self,
        label: &str,
        note: &str,
        open_leaves: &BTreeMap<DiskId, Arc<dyn Image>>,
        memory: ByteCount,
    ) -> Result<Prepared> {
        self.ready(rules::take(&self.machine, &Context::default(), Some(label)))?;
        let now = self.machine.now.images.clone();
        self.check_space(leaf_space(now.len()) + memory)?;
        let mut old = BTreeMap::new();
        for (disk, image) in &now {
            let leaf = match open_leaves.get(disk) {
                Some(leaf) => leaf.clone(),
                None => open_image(self, *image, Access::Write)?,
            };
            old.insert(disk.clone(), leaf);
        }

        let snapshot = SnapshotId::new();
        let new_leaf = |(disk, parent): (&DiskId, &ImageId)| {
            let (image, record) = self.new_leaf(disk, *parent);
            (disk.clone(), NewLeaf { image, record })
        };
        let leaves: BTreeMap<_, _> = now.iter().map(new_leaf).collect();
        let folder = folder_of(snapshot);
        let generation = self.machine.generation;
        let record = TakeRecord { generation, snapshot, leaves, folder: folder.clone(), complete: false };
        self.begin_journal(Journal::Take(record.clone()))?;
        match self.create_leaves(&record, &old) {
            Ok(leaves) => {
                let path = self.dir.join(&folder);
                Ok(Prepared {
                    snapshot,
                    label: label.into(),
                    note: note.into(),
                    leaves,
                    memory_path: path.join(MEMORY),
                    screen_path: path.join(SCREEN),
                    folder: path,
                })
            }
            Err(error) => {
                if undo_take(self, &record).is_ok() {
                    let _ = self.clear_journal();
                }
                Err(error)
            }
        }
    }

    fn create_leaves(
        &mut self,
        record: &TakeRecord,
        old: &BTreeMap<DiskId, Arc<dyn Image>>,
    ) -> Result<BTreeMap<DiskId, PreparedLeaf>> {
        self.new_folder(record.snapshot.0)?;
        let mut leaves = BTreeMap::new();
        for (disk, leaf) in &record.leaves {
            let old = old[disk].clone();
            old.pin_data_write_id()?;
            let new = disk::create_child(&self.host, &self.dir.join(&leaf.record.file), &*old, None)?;
            leaves.insert(disk.clone(), PreparedLeaf { old, new, image: leaf.image });
        }
        self.write_journal(Journal::Take(TakeRecord { complete: true, ..record.clone() }))?;
        Ok(leaves)
    }

    /// Freezes old leaves that aren't frozen yet, and publishes the node. `memory` and `screen` say what was written to
    /// the prepared paths (bytes held by the memory file; whether there is a picture); both durable. A machine that is
    /// off and saved gives the node the memory that it would continue from.
    pub fn publish_take(
        &mut self,
        prepared: &Prepared,
        memory: Option<ByteCount>,
        screen: bool,
        taken: DateTime<Utc>,
    ) -> Result<SnapshotId> {
        let record = self.take_record(prepared)?;
        let file = |name: &str| record.folder.join(name);
        let saved = memory.map(|held| SavedMemory { file: file(MEMORY), held });
        let node = Taken {
            id: prepared.snapshot,
            label: prepared.label.clone(),
            note: prepared.note.clone(),
            taken,
            configuration: self.machine.configuration.clone(),
            memory: saved.or_else(|| self.machine.now.memory.clone()),
            screen: screen.then(|| file(SCREEN)),
            leaves: new_leaves(&record),
        };
        freeze_old(prepared)?;
        self.host.flush_dir(&prepared.folder).map_err(|error| StoreError::io(&prepared.folder, "flush the folder", error))?;
        self.publish(snapshot::take(&self.machine, node).machine)?;
        if memory.is_none() && !screen {
            // Nothing is in it. Should it stay, it does no harm.
            let _ = remove_folder(self, &record.folder);
        }
        self.forget_journal();
        Ok(prepared.snapshot)
    }

    /// Gives the take up. Where the machine has switched to the new leaves (`switched`), they stay Now's and the old ones
    /// are retained: a merge is due. Otherwise the new ones are removed and the old ones go on as leaves.
    /// Where the node was published after all, nothing is given up.
    pub fn abandon_take(&mut self, prepared: Prepared, switched: bool) -> Result<()> {
        if self.machine.snapshots.contains_key(&prepared.snapshot) {
            self.forget_journal();
            return Ok(());
        }
        let record = self.take_record(&prepared)?;
        if switched {
            freeze_old(&prepared)?;
            self.publish(keep_on_new_leaves(&self.machine, new_leaves(&record)).machine)?;
            remove_folder(self, &record.folder)?;
        } else {
            drop(prepared);
            undo_take(self, &record)?;
        }
        self.clear_journal()
    }

    fn take_record(&self, prepared: &Prepared) -> Result<TakeRecord> {
        match &self.journal {
            Some(Journal::Take(record)) if record.snapshot == prepared.snapshot => Ok(record.clone()),
            _ => Err(StoreError::refused(&self.dir, "this snapshot isn't being taken any more")),
        }
    }
}

const MEMORY: &str = "memory.saved";
const SCREEN: &str = "screen.png";

fn folder_of(snapshot: SnapshotId) -> PathBuf {
    Path::new(SNAPSHOTS).join(snapshot.0.hyphenated().to_string().to_uppercase())
}

fn new_leaves(record: &TakeRecord) -> Leaves {
    record.leaves.iter().map(|(disk, leaf)| (disk.clone(), (leaf.image, leaf.record.clone()))).collect()
}

fn freeze_old(prepared: &Prepared) -> Result<()> {
    for leaf in prepared.leaves.values().filter(|leaf| leaf.old.is_writable()) {
        leaf.old.freeze()?;
    }
    Ok(())
}
