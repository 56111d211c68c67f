//! Applying a snapshot (design.md 2.2), and taking that back.

use super::take::Take;
use super::{Context, Job, Step};
use crate::engine::{Answer, Refusal};
use crate::snapshot::SnapshotId;

pub(super) struct Apply {
    snapshot: SnapshotId,
    safety: Option<Take>,
}

impl Apply {
    pub fn new(snapshot: SnapshotId, safety: Option<String>) -> Self {
        let take = |label| Take::new(label, "taken before another snapshot was applied".into(), true);
        Self { snapshot, safety: safety.map(take) }
    }
}

impl Job for Apply {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        if let Some(take) = &mut self.safety {
            if let Step::Done(..) = take.step(context)? {
                self.safety = None;
            }
            return Ok(Step::More);
        }
        context.owned.store.check_apply(self.snapshot)?;
        let was_running = context.owned.running.is_some();
        // Now's leaves go: what the guest had not flushed goes with them.
        context.owned.stop()?;
        context.owned.store.apply(self.snapshot)?;
        let text = continue_running(context, was_running)?;
        Ok(Step::Done(Answer::Done(text.into()), text.into()))
    }

    fn cancel(&mut self, context: &mut Context<'_>) -> Result<String, Refusal> {
        match &mut self.safety {
            Some(take) => take.cancel(context),
            None => Ok("nothing was changed".into()),
        }
    }
}

pub(super) struct UndoApply;

impl Job for UndoApply {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let was_running = context.owned.running.is_some();
        context.owned.stop()?;
        context.owned.store.undo_apply()?;
        let text = continue_running(context, was_running)?;
        Ok(Step::Done(Answer::Done(text.into()), text.into()))
    }
}

/// A machine that ran continues where memory was saved; without memory it is off, ready to start.
fn continue_running(context: &mut Context<'_>, was_running: bool) -> Result<&'static str, Refusal> {
    let memory = context.owned.store.machine().now.memory.is_some();
    if was_running && memory {
        context.owned.start(context.options)?;
    }
    Ok(match (was_running, memory) {
        (true, true) => "it goes on from that instant",
        (false, true) => "it will go on from that instant when it is started",
        (_, false) => "its disks are back as after a power cut; it is off, ready to start",
    })
}
