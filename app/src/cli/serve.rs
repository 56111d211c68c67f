//! `serve`: the owner of a running machine.
//!
//! QEMU and its guest outlive an owner that is killed, and wait half a minute for the next one. So the owner of such a machine
//! is a child of a process that does nothing but to start another one then.

use std::path::Path;

use clap::Args;
use snaptree_core::engine::{EngineOptions, Refusal};
use snaptree_core::snapshot::{MachineId, MachineKind};
use snaptree_core::store::Library;

use super::client::{Client, options};
use super::{Common, Done};

/// Owns a running machine until it is off.
#[derive(Debug, Args)]
pub struct Serve {
    /// The machine's name or identifier.
    name: String,
    /// Owns it in this process itself, whatever runs it.
    #[arg(long, hide = true)]
    alone: bool,
}

pub fn run(verb: &Serve, common: &Common) -> Done {
    // Who starts an owner gives the identifier: nothing has to be looked up.
    let machine = match verb.name.parse() {
        Ok(id) => MachineId(id),
        Err(_) => Client::open(common)?.machine(&verb.name)?.machine.id,
    };
    let library = common.library()?;
    let options = options(&library);
    if !verb.alone && outlives_its_owner(&options, machine)? {
        return watch(&library, machine);
    }
    Ok(snaptree_core::engine::serve(options, machine)?)
}

fn outlives_its_owner(options: &EngineOptions, machine: MachineId) -> Result<bool, Refusal> {
    let library = Library::open(&options.host, &options.clock, &options.library)?;
    Ok(library.find_id(machine)?.machine.kind == MachineKind::Qemu)
}

/// Has a child own it, and another one where that was killed and has left its guest.
#[cfg(unix)]
fn watch(library: &Path, machine: MachineId) -> Done {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use snaptree_core::engine::guest_is_left;

    use super::Failure;

    /// One that ends so soon, so many times in a row, isn't started any more.
    const SOON: Duration = Duration::from_secs(10);
    const MOST: u32 = 20;

    let program = std::env::current_exe()?;
    let mut short_ones = 0;
    loop {
        let began = Instant::now();
        let mut owner = Command::new(&program);
        owner.args(["serve", &machine.to_string(), "--alone", "--library"]).arg(library);
        let status = owner.status()?;
        if let Some(code) = status.code() {
            // It has said itself what there is to say.
            std::process::exit(code);
        }
        short_ones = if began.elapsed() < SOON { short_ones + 1 } else { 0 };
        if !guest_is_left(library, machine) || short_ones >= MOST {
            let signal = status.signal().unwrap_or_default();
            return Err(Failure::failed(format!("the machine's owner process was ended by signal {signal}")));
        }
    }
}

#[cfg(not(unix))]
fn watch(library: &Path, machine: MachineId) -> Done {
    Ok(snaptree_core::engine::serve(options(library), machine)?)
}
