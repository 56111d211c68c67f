//! The demo without a display: the same machines, the same steps, and every byte verified.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use snaptree_core::clock::SystemClock;
use snaptree_core::engine::{Answer, Command};
use snaptree_core::host_file::OsHost;
use snaptree_core::snapshot::MachineId;
use snaptree_core::units::ByteCount;

use super::caller::Caller;
use super::{FIRST_MACHINE, content, prepare};
use crate::{cli, text};

/// Makes the demo's library, takes, spoils, applies, deletes, undeletes and merges, and verifies every byte;
/// prints the trees before and after.
pub fn run(library: &Path) -> Result<()> {
    println!("Making the demo in {}", library.display());
    let mut said = String::new();
    let _hold = prepare(library, &mut |progress| {
        if said != progress.what {
            println!("  {}", progress.what);
            said = progress.what;
        }
        Ok(())
    })?;
    let mut caller = Caller::start(library, OsHost::shared(), SystemClock::shared(), true)?;
    let machines = caller.all()?;
    println!("\nBefore\n");
    print_trees(&mut caller, &machines)?;
    let web = caller.find(FIRST_MACHINE).context("the demo has lost its first machine")?;
    spoil_and_return(&mut caller, web)?;
    delete_and_undelete(&mut caller, web)?;
    println!("\nMerging what is due");
    for machine in &machines {
        merge_and_compare(&mut caller, *machine)?;
    }
    println!("\nAfter\n");
    print_trees(&mut caller, &machines)?;
    println!("Everything was verified: nothing is lost.");
    Ok(())
}

fn print_trees(caller: &mut Caller, machines: &[MachineId]) -> Result<()> {
    for machine in machines {
        let state = caller.counted(*machine)?;
        println!("{}", cli::tree_text(&state));
    }
    Ok(())
}

fn spoil_and_return(caller: &mut Caller, web: MachineId) -> Result<()> {
    println!("{FIRST_MACHINE} is started, and runs in a process of its own");
    caller.run(web)?;
    caller.watch(web, 5)?;
    let (good, latency) = caller.take(web, "Good", "Taken while it ran.", true)?;
    let latency = latency.context("a running machine was snapshotted without figures")?;
    println!(
        "  take   \"Good\": it stood still for {:.1?}; {} of memory saved in {:.1?}, {} writes intercepted, longest stall {:.1?}",
        latency.pause,
        text::bytes(latency.memory),
        latency.save,
        latency.intercepted_writes,
        latency.longest_stall
    );
    let kept = caller.verify(web, Some(good))?;
    ensure!(kept.wrong.is_empty(), "the snapshot is wrong: {}", kept.wrong.join("; "));
    caller.ask(Command::BadUpdate(web))?;
    println!("  spoil  a bad update has scrambled its picture and its disk");
    caller.watch(web, 3)?;
    caller.ask(Command::Apply { machine: web, snapshot: good, safety: None })?;
    let generation = caller.watch(web, 1)?;
    println!("  apply  \"Good\": it goes on from picture {}, and is at {generation} now", kept.picture_generation);
    ensure!(generation >= kept.picture_generation, "the picture went back to {generation}");
    let again = caller.verify(web, Some(good))?;
    ensure!(again == kept, "the snapshot has changed: {again:?} instead of {kept:?}");
    println!("  verify {} of disk and {} of memory: every byte is right", text::bytes(again.disk), text::bytes(again.memory));
    caller.stop(web)?;
    println!("  stop   its disks are flushed");
    Ok(())
}

fn delete_and_undelete(caller: &mut Caller, web: MachineId) -> Result<()> {
    let state = caller.counted(web)?;
    let before = content::of_nodes(&state)?.0;
    let named = |label: &str| state.machine.snapshots.iter().find(|(_, s)| s.label == label).map(|(id, _)| *id);
    let snapshot = named("Before update").context("the demo has lost a snapshot")?;
    let delete = Command::Delete { machine: web, snapshots: vec![snapshot], subtree: false, free_now: false };
    caller.ask(delete.clone())?;
    caller.ask(Command::Undelete { machine: web, snapshot })?;
    let state = caller.counted(web)?;
    ensure!(content::of_nodes(&state)?.0 == before, "undeleting did not bring everything back");
    println!("  undo   \"Before update\" was deleted and is back, every byte of it");
    caller.ask(delete)?;
    let others: Vec<_> = ["Update tried", "Second try"].into_iter().filter_map(named).collect();
    caller.ask(Command::Delete { machine: web, snapshots: others, subtree: false, free_now: false })?;
    println!("  delete \"Before update\", \"Update tried\" and \"Second try\"");
    Ok(())
}

fn merge_and_compare(caller: &mut Caller, machine: MachineId) -> Result<()> {
    let state = caller.counted(machine)?;
    let name = state.machine.name.clone();
    let (before, bytes) = content::of_nodes(&state)?;
    if snaptree_core::snapshot::Tree::of(&state.machine).runs().is_empty() {
        println!("  {name}: nothing is due");
        return Ok(());
    }
    let answer = caller.ask(Command::Merge { machine, disk: None, limit: None, until: None })?;
    let state = caller.counted(machine)?;
    let (after, _) = content::of_nodes(&state)?;
    ensure!(before == after, "merging {name} has changed what a node reads");
    let report = caller.verify(machine, None)?;
    ensure!(report.wrong.is_empty(), "{name} reads back something wrong: {}", report.wrong.join("; "));
    let Answer::Done(what) = answer else { bail!("merging was answered with {answer:?}") };
    println!("  {name}: {what}; {} nodes read the same, {} compared", after.len(), text::bytes(ByteCount(bytes)));
    Ok(())
}
