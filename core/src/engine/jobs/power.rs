//! Start, stop, pause and resume.

use std::time::Duration;

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

/// How long an operating system may take to shut down.
const SHUT_DOWN: Duration = Duration::from_secs(90);
/// How often is looked whether it has.
const AGAIN: Duration = Duration::from_millis(100);

/// Has the operating system shut down where there is one; otherwise turns the machine off.
#[derive(Default)]
pub(super) struct Stop {
    /// When the power button was pressed (the clock's `elapsed`).
    pressed: Option<Duration>,
}

impl Job for Stop {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let Some(running) = &context.owned.running else { return turn_off(context) };
        let now = context.options.clock.elapsed();
        match self.pressed {
            None if running.guest.press_power_button()? => {
                self.pressed = Some(now);
                context.report.title = "Waiting for the operating system to shut down".into();
                Ok(Step::Wait(AGAIN))
            }
            None => turn_off(context),
            Some(_) if running.guest.ended().is_some() => turn_off(context),
            Some(pressed) if now < pressed + SHUT_DOWN => Ok(Step::Wait(AGAIN)),
            Some(_) => {
                let limit = SHUT_DOWN.as_secs();
                Err(Refusal::failed(format!("its operating system hasn't shut down within {limit} s; the machine runs on")))
            }
        }
    }

    fn is_pausable(&self) -> bool {
        // So that it can be cancelled.
        self.pressed.is_some()
    }

    fn cancel(&mut self, _: &mut Context<'_>) -> Result<String, Refusal> {
        Ok("its power button was pressed already, and its operating system may still obey".into())
    }
}

/// Turns it off at once.
pub(super) struct TurnOff;

impl Job for TurnOff {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        turn_off(context)
    }
}

fn turn_off(context: &mut Context<'_>) -> Result<Step, Refusal> {
    if let Some(running) = context.owned.running.as_ref().filter(|running| running.guest.ended().is_none()) {
        running.guest.pause();
        if let Err(refusal) = running.flush() {
            if !running.stands_still() {
                running.guest.resume();
            }
            return Err(refusal);
        }
    }
    context.owned.stop()?;
    context.owned.end_left_guest()?;
    let text = "it is off, and its disks are flushed";
    Ok(Step::Done(Answer::Done(text.into()), text.into()))
}

/// Lets a running machine stand still, or go on.
pub(super) struct Hold(pub bool);

impl Job for Hold {
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal> {
        let running = context.owned.running.as_mut().ok_or_else(|| Refusal::rule("the machine doesn't run"))?;
        running.paused = self.0;
        running.guest.remember_pause(self.0);
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
