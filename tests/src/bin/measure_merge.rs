//! Measures merging into the base against `qemu-img commit` on equal qcow2 chains: the same stretches, the same target,
//! interleaved, until the last fsync. Ours ends with the layers above removed; QEMU's does nothing with them, so it is
//! shown with and without that.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::merge::merge_files;
use snaptree_core::testing::Random;
use snaptree_tests::measure::Spread;
use snaptree_tests::peer::{Write, our_chain, our_layer, run, same_content, their_chain, their_layer};

const MIB: u64 = 1 << 20;

/// A fresh copy of a chain, durable and cached.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let copy = to.join(path.file_name().context("a name")?);
        run(Command::new("cp").arg("--sparse=always").args([&path, &copy]))?;
        File::open(&copy)?.sync_all()?;
    }
    Ok(())
}

fn merge_ours(folder: &Path, top: usize) -> Result<(f64, u64)> {
    let path = |layer: usize| our_layer(folder, layer);
    let began = Instant::now();
    let gate = Gate::new([folder.to_path_buf()]);
    let merged = merge_files(&OsHost::shared(), &path(top), Some(&path(0)), &gate, &mut |_| true)?.context("it ended")?;
    Ok((began.elapsed().as_secs_f64(), merged.progress.moved.0))
}

/// Seconds until everything stands in the base, and until the layers above are removed as well, as ours are.
fn merge_theirs(folder: &Path, top: usize, cache: &str) -> Result<(f64, f64)> {
    let path = |layer: usize| their_layer(folder, layer);
    let began = Instant::now();
    run(Command::new("qemu-img").args(["commit", "-q", "-d", "-f", "qcow2", "-t", cache, "-b"]).args([path(0), path(top)]))?;
    File::open(path(0))?.sync_all()?;
    let committed = began.elapsed().as_secs_f64();
    for layer in 1..=top {
        fs::remove_file(path(layer))?;
    }
    File::open(folder)?.sync_all()?;
    Ok((committed, began.elapsed().as_secs_f64()))
}

fn same(ours: &Path, theirs: &Path) -> Result<bool> {
    // The one image that is left of ours.
    let files: Vec<PathBuf> = fs::read_dir(ours)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let left = files.iter().find(|file| file.extension().is_some_and(|ext| ext == "vhdx")).context("an image")?;
    let chain = Chain::open(&OsHost::shared(), left, Access::Look, &Gate::default())?;
    same_content(&chain, &their_layer(theirs, 0))
}

fn measure(what: &str, pairs: usize, size: u64, layers: &[Vec<Write>]) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
    let at = |name: &str| folder.path().join(name);
    for name in ["ours", "theirs"] {
        fs::create_dir(at(name))?;
    }
    our_chain(&at("ours"), size, None, layers)?;
    their_chain(&at("theirs"), size, layers)?;
    let top = layers.len() - 1;
    println!("{what}, into the base, {pairs} pairs for each way of caching:");
    for cache in ["writeback", "none"] {
        let (mut our_rates, mut their_rates, mut bytes) = (Vec::new(), Vec::new(), 0);
        let (mut ratios, mut equal_ratios) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            copy(&at("ours"), &at("a"))?;
            copy(&at("theirs"), &at("b"))?;
            let (our_time, their_time);
            if pair % 2 == 0 {
                (our_time, bytes) = merge_ours(&at("a"), top)?;
                their_time = merge_theirs(&at("b"), top, cache)?;
            } else {
                their_time = merge_theirs(&at("b"), top, cache)?;
                (our_time, bytes) = merge_ours(&at("a"), top)?;
            }
            if pair == 0 {
                ensure!(same(&at("a"), &at("b"))?, "the two merges came to different disks");
            }
            our_rates.push(bytes as f64 / our_time / 1e6);
            let (committed, removed) = their_time;
            their_rates.push(bytes as f64 / committed / 1e6);
            ratios.push(committed / our_time);
            equal_ratios.push(removed / our_time);
        }
        println!("    ours (cached), MB/s                        {}", Spread::of(our_rates));
        println!("    qemu-img commit -t {cache:<9}, MB/s         {}", Spread::of(their_rates));
        println!("    as fast                                    {}  ({} MiB moved)", Spread::of(ratios), bytes / MIB);
        println!("    as fast, its layers removed too            {}", Spread::of(equal_ratios));
    }
    Ok(())
}

fn whole(size: u64, byte: u8) -> Vec<Write> {
    (0..size / MIB).map(|mib| (mib * MIB, MIB, byte)).collect()
}

/// Layers of 16 MiB in stretches of 256 KiB, anywhere in 512 MiB, over a full base: they overlap.
fn overlapping(depth: usize) -> Vec<Vec<Write>> {
    let mut random = Random::new(5);
    let mut layers = vec![whole(512 * MIB, 1)];
    for layer in 1..depth {
        layers.push((0..64).map(|_| (random.below(2048) << 18, 1 << 18, layer as u8 + 1)).collect());
    }
    layers
}

/// `measure_merge [--pairs N] [CASE...]`
fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut pairs = 7;
    if arguments.first().is_some_and(|first| first == "--pairs") {
        pairs = arguments.get(1).context("--pairs N")?.parse()?;
        arguments.drain(..2);
    }
    for case in ["2", "8", "32", "large"] {
        if !arguments.is_empty() && !arguments.iter().any(|wanted| wanted == case) {
            continue;
        }
        match case {
            "2" => measure("2 layers of 512 MiB", pairs, 512 * MIB, &[whole(512 * MIB, 1), whole(512 * MIB, 2)])?,
            "large" => measure("2 layers of 4 GiB", pairs, 4096 * MIB, &[whole(4096 * MIB, 1), whole(4096 * MIB, 2)])?,
            depth => {
                let what = format!("{depth} layers that overlap, all but the base of 16 MiB, in one pass");
                measure(&what, pairs, 512 * MIB, &overlapping(depth.parse()?))?;
            }
        }
    }
    Ok(())
}
