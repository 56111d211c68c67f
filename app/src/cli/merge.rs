//! `merge` and `trash`: giving back what deleted snapshots hold.

use clap::{Args, Subcommand};
use snaptree_core::engine::Command;
use snaptree_core::units::ByteRate;

use super::client::Client;
use super::output::Output;
use super::{Common, Done, answers, names, parse};

/// Carries out the merges that are due. Ctrl+C ends it; what was moved stays moved.
#[derive(Debug, Args)]
pub struct Merge {
    /// The machine's name or identifier.
    name: String,
    /// Only this disk, such as disk0.
    #[arg(long)]
    disk: Option<String>,
    /// At most this fast, such as 20M (a second).
    #[arg(long, value_name = "RATE", value_parser = parse::rate)]
    limit: Option<ByteRate>,
}

#[derive(Debug, Subcommand)]
pub enum TrashVerb {
    /// Removes what is in the trash for good.
    Empty {
        /// The machine's name or identifier.
        name: String,
        /// Only what is older than the machine's setting says.
        #[arg(long)]
        old: bool,
    },
}

pub fn run(verb: &Merge, common: &Common, output: &Output) -> Done {
    let mut client = Client::open(common)?;
    // Only a plan needs to know what the merge will take.
    let state = if client.is_what_if() { client.counted(&verb.name)? } else { client.machine(&verb.name)? };
    let disk = verb.disk.as_ref().map(|name| names::disk(&state.machine, name)).transpose()?;
    client.carry_out(Command::Merge { machine: state.machine.id, disk, limit: verb.limit, until: None }, output)
}

pub fn run_trash(verb: &TrashVerb, common: &Common, output: &Output) -> Done {
    let TrashVerb::Empty { name, old } = verb;
    let mut client = Client::open(common)?;
    let machine = client.machine(name)?.machine.id;
    let answer = client.call(Command::EmptyTrash { machine, all: !old })?;
    answers::answer(output, None, &answer)
}
