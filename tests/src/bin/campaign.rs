//! Random operations on several machines, with kills, losses of power, full volumes and failing reads and writes; after
//! each, every invariant is checked. Prints what was done, and for each violation the line that shows it again.
//!
//! ```text
//! campaign [--mode memory|processes|both] [--seed N] [--seconds N] [--rounds N] [--trace]
//! ```
//! `memory` is the engine in this process on a volume in memory: a seed is a round, exactly the same each time.
//! `processes` is the built program on real files, killed with -9 at random instants.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use snaptree_tests::campaign::{Extent, Report, memory};

fn main() -> Result<ExitCode> {
    let mut extent = Extent { seed: 1, time: Duration::from_secs(60), rounds: u64::MAX, least_rounds: 0, traces: false };
    let (mut mode, mut timed) = ("both".to_owned(), false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--trace" {
            extent.traces = true;
            continue;
        }
        let value = args.next().with_context(|| format!("{arg} needs a value"))?;
        let number = || value.parse::<u64>().with_context(|| format!("{arg} needs a number, not {value}"));
        match arg.as_str() {
            "--mode" => mode.clone_from(&value),
            "--seed" => extent.seed = number()?,
            "--rounds" => extent.rounds = number()?,
            "--seconds" => (extent.time, timed) = (Duration::from_secs(number()?), true),
            _ => bail!("{arg} isn't known; see the top of this file"),
        }
    }
    if extent.rounds != u64::MAX && !timed {
        // A round that is asked for is done to its end.
        extent.time = Duration::from_secs(3600);
    }
    let modes: &[&str] = match mode.as_str() {
        "both" => &["memory", "processes"],
        "memory" => &["memory"],
        "processes" => &["processes"],
        other => bail!("there is no mode {other}"),
    };
    extent.time /= modes.len() as u32;
    let mut violations = 0;
    for mode in modes {
        let mut report = Report::default();
        match *mode {
            "memory" => memory::campaign(extent, &mut report),
            _ => processes(extent, &mut report)?,
        }
        violations += report.violations.len();
        println!("{mode}, from seed {}, {} seconds\n{report}", extent.seed, extent.time.as_secs());
    }
    Ok(if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(unix)]
fn processes(extent: Extent, report: &mut Report) -> Result<()> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name("snaptree");
    if !program.exists() {
        bail!("{} is missing; `cargo build --workspace --features snaptree/inspection` builds it", program.display());
    }
    snaptree_tests::campaign::processes::campaign(&program, extent, report);
    Ok(())
}

#[cfg(not(unix))]
fn processes(_extent: Extent, _report: &mut Report) -> Result<()> {
    bail!("processes are killed with signals: only on Unix")
}
