//! What a deletion does, in words: for a row, and in full.

use std::time::Duration;

use snaptree_core::cost::{Basis, DeletionCost, Estimate, MergeTotal};
use snaptree_core::units::ByteCount;

use super::{bytes, count, duration, list};
use crate::model::Node;
use crate::theme::Tone;

/// One line about a row, and what stands smaller beneath it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Said {
    pub text: String,
    pub detail: String,
    pub tone: Tone,
}

impl Said {
    fn new(tone: Tone, text: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { text: text.into(), detail: detail.into(), tone }
    }
}

/// "1 min 30 s"; "about" where only a probe is known; nothing where nothing is.
pub fn estimate(e: Option<Estimate>) -> Option<String> {
    let e = e?;
    let middle = duration(seconds(e.p50));
    Some(if e.basis == Basis::Probe { about(seconds(e.p50)) } else { middle })
}

/// "1 min 30 s (1 min 10 s to 2 min)", or "about 1 min, a guess from a short probe".
pub fn estimate_long(e: Option<Estimate>) -> String {
    let Some(e) = e else { return "time not known yet".into() };
    let middle = duration(seconds(e.p50));
    match e.basis {
        Basis::Probe => format!("{}, a guess from a short probe of the volume", about(seconds(e.p50))),
        Basis::Merges(_) => {
            let (low, high) = (duration(seconds(e.p10)), duration(seconds(e.p90)));
            if low == high { middle } else { format!("{middle} ({low} to {high})") }
        }
    }
}

/// "about 13 s"; what is under a second needs no "about".
fn about(d: Duration) -> String {
    let said = duration(d);
    if d < Duration::from_millis(500) { said } else { format!("about {said}") }
}

fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s.max(0.0)).unwrap_or(Duration::MAX)
}

/// "31 GiB to move", or "nothing to copy".
pub fn to_move(data: ByteCount) -> String {
    if data == ByteCount::ZERO { "nothing to copy".into() } else { format!("{} to move", bytes(data)) }
}

/// "31 GiB to move, 1 min 30 s".
pub fn merge(total: &MergeTotal) -> String {
    match estimate(total.time) {
        Some(time) => format!("{}, {time}", to_move(total.data)),
        None => to_move(total.data),
    }
}

/// What deleting would do, for the row's column.
pub fn deletion_row(cost: &DeletionCost, protected: bool, readers: u32) -> Said {
    if protected {
        return Said::new(Tone::Weak, "protected", "");
    }
    let uncounted = cost.disks.iter().any(|d| d.uncounted);
    let branches = cost.disks.iter().flat_map(|d| &d.retained).map(|r| r.by.len()).max().unwrap_or(0);
    let freed = cost.frees > ByteCount::ZERO;
    if cost.merges.merges > 0 {
        if uncounted {
            return Said::new(Tone::Plain, "merges", "still being counted");
        }
        let text = match estimate(cost.merges.time) {
            _ if cost.merges.data == ByteCount::ZERO => "merges, nothing to copy".into(),
            Some(time) => format!("merges {}, {time}", bytes(cost.merges.data)),
            None => format!("merges {}", bytes(cost.merges.data)),
        };
        let back = cost.merges.comes_back + cost.frees;
        let detail = if back > ByteCount::ZERO { format!("{} come back", bytes(back)) } else { String::new() };
        return Said::new(Tone::Plain, text, detail);
    }
    if branches > 0 {
        let read = format!("{} read it", count_branches(branches));
        return match freed {
            true => Said::new(Tone::Plain, format!("frees {}", bytes(cost.frees)), format!("the disks stay: {read}")),
            false => Said::new(Tone::Plain, format!("frees nothing: {read}"), ""),
        };
    }
    if uncounted {
        return Said::new(Tone::Weak, "still being counted", "");
    }
    if freed || readers == 0 {
        return Said::new(Tone::Good, format!("frees {}", bytes(cost.frees)), "");
    }
    Said::new(Tone::Plain, "frees nothing", "")
}

fn count_branches(n: usize) -> String {
    if n == 1 { "1 branch".into() } else { format!("{n} branches") }
}

/// What deleting does, in full: a list of facts, each one sentence.
pub fn deletion(cost: &DeletionCost, name: impl Fn(Node) -> String, trash_hours: u32) -> Vec<String> {
    let mut facts = Vec::new();
    if cost.frees > ByteCount::ZERO {
        facts.push(format!(
            "{} go to the trash and come back when it is emptied, after {} h or at once on request.",
            bytes(cost.frees),
            trash_hours
        ));
    }
    if cost.merges.merges > 0 {
        facts.push(format!(
            "{} due: {}, {}. {} of scratch while it runs, {} come back at the end.",
            if cost.merges.merges == 1 {
                "A merge is".into()
            } else {
                format!("{} are", count(cost.merges.merges as usize, "merge"))
            },
            to_move(cost.merges.data),
            estimate_long(cost.merges.time),
            bytes(cost.merges.scratch),
            bytes(cost.merges.comes_back),
        ));
        if cost.merges.zero > ByteCount::ZERO {
            facts.push(format!("Besides, {} of zeros are written.", bytes(cost.merges.zero)));
        }
        if cost.disks.iter().flat_map(|d| &d.merges).any(|m| !m.fits) {
            facts.push("The scratch space doesn't fit on the volume now.".into());
        }
    }
    let mut holders: Vec<String> =
        cost.disks.iter().flat_map(|d| &d.retained).flat_map(|r| &r.by).map(|n| name((*n).into())).collect();
    holders.sort();
    holders.dedup();
    if !holders.is_empty() {
        let read = if holders.len() == 1 { "reads" } else { "read" };
        facts.push(format!("{} stay held: {} {read} through them.", bytes(cost.retained), list(&holders)));
    }
    if cost.disks.iter().any(|d| d.uncounted) {
        facts.push("A disk is still being counted, so the bytes of its merge aren't known yet.".into());
    }
    if facts.is_empty() {
        facts.push("Nothing on disk changes.".into());
    }
    facts
}

/// What it changes for the machine: depth and images a read, where they change.
pub fn reads_change(cost: &DeletionCost) -> Option<String> {
    let (before, after) = (&cost.before, &cost.after);
    let depth = (before.depth != after.depth).then(|| format!("depth {} instead of {}", after.depth, before.depth));
    let reads = match (before.read_mean, after.read_mean) {
        (Some(b), Some(a)) if (b - a).abs() >= 0.05 => Some(format!("{a:.1} images a read instead of {b:.1}")),
        _ => None,
    };
    let said: Vec<_> = [depth, reads].into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(", "))
}
