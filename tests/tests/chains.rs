//! Chains of VHDX files on a host in memory: random trees, reopening, crashes, and the way through the gate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snaptree_core::chain::{Chain, Gate, trace};
use snaptree_core::disk::{self, CreateOptions, DiskErrorKind, Image, ImageFormat, ParentTarget};
use snaptree_core::host_file::{Access, Host};
use snaptree_core::testing::{CrashMode, MemHost, Random, ReferenceDisk, for_some_crash_points};
use snaptree_core::units::ByteCount;

fn create(host: &MemHost, path: &str, size: u64, sector: u32, block: ByteCount) -> Arc<dyn Image> {
    let options =
        CreateOptions { block_size: Some(block), logical_sector_size: sector, ..CreateOptions::dynamic(ByteCount(size)) };
    disk::create(&host.shared(), Path::new(path), ImageFormat::Vhdx, &options).unwrap()
}

fn leaf(chain: &Chain) -> Arc<dyn Image> {
    chain.images().pop().expect("a leaf")
}

fn open(host: &MemHost, leaf: &Path) -> Chain {
    Chain::open(&host.shared(), leaf, Access::Write, &Gate::around(leaf)).unwrap()
}

/// A new leaf beside the old one; the old one is frozen.
fn deepen(host: &MemHost, chain: &Chain, path: &Path, block: ByteCount) {
    let old = leaf(chain);
    old.pin_data_write_id().unwrap();
    chain.push_leaf(disk::create_child(&host.shared(), path, &*old, Some(block)).unwrap()).unwrap();
    old.freeze().unwrap();
}

fn change(chain: &Chain, content: &mut ReferenceDisk, random: &mut Random) {
    let sector = u64::from(chain.logical_sector_size());
    let sectors = content.size() / sector;
    let first = (random.below(4) * (sectors / 4) + random.below(200)).min(sectors - 1);
    let (mut offset, mut length) = (first * sector, (1 + random.below(50)).min(sectors - first) * sector);
    if random.chance(1, 3) {
        if random.chance(1, 2) {
            offset = offset >> 20 << 20;
            length = (2 << 20).min(content.size() - offset);
        }
        chain.write_zeroes(offset, length).unwrap();
        content.zero(offset, length);
    } else {
        let bytes = random.bytes(length as usize);
        chain.write_at(&bytes, offset).unwrap();
        content.write(&bytes, offset);
    }
}

fn assert_same(chain: &Chain, content: &ReferenceDisk, what: &str) {
    assert_eq!(chain.virtual_size().0, content.size(), "{what}");
    content.assert_same(what, |buf, offset| chain.read_at(buf, offset).unwrap());
}

fn run(seed: u64, depth: usize, changes: usize, sector: u32) {
    let mut random = Random::new(seed);
    let what = format!("seed {seed}");
    let host = MemHost::new();
    let block = |random: &mut Random| ByteCount::mib([1, 2, 32, 256][random.below(4) as usize]);
    let size = (6 << 20) + random.below(100) * u64::from(sector);
    let mut content = ReferenceDisk::new(size, sector);
    let mut path = PathBuf::from("/disk.vhdx");
    let mut chain = Chain::from_images(vec![create(&host, "/disk.vhdx", size, sector, block(&mut random))]).unwrap();
    let mut kept: Vec<(PathBuf, ReferenceDisk)> = Vec::new();
    for level in 0..depth {
        if level > 0 {
            kept.push((path.clone(), content.clone()));
            path = PathBuf::from(format!("/disk-{level}.avhdx"));
            deepen(&host, &chain, &path, block(&mut random));
        }
        for _ in 0..changes {
            change(&chain, &mut content, &mut random);
        }
        if random.chance(1, 4) {
            let size = content.size() + (1 + random.below(3000)) * u64::from(sector);
            leaf(&chain).grow(ByteCount(size)).unwrap();
            chain.invalidate();
            content.resize(size);
            change(&chain, &mut content, &mut random);
        }
        assert_same(&chain, &content, &what);
        if random.chance(1, 2) {
            drop(chain);
            chain = open(&host, &path);
            assert_same(&chain, &content, &what);
        }
    }
    // Killed: everything acknowledged is there. Flushed and without power: the same.
    let killed = host.crash(CrashMode::Kill, seed);
    assert_same(&open(&killed, &path), &content, &format!("{what}, killed"));
    chain.flush().unwrap();
    for loss in 0..4 {
        let lost = host.crash(CrashMode::PowerLoss, loss);
        assert_same(&open(&lost, &path), &content, &format!("{what}, power loss {loss}"));
    }
    drop(chain);
    for (path, content) in kept {
        let gate = Gate::around(&path);
        let chain = Chain::open(&host.shared(), &path, Access::Look, &gate).unwrap();
        assert_same(&chain, &content, &format!("{what}, {}", path.display()));
    }
}

#[test]
fn vhdx_chains_read_as_their_model() {
    for seed in 0..6 {
        run(seed, 1 + seed as usize % 4, 12, if seed % 3 == 2 { 4096 } else { 512 });
    }
    run(100, 32, 3, 512);
}

