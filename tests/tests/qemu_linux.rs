//! A Linux on disks of ours: taken while it writes, gone back to, merged under it, and shut down. It checks itself (its memory,
//! and what it has written), and its file system is checked from outside.
#![cfg(unix)]

use anyhow::{Context, Result, bail, ensure};
use snaptree_core::engine::{Command, Power};
use snaptree_core::units::ByteCount;
use snaptree_tests::driver::Driver;
use snaptree_tests::guest::{Linux, Said, said};
use snaptree_tests::linux_machine::{LinuxMachine, last_done};

const SIZE: ByteCount = ByteCount::mib(64);

fn number(said: Said) -> u64 {
    match said {
        Said::Ready(number) | Said::Begin(number) | Said::Done(number, _) => number,
        Said::Bye => 0,
    }
}

/// Medians and the worst of the times that records took, in milliseconds.
fn times(said: &[Said]) -> String {
    let mut times: Vec<u64> =
        said.iter().filter_map(|said| if let Said::Done(_, took) = said { Some(*took) } else { None }).collect();
    times.sort_unstable();
    let ms = |index: usize| times.get(index).map_or(0.0, |took| *took as f64 / 1000.0);
    format!("{} records, median {:.1} ms, most {:.1} ms", times.len(), ms(times.len() / 2), ms(times.len().saturating_sub(1)))
}

#[test]
fn a_linux_goes_on_from_exactly_each_count_and_is_merged_under_its_writes() -> Result<()> {
    let Some(linux) = Linux::prepare()? else { return Ok(()) };
    let mut lab = LinuxMachine::create(linux, Driver::new(), SIZE, SIZE)?;
    let machine = lab.machine;
    assert_eq!(lab.boots()?, 0);
    lab.writes(20, 0)?;
    let mut taken = Vec::new();
    for label in ["one", "two", "three"] {
        let (snapshot, latency) = lab.driver.take(machine, label, true);
        let latency = latency.context("it ran")?;
        println!("{label}: stood still for {:.1?}, saved {} in {:.1?}", latency.pause, latency.memory, latency.save);
        taken.push(snapshot);
        let from = lab.console_length()?;
        lab.writes(15, from)?;
    }
    for (snapshot, label) in [(taken[0], "one"), (taken[2], "three"), (taken[1], "two")] {
        let stored = lab.records(Some(snapshot))?;
        // So that nothing is said any more by the one that is left.
        lab.driver.done(Command::Pause(machine));
        let from = lab.console_length()?;
        lab.driver.done(Command::Apply { machine, snapshot, safety: None });
        assert_eq!(lab.driver.state(machine).power, Power::Running);
        let first = lab.hears("it goes on", from, |said| said.first().copied())?;
        // A record that is about to be written isn't there; one that wasn't said to be done may be.
        let right = match first {
            Said::Begin(number) => stored + 1 == number,
            Said::Done(number, _) => stored == number || stored + 1 == number,
            Said::Ready(_) | Said::Bye => false,
        };
        ensure!(right, "{label}: {stored} records on the disk, and it goes on with {first:?}");
        println!("{label}: {stored} records on the disk, and it goes on with {first:?}");
        // In steps of one, its memory checked by itself twice.
        lab.writes(40, from)?;
        let mut expected = number(first);
        for said in said(&lab.console(from)?)? {
            match said {
                Said::Begin(number) => expected = number,
                Said::Done(number, _) => ensure!(number == expected, "{label}: {number} after {expected}"),
                other => bail!("{label}: {other:?}"),
            }
        }
    }
    // The oldest goes; what it held is merged while the guest writes.
    let from = lab.console_length()?;
    lab.writes(30, from)?;
    println!("without a merge: {}", times(&said(&lab.console(from)?)?));
    lab.driver.delete(machine, &[taken[0]]);
    let from = lab.console_length()?;
    lab.driver.merge(machine);
    lab.writes(30, from)?;
    println!("with a merge: {}", times(&said(&lab.console(from)?)?));
    let from = lab.console_length()?;
    lab.driver.done(Command::Stop(machine));
    let last = said(&lab.console(0)?)?;
    ensure!(said(&lab.console(from)?)?.last() == Some(&Said::Bye), "its operating system has shut down: {:?}", last.last());
    assert_eq!(lab.driver.state(machine).power, Power::Off);
    let done = last_done(&last);
    assert_eq!(Some(lab.records(None)?), done, "every record is there, and no other");
    for at in [None, Some(taken[1]), Some(taken[2])] {
        lab.records(at)?;
        lab.images_are_right(at)?;
    }
    // And it boots from what it has left.
    assert_eq!(Some(lab.boots()?), done);
    lab.driver.done(Command::TurnOff(machine));
    Ok(())
}
