//! Carries out a plan on a machine's files, step by step: a stopped machine's, or what a running one has open.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::recover::carry_out;
use super::switch::{Hands, check_run, children_of, record};
use super::{MergeError, MergePlan, Progress, Result, Rule, Rules, RunMerge};
use crate::chain::{Chain, LiveRun};
use crate::disk;
use crate::fresh;
use crate::host_file::Access;
use crate::snapshot::{FileRef, Machine, MergeRecord, Tree};
use crate::store::{Journal, MachineStore};
use crate::units::ByteCount;

/// What a merge came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// What this execution moved and gave back on the way.
    pub progress: Progress,
    /// Bytes that came back when the files were removed.
    pub freed: ByteCount,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// There is more to do.
    More(Progress),
    /// The merge is complete: the manifest is published, the files are gone, the journal is clear.
    Done(Merged),
}

/// A merge under way. Dropping it between two steps (a live one: [`Execution::end`]) pauses or cancels it: nothing is
/// lost, and what was moved stays moved.
#[derive(Debug)]
pub struct Execution {
    plan: MergePlan,
    rules: Rules,
    /// `None` once the switch has begun.
    merge: Option<RunMerge>,
    progress: Progress,
    done: Option<Merged>,
    /// The children of the top when the merge began; what is used is read at the switch.
    planned_children: Vec<FileRef>,
}

impl Execution {
    /// Opens the run's images, which nobody else may have open, and records the start durably: from then on undelete
    /// is refused for what is merged. A merge that was started before continues. [`MergeError::Changed`] where the
    /// tree or the bytes aren't what was planned for.
    pub fn begin(store: &mut MachineStore, plan: &MergePlan, now: DateTime<Utc>) -> Result<Self> {
        Self::start(store, plan, now, None, Rules::default())
    }

    /// The same for a run that lies in the chain of a running machine's disk, and that goes on being used.
    pub fn begin_live(store: &mut MachineStore, plan: &MergePlan, now: DateTime<Utc>, chain: &Arc<Chain>) -> Result<Self> {
        Self::start(store, plan, now, Some(chain), Rules::default())
    }

    /// The same with one rule left out.
    #[cfg(any(test, feature = "testing"))]
    pub fn begin_with(store: &mut MachineStore, plan: &MergePlan, now: DateTime<Utc>, rules: Rules) -> Result<Self> {
        Self::start(store, plan, now, None, rules)
    }

    fn start(
        store: &mut MachineStore,
        plan: &MergePlan,
        now: DateTime<Utc>,
        chain: Option<&Arc<Chain>>,
        rules: Rules,
    ) -> Result<Self> {
        let machine = store.machine();
        check_run(machine, &plan.run.images)?;
        let target = plan.target_index()?;
        let started = started(machine, plan, now);
        let new_ids = plan.run.images.iter().filter_map(|id| started.new_ids.get(id).copied()).collect();
        let merge = match chain {
            Some(chain) => RunMerge::live(lend(machine, plan, chain, target)?, target, new_ids, rules)?,
            None => {
                let mut images = Vec::new();
                for id in &plan.run.images {
                    let record = &machine.images[id];
                    images.push(disk::open(store.host(), &store.path(&record.file), record.format, Access::Write)?);
                }
                RunMerge::new(images, target, new_ids, rules)?
            }
        };
        let total = merge.progress().total;
        // What a running machine has written since can't be in the plan.
        if total != plan.data_bytes_to_move && !plan.is_written {
            let text = format!("{} bytes are to be moved, the plan says {}", total.0, plan.data_bytes_to_move.0);
            return Err(MergeError::Changed(text));
        }
        let planned_children = plan.run.images.last().map_or_else(Vec::new, |top| children_of(machine, *top));
        if rules.keep(Rule::Started) && !machine.merges.contains(&started) {
            store.begin_merge(started)?;
        }
        let progress = merge.progress();
        Ok(Self { plan: plan.clone(), rules, merge: Some(merge), progress, done: None, planned_children })
    }

    /// Where it stands.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Does a bounded part of the work: about `budget` bytes of data at most (and never more than the plan's batch) are
    /// moved, durably. The last step is the switch. After an error nothing is lost: open the machine again and go on.
    pub fn step(&mut self, store: &mut MachineStore, budget: ByteCount) -> Result<StepOutcome> {
        if let Some(merge) = &mut self.merge {
            let more = merge.step(budget.min(self.plan.batch))?;
            self.progress = merge.progress();
            if more || !merge.look_again()? {
                return Ok(StepOutcome::More(self.progress));
            }
        }
        if let Some(done) = self.done {
            return Ok(StepOutcome::Done(done));
        }
        let freed = self.switch(store)?;
        let done = Merged { progress: self.progress, freed };
        self.done = Some(done);
        Ok(StepOutcome::Done(done))
    }

