//! Measures what a live merge costs the machine under which it happens, and what the machine costs the merge.
//!
//! ```text
//! measure_live latency | qemu [--seconds N] [--runs N] [--gib N] [--limit MIB]
//!     a guest that writes 4 KiB and flushes, again and again, for so long, so often, with and without a merge of so
//!     much that moves at most so much a second; the merge must be at work all the time. With `qemu` the same of
//!     qemu-storage-daemon's block-commit and a guest over NBD, after each run of ours
//! measure_live rewrite [--runs N] [--flush-every MIB] [MIB ...]
//!     a guest that rewrites all of its disk, of these sizes, as fast as it can until the merge is done; not with a
//!     real-time priority, which takes the processor from those who write back
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use snaptree_core::chain::Chain;
use snaptree_core::clock::SystemClock;
use snaptree_core::disk::ImageFormat;
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::merge::{self, Execution, Pace, RateLimit, StepOutcome};
use snaptree_core::snapshot::{MachineKind, NodeRef, Tree, WorkloadProfile};
use snaptree_core::store::{Library, MachineStore, NewMachine};
use snaptree_core::testing::Random;
use snaptree_core::units::{ByteCount, ByteRate};
use snaptree_tests::lab::{self, Counted};
use snaptree_tests::measure::Spread;
#[cfg(unix)]
use snaptree_tests::peer::{their_chain, their_layer};
#[cfg(unix)]
use snaptree_tests::storage_daemon::{NbdClient, StorageDaemon};

const MIB: u64 = 1 << 20;
/// Some of what the guest of the random writes changes lies so near to what is being moved.
const NEAR: u64 = 32 * MIB;
/// What the guest of the latencies writes before each flush.
const WRITE: u64 = 4096;

/// Offset and length, and the byte that is written there.
type Fill = (u64, u64, u8);

/// A machine of which all but Now is deleted, so that everything is to be moved into its base, under its guest.
struct Machine {
    store: MachineStore,
    chain: Arc<Chain>,
    _folder: tempfile::TempDir,
}

impl Machine {
    /// Its images, the base first, hold these.
    fn build(size: u64, layers: &[Vec<Fill>]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
        let (clock, path) = (SystemClock::shared(), folder.path().join("library"));
        let library = Library::open(&OsHost::shared(), &clock, &path)?;
        let mut store = library.create(&NewMachine {
            name: "m".into(),
            kind: MachineKind::Workload,
            memory: ByteCount::mib(4),
            disks: vec![ByteCount(size)],
            format: ImageFormat::Vhdx,
            hardware: None,
            workload: WorkloadProfile::default(),
        })?;
        let open = |store: &MachineStore| lab::chain(store, NodeRef::Now, Access::Write).map_err(anyhow::Error::msg);
        let mut snapshots = Vec::new();
        for (place, fills) in layers.iter().enumerate() {
            if place > 0 {
                let prepared = store.prepare_take(&format!("S{place}"), "", &BTreeMap::new(), ByteCount::ZERO)?;
                snapshots.push(store.publish_take(&prepared, None, false, clock.now())?);
            }
            let chain = open(&store)?;
            for (offset, length, byte) in fills {
                for at in (*offset..offset + length).step_by(MIB as usize) {
                    chain.write_at(&vec![*byte; MIB.min(offset + length - at) as usize], at)?;
                }
            }
            chain.flush()?;
        }
        store.delete(&snapshots, false, false)?;
        let chain = Arc::new(open(&store)?);
        ensure!(chain.images().len() == layers.len());
        Ok(Self { store, chain, _folder: folder })
    }
}

/// What the merge shows to the guest and to the measurement.
#[derive(Default)]
struct Shared {
    /// Data bytes moved.
    moved: AtomicU64,
    /// The merge shall end, done or not.
    stop: AtomicBool,
}

/// How a merge went.
struct Went {
    done: bool,
    seconds: f64,
    moved: u64,
    twice: u64,
}

