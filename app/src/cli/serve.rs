//! `serve`: the owner of a running machine.

use clap::Args;
use snaptree_core::snapshot::MachineId;

use super::client::{Client, options};
use super::{Common, Done};

/// Owns a running machine until it is off.
#[derive(Debug, Args)]
pub struct Serve {
    /// The machine's name or identifier.
    name: String,
}

pub fn run(verb: &Serve, common: &Common) -> Done {
    // Who starts an owner gives the identifier: nothing has to be looked up.
    let machine = match verb.name.parse() {
        Ok(id) => MachineId(id),
        Err(_) => Client::open(common)?.machine(&verb.name)?.machine.id,
    };
    Ok(snaptree_core::engine::serve(options(&common.library()?), machine)?)
}
