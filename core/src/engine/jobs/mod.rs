//! What a machine can be asked to do, one file a command. A job works in bounded steps; between two
//! steps it can be paused and cancelled, and its progress is published.

mod apply;
mod beside;
mod convert;
mod edit;
mod import;
mod merge;
mod power;
mod repair;
mod take;
mod workload;

use std::time::Duration;

use super::running::Owned;
use super::sight::Sight;
use super::{Answer, Command, EngineOptions, JobKind, LatencyReport, Refusal};
use crate::cost::{Calibration, VolumeState};
use crate::snapshot::MachineId;
use crate::units::ByteCount;

pub(super) use beside::{Beside, BesideEnd, Outcome};
pub(super) use convert::{convert, inspect};
pub(super) use import::import;
pub(super) use repair::{diagnose, forget_repairs, repair, undo_repair};

/// What a step works with.
pub(super) struct Context<'a> {
    pub options: &'a EngineOptions,
    /// The machine, its lock held.
    pub owned: &'a mut Owned,
    /// What is known of its files.
    pub sight: &'a mut Sight,
    pub calibration: &'a Calibration,
    pub volume: &'a VolumeState,
    pub report: &'a mut Report,
}

/// What a job tells of itself.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub title: String,
    pub done: ByteCount,
    pub total: ByteCount,
    pub latency: Option<LatencyReport>,
}

/// What a step came to.
pub(super) enum Step {
    /// There is more to do.
    More,
    /// There is more to do, but not before this time has passed.
    Wait(Duration),
    /// The job is done: its answer, and a sentence about what came of it.
    Done(Answer, String),
}

/// One thing that is being done to a machine.
pub(super) trait Job: Send {
    /// Does a bounded part of the work.
    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Refusal>;

    /// Whether it can be paused and cancelled between two steps.
    fn is_pausable(&self) -> bool {
        false
    }

    /// Lets go of everything, so that another job can come in between; the next step begins again from what it then
    /// finds. `false` where it can't.
    fn suspend(&mut self, _context: &mut Context<'_>) -> Result<bool, Refusal> {
        Ok(false)
    }

    /// What to ask of the process that owns the machine from now on, so that it goes on there.
    fn command(&self, _machine: MachineId) -> Option<Command> {
        None
    }

    /// Ends it early; a sentence says what was kept.
    fn cancel(&mut self, _context: &mut Context<'_>) -> Result<String, Refusal> {
        Ok("nothing was changed".into())
    }
}

/// The job for a command about one machine; `None` where a command isn't a job.
pub(super) fn for_command(command: &Command) -> Option<(JobKind, Box<dyn Job>)> {
    Some(match command {
        Command::Start(_) => (JobKind::Start, Box::new(power::Start)),
        Command::Stop(_) => (JobKind::Stop, Box::new(power::Stop::default())),
        Command::TurnOff(_) => (JobKind::Stop, Box::new(power::TurnOff)),
        Command::Pause(_) => (JobKind::Edit, Box::new(power::Hold(true))),
        Command::Resume(_) => (JobKind::Edit, Box::new(power::Hold(false))),
        Command::Take { label, note, memory, .. } => {
            (JobKind::Take, Box::new(take::Take::new(label.clone(), note.clone(), *memory)))
        }
        Command::Apply { snapshot, safety, .. } => (JobKind::Apply, Box::new(apply::Apply::new(*snapshot, safety.clone()))),
        Command::UndoApply(_) => (JobKind::UndoApply, Box::new(apply::UndoApply)),
        Command::Delete { .. } => (JobKind::Delete, Box::new(edit::Edit(command.clone()))),
        Command::Undelete { .. } => (JobKind::Undelete, Box::new(edit::Edit(command.clone()))),
        Command::Rename { .. }
        | Command::SetNote { .. }
        | Command::Protect { .. }
        | Command::SetSettings { .. }
        | Command::SetHardware { .. }
        | Command::Resize { .. } => (JobKind::Edit, Box::new(edit::Edit(command.clone()))),
        Command::EmptyTrash { .. } => (JobKind::EmptyTrash, Box::new(edit::Edit(command.clone()))),
        Command::Merge { disk, limit, until, .. } => (JobKind::Merge, Box::new(merge::Merge::new(disk.clone(), *limit, *until))),
        Command::BadUpdate(_) => (JobKind::Edit, Box::new(workload::BadUpdate)),
        Command::RunWorkload { milliseconds, seed, .. } => {
            (JobKind::RunWorkload, Box::new(workload::Run::new(Duration::from_millis(*milliseconds), *seed)))
        }
        Command::Verify { at, .. } => (JobKind::Verify, Box::new(workload::Verify::new(*at))),
        Command::Rescan
        | Command::OpenFolder(_)
        | Command::SetWindow(_)
        | Command::RemoveWindow(_)
        | Command::PinMerge { .. }
        | Command::MakePlan
        | Command::ForgetMissed
        | Command::CloseFolder(_)
        | Command::Create(_)
        | Command::Import(_)
        | Command::Convert(_)
        | Command::Inspect { .. }
        | Command::Diagnose(_)
        | Command::Repair(_)
        | Command::UndoRepair(_)
        | Command::ForgetRepairs(_)
        | Command::Remove { .. }
        | Command::Job { .. } => return None,
    })
}
