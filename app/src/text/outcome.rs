//! What a deletion does, in words: for a row, and in full.

use std::time::Duration;

use snaptree_core::cost::{Basis, DeletionCost, Estimate, MergeOrders, MergeTotal};
use snaptree_core::units::{ByteCount, ByteRate};

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
    Some(if e.basis.is_guess() { about(seconds(e.p50)) } else { middle })
}

/// "~2 min": a guess in the largest unit alone, without the wave where merges have told it.
pub fn estimate_short(e: Option<Estimate>) -> Option<String> {
    let e = e?;
    let s = seconds(e.p50).as_secs_f64().round() as u64;
    let (count, unit) = match s {
        0 => return Some("< 1 s".into()),
        1..60 => (s, "s"),
        60..3570 => ((s + 30) / 60, "min"),
        3570..172_800 => ((s + 1800) / 3600, "h"),
        _ => ((s + 43_200) / 86_400, "days"),
    };
    Some(format!("{}{count} {unit}", if e.basis.is_guess() { "~" } else { "" }))
}

/// As wide as any of less than a hundred days.
pub const ESTIMATE_SHORT: &str = "~00 days";

/// "1 min 30 s (1 min 10 s to 2 min)", or "about 1 min, a guess from a short probe".
pub fn estimate_long(e: Option<Estimate>) -> String {
    let Some(e) = e else { return "time not known yet".into() };
    let middle = duration(seconds(e.p50));
    match e.basis {
        Basis::Probe => format!("{}, a guess from a short probe of the volume", about(seconds(e.p50))),
        Basis::OtherMode(n) => {
            format!("{}, a guess from {} in the other mode (stopped or live)", about(seconds(e.p50)), count(n as usize, "merge"))
        }
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
        let freed = match freed_parts(cost) {
            (ByteCount::ZERO, ByteCount::ZERO) => return Said::new(Tone::Plain, format!("frees nothing: {read}"), ""),
            (disks, ByteCount::ZERO) => format!("frees {} of another disk", bytes(disks)),
            (ByteCount::ZERO, memory) => format!("frees {} of memory", bytes(memory)),
            (disks, memory) => format!("frees {} of another disk, {} of memory", bytes(disks), bytes(memory)),
        };
        return Said::new(Tone::Plain, format!("disk stays: {read}"), freed);
    }
    if uncounted {
        return Said::new(Tone::Weak, "still being counted", "");
    }
    if freed || readers == 0 {
        return Said::new(Tone::Good, format!("frees {}", bytes(cost.frees)), "");
    }
    Said::new(Tone::Plain, "frees nothing", "")
}

/// What goes to the trash at once: of images, and of saved memory.
fn freed_parts(cost: &DeletionCost) -> (ByteCount, ByteCount) {
    let disks = cost.disks.iter().map(|d| d.frees).sum::<ByteCount>();
    (disks, ByteCount(cost.frees.0.saturating_sub(disks.0)))
}

fn count_branches(n: usize) -> String {
    if n == 1 { "1 branch".into() } else { format!("{n} branches") }
}

