//! What somebody should look at, in words.

use snaptree_core::cost::{Finding, FindingKind, Freeable, Severity};
use snaptree_core::units::ByteCount;

use super::{bytes, count, estimate, list};
use crate::theme::Tone;

/// A finding in words, with the label of its one button.
#[derive(Debug, Clone, PartialEq)]
pub struct Advised {
    pub text: String,
    pub button: Option<&'static str>,
    pub tone: Tone,
}

/// Why a machine waits, and for what.
pub fn no_room(free: ByteCount, go_on_free: ByteCount) -> String {
    format!("only {} are free on its volume, and it goes on by itself at {}", bytes(free), bytes(go_on_free))
}

/// What of a machine can be freed now, one sentence.
pub fn freeable(can: &Freeable) -> String {
    let parts = [
        (can.trash, "in the trash"),
        (can.merges.comes_back, "by merging"),
        (can.deletable, "by deleting snapshots that nothing stands on"),
    ];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| n.0 > 0).map(|(n, how)| format!("{} {how}", bytes(*n))).collect();
    match parts.is_empty() {
        true => "Nothing of it can be freed at once".into(),
        false => format!("Can be freed now: {}", list(&parts)),
    }
}

/// Puts a finding into words. The machine's name stands before it.
pub fn advice(finding: &Finding, label: impl Fn(snaptree_core::snapshot::SnapshotId) -> String) -> Advised {
    use snaptree_core::cost::Action;
    let text = match &finding.kind {
        FindingKind::ChainTooDeep { depth, read_mean, read_mean_after, depth_after, .. } => match (read_mean, read_mean_after) {
            (Some(now), Some(after)) if now - after >= 0.05 => {
                format!("is {depth} deep and reads {now:.1} images, {after:.1} after merging")
            }
            _ if depth_after < depth => format!("is {depth} deep, {depth_after} after merging"),
            _ => format!("is {depth} deep"),
        },
        FindingKind::SnapshotTooOld { snapshot, age_hours, count: n, .. } => {
            let age = if *age_hours < 48 { format!("{age_hours} h") } else { format!("{} days", age_hours / 24) };
            let others = if *n > 1 { format!(", {} more are old too", n - 1) } else { String::new() };
            format!("has “{}” of {age}: not a backup{others}", label(*snapshot))
        }
        FindingKind::MergeDue { total } => {
            let time = estimate(total.time).map(|t| format!(", {t}")).unwrap_or_default();
            format!(
                "holds {} for deleted snapshots, {} due{time}",
                bytes(total.comes_back),
                count(total.merges as usize, "merge")
            )
        }
        FindingKind::DiskFilling { free, trash } => {
            let back = if trash.0 > 0 { format!(", {} in the trash", bytes(*trash)) } else { String::new() };
            format!("has {} free on its volume{back}", bytes(*free))
        }
        FindingKind::NoRoom { free, go_on_free, freeable: can } => {
            format!("is paused: {}. {}", no_room(*free, *go_on_free), freeable(can))
        }
        FindingKind::MergeWontFit { scratch, free } => {
            format!("needs {} to merge, {} are free", bytes(*scratch), bytes(*free))
        }
        FindingKind::TrashHolds { bytes: held, files } => {
            format!("has {} in the trash ({})", bytes(*held), count(*files as usize, "file"))
        }
    };
    let button = finding.action.as_ref().map(|a| match a {
        Action::Merge => "Merge…",
        Action::Delete(_) => "Preview",
        Action::Show(_) => "Show",
        Action::EmptyTrash => "Empty trash",
    });
    let tone = match finding.severity {
        Severity::Note => Tone::Plain,
        Severity::Warning => Tone::Warn,
        Severity::Urgent => Tone::Bad,
    };
    Advised { text, button, tone }
}
