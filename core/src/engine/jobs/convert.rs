//! One file in place of a chain, in any format; and looking into an image.

use std::path::{Path, PathBuf};

use super::beside::{Beside, Outcome};
use crate::chain::{Chain, Gate, Source, convert as write, inspect as look};
use crate::clock::SharedClock;
use crate::engine::worker::SubscriberId;
use crate::engine::{ConvertImage, JobKind, Mode, Plan, Refusal, RequestId};
use crate::host_file::{Access, SharedHost};

/// What is said of a conversion that was cancelled.
const NOTHING_LEFT: &str = "nothing is left of the new file";

/// Parents may be in the file's own folder, and where it was said.
fn gate(image: &Path, folders: Vec<PathBuf>) -> Gate {
    let own = image.parent().map(Path::to_path_buf);
    Gate::new(folders.into_iter().chain(own))
}

/// Begins to write it, or only to see whether it can be.
pub(in crate::engine) fn convert(
    host: &SharedHost,
    request: ConvertImage,
    mode: Mode,
    from: (SubscriberId, RequestId),
    clock: &SharedClock,
) -> Result<Beside, Refusal> {
    let host = host.clone();
    let name = request.to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let title = format!("Writing {name}");
    let job = Beside::start((JobKind::Convert, title), NOTHING_LEFT, from, clock, move |control| {
        let source = if request.raw {
            Source::raw(&host, &request.image)?
        } else {
            let gate = gate(&request.image, request.folders);
            // A look takes no lock: what it says may be over when it is done.
            let access = if mode == Mode::Do { Access::Read } else { Access::Look };
            Source::Chain(Box::new(Chain::open(&host, &request.image, access, &gate)?))
        };
        if mode == Mode::WhatIf {
            let most = source.check(&host, &request.to, request.target)?;
            return Ok(Outcome::Planned(Box::new(Plan::Convert { most })));
        }
        let done = write(&host, &source, &request.to, request.target, &mut |stands| control.go_on(stands.done, stands.total))?;
        let done = done.ok_or_else(|| Refusal::failed(NOTHING_LEFT))?;
        Ok(Outcome::Done(format!("{name} is written: {} of data", done.written)))
    })?;
    Ok(if mode == Mode::Do { job } else { job.quietly() })
}

/// Begins to look at all images of a folder.
pub(in crate::engine) fn diagnose(
    host: &SharedHost,
    folder: PathBuf,
    from: (SubscriberId, RequestId),
    clock: &SharedClock,
) -> Result<Beside, Refusal> {
    let host = host.clone();
    let job = Beside::start((JobKind::Convert, String::new()), "nothing was changed", from, clock, move |_| {
        let found = crate::diagnose::diagnose(&host, &folder).map_err(|error| Refusal::failed(error.to_string()))?;
        Ok(Outcome::Diagnosed(Box::new(found)))
    })?;
    Ok(job.quietly())
}

/// Begins to look.
pub(in crate::engine) fn inspect(
    host: &SharedHost,
    (image, folders): (PathBuf, Vec<PathBuf>),
    from: (SubscriberId, RequestId),
    clock: &SharedClock,
) -> Result<Beside, Refusal> {
    let host = host.clone();
    let job = Beside::start((JobKind::Convert, String::new()), "nothing was changed", from, clock, move |_| {
        Ok(Outcome::Inspected(Box::new(look(&host, &image, &gate(&image, folders))?)))
    })?;
    Ok(job.quietly())
}
