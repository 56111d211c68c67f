//! Bringing images of others in.

use std::path::PathBuf;

use super::beside::{Beside, Outcome};
use crate::clock::SharedClock;
use crate::engine::worker::SubscriberId;
use crate::engine::{ImportMode, JobKind, Refusal, RequestId};
use crate::store::{ImportRequest, Library};

/// Begins it.
pub(in crate::engine) fn import(
    library: &Library,
    (path, name, mode): (PathBuf, String, ImportMode),
    from: (SubscriberId, RequestId),
    clock: &SharedClock,
) -> Result<Beside, Refusal> {
    let title = format!("Importing {name}");
    let request = ImportRequest { path, name, remove_originals: mode == ImportMode::Move };
    let library = library.clone();
    Beside::start((JobKind::Import, title), "the originals are untouched", from, clock, move |control| {
        let store = library.import(&request, &mut |done, total| control.go_on(done, total))?;
        Ok(Outcome::Imported(store.dir().to_path_buf(), Box::new(store.machine().clone())))
    })
}
