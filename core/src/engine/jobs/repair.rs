//! What is done with a folder of images: its diagnosis, and its repair.

use std::path::{Path, PathBuf};

use super::beside::{Beside, Outcome};
use crate::clock::SharedClock;
use crate::diagnose;
use crate::engine::worker::SubscriberId;
use crate::engine::{JobKind, Mode, Refusal, RepairFolder, RepairView, RequestId};
use crate::host_file::SharedHost;
use crate::repair;

/// Nobody cancels it: it is all done, or taken back.
const WHOLE: &str = "it goes to its end";

/// Begins to look at all images of a folder.
pub(in crate::engine) fn diagnose(
    host: &SharedHost,
    folder: PathBuf,
    from: (SubscriberId, RequestId),
    clock: &SharedClock,
) -> Result<Beside, Refusal> {
    let host = host.clone();
    let job = Beside::start((JobKind::Repair, String::new()), "nothing was changed", from, clock, move |_| {
        let found = diagnose::diagnose(&host, &folder).map_err(|error| Refusal::failed(error.to_string()))?;
        Ok(Outcome::Diagnosed(Box::new(found)))
    })?;
    Ok(job.quietly())
}

/// Plans a repair, or carries out the one that was shown.
pub(in crate::engine) fn repair(
    host: &SharedHost,
    request: RepairFolder,
    mode: Mode,
    from: (SubscriberId, RequestId),
    clock: &SharedClock,
) -> Result<Beside, Refusal> {
    let host = host.clone();
    let title = format!("Repairing {}", name(&request.folder));
    let job = Beside::start((JobKind::Repair, title), WHOLE, from, clock, move |_| {
        let RepairFolder { folder, choices, plan } = request;
        match (mode, plan) {
            (Mode::WhatIf, _) => {
                let found = diagnose::diagnose(&host, &folder).map_err(|error| Refusal::failed(error.to_string()))?;
                let (past, kept) = (repair::past(&host, &folder)?, repair::kept_bytes(&host, &folder)?);
                let view = RepairView { plan: repair::plan(&host, &found, &choices), past, kept, found };
                Ok(Outcome::RepairPlanned(Box::new(view)))
            }
            (Mode::Do, None) => Err(Refusal::rule("a repair is planned before it is carried out")),
            (Mode::Do, Some(plan)) => {
                let done = repair::execute(&host, &plan, &choices)?;
                Ok(Outcome::Done(format!("repaired: {} in {}", count(done.done.len()), name(&folder))))
            }
        }
    })?;
    Ok(if mode == Mode::Do { job.unstoppable() } else { job.quietly() })
}

/// Takes the last repair of a folder back, or what was cut short of it.
pub(in crate::engine) fn undo_repair(
    host: &SharedHost,
    folder: PathBuf,
    from: (SubscriberId, RequestId),
    clock: &SharedClock,
) -> Result<Beside, Refusal> {
    let host = host.clone();
    let title = format!("Taking back the repair of {}", name(&folder));
    let job = Beside::start((JobKind::Repair, title), WHOLE, from, clock, move |_| {
        let done = repair::undo(&host, &folder)?;
        Ok(Outcome::Done(format!("taken back: {} in {}", count(done.done.len()), name(&folder))))
    })?;
    Ok(job.unstoppable())
}

/// Frees what the repairs of a folder keep.
pub(in crate::engine) fn forget_repairs(
    host: &SharedHost,
    folder: PathBuf,
    from: (SubscriberId, RequestId),
    clock: &SharedClock,
) -> Result<Beside, Refusal> {
    let host = host.clone();
    let title = format!("Freeing what repairs of {} keep", name(&folder));
    let job = Beside::start((JobKind::Repair, title), WHOLE, from, clock, move |_| {
        let freed = repair::forget(&host, &folder)?;
        Ok(Outcome::Done(format!("{freed} came back in {}", name(&folder))))
    })?;
    Ok(job.unstoppable())
}

fn count(changes: usize) -> String {
    if changes == 1 { "1 change".into() } else { format!("{changes} changes") }
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}