    /// Ends it between two steps. What was moved stays moved.
    pub fn end(mut self) -> Result<()> {
        self.merge.take().map_or(Ok(()), RunMerge::end)
    }

    /// Bytes that the machine wrote to both sides, because they were being moved.
    pub fn written_twice(&self) -> ByteCount {
        self.merge.as_ref().and_then(|merge| merge.live.as_ref()).map_or(ByteCount::ZERO, LiveRun::written_twice)
    }

    /// A good size of the next step under a machine that hasn't flushed so much: each step flushes that as well, so what
    /// moves much less than it takes long for little.
    pub fn unflushed(&self) -> ByteCount {
        let merge = self.merge.as_ref();
        merge.map_or(ByteCount::ZERO, |merge| {
            merge.live.as_ref().map_or(ByteCount::ZERO, LiveRun::unflushed).min(ByteCount(merge.size))
        })
    }

    fn switch(&mut self, store: &mut MachineStore) -> Result<ByteCount> {
        let Some(mut merge) = self.merge.take() else {
            return Err(MergeError::Refused("the switch has failed before: open the machine again, and it is completed".into()));
        };
        let (host, dir) = (store.host().clone(), store.dir().to_path_buf());
        let target = self.plan.target_index()?;
        let is_written = self.plan.is_written;
        let mut record = record(&host, &dir, store.machine(), &self.plan.run, target, merge.images(), is_written)?;
        if !self.rules.keep(Rule::Children) && !record.files.children.is_empty() {
            record.files.children = std::mem::take(&mut self.planned_children);
        }
        let live = merge.live.take();
        let images = std::mem::take(&mut merge.images);
        drop(merge);
        let (hands, merged) = match &live {
            // The files are opened anew, as after an interruption.
            None => {
                drop(images);
                (Hands::stopped(&host), None)
            }
            Some(live) => {
                let merged = is_written.then(|| images[target].clone());
                let leaf = live.leaf(merged.as_ref());
                let open = images.into_iter().chain(live.above()).map(|image| (image.path(), image)).collect();
                (Hands::live(&host, open, leaf), merged)
            }
        };
        if self.rules.keep(Rule::Journal) {
            store.begin_journal(Journal::Switch(record.clone()))?;
        }
        let kept = (dir.join(&record.files.kept), record.files.run[target].format);
        let freed = carry_out(store, &record, &hands, || {
            let Some(live) = live else { return Ok(()) };
            let merged = merged.map_or_else(|| disk::open(&host, &kept.0, kept.1, Access::Read), Ok)?;
            Ok(live.switch(merged)?)
        })?;
        if self.rules.keep(Rule::Journal) {
            store.clear_journal()?;
        }
        Ok(freed)
    }
}

/// The run's images as a running machine's chain has them.
fn lend(machine: &Machine, plan: &MergePlan, chain: &Arc<Chain>, target: usize) -> Result<LiveRun> {
    let leaf = machine.now.images.get(&plan.run.disk).copied();
    let ids = leaf.map(|leaf| Tree::of(machine).chain(leaf)).unwrap_or_default();
    let first = ids.iter().position(|id| Some(id) == plan.run.images.first());
    let first = first.filter(|first| ids[*first..].starts_with(&plan.run.images) && ids.len() == chain.images().len());
    let first = first.ok_or_else(|| MergeError::Changed("the run doesn't lie in the chain that is in use".into()))?;
    Ok(LiveRun::begin(chain, first..first + plan.run.images.len(), target, plan.relinks_children)?)
}

/// The record of the start: what an interrupted merge has promised stays.
fn started(machine: &Machine, plan: &MergePlan, now: DateTime<Utc>) -> MergeRecord {
    let run = &plan.run;
    let before = |record: &&MergeRecord| record.disk == run.disk && record.run.iter().any(|id| run.images.contains(id));
    let same = machine.merges.iter().find(|record| record.disk == run.disk && record.run == run.images);
    if let Some(same) = same.filter(|record| record.target == plan.target) {
        return same.clone();
    }
    let promised: Vec<&MergeRecord> = machine.merges.iter().filter(before).collect();
    let id_of = |image| promised.iter().find_map(|record| record.new_ids.get(image).copied()).unwrap_or_else(fresh::uuid);
    let sources = &run.images[..run.images.len() - 1];
    MergeRecord {
        disk: run.disk.clone(),
        run: run.images.clone(),
        target: plan.target,
        new_ids: sources.iter().map(|image| (*image, id_of(image))).collect(),
        started: now,
        planned: plan.data_bytes_to_move,
    }
}
