//! The command line: the same engine as the window's, by verbs.
//!
//! ```text
//! arguments ─ clap ─> verb ─> names looked up in the engine's states ─> Command ─> Answer ─> words or JSON
//! disk verbs ───────────────> chain, disk: on files directly, with the same locks
//! ```
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage (a name that is unknown or ambiguous included),
//! 3 refused by a rule. The shapes of `--json` are described in [`json`].

mod advise;
mod agent;
mod answers;
mod client;
mod demo;
mod disk;
mod graph;
mod json;
mod machine;
mod merge;
mod names;
#[cfg(unix)]
mod nbd;
mod output;
mod parse;
mod plan;
mod screen;
mod serve;
mod snapshot;
mod tree;
mod window;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use snaptree_core::engine::{Refusal, RefusalKind};

use output::Output;

/// Manages the snapshot trees of virtual machines.
///
/// Without a command it opens the desktop program.
#[derive(Debug, Parser)]
#[command(name = "snaptree", version, after_long_help = json::HELP)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
struct Common {
    /// The library's folder [default: the platform's data directory].
    #[arg(long, global = true, value_name = "DIR")]
    library: Option<PathBuf>,
    /// Prints one JSON document instead of text.
    #[arg(long, global = true)]
    json: bool,
    /// Changes nothing; says what would be done.
    #[arg(long, global = true)]
    what_if: bool,
    /// Changes nothing; prints what one would type on a Hyper-V host (machine, snapshot, merge, disk repair).
    #[arg(long, global = true, conflicts_with = "what_if")]
    powershell: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Creates, lists, starts, stops, imports and removes machines.
    #[command(subcommand)]
    Machine(machine::Verb),
    /// Shows a machine's tree with sizes, depth, cost and what is due.
    Tree(tree::Tree),
    /// Takes, applies, deletes and describes snapshots (checkpoints).
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// Carries out the merges that are due.
    Merge(merge::Merge),
    /// Says when the merges that are due are done, and whether they fit.
    Plan(plan::Plan),
    /// Makes, changes and removes maintenance windows, and puts merges into them.
    #[command(subcommand)]
    Window(Box<window::Verb>),
    /// Shows or empties a machine's trash.
    #[command(subcommand)]
    Trash(merge::TrashVerb),
    /// Runs and verifies the built-in machine.
    #[command(subcommand)]
    Workload(workload::Verb),
    /// Looks at disk images and changes them, outside of any library.
    #[command(subcommand)]
    Disk(disk::Verb),
    #[cfg(unix)]
    Nbd(nbd::Nbd),
    /// Carries out the plan while nobody looks.
    Agent(agent::Run),
    /// Says what somebody should look at.
    Advise(advise::Advise),
    /// Owns a running machine until it is off (`machine start` does this by itself).
    Serve(serve::Serve),
    /// Opens a library that shows the whole idea.
    Demo(demo::Demo),
}

/// Why a verb didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Wrong usage: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// The engine said no: exit status 3 for a rule, 1 for a failure.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Failure {
    fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    fn refused(text: impl Into<String>) -> Self {
        Self::Refused(Refusal::rule(text))
    }

    fn failed(text: impl Into<String>) -> Self {
        Self::Refused(Refusal::failed(text))
    }

    /// The exit status, and the same as a word.
    fn status(&self) -> (u8, &'static str) {
        match self {
            Self::Usage(_) => (2, "usage"),
            Self::Refused(Refusal { kind: RefusalKind::Rule, .. }) => (3, "rule"),
            Self::Refused(Refusal { kind: RefusalKind::Failed, .. }) => (1, "failed"),
        }
    }
}

impl From<snaptree_core::disk::DiskError> for Failure {
    fn from(error: snaptree_core::disk::DiskError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

/// What a verb ends with.
type Done = Result<(), Failure>;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.common.json);
    let done = match cli.verb {
        Some(verb) => run(&cli.common, verb, &output),
        None => match cli.common.library() {
            Ok(library) => return crate::start::desktop(&library, crate::start::Opening::default()),
            Err(failure) => Err(failure),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (status, kind) = failure.status();
            output.failure(kind, &failure.to_string());
            ExitCode::from(status)
        }
    }
}

fn run(common: &Common, verb: Verb, output: &Output) -> Done {
    let has_powershell = match &verb {
        Verb::Machine(_) | Verb::Snapshot(_) | Verb::Merge(_) => true,
        Verb::Disk(verb) => verb.has_powershell(),
        _ => false,
    };
    if common.powershell && !has_powershell {
        return Err(Failure::usage("--powershell goes with machine, snapshot, merge and disk repair"));
    }
    match verb {
        Verb::Machine(verb) => machine::run(verb, common, output),
        Verb::Tree(verb) => tree::run(&verb, common, output),
        Verb::Snapshot(verb) => snapshot::run(verb, common, output),
        Verb::Merge(verb) => merge::run(&verb, common, output),
        Verb::Plan(verb) => plan::run(&verb, common, output),
        Verb::Window(verb) => window::run(&verb, common, output),
        Verb::Trash(verb) => merge::run_trash(&verb, common, output),
        Verb::Workload(verb) => workload::run(&verb, common, output),
        Verb::Disk(verb) => disk::run(&verb, common, output),
        #[cfg(unix)]
        Verb::Nbd(verb) => nbd::run(&verb, common, output),
        Verb::Agent(verb) => agent::run(&verb, common, output),
        Verb::Advise(verb) => advise::run(&verb, common, output),
        Verb::Serve(verb) => serve::run(&verb, common),
        Verb::Demo(verb) => demo::run(&verb, common),
    }
}

impl Common {
    /// The library's folder.
    fn library(&self) -> Result<PathBuf, Failure> {
        match &self.library {
            Some(folder) => Ok(folder.clone()),
            None => default_library().ok_or_else(|| Failure::usage("there is no home directory; give --library DIR")),
        }
    }
}

/// A machine's tree in words, as `tree` prints it.
pub fn tree_text(state: &snaptree_core::engine::MachineState) -> String {
    tree::tree(state).lines().join("\n")
}

/// The library's folder where none is given: in the platform's data directory.
pub fn default_library() -> Option<PathBuf> {
    Some(directories::ProjectDirs::from("", "", "snaptree")?.data_dir().join("machines"))
}

#[cfg(test)]
mod tests;
