//! `workload`: the built-in machine, run for a while, verified, or spoiled.

use clap::Subcommand;
use snaptree_core::engine::Command;

use super::client::Client;
use super::output::Output;
use super::{Common, Done, Failure, answers, names};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Runs a stopped machine for a while.
    Run {
        /// The machine's name or identifier.
        name: String,
        /// For how long.
        #[arg(long)]
        seconds: f64,
        /// Another seed than the machine's.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Reads and verifies every byte of its disks, and of its memory where it was saved.
    Verify {
        /// The machine's name or identifier.
        name: String,
        /// At this snapshot instead of Now.
        #[arg(long, value_name = "LABEL")]
        at: Option<String>,
    },
    /// Scrambles a running machine's memory and disk visibly.
    BadUpdate {
        /// The machine's name or identifier.
        name: String,
    },
}

pub fn run(verb: &Verb, common: &Common, output: &Output) -> Done {
    let mut client = Client::open(common)?;
    let command = match verb {
        Verb::Run { name, seconds, seed } => {
            let time = std::time::Duration::try_from_secs_f64(*seconds);
            let milliseconds = time.ok().and_then(|time| u64::try_from(time.as_millis()).ok());
            let milliseconds = milliseconds.ok_or_else(|| Failure::usage("--seconds must be 0 or more"))?;
            Command::RunWorkload { machine: client.machine(name)?.machine.id, milliseconds, seed: *seed }
        }
        Verb::Verify { name, at } => {
            let state = client.machine(name)?;
            let at = at.as_ref().map(|label| names::snapshot(&state.machine, label)).transpose()?;
            Command::Verify { machine: state.machine.id, at }
        }
        Verb::BadUpdate { name } => Command::BadUpdate(client.machine(name)?.machine.id),
    };
    let answer = client.call(command)?;
    answers::answer(output, None, &answer)
}
