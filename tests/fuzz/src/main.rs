//! Feeds made-up and damaged files and messages to the engine. Nothing may panic, hang, take memory without bound, change a
//! file that is only looked at or that is refused, or lose what a node stands on; an error names its file.
//!
//! ```text
//! fuzz [--target image|vhd|chain|manifest|socket|nbd] [--seed S] [--seconds N] [--only CASE]
//! ```
//!
//! | target | what is fed |
//! |---|---|
//! | image | one VHDX file, of several shapes and programs: its fields, tables, log, parent locator, side file |
//! | vhd | the same of VHD |
//! | chain | four images: their links, the journal of a merge of files, and a machine that writes |
//! | manifest | a machine's folder: machine.json, journals of all operations, library.json, saved memory, links |
//! | socket | what clients send to the owner of a running machine, and how they leave |
//! | nbd | what clients of NBD send, and how they leave |
//!
//! Without `--target` all of them run, one after the other, each for so many seconds (60 if not said). A case follows from the
//! seed and its number alone, so the line that is printed for a failure repeats it. The cases run in a second process with
//! little memory, which is watched: one that dies or stands still is a failure of the case that it was at. Ends with 0 where
//! nothing failed. `cargo test -p snaptree-fuzz` runs each target shortly; an hour by hand is
//! `cargo run --release -p snaptree-fuzz -- --seconds 900 --seed 7`.

#[cfg(unix)]
mod chain;
#[cfg(unix)]
mod image;
#[cfg(unix)]
mod json;
#[cfg(unix)]
mod manifest;
#[cfg(unix)]
mod nbd;
#[cfg(unix)]
mod runner;
#[cfg(unix)]
mod samples;
#[cfg(unix)]
mod socket;
#[cfg(unix)]
mod vhd;
#[cfg(unix)]
mod vhdx;

use std::process::ExitCode;

#[cfg(unix)]
fn main() -> ExitCode {
    runner::main()
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    eprintln!("the limits that this program needs are those of Unix");
    ExitCode::FAILURE
}
