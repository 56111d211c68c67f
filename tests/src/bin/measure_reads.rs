//! Measures reading chains of 1, 8 and 32 images beside QEMU on equal qcow2 chains, and beside plain preads of the same
//! places of the same files, which is what the kernel leaves to be reached; cached. And what it takes to open a chain of
//! 32 images of 1 TiB.
//!
//! measure_reads [reads | large]     one of the two

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::disk::{self, CreateOptions, Image, ImageFormat, Presence};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::testing::Random;
use snaptree_core::units::ByteCount;
use snaptree_tests::measure::{Spread, resident_bytes};
use snaptree_tests::peer::{Write, our_chain, our_layer, run, same_content, their_chain, their_layer};

/// Images of the chains that are compared.
const DEPTHS: [usize; 3] = [1, 8, 32];
const ROUNDS: usize = 7;
const SIZE: u64 = 512 << 20;
const STRETCH: u64 = 64 << 10;
/// What hidden data consists of.
const HIDDEN: u8 = 251;
const READ: u64 = 4096;
/// Images of the large chain.
const DEPTH: usize = 32;
const BLOCK: ByteCount = ByteCount::mib(2);

/// A chain of frozen images; `fill` writes each layer. Returns the leaf.
fn build(
    folder: &Path,
    name: &str,
    size: u64,
    depth: usize,
    mut fill: impl FnMut(&Chain, usize) -> Result<()>,
) -> Result<PathBuf> {
    let host = OsHost::shared();
    let options = CreateOptions { block_size: Some(BLOCK), ..CreateOptions::dynamic(ByteCount(size)) };
    let mut path = folder.join(format!("{name}.vhdx"));
    let mut chain = Chain::from_images(vec![disk::create(&host, &path, ImageFormat::Vhdx, &options)?])?;
    for layer in 0..depth {
        if layer > 0 {
            let old = chain.images().pop().context("a leaf")?;
            old.pin_data_write_id()?;
            path = folder.join(format!("{name}-{layer}.avhdx"));
            chain.push_leaf(disk::create_child(&host, &path, &*old, Some(BLOCK))?)?;
            old.freeze()?;
        }
        fill(&chain, layer)?;
    }
    chain.images().pop().context("a leaf")?.freeze()?;
    drop(std::mem::replace(&mut chain, Chain::open(&host, &path, Access::Look, &Gate::around(&path))?));
    ensure!(chain.images().len() == depth);
    Ok(path)
}

fn open(leaf: &Path) -> Result<Chain> {
    Ok(Chain::open(&OsHost::shared(), leaf, Access::Look, &Gate::around(leaf))?)
}

/// A way of reading a disk: how much at a time, and how far apart.
struct Walk {
    name: &'static str,
    read: u64,
    step: u64,
    /// How often all of the disk is read each time.
    laps: u64,
    unit: &'static str,
    per_unit: f64,
}

const WALKS: [Walk; 2] = [
    // As `qemu-img bench` goes: its offsets are taken modulo the disk's size less one read, here 131071 reads, a prime;
    // so the walk comes to each of them once.
    Walk { name: "random reads of 4 KiB", read: 4096, step: 81_001 * 4096, laps: 4, unit: "1000/s", per_unit: 1e3 },
    Walk { name: "the whole disk, 1 MiB after 1 MiB", read: 1 << 20, step: 1 << 20, laps: 4, unit: "1000 MiB/s", per_unit: 1e3 },
];

impl Walk {
    /// Reads of a lap.
    fn reads(&self) -> u64 {
        SIZE / self.read - 1
    }

    fn offset(&self, index: u64) -> u64 {
        (index * self.step) % (SIZE - self.read)
    }

    /// Carries it out with several threads: reads per second. `read` gets a read's number in the lap.
    fn rate(&self, threads: u64, read: impl Fn(&mut [u8], u64) + Sync) -> f64 {
        let (all, began) = (self.reads() * self.laps, Instant::now());
        thread::scope(|scope| {
            for first in 0..threads {
                let read = &read;
                scope.spawn(move || {
                    let mut buf = vec![0; self.read as usize];
                    (first..all).step_by(threads as usize).for_each(|index| read(&mut buf, index % self.reads()));
                });
            }
        });
        all as f64 / began.elapsed().as_secs_f64()
    }
}

/// The same disk as our chain and as QEMU's.
struct Pair {
    depth: usize,
    ours: PathBuf,
    theirs: PathBuf,
}

