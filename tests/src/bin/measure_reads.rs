//! Measures random reads of 4 KiB of a chain of 32 images against one image with the same content, cached; and what it
//! takes to open a chain of 32 images of 1 TiB.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::disk::{self, CreateOptions, ImageFormat};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::testing::Random;
use snaptree_core::units::ByteCount;
use snaptree_tests::measure::{Spread, resident_bytes};

const DEPTH: usize = 32;
const PAIRS: usize = 9;
const SIZE: u64 = 512 << 20;
const STRETCH: u64 = 64 << 10;
const READ: u64 = 4096;
const SLICE: Duration = Duration::from_millis(700);
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

/// Reads per second of several threads.
fn rate(chain: &Chain, threads: u64, seed: u64) -> f64 {
    let (count, began) = (AtomicU64::new(0), Instant::now());
    thread::scope(|scope| {
        for number in 0..threads {
            let count = &count;
            scope.spawn(move || {
                let (mut random, mut buf) = (Random::new(seed * 100 + number), [0; READ as usize]);
                let mut reads = 0;
                while reads % 256 != 0 || began.elapsed() < SLICE {
                    chain.read_at(&mut buf, random.below(SIZE / READ) * READ).expect("readable");
                    reads += 1;
                }
                count.fetch_add(reads, Ordering::Relaxed);
            });
        }
    });
    count.into_inner() as f64 / began.elapsed().as_secs_f64()
}

fn reads(folder: &Path) -> Result<()> {
    // Each stretch lies in one layer, chosen by chance, and (three of four times) in one below it too.
    let mut random = Random::new(7);
    let layers: Vec<[u64; 2]> = (0..SIZE / STRETCH).map(|_| [random.below(32), random.below(32)]).collect();
    let bytes = |stretch: usize| Random::new(stretch as u64).bytes(STRETCH as usize);
    let deep = build(folder, "deep", SIZE, DEPTH, |chain, layer| {
        for (stretch, held) in layers.iter().enumerate().filter(|(_, held)| held.contains(&(layer as u64))) {
            let content = if layer as u64 == held[0].max(held[1]) { bytes(stretch) } else { vec![1; STRETCH as usize] };
            chain.write_at(&content, stretch as u64 * STRETCH)?;
            ensure!(held[0] < DEPTH as u64);
        }
        Ok(())
    })?;
    let flat = build(folder, "flat", SIZE, 1, |chain, _| {
        (0..layers.len()).try_for_each(|stretch| Ok(chain.write_at(&bytes(stretch), stretch as u64 * STRETCH)?))
    })?;
    let (deep, flat) = (open(&deep)?, open(&flat)?);
    // Both into the page cache, and the same content.
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for offset in (0..SIZE).step_by(1 << 20) {
        deep.read_at(&mut one, offset)?;
        flat.read_at(&mut other, offset)?;
        ensure!(one == other, "the two differ at {offset}");
    }
    for threads in [1, 16] {
        let (mut ratios, mut deeps, mut flats) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..PAIRS {
            let seed = pair as u64;
            let (of_deep, of_flat) = if pair % 2 == 0 {
                let of_deep = rate(&deep, threads, seed);
                (of_deep, rate(&flat, threads, seed))
            } else {
                let of_flat = rate(&flat, threads, seed);
                (rate(&deep, threads, seed), of_flat)
            };
            ratios.push(of_deep / of_flat);
            deeps.push(of_deep / 1e3);
            flats.push(of_flat / 1e3);
        }
        println!("random reads of 4 KiB, cached, {threads} threads, {PAIRS} pairs:");
        println!("    32 images, 1000/s     {}", Spread::of(deeps));
        println!("    1 image, 1000/s       {}", Spread::of(flats));
        println!("    ratio                 {}", Spread::of(ratios));
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
    let folder = || tempfile::Builder::new().prefix("snaptree-").tempdir();
    reads(folder()?.path())?;
    large(folder()?.path(), 0.1 / DEPTH as f64, "10 % allocated in all")?;
    large(folder()?.path(), 0.1, "10 % allocated in each")
}