/// Carries out the merge that is due, as the engine's job does.
fn merge(machine: &mut Machine, limit: Option<ByteRate>, shared: &Shared) -> Result<Went> {
    let (clock, began) = (SystemClock::shared(), Instant::now());
    let store = &mut machine.store;
    let open = lab::open_images(store, &machine.chain);
    let counted = Counted::of_running(store.host(), store.dir(), store.machine(), true, &open)?;
    let run = Tree::of(store.machine()).runs().into_iter().next().context("a merge is due")?;
    let plan = merge::plan(&counted.facts(), &run)?;
    ensure!(plan.is_written, "the machine must write to the top of what is merged");
    let mut execution = Execution::begin_live(store, &plan, clock.now(), &machine.chain)?;
    let mut pace = Pace::live(plan.batch);
    let mut limit = RateLimit::new(limit);
    let mut twice;
    let done = loop {
        if shared.stop.load(Ordering::Relaxed) {
            twice = execution.written_twice();
            execution.end()?;
            break false;
        }
        let (before, step_began) = (execution.progress().moved, clock.elapsed());
        twice = execution.written_twice();
        let outcome = execution.step(store, limit.budget(pace.budget().max(execution.unflushed())))?;
        let moved = execution.progress().moved.saturating_sub(before);
        pace.moved(moved, clock.elapsed() - step_began);
        shared.moved.store(execution.progress().moved.0, Ordering::Relaxed);
        if let StepOutcome::Done(_) = outcome {
            break true;
        }
        thread::sleep(limit.moved(moved, step_began).saturating_sub(clock.elapsed()));
    };
    let moved = shared.moved.load(Ordering::Relaxed);
    Ok(Went { done, seconds: began.elapsed().as_secs_f64(), moved, twice: twice.0 })
}

/// Latencies of write + flush in milliseconds, sorted.
struct Latencies(Vec<f64>);

impl Latencies {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    fn quantile(&self, share: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * share).ceil() as usize]
    }

    fn print(&self, what: &str) {
        let [median, high, most] = [0.5, 0.999, 1.0].map(|share| self.quantile(share));
        println!("    {what:<34} {:>7}   median {median:8.3}   99.9 % {high:8.3}   max {most:8.3}", self.0.len());
    }
}

/// What the guest does each time: writes these bytes here, and flushes.
type Put<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<()>;

struct Latency {
    time: Duration,
    runs: u64,
    data: u64,
    limit: Option<u64>,
}

/// The merge is looked at so often in each run.
const PARTS: u32 = 4;
const TOO_SHORT: &str = "the merge was done before the time was over: more --gib, or a --limit";

impl Latency {
    fn size(&self) -> u64 {
        self.data / 4 * 5
    }

    /// The data lies in two images under the one that is written, which hides a tenth of it; a fifth of the disk was
    /// never written.
    fn layers(&self) -> [Vec<Fill>; 4] {
        let half = self.data / 2;
        let top = (0..self.data / (10 * MIB)).map(|tenth| (tenth * 10 * MIB, MIB, 3)).collect();
        [vec![], vec![(0, half, 1)], vec![(half, half, 2)], top]
    }

    /// Writes until the time is over: anywhere on the disk, but each eighth write near `place`.
    fn work(&self, time: Duration, seed: u64, place: impl Fn(Duration) -> u64, put: Put<'_>) -> Result<Vec<f64>> {
        let (mut random, mut latencies, began) = (Random::new(seed), Vec::new(), Instant::now());
        let mut bytes = vec![0; WRITE as usize];
        while began.elapsed() < time {
            let near = random.chance(1, 8).then(|| place(began.elapsed()) + random.below(NEAR));
            let offset = near.unwrap_or_else(|| random.below(self.size())).min(self.size() - WRITE) / WRITE * WRITE;
            random.fill(&mut bytes);
            let one = Instant::now();
            put(offset, &bytes)?;
            latencies.push(one.elapsed().as_secs_f64() * 1e3);
        }
        Ok(latencies)
    }

    fn without(&self, seed: u64, put: Put<'_>) -> Result<Latencies> {
        // As far as a merge comes in this time, about.
        let place = |passed: Duration| (self.data as f64 * passed.as_secs_f64() / self.time.as_secs_f64()) as u64;
        Ok(Latencies::of(self.work(self.time, seed, place, put)?))
    }

    /// While `merging` tells of bytes that it has moved, until it is told to stop.
    fn with(
        &self,
        seed: u64,
        put: Put<'_>,
        shared: &Shared,
        merging: impl FnOnce() -> Result<Went> + Send,
    ) -> Result<(Latencies, Went)> {
        let moved = || shared.moved.load(Ordering::Relaxed);
        let (latencies, went) = thread::scope(|scope| {
            let merging = scope.spawn(merging);
            let guest = (|| {
                let mut latencies = Vec::new();
                for part in 0..PARTS {
                    let before = moved();
                    latencies.extend(self.work(self.time / PARTS, seed + u64::from(part) * 1000, |_| moved(), put)?);
                    ensure!(!merging.is_finished(), "{TOO_SHORT}");
                    ensure!(moved() > before, "the merge did nothing in a quarter of the time");
                }
                Ok(latencies)
            })();
            shared.stop.store(true, Ordering::Relaxed);
            let went = merging.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok::<_, anyhow::Error>((guest?, went))
        })?;
        ensure!(!went.done, "{TOO_SHORT}");
        Ok((Latencies::of(latencies), went))
    }

