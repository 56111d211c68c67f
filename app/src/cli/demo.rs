//! `demo`: a library that shows the whole idea.

use clap::Args;

use super::output::Output;
use super::{Common, Done, Failure};

/// Opens a library that shows the whole idea, made by really taking, running, applying and deleting.
#[derive(Debug, Args)]
pub struct Demo {
    /// Does the same job without a window, verifies every byte, and prints the tree before and after.
    #[arg(long)]
    headless: bool,
    /// Keeps the demo's library afterwards.
    #[arg(long)]
    keep: bool,
}

pub fn run(verb: &Demo, _common: &Common, _output: &Output) -> Done {
    Err(Failure::failed(format!("the demo isn't part of this build ({verb:?})")))
}
