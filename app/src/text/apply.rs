//! What applying a snapshot does, in words.

use snaptree_core::snapshot::Snapshot;

use super::{When, bytes, duration};
use crate::model::MachineEntry;

/// In short, for the panel.
pub fn apply(s: &Snapshot, machine: &MachineEntry, when: &When) -> String {
    let starts = match &s.memory {
        Some(_) => format!("The machine goes on from {}.", when.exact(s.taken)),
        None => format!("The disks are as on {}, as after a power cut; the machine is off.", when.exact(s.taken)),
    };
    let held = machine.figures.now.held;
    let now = match held.0 {
        0 => String::new(),
        _ => format!(" What Now holds ({}) is kept as a snapshot first, unless you say otherwise.", bytes(held)),
    };
    format!("{starts}{now} No other branch changes.")
}

/// What being back in time means, each a sentence.
pub fn back_in_time(s: &Snapshot, when: &When) -> Vec<String> {
    let ago = (when.now - s.taken).to_std().unwrap_or_default();
    let behind = duration(ago);
    let mut says = Vec::new();
    match &s.memory {
        Some(memory) => says.push(format!(
            "It continues at {}, with its memory ({}) and its clock {behind} behind.",
            when.exact(s.taken),
            bytes(memory.held)
        )),
        None => says.push(format!(
            "Its disks are as on {}. No memory was saved: it is off, and starts as after a power cut.",
            when.exact(s.taken)
        )),
    }
    says.push(
        "What others know of it since (domain passwords, databases that replicate with others, mail) is ahead of it.".into(),
    );
    says
}
