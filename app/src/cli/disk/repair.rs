//! `disk repair`: the links of a folder's images are put right.

use std::path::{Path, PathBuf};

use clap::Args;
use snaptree_core::diagnose::diagnose;
use snaptree_core::engine::Refusal;
use snaptree_core::repair::{self, Change, Choices, Exposed, Plan, RepairError};
use snaptree_core::units::ByteCount;

use super::Image;
use crate::cli::output::Output;
use crate::cli::{Common, Done, Failure, json};
use crate::text::{bytes, count};

/// A folder to be repaired.
#[derive(Debug, Args)]
pub struct Repair {
    /// A folder of Hyper-V's, or one of images.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// The parent that an image shall have, where the folder alone doesn't tell. Both are paths or names inside the folder.
    #[arg(long, value_name = "CHILD=PARENT", value_parser = pair)]
    parent: Vec<(PathBuf, PathBuf)>,
    /// Moves orphans and left-overs that no node needs into a folder "Set aside" inside the same folder. Nothing is removed.
    #[arg(long)]
    set_aside: bool,
    /// Undoes the last repair: every file is what it was before.
    #[arg(long, conflicts_with_all = ["parent", "set_aside"])]
    undo: bool,
    /// Gives back the space of what repairs have kept; they can't be undone any more.
    #[arg(long, conflicts_with_all = ["parent", "set_aside", "undo"])]
    forget: bool,
}

fn pair(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (child, parent) = text.split_once('=').ok_or("write CHILD=PARENT")?;
    Ok((child.into(), parent.into()))
}

impl From<RepairError> for Failure {
    fn from(error: RepairError) -> Self {
        Self::Refused(error.into())
    }
}

pub fn run(repair: &Repair, common: &Common, output: &Output) -> Done {
    let host = Image::host();
    let past = repair::past(&host, &repair.folder)?;
    if repair.forget {
        let what = || format!("{} can't be undone any more", count(past.len(), "repair"));
        let freed = if common.what_if { None } else { Some(repair::forget(&host, &repair.folder)?) };
        let data = json::Freed { freed: freed.unwrap_or_default() };
        output.say(&data, || match freed {
            Some(freed) => vec![format!("{} came back: {}.", bytes(freed), what())],
            None => vec![format!("Then {}.", what())],
        });
        return Ok(());
    }
    if repair.undo {
        let Some(last) = past.last() else {
            return Err(Failure::Refused(Refusal::rule("there is no repair to undo")));
        };
        let done = if common.what_if { last.done.clone() } else { repair::undo(&host, &repair.folder)?.done };
        let data = json::DiskRepaired { folder: repair.folder.clone(), undone: true, done };
        let what = if common.what_if { "Would be undone" } else { "Undone" };
        output.say(&data, || data.done.iter().map(|done| format!("{what}: {done}")).collect());
        return Ok(());
    }
    let is_look = common.what_if || common.powershell;
    if !is_look && repair::recover(&host, &repair.folder)?.is_some() {
        eprintln!("A repair that was cut short was taken back first.");
    }
    let found = diagnose(&host, &repair.folder)?;
    let place = |path: &Path| {
        let path = found.folder.join(path);
        host.canonical(&path).unwrap_or(path)
    };
    let parents = repair.parent.iter().map(|(child, parent)| (place(child), place(parent))).collect();
    let choices = Choices { parents, set_aside: repair.set_aside };
    let plan = repair::plan(&host, &found, &choices);
    if common.powershell {
        let typed = snaptree_core::repair::powershell(&plan).join("\n");
        output.say(&json::PowerShell { powershell: typed.clone() }, || vec![typed]);
        return Ok(());
    }
    if common.what_if {
        output.say(&plan, || lines(&plan));
        return Ok(());
    }
    let done = repair::execute(&host, &plan, &choices)?;
    let data = json::DiskRepaired { folder: plan.folder.clone(), undone: false, done: done.done };
    output.say(&data, || {
        let refused =
            plan.refused.iter().map(|refused| format!("{}: left as it is: {}", refused.image.display(), refused.reason));
        data.done.iter().cloned().chain(refused).collect()
    });
    Ok(())
}

fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &plan.steps {
        lines.push(step.words.clone());
        lines.extend(step.warnings.iter().map(|warning| format!("  {warning}")));
        if let Change::Relink { may_differ, .. } = &step.change {
            lines.extend(ranges(may_differ));
        }
    }
    lines.extend(plan.refused.iter().map(|refused| format!("{}: not repaired: {}", refused.image.display(), refused.reason)));
    if lines.is_empty() {
        lines.push("There is nothing to repair.".into());
    }
    lines.extend(plan.in_use.iter().map(|why| format!("Nothing can be changed now: {why}.")));
    lines
}

fn ranges(may_differ: &Exposed) -> Vec<String> {
    let list =
        may_differ.ranges.iter().map(|range| format!("    {} from offset {}", bytes(ByteCount(range.length)), range.offset));
    let more = (may_differ.more > 0).then(|| format!("    and {}", count(may_differ.more as usize, "more range")));
    list.chain(more).collect()
}
