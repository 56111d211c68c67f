//! The demo: a library that shows the whole idea in the first minute, made by really doing it.
//!
//! ```text
//! hold the folder ─> incomplete? empty it, make the machines (unflushed), flush, mark it complete ─> Hold
//! ```

mod caller;
mod clock;
mod content;
mod headless;
mod hold;
mod plan;
mod story;
mod unflushed;

use std::path::Path;

use anyhow::Result;
use snaptree_core::clock::SystemClock;
use snaptree_core::engine::Command;
use snaptree_core::host_file::OsHost;

pub use headless::run as run_headless;
pub use hold::{Hold, check};

/// The name of the machine that the demo begins with.
pub const FIRST_MACHINE: &str = "WEB01";

/// How far the making of the demo is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub what: String,
    /// Snapshots taken so far.
    pub done: u32,
    /// Snapshots to take in all.
    pub of: u32,
}

/// Hears how far it is; an error ends the making.
pub type Tell<'a> = &'a mut dyn FnMut(Progress) -> Result<()>;

/// Makes the demo's library in a folder, unless a complete one is there already; one that was cut short is made anew.
pub fn prepare(library: &Path, tell: Tell<'_>) -> Result<Hold> {
    Hold::take(library, tell, story::build)
}

/// The machines that run while the demo is shown.
const RUNNING: [&str; 2] = [FIRST_MACHINE, "MAIL01"];

/// Starts the machines that run in the demo, each in an owner process of its own.
pub fn start_machines(library: &Path) -> Result<()> {
    let mut caller = on(library)?;
    for name in RUNNING {
        if let Some(machine) = caller.find(name).filter(|machine| caller.is_off(*machine)) {
            caller.ask(Command::Start(machine))?;
        }
    }
    Ok(())
}

/// Stops them again: a demo leaves nothing running.
pub fn stop_machines(library: &Path) -> Result<()> {
    let mut caller = on(library)?;
    for name in RUNNING {
        if let Some(machine) = caller.find(name).filter(|machine| !caller.is_off(*machine)) {
            caller.stop(machine)?;
        }
    }
    Ok(())
}

fn on(library: &Path) -> Result<caller::Caller> {
    caller::Caller::start(library, OsHost::shared(), SystemClock::shared(), true)
}
