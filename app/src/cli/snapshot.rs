//! `snapshot`: take, apply, undo an apply, delete, undelete, rename, note, protect.

use clap::Subcommand;
use snaptree_core::engine::Command;
use snaptree_core::snapshot::Machine;

use super::client::Client;
use super::output::Output;
use super::{Common, Done, answers, names};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Takes a snapshot of a machine that may be running.
    Take {
        /// The machine's name or identifier.
        name: String,
        /// The snapshot's label.
        label: String,
        /// Saves no memory: disks and configuration only.
        #[arg(long)]
        no_memory: bool,
        /// A note.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Continues from a snapshot; what Now holds is kept as a snapshot first.
    Apply {
        /// The machine's name or identifier.
        name: String,
        /// The snapshot's label or identifier.
        label: String,
        /// Takes no snapshot of Now first: what it holds goes to the trash.
        #[arg(long)]
        no_safety: bool,
        /// The label of that snapshot [default: "Before LABEL"].
        #[arg(long, value_name = "LABEL", conflicts_with = "no_safety")]
        safety: Option<String>,
    },
    /// Puts back what Now held before the last apply.
    UndoApply {
        /// The machine's name or identifier.
        name: String,
    },
    /// Deletes snapshots.
    Delete {
        /// The machine's name or identifier.
        name: String,
        /// The snapshots' labels or identifiers.
        #[arg(required = true)]
        labels: Vec<String>,
        /// All that hangs from them goes too.
        #[arg(long)]
        subtree: bool,
        /// Removes what nothing reads at once, instead of moving it to the trash.
        #[arg(long)]
        free_now: bool,
    },
    /// Takes a deletion back, while its merge hasn't started.
    Undelete {
        /// The machine's name or identifier.
        name: String,
        /// The deleted snapshot's label or identifier.
        label: String,
    },
    /// Gives a snapshot another label.
    Rename {
        /// The machine's name or identifier.
        name: String,
        /// The snapshot's label or identifier.
        label: String,
        /// The new label.
        new: String,
    },
    /// Sets a snapshot's note.
    Note {
        /// The machine's name or identifier.
        name: String,
        /// The snapshot's label or identifier.
        label: String,
        /// The note; an empty one removes it.
        text: String,
    },
    /// Protects a snapshot from deletion.
    Protect {
        /// The machine's name or identifier.
        name: String,
        /// The snapshot's label or identifier.
        label: String,
        /// Protects it no longer.
        #[arg(long)]
        off: bool,
    },
}

impl Verb {
    fn machine(&self) -> &str {
        match self {
            Self::Take { name, .. }
            | Self::Apply { name, .. }
            | Self::UndoApply { name }
            | Self::Delete { name, .. }
            | Self::Undelete { name, .. }
            | Self::Rename { name, .. }
            | Self::Note { name, .. }
            | Self::Protect { name, .. } => name,
        }
    }
}

pub fn run(verb: Verb, common: &Common, output: &Output) -> Done {
    let mut client = Client::open(common)?;
    // A plan's figures need the disks to be counted.
    let state = if client.is_what_if() { client.counted(verb.machine())? } else { client.machine(verb.machine())? };
    let m = &*state.machine;
    let machine = m.id;
    let command = match verb {
        Verb::Take { label, no_memory, note, .. } => Command::Take { machine, label, note, memory: !no_memory },
        Verb::Apply { label, no_safety, safety, .. } => {
            let snapshot = names::snapshot(m, &label)?;
            let safety = safety.or_else(|| (!no_safety).then(|| safety_label(m, &m.snapshots[&snapshot].label)));
            Command::Apply { machine, snapshot, safety }
        }
        Verb::UndoApply { .. } => Command::UndoApply(machine),
        Verb::Delete { labels, subtree, free_now, .. } => {
            let snapshots = labels.iter().map(|label| names::snapshot(m, label)).collect::<Result<_, _>>()?;
            Command::Delete { machine, snapshots, subtree, free_now }
        }
        Verb::Undelete { label, .. } => Command::Undelete { machine, snapshot: names::deleted(m, &label)? },
        Verb::Rename { label, new, .. } => Command::Rename { machine, snapshot: names::snapshot(m, &label)?, label: new },
        Verb::Note { label, text, .. } => Command::SetNote { machine, snapshot: names::snapshot(m, &label)?, note: text },
        Verb::Protect { label, off, .. } => Command::Protect { machine, snapshot: names::snapshot(m, &label)?, protected: !off },
    };
    if let Command::Take { memory: true, .. } = &command
        && client.does_it()
        && let Some(outside) = &state.outside
        && let Some(pause) = outside.pause_to_save(m.configuration.memory)
    {
        // Beside the answer, which is read by programs too.
        answers::stands_still(pause, outside.remedy.as_deref()).iter().for_each(|line| eprintln!("{line}"));
    }
    client.carry_out(command, output)
}

/// "Before X", or with a number where that is taken.
pub fn safety_label(machine: &Machine, of: &str) -> String {
    let taken = |label: &str| machine.snapshots.values().any(|s| s.label == label);
    let plain = format!("Before {of}");
    let numbered = (2..).map(|n| format!("{plain} ({n})"));
    std::iter::once(plain.clone()).chain(numbered).find(|label| !taken(label)).unwrap_or(plain)
}
