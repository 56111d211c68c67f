//! A machine that goes on writing while a snapshot is taken, or while a merge goes on under it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use snaptree_core::chain::{Chain, Gate};
use snaptree_core::clock::SharedClock;
use snaptree_core::disk::Image;
use snaptree_core::host_file::Access;
use snaptree_core::merge::{self, Execution, StepOutcome, complete_switch};
use snaptree_core::snapshot::{DiskId, ImageId, Tree};
use snaptree_core::store::MachineStore;
use snaptree_core::units::ByteCount;

use super::super::model::{Now, State, Written};
use super::{Expected, MOST_NODES, Round};
use crate::lab::Counted;

/// Data moved in one step.
const BUDGET: ByteCount = ByteCount::kib(256);

type Labels = BTreeSet<String>;

/// A machine that works: its folder and its disks.
struct Working {
    store: MachineStore,
    chains: Vec<Arc<Chain>>,
}

impl Working {
    fn disks(&self) -> Vec<DiskId> {
        self.store.machine().now.images.keys().cloned().collect()
    }

    /// What it has open.
    fn images(&self) -> BTreeMap<ImageId, Arc<dyn Image>> {
        let leaves = self.store.machine().now.images.values();
        let tree = Tree::of(self.store.machine());
        leaves.zip(&self.chains).flat_map(|(leaf, chain)| tree.chain(*leaf).into_iter().zip(chain.images())).collect()
    }
}

