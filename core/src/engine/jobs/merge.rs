//! Carrying out the merges that are due, one run after the other; under a running machine too. Another command for
//! the machine makes it wait ([`Job::suspend`]): it plans again afterwards, from what the images then say.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Context, Job, Step};
use crate::cost::{MachineFacts, MergeWork};
use crate::engine::running::Running;
use crate::engine::{Answer, Command, Refusal};
use crate::merge::{self, Execution, MergePlan, Pace, RateLimit, StepOutcome};
use crate::snapshot::{DiskId, MachineId, Tree};
use crate::store::HistoryRecord;
use crate::units::{ByteCount, ByteRate};

/// A merge that is to end by some time ends so much before, beside what a step takes.
const END_MARGIN: TimeDelta = TimeDelta::milliseconds(500);

pub(super) struct Merge {
    disk: Option<DiskId>,
    limit: RateLimit,
    /// A merge that was held back says nothing about how fast the volume is.
    limited_to: Option<ByteRate>,
    /// It ends by then.
    until: Option<DateTime<Utc>>,
    /// How long the longest of the last steps took.
    step_time: Duration,
    under_way: Option<UnderWay>,
    /// Whether the images were counted anew: a merge that was cut short has changed them.
    counted: bool,
    /// Data bytes of merges that have ended.
    moved: ByteCount,
    freed: ByteCount,
    /// Written to both sides by the machine meanwhile.
    twice: ByteCount,
    merges: u32,
}

struct UnderWay {
    plan: MergePlan,
    execution: Execution,
    pace: Pace,
    /// Bytes that the guest had written when it began.
    guest_before: ByteCount,
    worked: Duration,
    estimated_seconds: Option<f64>,
}

impl Merge {
    pub fn new(disk: Option<DiskId>, limit: Option<ByteRate>, until: Option<DateTime<Utc>>) -> Self {
        Self {
            disk,
            limit: RateLimit::new(limit),
            limited_to: limit,
            until,
            step_time: Duration::ZERO,
            under_way: None,
            counted: false,
            moved: ByteCount::ZERO,
            freed: ByteCount::ZERO,
            twice: ByteCount::ZERO,
            merges: 0,
        }
    }

    /// Plans the next merge and starts it; `None` when nothing is due.
    fn begin(&self, context: &mut Context<'_>) -> Result<Option<UnderWay>, Refusal> {
        let owned = &mut *context.owned;
        let store = &mut owned.store;
        let machine = store.machine().clone();
        let runs = Tree::of(&machine).runs();
        let mut due = runs.into_iter().filter(|run| self.disk.as_ref().is_none_or(|disk| run.disk == *disk));
        let Some(run) = due.next() else { return Ok(None) };
        // The chain of the running machine that the run lies in.
        let in_use = |leaf| Tree::of(&machine).chain(leaf).iter().any(|image| run.images.contains(image));
        let used = machine.now.images.get(&run.disk).is_some_and(|leaf| in_use(*leaf));
        let running = owned.running.as_ref();
        let chain = running.and_then(|running| running.disks.get(&run.disk)).filter(|_| used);
        let facts = MachineFacts {
            machine: &machine,
            files: &context.sight.files,
            census: &context.sight.census,
            calibration: context.calibration,
            volume: context.volume,
            running: running.is_some(),
            guest: running.and_then(|running| running.rate),
        };
        let plan = merge::plan(&facts, &run)?;
        let work = MergeWork { bytes: plan.data_bytes_to_move.0, stretches: plan.stretches, merges: 1 };
        let estimated_seconds = context.calibration.estimate(work, facts.load()).map(|estimate| estimate.p50);
        let now = context.options.clock.now();
        let execution = match chain {
            None => Execution::begin(store, &plan, now)?,
            Some(chain) => Execution::begin_live(store, &plan, now, chain)?,
        };
        let pace = if running.is_some() { Pace::live(plan.batch) } else { Pace::new(plan.batch) };
        let guest_before = running.map_or(ByteCount::ZERO, Running::written);
        Ok(Some(UnderWay { plan, execution, pace, guest_before, worked: Duration::ZERO, estimated_seconds }))
    }

    fn text(&self) -> String {
        let mut text = match self.merges {
            0 => return "nothing is due to be merged".into(),
            1 => format!("1 merge is done: {} moved, {} came back", self.moved, self.freed),
            n => format!("{n} merges are done: {} moved, {} came back", self.moved, self.freed),
        };
        if self.twice > ByteCount::ZERO {
            text += &format!("; the machine wrote {} of it meanwhile", self.twice);
        }
        text
    }

