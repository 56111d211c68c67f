//! Measures disks over NBD with fio: ours, chains of 1 and 32 images, beside qemu-nbd on a qcow2 of one image and nbdkit on a
//! plain file, in turns; random reads and writes of 4 KiB, 1 and 32 at a time, all of it in the page cache.
//!
//! `measure_nbd [SECONDS]`: of each run; 2 if not said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::nbd::{Export, Server};
use snaptree_core::testing::Random;
use snaptree_core::units::ByteCount;
use snaptree_tests::measure::Spread;
use snaptree_tests::peer::{Write, our_chain, our_layer, run, same_content, their_chain, their_layer};

const ROUNDS: usize = 7;
const SIZE: u64 = 256 << 20;
const STRETCH: u64 = 64 << 10;
const DEPTH: usize = 32;
/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);

const SUBJECTS: [&str; 4] = ["ours, 1 image", "ours, 32 images", "qemu-nbd, qcow2", "nbdkit, file"];

/// Each stretch of the disk lies in a layer chosen by chance.
fn layers(depth: usize) -> Vec<Vec<Write>> {
    let mut random = Random::new(7);
    let mut layers: Vec<Vec<Write>> = vec![Vec::new(); depth];
    for stretch in 0..SIZE / STRETCH {
        layers[random.below(depth as u64) as usize].push((stretch * STRETCH, STRETCH, (stretch % 251) as u8));
    }
    layers
}

/// A server that lives as long as this.
enum Serving {
    Ours(#[expect(dead_code, reason = "held until the end")] Server),
    Theirs(Child),
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Self::Theirs(process) = self {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn spawn(command: &mut Command) -> Result<Serving> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    Ok(Serving::Theirs(spawned.with_context(|| format!("{command:?}"))?))
}

/// Writes go to the top of each chain.
fn serve(folder: &Path, subject: usize, socket: &Path) -> Result<Serving> {
    let ours = |depth: usize| -> Result<Serving> {
        let leaf = our_layer(&folder.join(format!("ours{depth}")), depth);
        let chain = Arc::new(Chain::open(&OsHost::shared(), &leaf, Access::Write, &Gate::around(&leaf))?);
        ensure!(chain.images().len() == depth + 1);
        let export = Export { name: "disk".into(), description: String::new(), device: chain, read_only: false };
        Ok(Serving::Ours(Server::start(socket, vec![export])?))
    };
    let serving = match subject {
        0 => ours(1)?,
        1 => ours(DEPTH)?,
        2 => spawn(
            Command::new("qemu-nbd")
                .args([
                    "--format=qcow2",
                    "--cache=writeback",
                    "--aio=io_uring",
                    "--persistent",
                    "--shared=8",
                    "--export-name=disk",
                ])
                .arg(format!("--socket={}", socket.display()))
                .arg(their_layer(&folder.join("theirs"), 0)),
        )?,
        _ => spawn(
            Command::new("nbdkit")
                .args(["--foreground", "--exportname=disk", "--unix"])
                .arg(socket)
                .arg("file")
                .arg(folder.join("raw")),
        )?,
    };
    let began = Instant::now();
    while !socket.exists() {
        ensure!(began.elapsed() < PATIENCE, "{} doesn't listen", SUBJECTS[subject]);
        sleep(Duration::from_millis(5));
    }
    Ok(serving)
}

/// Requests a second.
fn fio(socket: &Path, kind: &str, depth: u32, seconds: u64) -> Result<f64> {
    let mut fio = Command::new("fio");
    fio.args(["--name=measured", "--ioengine=nbd", "--bs=4k", "--time_based", "--output-format=json"]);
    fio.arg(format!("--uri=nbd+unix:///disk?socket={}", socket.display()));
    fio.arg(format!("--rw=rand{kind}")).arg(format!("--iodepth={depth}")).arg(format!("--runtime={seconds}"));
    let said = run(fio.current_dir(socket.parent().context("a folder")?))?;
    let json = said.find('{').map_or("", |at| &said[at..]);
    let result: Value = serde_json::from_str(json).with_context(|| said.clone())?;
    result["jobs"][0][kind]["iops"].as_f64().with_context(|| said.clone())
}

/// Empty leaves are put on top of ours, as a machine has them: what is read comes from below.
fn build(folder: &Path) -> Result<()> {
    for depth in [1, DEPTH] {
        let own = folder.join(format!("ours{depth}"));
        fs::create_dir(&own)?;
        let mut layers = layers(depth);
        layers.push(Vec::new());
        our_chain(&own, SIZE, Some(ByteCount::mib(2)), &layers)?;
    }
    let theirs = folder.join("theirs");
    fs::create_dir(&theirs)?;
    their_chain(&theirs, SIZE, &layers(1))?;
    let leaf = our_layer(&folder.join(format!("ours{DEPTH}")), DEPTH);
    let chain = Chain::open(&OsHost::shared(), &leaf, Access::Look, &Gate::around(&leaf))?;
    ensure!(same_content(&chain, &their_layer(&theirs, 0))?, "the disks differ");
    let (from, to) = (their_layer(&theirs, 0), folder.join("raw"));
    run(Command::new("qemu-img").args(["convert", "-f", "qcow2", "-O", "raw", "-S", "0"]).args([from, to]))?;
    Ok(())
}

fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(2), |word| word.parse())?;
    let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
    build(folder.path())?;
    for (kind, depth) in [("read", 1), ("read", 32), ("write", 1), ("write", 32)] {
        let mut rates = [[0.0; ROUNDS]; SUBJECTS.len()];
        // Each round begins with another one.
        for (round, number) in (0..ROUNDS).flat_map(|round| (0..SUBJECTS.len()).map(move |number| (round, number))) {
            let subject = (number + round) % SUBJECTS.len();
            let socket: PathBuf = folder.path().join(format!("s{kind}{depth}-{round}-{subject}"));
            let serving = serve(folder.path(), subject, &socket)?;
            rates[subject][round] = fio(&socket, kind, depth, seconds)?;
            drop(serving);
        }
        println!("random {kind}s of 4 KiB, {depth} at a time, {ROUNDS} rounds of {seconds} s:");
        for (name, rates) in SUBJECTS.iter().zip(&rates) {
            println!("    {name:<18} 1000/s  {}", Spread::of(rates.map(|rate| rate / 1e3)));
        }
        for (ours, peer) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
            let ratio = Spread::of((0..ROUNDS).map(|round| rates[ours][round] / rates[peer][round]));
            println!("    {} / {}  {ratio}", SUBJECTS[ours], SUBJECTS[peer]);
        }
    }
    Ok(())
}