impl Pair {
    /// Each stretch lies in one layer, chosen by chance, and (but for depth 1 mostly) in one below it too.
    fn build(folder: &Path, depth: usize) -> Result<Self> {
        let mut random = Random::new(7);
        let mut layers: Vec<Vec<Write>> = vec![Vec::new(); depth];
        for stretch in 0..SIZE / STRETCH {
            let (one, other) = (random.below(depth as u64) as usize, random.below(depth as u64) as usize);
            if one != other {
                layers[one.min(other)].push((stretch * STRETCH, STRETCH, HIDDEN));
            }
            layers[one.max(other)].push((stretch * STRETCH, STRETCH, (stretch % u64::from(HIDDEN)) as u8));
        }
        let folder = folder.join(depth.to_string());
        fs::create_dir(&folder)?;
        our_chain(&folder, SIZE, Some(BLOCK), &layers)?;
        their_chain(&folder, SIZE, &layers)?;
        let pair = Self { depth, ours: our_layer(&folder, depth - 1), theirs: their_layer(&folder, depth - 1) };
        let chain = open(&pair.ours)?;
        ensure!(chain.images().len() == depth);
        ensure!(same_content(&chain, &pair.theirs)?, "the two chains of {depth} show different disks");
        Ok(pair)
    }

    fn ours(&self, walk: &Walk, threads: u64) -> Result<f64> {
        let chain = open(&self.ours)?;
        Ok(walk.rate(threads, |buf, index| chain.read_at(buf, walk.offset(index)).expect("readable")))
    }

    /// By its own clock, which begins when the chain is open.
    fn theirs(&self, walk: &Walk, depth: u64) -> Result<f64> {
        let all = walk.reads() * walk.laps;
        // A read that is done at once begins the next one from inside itself: its stack grows with each.
        let mut bench = Command::new("sh");
        bench.args(["-c", "ulimit -s unlimited && exec \"$@\"", "sh", "qemu-img", "bench", "-f", "qcow2"]);
        // Cached; its default, a pool of threads, is slower.
        bench.args(["-i", "io_uring"]);
        for (option, value) in [("-c", all), ("-d", depth), ("-s", walk.read), ("-S", walk.step)] {
            bench.arg(option).arg(value.to_string());
        }
        let output = run(bench.arg(&self.theirs))?;
        let figure = output.split("Run completed in ").nth(1).and_then(|rest| rest.split(' ').next());
        Ok(all as f64 / figure.with_context(|| output.clone())?.parse::<f64>()?)
    }

    /// The floor: the same bytes at the same places of the same files of ours, by the kernel's calls alone.
    fn plain(&self, walk: &Walk, threads: u64) -> Result<f64> {
        let chain = open(&self.ours)?;
        let images = chain.images();
        let open = |image: &Arc<dyn Image>| Ok(OsHost::shared().open(&image.path(), Access::Look)?);
        let files = images.iter().map(open).collect::<Result<Vec<_>>>()?;
        // Per read: pieces, each in one file.
        let mut pieces: Vec<(usize, u64, usize)> = Vec::new();
        let mut firsts = vec![0];
        for index in 0..walk.reads() {
            for stretch in chain.stretches(walk.offset(index), walk.read)? {
                let owner = usize::from(stretch.owner.context("all of the disk is data")?);
                for extent in images[owner].extents(stretch.offset, stretch.length)? {
                    let Presence::Data { host_offset } = extent.presence else { bail!("{extent:?} isn't data") };
                    pieces.push((owner, host_offset, extent.length as usize));
                }
            }
            firsts.push(pieces.len());
        }
        Ok(walk.rate(threads, |buf, index| {
            let mut rest = buf;
            for (file, offset, length) in &pieces[firsts[index as usize]..firsts[index as usize + 1]] {
                let (part, after) = rest.split_at_mut(*length);
                files[*file].read_exact_at(part, *offset).expect("readable");
                rest = after;
            }
        }))
    }
}

/// What is compared at each depth.
const SUBJECTS: [&str; 3] = ["ours", "qemu-img bench", "plain preads"];

