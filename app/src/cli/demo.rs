//! `demo`: a library that shows the whole idea.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Common, Done, Failure};
use crate::demo;

/// What the window says above the tree.
const HINT: &str = "Press Bad update, then Apply. The dates, and how the volume filled, are a story; all else was really done.";

/// Opens a library that shows the whole idea, made by really taking, running, applying and deleting.
///
/// The window's demo stays in the platform's data directory, so that it opens at once the next time.
#[derive(Debug, Args)]
pub struct Demo {
    /// Does the same job without a window, verifies every byte, and prints the tree before and after.
    #[arg(long)]
    headless: bool,
    /// Keeps the headless demo's library afterwards, and says where it is.
    #[arg(long)]
    keep: bool,
}

pub fn run(verb: &Demo, common: &Common) -> Done {
    if verb.headless {
        return headless(verb, common);
    }
    let library = window_library(common)?;
    demo::check(&library).map_err(failed)?;
    let status = crate::start::demo(&library, HINT).map_err(failed)?;
    if status == ExitCode::SUCCESS { Ok(()) } else { Err(Failure::failed("the demo's window could not be shown")) }
}

fn window_library(common: &Common) -> Result<PathBuf, Failure> {
    let default = || super::default_library().map(|machines| machines.with_file_name("demo"));
    common.library.clone().or_else(default).ok_or_else(|| Failure::usage("there is no home directory; give --library DIR"))
}

fn headless(verb: &Demo, common: &Common) -> Done {
    let temporary = common.library.is_none();
    let library = common.library.clone();
    let library = library.unwrap_or_else(|| std::env::temp_dir().join(format!("snaptree-demo-{}", std::process::id())));
    let done = demo::run_headless(&library).map_err(failed);
    if verb.keep || !temporary {
        println!("The demo's library is {}", library.display());
        return done;
    }
    let removed = std::fs::remove_dir_all(&library);
    done?;
    Ok(removed?)
}

fn failed(error: anyhow::Error) -> Failure {
    Failure::failed(format!("{error:#}"))
}