    fn ours(&self, run: u64, all: &mut [Vec<f64>; 2]) -> Result<()> {
        let mut machine = Machine::build(self.size(), &self.layers())?;
        let chain = machine.chain.clone();
        let mut put = |offset: u64, bytes: &[u8]| {
            chain.write_at(bytes, offset)?;
            Ok(chain.flush()?)
        };
        let (limit, shared) = (self.limit.map(|mib| ByteRate((mib * MIB) as f64)), Shared::default());
        let before = run.is_multiple_of(2).then(|| self.without(run, &mut put)).transpose()?;
        let with = self.with(run, &mut put, &shared, || merge(&mut machine, limit, &shared))?;
        let without = before.map_or_else(|| self.without(run, &mut put), Ok)?;
        tell("ours", without, with, all);
        Ok(())
    }

    /// The same of QEMU.
    #[cfg(unix)]
    fn theirs(&self, run: u64, all: &mut [Vec<f64>; 2]) -> Result<()> {
        let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
        let split = |&(offset, length, byte): &Fill| {
            let pieces = (offset..offset + length).step_by(16 << 20);
            pieces.map(move |at| (at, (16 << 20).min(offset + length - at), byte)).collect::<Vec<_>>()
        };
        let layers = self.layers().map(|fills| fills.iter().flat_map(split).collect::<Vec<_>>());
        their_chain(folder.path(), self.size(), &layers)?;
        for layer in 0..layers.len() {
            std::fs::File::open(their_layer(folder.path(), layer))?.sync_all()?;
        }
        let socket = folder.path().join("nbd");
        let mut daemon = StorageDaemon::start(&their_layer(folder.path(), layers.len() - 1), &socket)?;
        let mut client = NbdClient::connect(&socket)?;
        let mut put = |offset: u64, bytes: &[u8]| {
            client.write(offset, bytes)?;
            client.flush()
        };
        let shared = Shared::default();
        let before = run.is_multiple_of(2).then(|| self.without(run, &mut put)).transpose()?;
        let with = self.with(run, &mut put, &shared, || {
            let began = Instant::now();
            daemon.commit(self.limit.map_or(0, |mib| mib * MIB))?;
            let (mut moved, mut done) = (0, false);
            while !done && !shared.stop.load(Ordering::Relaxed) {
                let (offset, all) = daemon.committed()?.context("the merge has failed")?;
                (moved, done) = (offset, offset == all);
                shared.moved.store(moved, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(50));
            }
            let seconds = began.elapsed().as_secs_f64();
            daemon.cancel()?;
            Ok(Went { done, seconds, moved, twice: 0 })
        })?;
        let without = before.map_or_else(|| self.without(run, &mut put), Ok)?;
        tell("qemu", without, with, all);
        Ok(())
    }

    #[cfg(not(unix))]
    fn theirs(&self, _run: u64, _all: &mut [Vec<f64>; 2]) -> Result<()> {
        bail!("its socket needs Unix")
    }

    fn measure(&self, qemu: bool) -> Result<()> {
        let limit = self.limit.map_or("without a limit".into(), |mib| format!("limited to {mib} MiB/s"));
        let (seconds, data) = (self.time.as_secs_f64(), ByteCount(self.data));
        println!(
            "write of 4 KiB + flush, ms; 4 images, {data} to merge into the base, {limit}; {} runs of {seconds} s:",
            self.runs
        );
        let (mut ours, mut theirs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for run in 0..self.runs {
            self.ours(run, &mut ours)?;
            if qemu {
                self.theirs(run, &mut theirs)?;
            }
        }
        for (who, all) in [("ours", ours), ("qemu", theirs)] {
            let [without, with] = all.map(Latencies::of);
            if without.0.is_empty() {
                continue;
            }
            without.print(&format!("{who}, all runs, without a merge"));
            with.print(&format!("{who}, all runs, merging"));
            let [median, high, most] = [0.5, 0.999, 1.0].map(|share| with.quantile(share) - without.quantile(share));
            println!("    {who}, {:<36} median {median:8.3}   99.9 % {high:8.3}   max {most:8.3}", "more while it merges");
        }
        Ok(())
    }
}

fn tell(who: &str, without: Latencies, (with, went): (Latencies, Went), all: &mut [Vec<f64>; 2]) {
    without.print(&format!("{who}, without a merge"));
    with.print(&format!("{who}, merging, {:.0} MiB/s", went.moved as f64 / went.seconds / MIB as f64));
    all[0].extend(without.0);
    all[1].extend(with.0);
}

/// Rewrites all of a disk, over and over, until told to stop. Returns what it wrote last, and how much in all.
fn rewrite(chain: &Chain, flush_every: u64, stop: &AtomicBool) -> Result<(Vec<u8>, u64)> {
    let mut last = vec![0; (chain.virtual_size().0 / MIB) as usize];
    let mut written = 0;
    for pass in 1.. {
        for (place, byte) in last.iter_mut().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok((last, written));
            }
            *byte = 100 + pass % 100;
            chain.write_at(&vec![*byte; MIB as usize], place as u64 * MIB)?;
            written += MIB;
            if flush_every > 0 && written % flush_every == 0 {
                chain.flush()?;
            }
        }
    }
    bail!("it writes for ever")
}