fn reads(folder: &Path) -> Result<()> {
    let pairs = DEPTHS.iter().map(|depth| Pair::build(folder, *depth)).collect::<Result<Vec<_>>>()?;
    for (walk, at_once) in WALKS.iter().flat_map(|walk| [(walk, 1), (walk, 16)]) {
        // Rates by depth and subject, a round after the other; each round begins with another one.
        let mut rates = [[[0.0; ROUNDS]; SUBJECTS.len()]; DEPTHS.len()];
        let each = DEPTHS.len() * SUBJECTS.len();
        for (round, number) in (0..ROUNDS).flat_map(|round| (0..each).map(move |number| (round, number))) {
            let (place, subject) = ((number + round) % each / SUBJECTS.len(), (number + round) % SUBJECTS.len());
            let pair = &pairs[place];
            rates[place][subject][round] = match subject {
                0 => pair.ours(walk, at_once)?,
                1 => pair.theirs(walk, at_once)?,
                _ => pair.plain(walk, at_once)?,
            };
        }
        println!("{}, cached, {at_once} at once, {ROUNDS} rounds:", walk.name);
        let ratio = |ours: [f64; ROUNDS], others: [f64; ROUNDS]| Spread::of((0..ROUNDS).map(|round| ours[round] / others[round]));
        for (pair, rates) in pairs.iter().zip(&rates) {
            println!("    {} images", pair.depth);
            for (name, rates) in SUBJECTS.iter().zip(rates) {
                println!(
                    "        {name}, {:<width$}  {}",
                    walk.unit,
                    Spread::of(rates.map(|rate| rate / walk.per_unit)),
                    width = 28 - name.len()
                );
            }
            println!("        ours / qemu-img bench           {}", ratio(rates[0], rates[1]));
            println!("        ours / plain preads             {}", ratio(rates[0], rates[2]));
        }
        let deepest = DEPTHS.len() - 1;
        for (subject, name) in SUBJECTS.iter().enumerate() {
            let text = format!("{} images / 1 image, {name}", DEPTHS[deepest]);
            println!("    {text:<35} {}", ratio(rates[deepest][subject], rates[0][subject]));
        }
    }
    Ok(())
}

/// In a process of its own: opens, reads once, then at random.
fn open_large(leaf: &Path) -> Result<()> {
    let (before, began) = (resident_bytes(), Instant::now());
    let chain = open(leaf)?;
    let opened = began.elapsed();
    let mut buf = [0; READ as usize];
    chain.read_at(&mut buf, chain.virtual_size().0 / 2)?;
    let first_read = began.elapsed();
    let after_open = resident_bytes();
    let (mut random, size) = (Random::new(3), chain.virtual_size().0);
    for _ in 0..200_000 {
        chain.read_at(&mut buf, random.below(size / READ) * READ)?;
    }
    let after_reads = resident_bytes();
    println!(
        "{} {} {} {} {}",
        opened.as_secs_f64(),
        first_read.as_secs_f64(),
        after_open - before,
        after_reads - before,
        chain.map_bytes().0
    );
    Ok(())
}

fn large(folder: &Path, per_layer: f64, what: &str) -> Result<()> {
    const LARGE: u64 = 1 << 40;
    let blocks = LARGE / BLOCK.0;
    let count = (blocks as f64 * per_layer) as u64;
    let mut random = Random::new(9);
    let began = Instant::now();
    // Stretches of 64 blocks side by side; of each block 4 KiB are written.
    let leaf = build(folder, "large", LARGE, DEPTH, |chain, _| {
        for _ in 0..count / 64 {
            let first = random.below(blocks / 64) * 64;
            for block in first..first + 64 {
                chain.write_at(&[7; READ as usize], block * BLOCK.0 + random.below(256) * READ)?;
            }
        }
        Ok(())
    })?;
    println!("1 TiB, 32 images, {what} ({count} blocks of 2 MiB each image; written in {:.0} s):", began.elapsed().as_secs_f64());
    let program = std::env::current_exe()?;
    let mut figures: Vec<Vec<f64>> = vec![Vec::new(); 5];
    for _ in 0..7 {
        let output = Command::new(&program).arg("open").arg(&leaf).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for (value, into) in String::from_utf8(output.stdout)?.split_whitespace().zip(&mut figures) {
            into.push(value.parse()?);
        }
    }
    let spread = |index: usize, scale: f64| Spread::of(figures[index].iter().map(|value| value * scale));
    println!("    opened, ms            {}", spread(0, 1e3));
    println!("    to the first read, ms {}", spread(1, 1e3));
    println!("    memory, open, MiB     {}", spread(2, 1.0 / (1 << 20) as f64));
    println!("    memory, read, MiB     {}", spread(3, 1.0 / (1 << 20) as f64));
    println!("    owner map, MiB        {}", spread(4, 1.0 / (1 << 20) as f64));
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, leaf] = &arguments[..]
        && verb == "open"
    {
        return open_large(Path::new(leaf));
    }
    let wanted = |part: &str| arguments.is_empty() || arguments.iter().any(|wanted| wanted == part);
    let folder = || tempfile::Builder::new().prefix("snaptree-").tempdir();
    if wanted("reads") {
        reads(folder()?.path())?;
    }
    if wanted("large") {
        large(folder()?.path(), 0.1 / DEPTH as f64, "10 % allocated in all")?;
        large(folder()?.path(), 0.1, "10 % allocated in each")?;
    }
    Ok(())
}
