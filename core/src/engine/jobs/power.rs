//! Start, stop, pause and resume.

use super::{Context, Job, Step};
use crate::engine::{Answer, Refusal};

pub(super) struct Start;

impl Job for Start {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let continues = context.owned.store.machine().now.memory.is_some();
        context.owned.start(context.options)?;
        let text = if continues { "it continues from its saved memory" } else { "it was started" };
        Ok(Step::Done(Answer::Done(text.into()), text.into()))
    }
}

pub(super) struct Stop;

impl Job for Stop {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        context.owned.stop()?;
        let text = "it is off, and its disks are flushed";
        Ok(Step::Done(Answer::Done(text.into()), text.into()))
    }
}

/// Lets a running machine stand still, or go on.
pub(super) struct Hold(pub bool);

impl Job for Hold {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let running = context.owned.running.as_mut().ok_or_else(|| Refusal::rule("the machine doesn't run"))?;
        if self.0 {
            running.guest.pause();
        } else {
            running.guest.resume();
        }
        running.paused = self.0;
        let text = if self.0 { "it stands still" } else { "it goes on" };
        Ok(Step::Done(Answer::Done(text.into()), text.into()))
    }
}