#[test]
fn a_new_leaf_is_safe_at_every_crash_point() {
    const SIZE: u64 = 2 << 20;
    let write = |chain: &Chain, value: u8, sector: u64| chain.write_at(&[value; 512], sector * 512);
    for_some_crash_points(
        5,
        40,
        |host| {
            let chain = Chain::from_images(vec![create(host, "/a.vhdx", SIZE, 512, ByteCount::mib(1))]).unwrap();
            write(&chain, 1, 0).unwrap();
            write(&chain, 1, 3000).unwrap();
            chain.flush().unwrap();
        },
        |host, ()| -> Result<(), (u32, disk::DiskError)> {
            let (path, mut done) = (Path::new("/a.vhdx"), 0);
            let mut step = |result: disk::Result<()>| result.map(|()| done += 1).map_err(|error| (done, error));
            let mut chain = None;
            step(Chain::open(&host.shared(), path, Access::Write, &Gate::around(path)).map(|opened| chain = Some(opened)))?;
            let chain = chain.expect("an open chain");
            step(write(&chain, 2, 0))?;
            let old = leaf(&chain);
            step(old.pin_data_write_id().map(|_| ()))?;
            let new = Path::new("/b.avhdx");
            step(disk::create_child(&host.shared(), new, &*old, None).and_then(|child| chain.push_leaf(child)))?;
            step(write(&chain, 3, 3000))?;
            step(chain.flush())
        },
        |host, (), result, point| {
            let done = result.err().map_or(6, |(done, _)| done);
            // Which disk there is follows from whether the child was complete.
            let child = Path::new("/b.avhdx");
            let path = if done >= 4 { child } else { Path::new("/a.vhdx") };
            let chain = open(host, path);
            let read = |sector: u64| {
                let mut buf = [0; 512];
                chain.read_at(&mut buf, sector * 512).unwrap();
                assert!(buf.iter().all(|byte| *byte == buf[0]), "a sector is torn: {point:?}");
                buf[0]
            };
            // A write that was flushed, or acknowledged before a kill, is there; others may be.
            let sure = |acknowledged: u32| done == 6 || (point.mode == CrashMode::Kill && done >= acknowledged);
            let (first, second) = (read(0), read(3000));
            assert!(first == 2 || (first == 1 && !sure(2)), "{first}, {done} steps done, {point:?}");
            assert!(second == 3 || (second == 1 && !sure(5)), "{second}, {done} steps done, {point:?}");
        },
    );
}

fn kind(result: disk::Result<Chain>) -> DiskErrorKind {
    *result.unwrap_err().kind
}

#[test]
fn parents_outside_the_gate_are_not_opened() {
    let host = MemHost::new();
    host.create_dir_all(Path::new("/vms/snapshots")).unwrap();
    let base = create(&host, "/vms/base.vhdx", 1 << 20, 512, ByteCount::mib(1));
    base.write_at(&[7; 512], 0).unwrap();
    let path = Path::new("/vms/snapshots/child.avhdx");
    drop(disk::create_child(&host.shared(), path, &*base, None).unwrap());
    base.freeze().unwrap();
    drop(base);
    let narrow = Chain::open(&host.shared(), path, Access::Look, &Gate::around(path));
    assert!(matches!(kind(narrow), DiskErrorKind::OutsideGate(outside) if outside == Path::new("/vms/base.vhdx")));
    let closed = Chain::open(&host.shared(), path, Access::Look, &Gate::default());
    assert!(matches!(kind(closed), DiskErrorKind::OutsideGate(_)));
    let wide = Gate::new([PathBuf::from("/vms")]);
    let chain = Chain::open(&host.shared(), path, Access::Look, &wide).unwrap();
    let mut buf = [0; 512];
    chain.read_at(&mut buf, 0).unwrap();
    assert_eq!(buf, [7; 512]);
    drop(chain);

    // A look at the leaf tells what is known, and where it stopped.
    host.rename(Path::new("/vms/base.vhdx"), Path::new("/vms/moved.vhdx")).unwrap();
    let seen = trace(&host.shared(), path, Access::Look, &wide).unwrap();
    let linkage = seen.images[0].info().parent.unwrap().linkage;
    match *seen.stopped.expect("an error").kind {
        DiskErrorKind::ParentMissing { name, linkage: said } => assert!(name.contains("base.vhdx") && said == linkage),
        other => panic!("{other}"),
    }
}

#[test]
fn loops_are_refused() {
    let host = MemHost::new();
    let base = create(&host, "/base.vhdx", 1 << 20, 512, ByteCount::mib(1));
    let path = Path::new("/child.avhdx");
    let child = disk::create_child(&host.shared(), path, &*base, None).unwrap();
    let own = child.pin_data_write_id().unwrap();
    child.set_parent(&ParentTarget { path: path.into(), data_write_id: own }).unwrap();
    child.freeze().unwrap();
    drop(child);
    let looped = Chain::open(&host.shared(), path, Access::Read, &Gate::around(path));
    assert!(matches!(kind(looped), DiskErrorKind::Invalid { field: "parent locator", .. }));
}