/// Every MiB shows what was written there last.
fn check(chain: &Chain, last: &[u8]) -> Result<()> {
    let mut buf = vec![0; MIB as usize];
    for (place, byte) in last.iter().enumerate() {
        chain.read_at(&mut buf, place as u64 * MIB)?;
        ensure!(*byte == 0 || buf.iter().all(|found| found == byte), "MiB {place} isn't as it was written");
    }
    Ok(())
}

fn measure_rewrite(size: u64, runs: usize, flush_every: u64) -> Result<()> {
    let flushes = if flush_every == 0 { "never flushes".into() } else { format!("flushes every {}", ByteCount(flush_every)) };
    println!("a guest that rewrites all of its {} and {flushes}, {runs} pairs:", ByteCount(size));
    let [mut idles, mut lives, mut shares, mut guests, mut rates, mut twices] = [const { Vec::new() }; 6];
    for _ in 0..runs {
        // The top holds all of the disk.
        let build = || Machine::build(size, &[vec![], vec![(0, size / 2, 1)], vec![(size / 4, size / 2, 2)], vec![(0, size, 3)]]);
        let idle = merge(&mut build()?, None, &Shared::default())?;
        let (mut machine, shared) = (build()?, Shared::default());
        let chain = machine.chain.clone();
        let enough = AtomicBool::new(false);
        let (went, (last, written), seconds) = thread::scope(|scope| {
            let guest = scope.spawn(|| {
                let began = Instant::now();
                rewrite(&chain, flush_every, &enough).map(|done| (done, began.elapsed().as_secs_f64()))
            });
            let went = merge(&mut machine, None, &shared);
            enough.store(true, Ordering::Relaxed);
            let (done, seconds) = guest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok::<_, anyhow::Error>((went?, done, seconds))
        })?;
        ensure!(idle.done && went.done && machine.chain.images().len() == 1, "both are done");
        ensure!(written > 0, "the guest wrote nothing");
        check(&chain, &last)?;
        idles.push(idle.seconds);
        lives.push(went.seconds);
        shares.push(went.seconds / (2.0 * idle.seconds + 10.0));
        guests.push(written as f64 / MIB as f64);
        rates.push(written as f64 / seconds / MIB as f64);
        twices.push(went.twice as f64 / MIB as f64);
    }
    println!("    idle, s                            {}", Spread::of(idles));
    println!("    under the guest, s                 {}", Spread::of(lives));
    println!("    of 2 x idle + 10 s                 {}", Spread::of(shares));
    println!("    the guest wrote, MiB               {}", Spread::of(guests));
    println!("    the guest wrote, MiB/s             {}", Spread::of(rates));
    println!("    of that to both sides, MiB         {}", Spread::of(twices));
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().context("latency or rewrite; see the top of this file")?;
    let (mut seconds, mut runs, mut gib, mut limit, mut flush_every, mut sizes) = (60, 5, 8, None, 0, Vec::new());
    while let Some(argument) = arguments.next() {
        if let Ok(size) = argument.parse::<u64>() {
            sizes.push(size);
            continue;
        }
        let value = arguments.next().with_context(|| format!("{argument} needs a value"))?.parse::<u64>()?;
        match argument.as_str() {
            "--seconds" => seconds = value,
            "--runs" => runs = value,
            "--gib" => gib = value,
            "--limit" => limit = Some(value),
            "--flush-every" => flush_every = value * MIB,
            _ => bail!("{argument} isn't known; see the top of this file"),
        }
    }
    match verb.as_str() {
        "latency" | "qemu" => {
            Latency { time: Duration::from_secs(seconds), runs, data: gib << 30, limit }.measure(verb == "qemu")
        }
        "rewrite" => {
            let sizes = if sizes.is_empty() { vec![256, 1024, 4096] } else { sizes };
            sizes.into_iter().try_for_each(|size| measure_rewrite(size * MIB, runs as usize, flush_every))
        }
        other => bail!("there is no {other}; see the top of this file"),
    }
}
