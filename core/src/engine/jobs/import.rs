//! Bringing images of others in.

use std::path::Path;

use super::beside::{Beside, Control, Outcome};
use crate::clock::SharedClock;
use crate::disk::ImageFormat;
use crate::engine::worker::SubscriberId;
use crate::engine::{Import, ImportMode, JobKind, Mode, Plan, Refusal, RequestId};
use crate::host_file::SharedHost;
use crate::snapshot::{MachineKind, WorkloadProfile};
use crate::store::{ImportRequest, Library, MEMORY_UNKNOWN, MachineStore, NewMachine, StoreError, StoreErrorKind};
#[cfg(unix)]
use crate::vm::qemu::{OtherFormat, OtherImage};

/// What is said of an import that was cancelled.
const UNTOUCHED: &str = "the originals are untouched";

/// Begins it, or only to see whether it can be.
pub(in crate::engine) fn import(
    (host, library): (&SharedHost, &Library),
    (import, mode): (Import, Mode),
    from: (SubscriberId, RequestId),
    clock: &SharedClock,
) -> Result<Beside, Refusal> {
    let title = format!("Importing {}", import.name);
    let (host, library) = (host.clone(), library.clone());
    let job = Beside::start((JobKind::Import, title), UNTOUCHED, from, clock, move |control| {
        let is_look = mode == Mode::WhatIf;
        let store = match other(&host, &import)? {
            #[cfg(unix)]
            Some(_) if is_look => return Ok(Outcome::Planned(Box::new(Plan::Other))),
            #[cfg(unix)]
            Some(other) => convert((&host, &library), &other, import, control)?,
            _ => {
                let Import { path, name, mode, computer } = import;
                let request = ImportRequest { path, name, remove_originals: mode == ImportMode::Move, computer };
                if is_look {
                    library.check_import(&request)?;
                    return Ok(Outcome::Planned(Box::new(Plan::Other)));
                }
                library.import(&request, &mut |done, total| control.go_on(done, total))?
            }
        };
        Ok(Outcome::Imported(store.dir().to_path_buf(), Box::new(store.machine().clone())))
    })?;
    Ok(if mode == Mode::Do { job } else { job.quietly() })
}

/// The image, where it is of another program's format.
#[cfg(unix)]
fn other(host: &SharedHost, import: &Import) -> Result<Option<OtherImage>, Refusal> {
    let Some(format) = OtherFormat::of(&import.path) else { return Ok(None) };
    if import.mode == ImportMode::Move {
        return Err(Refusal::rule("an image of another format is converted and stays: copy it"));
    }
    Ok(Some(OtherImage::look(host, &import.path, format)?))
}

#[cfg(not(unix))]
fn other(_: &SharedHost, _: &Import) -> Result<Option<std::convert::Infallible>, Refusal> {
    Ok(None)
}

/// A new machine, its disk converted.
#[cfg(unix)]
fn convert(
    (host, library): (&SharedHost, &Library),
    image: &OtherImage,
    import: Import,
    control: &Control,
) -> Result<MachineStore, Refusal> {
    let (kind, memory, hardware) = match import.computer {
        Some(computer) => (MachineKind::Qemu, computer.memory, Some(computer.hardware)),
        None => (MachineKind::Disks, MEMORY_UNKNOWN, None),
    };
    let new = NewMachine {
        name: import.name,
        kind,
        memory,
        disks: vec![image.size()],
        format: ImageFormat::Vhdx,
        workload: WorkloadProfile::default(),
        hardware,
    };
    Ok(library.create_filled(&new, &mut |to, _| {
        let wrong = |error| StoreError::io(to, "flush its folder", error);
        if !image.convert(host, to, &mut |done, total| control.go_on(done, total))? {
            return Err(StoreError::new(to, StoreErrorKind::Cancelled));
        }
        host.flush_dir(to.parent().unwrap_or(Path::new("."))).map_err(wrong)
    })?)
}