impl Round<'_> {
    pub(super) fn open_now(&self, at: usize) -> Result<Vec<Arc<Chain>>, String> {
        let machine = MachineStore::look(&self.host.shared(), &self.folder(at)).map_err(|error| error.to_string())?;
        let gate = Gate::new([self.folder(at)]);
        let open = |image: &ImageId| {
            let path = self.folder(at).join(&machine.images[image].file);
            let chain = Chain::open(&self.host.shared(), &path, Access::Write, &gate).map_err(|error| error.to_string())?;
            Ok(Arc::new(chain))
        };
        machine.now.images.values().map(open).collect()
    }

    /// A few writes, zeroings and flushes of Now; `false` when one failed.
    pub(super) fn scribble(&mut self, chains: &[Arc<Chain>], now: &mut Now) -> bool {
        for _ in 0..1 + self.random.below(10) {
            let disk = self.random.below(chains.len() as u64) as usize;
            let chain = &chains[disk];
            let (sector, size) = (u64::from(chain.images()[0].info().logical_sector_size), chain.virtual_size().0);
            if self.random.chance(1, 6) {
                // A flush of one disk says nothing about the others: all are flushed.
                if chains.iter().any(|chain| chain.flush().is_err()) {
                    return false;
                }
                now.flushed();
                continue;
            }
            let most = if self.random.chance(1, 5) { size / sector / 2 } else { 64 };
            let first = self.random.below(size / sector);
            let offset = first * sector;
            let length = (1 + self.random.below(most)).min(size / sector - first) * sector;
            let bytes = (!self.random.chance(1, 3)).then(|| {
                let mut bytes = vec![self.random.next_u64() as u8 | 1; length as usize];
                self.random.fill(&mut bytes[..64]);
                bytes
            });
            let result = match &bytes {
                Some(bytes) => chain.write_at(bytes, offset),
                None => chain.write_zeroes(offset, length),
            };
            now.write(Written { disk, offset, length, bytes, acknowledged: result.is_ok() });
            if result.is_err() {
                return false;
            }
        }
        true
    }

    fn start_working(&mut self, at: usize) -> Option<Working> {
        let clock: SharedClock = self.clock.clone();
        let mut store = MachineStore::open(&self.host.shared(), &clock, &self.folder(at)).ok()?;
        complete_switch(&mut store).ok()?;
        let chains = self.open_now(at).ok()?;
        Some(Working { store, chains })
    }

    /// The machine goes on writing while the snapshot is taken; with some of them the taking is given up.
    pub(super) fn take_live(&mut self, at: usize) -> Result<Expected, String> {
        let label = self.new_label(at);
        let (mut now, mut labels) = (self.before(at).now, vec![self.before(at).labels]);
        let started = self.start_working(at);
        let done = started.and_then(|mut working| {
            self.scribble(&working.chains, &mut now).then_some(())?;
            self.take_in(at, &mut working, &label, &mut now, &mut labels)
        });
        Ok(one_of(done.is_some(), labels, now))
    }

    /// Takes a snapshot of a machine that works, or gives it up; `None` where something failed. The last of `labels` are
    /// the snapshots afterwards; where it failed, the one before is possible too.
    fn take_in(&mut self, at: usize, working: &mut Working, label: &str, now: &mut Now, labels: &mut Vec<Labels>) -> Option<()> {
        let without = labels.pop()?;
        let with: Labels = without.iter().cloned().chain([label.to_owned()]).collect();
        *labels = vec![without.clone(), with.clone()];
        let disks = working.disks();
        let leaf = |(disk, chain): (&DiskId, &Arc<Chain>)| Some((disk.clone(), chain.images().pop()?));
        let leaves: BTreeMap<DiskId, Arc<dyn Image>> = disks.iter().zip(&working.chains).filter_map(leaf).collect();
        let prepared = working.store.prepare_take(label, "", &leaves, ByteCount::ZERO).ok()?;
        self.scribble(&working.chains, now).then_some(())?;
        for (disk, chain) in disks.iter().zip(&working.chains) {
            chain.push_leaf(prepared.leaves[disk].new.clone()).ok()?;
        }
        self.subjects[at].known.insert(label.into(), now.acknowledged());
        self.scribble(&working.chains, now).then_some(())?;
        let taken = working.store.clock().now();
        if self.random.chance(3, 4) {
            working.store.publish_take(&prepared, None, false, taken).ok()?;
            *labels = vec![with];
        } else {
            working.store.abandon_take(prepared, true).ok()?;
            *labels = vec![without];
        }
        self.scribble(&working.chains, now).then_some(())
    }

    /// All that is due is merged while the machine writes; in between a snapshot is taken or deleted, or it is cancelled.
    pub(super) fn merge_live(&mut self, at: usize) -> Result<Expected, String> {
        let (mut now, mut labels) = (self.before(at).now, vec![self.before(at).labels]);
        let done = self.start_working(at).and_then(|working| self.merge_in(at, working, &mut now, &mut labels));
        Ok(one_of(done.is_some(), labels, now))
    }

    fn merge_in(&mut self, at: usize, mut working: Working, now: &mut Now, labels: &mut Vec<Labels>) -> Option<()> {
        let punches = self.punches;
        self.scribble(&working.chains, now).then_some(())?;
        'planned: while let Some(run) = Tree::of(working.store.machine()).runs().into_iter().next() {
            let (dir, host) = (working.store.dir().to_path_buf(), working.store.host().clone());
            let machine = working.store.machine().clone();
            let counted = Counted::of_running(&host, &dir, &machine, punches, &working.images()).ok()?;
            let plan = merge::plan(&counted.facts(), &run).ok()?;
            let in_use = |leaf: &ImageId| Tree::of(&machine).chain(*leaf).iter().any(|image| run.images.contains(image));
            let mut used = machine.now.images.iter().zip(&working.chains);
            let chain = used.find(|((disk, leaf), _)| **disk == run.disk && in_use(leaf)).map(|(_, chain)| chain.clone());
            let moment = working.store.clock().now();
            let mut execution = match &chain {
                Some(chain) => Execution::begin_live(&mut working.store, &plan, moment, chain),
                None => Execution::begin(&mut working.store, &plan, moment),
            }
            .ok()?;
            loop {
                self.scribble(&working.chains, now).then_some(())?;
                if let StepOutcome::Done(_) = execution.step(&mut working.store, BUDGET).ok()? {
                    continue 'planned;
                }
                if self.random.chance(7, 8) {
                    continue;
                }
                // Something else comes in; then it is planned anew.
                execution.end().ok()?;
                self.scribble(&working.chains, now).then_some(())?;
                match self.random.below(4) {
                    0 if labels.last()?.len() < MOST_NODES => {
                        let label = self.new_label(at);
                        self.take_in(at, &mut working, &label, now, labels)?;
                    }
                    1 | 2 => self.delete_in(&mut working, labels)?,
                    _ => return Some(()),
                }
                continue 'planned;
            }
        }
        self.scribble(&working.chains, now).then_some(())
    }

    /// Deletes a snapshot of a machine that works.
    fn delete_in(&mut self, working: &mut Working, labels: &mut Vec<Labels>) -> Option<()> {
        let before = labels.pop()?;
        let mut snapshots: Vec<_> =
            working.store.machine().snapshots.iter().map(|(id, snapshot)| (snapshot.label.clone(), *id)).collect();
        snapshots.sort();
        let picked = self.random.below(snapshots.len().max(1) as u64) as usize;
        let Some((label, id)) = snapshots.into_iter().nth(picked) else {
            labels.push(before);
            return Some(());
        };
        let after: Labels = before.iter().filter(|other| **other != label).cloned().collect();
        *labels = vec![before, after];
        working.store.delete(&[id], false, self.random.chance(1, 2)).ok()?;
        labels.remove(0);
        Some(())
    }
}

/// The machine has one of these sets of snapshots, if it was done the last.
fn one_of(done: bool, labels: Vec<Labels>, now: Now) -> Expected {
    let states = labels.into_iter().map(|labels| State { labels, now: now.clone() }).collect();
    Expected { done, states, worked: false, may_be_back: BTreeSet::new() }
}
