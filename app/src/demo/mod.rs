//! The demo: a library that shows the whole idea in the first minute, made by really doing it.

mod caller;
mod clock;
mod content;
mod headless;
mod story;

use std::path::Path;

use anyhow::{Context as _, Result};
use snaptree_core::clock::SystemClock;
use snaptree_core::engine::Command;

pub use headless::run as run_headless;

/// The name of the machine that the demo begins with.
pub const FIRST_MACHINE: &str = "WEB01";

/// Beside the demo's machines, once all of them are complete.
const COMPLETE: &str = ".demo-complete";

/// Makes the demo's library in a folder, unless a complete one is there already; one that was cut short is made anew.
pub fn prepare(library: &Path, tell: &mut dyn FnMut(&str)) -> Result<()> {
    let complete = library.join(COMPLETE);
    if !complete.exists() {
        if library.join(".demo").exists() {
            std::fs::remove_dir_all(library).with_context(|| format!("removing an unfinished demo in {}", library.display()))?;
        }
        let empty = !library.exists() || std::fs::read_dir(library)?.next().is_none();
        anyhow::ensure!(empty, "{} isn't empty and isn't a demo; nothing in it was touched", library.display());
        std::fs::create_dir_all(library)?;
        std::fs::write(library.join(".demo"), "made by `snaptree demo`; may be deleted\n")?;
        story::build(library, tell)?;
        std::fs::write(&complete, "")?;
    }
    Ok(())
}

/// Starts the machine that the demo begins with, in an owner process of its own.
pub fn start_first_machine(library: &Path) -> Result<()> {
    let mut caller = caller::Caller::start(library, SystemClock::shared(), true)?;
    let Some(machine) = caller.find(FIRST_MACHINE) else { return Ok(()) };
    if caller.is_off(machine) {
        caller.ask(Command::Start(machine))?;
    }
    Ok(())
}

/// Stops it again: a demo leaves nothing running.
pub fn stop_first_machine(library: &Path) -> Result<()> {
    let mut caller = caller::Caller::start(library, SystemClock::shared(), true)?;
    let Some(machine) = caller.find(FIRST_MACHINE) else { return Ok(()) };
    if !caller.is_off(machine) {
        caller.stop(machine)?;
    }
    Ok(())
}
