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
        if let Some(running) = &context.owned.running {
            running.guest.pause();
            if let Err(refusal) = running.flush() {
                if !running.stands_still() {
                    running.guest.resume();
                }
                return Err(refusal);
            }
        }
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
        running.paused = self.0;
        let text = match (self.0, running.room.short) {
            (true, _) => {
                running.guest.pause();
                "it stands still"
            }
            (false, true) => "it goes on by itself when there is room on its volume",
            (false, false) => {
                running.guest.resume();
                "it goes on"
            }
        };
        Ok(Step::Done(Answer::Done(text.into()), text.into()))
    }
}