    /// Whether another step might end too late.
    fn is_over(&self, context: &Context<'_>) -> bool {
        let step = TimeDelta::from_std(2 * self.step_time).unwrap_or_default() + END_MARGIN;
        self.until.is_some_and(|until| context.options.clock.now() + step >= until)
    }

    /// Lets go of what is under way; what was moved stays moved.
    fn let_go(&mut self, context: &mut Context<'_>) -> Result<(), Refusal> {
        let Some(UnderWay { execution, .. }) = self.under_way.take() else { return Ok(()) };
        self.moved += execution.progress().moved;
        self.twice += execution.written_twice();
        let ended = execution.end();
        count_again(context);
        Ok(ended?)
    }
}

impl Job for Merge {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        if self.is_over(context) {
            self.let_go(context)?;
            let text = format!("its time is over: {} moved and stay moved; the rest is due still", self.moved);
            return Ok(Step::Done(Answer::Done(text.clone()), text));
        }
        if self.under_way.is_none() {
            // The plan is made from what the images say now.
            if !std::mem::replace(&mut self.counted, true) {
                count_again(context);
            }
            if context.sight.is_behind() {
                context.report.title = "Counting what is to be moved".into();
                let machine = context.owned.store.machine().clone();
                let open = context.owned.images();
                context.sight.advance(&context.options.host, context.owned.store.dir(), &machine, &open);
                return Ok(Step::More);
            }
            let Some(under_way) = self.begin(context)? else {
                let text = self.text();
                return Ok(Step::Done(Answer::Done(text.clone()), text));
            };
            let images = under_way.plan.run.images.len();
            context.report.title = format!("Merging {}: {images} images into 1", under_way.plan.run.disk);
            context.report.total = self.moved + under_way.execution.progress().total;
            self.under_way = Some(under_way);
            return Ok(Step::More);
        }
        let Some(under_way) = &mut self.under_way else { return Err(Refusal::failed("no merge is under way")) };
        let clock = &context.options.clock;
        let began = clock.elapsed();
        let before = under_way.execution.progress().moved;
        let budget = self.limit.budget(under_way.pace.budget().max(under_way.execution.unflushed()));
        let outcome = under_way.execution.step(&mut context.owned.store, budget)?;
        let took = clock.elapsed() - began;
        under_way.worked += took;
        self.step_time = took.max(self.step_time / 2);
        let twice = under_way.execution.written_twice();
        let progress = under_way.execution.progress();
        under_way.pace.moved(progress.moved.saturating_sub(before), took);
        context.report.done = self.moved + progress.moved;
        context.report.total = self.moved + progress.total;
        if let StepOutcome::Done(merged) = outcome {
            let Some(UnderWay { plan, worked, estimated_seconds, guest_before, .. }) = self.under_way.take() else {
                return Err(Refusal::failed("no merge is under way"));
            };
            self.merges += 1;
            self.moved += merged.progress.moved;
            self.freed += merged.freed + merged.progress.given_back;
            self.twice += twice;
            if self.limited_to.is_none() {
                let running = context.owned.running.as_ref();
                let written = running.map(|running| running.written().saturating_sub(guest_before).0);
                context.owned.store.history().append(&HistoryRecord::Merge {
                    at: clock.now(),
                    disk: plan.run.disk,
                    bytes: merged.progress.moved.0,
                    stretches: merged.progress.stretches,
                    seconds: worked.as_secs_f64(),
                    estimated_seconds,
                    probe: false,
                    live: written.is_some(),
                    guest_bytes: written,
                })?;
            }
            count_again(context);
            return Ok(Step::More);
        }
        let next = self.limit.moved(progress.moved.saturating_sub(before), began);
        let wait = next.saturating_sub(clock.elapsed());
        Ok(if wait.is_zero() { Step::More } else { Step::Wait(wait) })
    }

    fn is_pausable(&self) -> bool {
        true
    }

    fn suspend(&mut self, context: &mut Context<'_>) -> Result<bool, Refusal> {
        self.let_go(context)?;
        self.counted = false;
        Ok(true)
    }

    fn command(&self, machine: MachineId) -> Option<Command> {
        Some(Command::Merge { machine, disk: self.disk.clone(), limit: self.limited_to, until: self.until })
    }

    fn cancel(&mut self, context: &mut Context<'_>) -> Result<String, Refusal> {
        self.let_go(context)?;
        Ok(format!("{} moved and stay moved; the merge goes on from there next time", self.moved))
    }
}

/// What the images hold has changed without their files' looks telling.
fn count_again(context: &mut Context<'_>) {
    context.sight.forget_layouts();
    let machine = context.owned.store.machine().clone();
    context.sight.look_again(&machine);
}