/// What deleting does, in full: a list of facts, each one sentence.
pub fn deletion(cost: &DeletionCost, name: impl Fn(Node) -> String, trash_hours: u32) -> Vec<String> {
    let mut facts = Vec::new();
    if cost.frees > ByteCount::ZERO {
        let what = match freed_parts(cost) {
            (disks, ByteCount::ZERO) => bytes(disks),
            (ByteCount::ZERO, memory) => format!("{} of saved memory", bytes(memory)),
            (disks, memory) => format!("{} of disks and {} of saved memory", bytes(disks), bytes(memory)),
        };
        facts.push(format!(
            "{what} go to the trash and come back when it is emptied, after {trash_hours} h or at once on request."
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

/// What the orders of a merge would come to on a disk of a size and speed that people know.
pub fn orders(orders: &MergeOrders) -> String {
    let large = orders.scaled_to(ByteCount(1_000_000_000_000));
    let [newest, oldest, one] = large.seconds_at(ByteRate(20e6)).map(|s| duration(seconds(s)));
    format!(
        "With the same shares of a disk of 1 TB, at 20 MB/s: {one} in one pass, {oldest} oldest first, {newest} newest first."
    )
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use snaptree_core::cost::{DiskDeletion, RetainedImage, deletion_cost};
    use snaptree_core::snapshot::{DiskId, ImageId};

    use super::*;
    use crate::model::fabricated;

    #[test]
    fn a_short_estimate_has_one_unit() {
        let said = |p50, basis| estimate_short(Some(Estimate { p50, p10: p50, p90: p50, basis })).unwrap();
        let told = |p50| said(p50, Basis::Merges(3));
        assert_eq!([0.2, 1.0, 59.4, 59.6, 89.0, 91.0].map(told), ["< 1 s", "1 s", "59 s", "1 min", "1 min", "2 min"]);
        assert_eq!([3569.0, 3570.0, 5400.0, 172_799.0].map(told), ["59 min", "1 h", "2 h", "48 h"]);
        assert_eq!([172_800.0, 2.5 * 86_400.0].map(told), ["2 days", "3 days"]);
        assert_eq!(said(79.0, Basis::Probe), "~1 min");
        assert_eq!(estimate_short(None), None);
    }

    /// A deletion that frees so much of one disk and so much memory, while two branches read another disk.
    fn held_by_two(disk: u64, memory: u64) -> DeletionCost {
        let state = fabricated::web01(Path::new("/nowhere"));
        let first = *state.machine.snapshots.keys().next().expect("a snapshot");
        let mut cost = deletion_cost(&state.facts(), &[first], false).expect("it is there");
        let retained = RetainedImage {
            image: ImageId(Default::default()),
            held: ByteCount::mib(9),
            by: vec![snaptree_core::snapshot::NodeRef::Now; 2],
        };
        let of = |name: &str, frees, retained| DiskDeletion {
            disk: DiskId(name.into()),
            freed: Vec::new(),
            frees: ByteCount::mib(frees),
            merges: Vec::new(),
            retained,
            uncounted: false,
        };
        cost.disks = vec![of("disk0", 0, vec![retained]), of("disk1", disk, Vec::new())];
        cost.frees = ByteCount::mib(disk + memory);
        cost.retained = ByteCount::mib(9);
        cost.merges = MergeTotal::default();
        cost
    }

    #[test]
    fn the_orders_of_a_merge_are_told_on_a_large_disk() {
        let orders = MergeOrders {
            newest_first: ByteCount::gib(40),
            oldest_first: ByteCount::gib(12),
            one_pass: ByteCount::gib(10),
            disk_size: ByteCount::gib(100),
        };
        // A tenth of 1 TB is 100 GB: 5,000 s at 20 MB/s.
        let said = "1 h 23 min in one pass, 1 h 40 min oldest first, 5 h 33 min newest first.";
        assert!(super::orders(&orders).ends_with(said), "{}", super::orders(&orders));
    }

    #[test]
    fn memory_that_comes_back_is_not_said_of_disks_that_stay() {
        let said = |disk, memory| {
            let said = deletion_row(&held_by_two(disk, memory), false, 2);
            (said.text, said.detail)
        };
        let stays = |detail: &str| ("disk stays: 2 branches read it".to_owned(), detail.to_owned());
        assert_eq!(said(0, 0), ("frees nothing: 2 branches read it".to_owned(), String::new()));
        assert_eq!(said(0, 6), stays("frees 6.0 MiB of memory"));
        assert_eq!(said(3, 0), stays("frees 3.0 MiB of another disk"));
        assert_eq!(said(3, 6), stays("frees 3.0 MiB of another disk, 6.0 MiB of memory"));
        let full = |disk, memory| deletion(&held_by_two(disk, memory), |_| "Now".into(), 24).remove(0);
        assert!(full(0, 6).starts_with("6.0 MiB of saved memory go to the trash"), "{}", full(0, 6));
        assert!(full(3, 6).starts_with("3.0 MiB of disks and 6.0 MiB of saved memory go to the trash"), "{}", full(3, 6));
    }
}
