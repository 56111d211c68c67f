//! Images of other programs read by us, and images of ours read by other programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use snaptree_core::chain::{Chain, Folder, Gate, ParentState};
use snaptree_core::disk::{self, CreateOptions, DiskErrorKind, Image, ImageFormat, ImageType};
use snaptree_core::host_file::{Access, OsHost, SharedHost};
use snaptree_core::testing::{Random, ReferenceDisk};
use snaptree_core::units::ByteCount;
use snaptree_tests::witness::{Witness, samples, sha256_of, sha256_of_chain, skip, unpack};

/// What a chain of ours shall be.
#[derive(Debug, Clone, Copy)]
struct Spec {
    format: ImageFormat,
    kind: ImageType,
    block_mib: u64,
    sector: u32,
    depth: usize,
    size: u64,
    /// Whether ranges are zeroed too, so that there are ZERO blocks.
    zeroes: bool,
    seed: u64,
}

/// Not whole blocks, and an even number of sectors: 7-Zip 26 takes other sizes for errors.
const SIZE: u64 = (9 << 20) + 6 * 4096;

fn spec(block_mib: u64, sector: u32, depth: usize, zeroes: bool) -> Spec {
    let seed = block_mib * 100 + u64::from(sector) + depth as u64;
    Spec { format: ImageFormat::Vhdx, kind: ImageType::Dynamic, block_mib, sector, depth, size: SIZE, zeroes, seed }
}

/// A short range near one of a few places, so that layers overlap, or some blocks as a whole.
fn range(random: &mut Random, spec: &Spec) -> (u64, u64) {
    let sector = u64::from(spec.sector);
    let sectors = spec.size / sector;
    if random.chance(1, 6) {
        let first = random.below(spec.size >> 20) << 20;
        return (first, ((1 + random.below(3)) << 20).min((spec.size - first) / sector * sector));
    }
    let first = (random.below(5) * (sectors / 5) + random.below(200)).min(sectors - 1);
    (first * sector, (1 + random.below(60)).min(sectors - first) * sector)
}

fn change(chain: &Chain, content: &mut ReferenceDisk, random: &mut Random, spec: &Spec) -> Result<()> {
    let (offset, length) = range(random, spec);
    if spec.zeroes && random.chance(1, 4) {
        chain.write_zeroes(offset, length)?;
        content.zero(offset, length);
    } else {
        let bytes = random.bytes(length as usize);
        chain.write_at(&bytes, offset)?;
        content.write(&bytes, offset);
    }
    Ok(())
}

/// Writes a chain; returns its files from the leaf to the base.
fn write_chain(host: &SharedHost, folder: &Path, spec: &Spec, content: &mut ReferenceDisk) -> Result<Vec<PathBuf>> {
    let mut random = Random::new(spec.seed);
    let block_size = Some(ByteCount::mib(spec.block_mib));
    let options = CreateOptions {
        kind: spec.kind,
        block_size,
        logical_sector_size: spec.sector,
        ..CreateOptions::dynamic(ByteCount(spec.size))
    };
    let mut paths = vec![folder.join("base").with_extension(spec.format.extension())];
    let base = disk::create(host, &paths[0], spec.format, &options)?;
    let chain = Chain::from_images(vec![base])?;
    for level in 0..spec.depth {
        if level > 0 {
            let path = folder.join(format!("level-{level}.{}", spec.format.child_extension()));
            let old = leaf(&chain)?;
            old.pin_data_write_id()?;
            chain.push_leaf(disk::create_child(host, &path, &*old, block_size)?)?;
            old.freeze()?;
            paths.insert(0, path);
        }
        for _ in 0..if level == 0 { 20 } else { 6 } {
            change(&chain, content, &mut random, spec)?;
        }
    }
    chain.flush()?;
    leaf(&chain)?.freeze()?;
    Ok(paths)
}

fn leaf(chain: &Chain) -> Result<Arc<dyn Image>> {
    chain.images().pop().context("a leaf")
}

fn open(host: &SharedHost, leaf: &Path) -> Result<Chain> {
    Ok(Chain::open(host, leaf, Access::Look, &Gate::around(leaf))?)
}

/// Writes chains and has them read by everyone who can.
fn check(specs: &[Spec], witnesses: &[Witness]) -> Result<()> {
    let witnesses: Vec<Witness> = witnesses.iter().copied().filter(|witness| witness.is_there()).collect();
    let host = OsHost::shared();
    let mut hidden = 0;
    for spec in specs {
        let folder = tempfile::tempdir()?;
        let mut content = ReferenceDisk::new(spec.size, spec.sector);
        let paths = write_chain(&host, folder.path(), spec, &mut content).with_context(|| format!("{spec:?}"))?;
        let chain = open(&host, &paths[0])?;
        ensure!(chain.images().len() == spec.depth);
        content.assert_same(&format!("{spec:?}"), |buf, offset| chain.read_at(buf, offset).unwrap());
        let ours = sha256_of_chain(&chain)?;
        hidden += chain.stretches(0, spec.size)?.iter().filter(|part| part.zero && part.owner > Some(0)).count();
        drop(chain);
        for witness in &witnesses {
            let theirs = witness.sha256(&paths).with_context(|| format!("{witness:?} reads {spec:?}"))?;
            ensure!(theirs == ours, "{witness:?} reads {spec:?} otherwise: {theirs}, ours is {ours}");
        }
    }
    let wanted = specs.iter().any(|spec| spec.zeroes && spec.depth > 1);
    ensure!((hidden > 0) == wanted, "{hidden} stretches are zero in a child");
    Ok(())
}

#[test]
fn single_images_are_read_by_others() -> Result<()> {
    let specs = [1, 2, 32, 256].map(|block_mib| spec(block_mib, 512, 1, true));
    check(&specs, &Witness::ALL)?;
    check(&[Spec { kind: ImageType::Fixed, ..spec(32, 512, 1, true) }], &Witness::ALL)?;
    // qemu-img refuses sectors of 4096 bytes.
    let specs = [1, 256].map(|block_mib| spec(block_mib, 4096, 1, true));
    check(&specs, &[Witness::SevenZip, Witness::Libvhdi, Witness::Dissect])
}

#[test]
fn children_are_read_by_others() -> Result<()> {
    // Only one parent: where a partial block's parent is partial too, dissect counts bits wrong.
    let specs =
        [(1, 512), (2, 512), (2, 4096), (32, 512), (256, 4096)].map(|(block_mib, sector)| spec(block_mib, sector, 2, false));
    check(&specs, &[Witness::SevenZip, Witness::Libvhdi, Witness::Dissect])
}

#[test]
fn chains_are_read_by_others() -> Result<()> {
    let specs = [(2, 5), (32, 3), (2, 32)].map(|(block_mib, depth)| spec(block_mib, 512, depth, false));
    check(&specs, &[Witness::SevenZip, Witness::Libvhdi])
}

#[test]
fn zero_blocks_hide_their_parents() -> Result<()> {
    // libvhdi asks the parent for a ZERO block, against [MS-VHDX] 2.5.1.1.
    let specs = [(1, 512, 2), (2, 512, 5), (2, 4096, 3), (256, 512, 2), (2, 512, 32)];
    check(&specs.map(|(block_mib, sector, depth)| spec(block_mib, sector, depth, true)), &[Witness::SevenZip])
}

#[test]
fn vhd_images_are_read_by_others() -> Result<()> {
    let vhd = |block_mib, depth, zeroes| Spec { format: ImageFormat::Vhd, ..spec(block_mib, 512, depth, zeroes) };
    check(&[vhd(2, 1, true), Spec { kind: ImageType::Fixed, ..vhd(2, 1, true) }], &Witness::ALL)?;
    // A VHD has no blocks that say zeros: nothing is told from data, and 7-Zip is the only one that reads a chain right.
    let chains = [(2, 2), (2, 5), (1, 3), (2, 32)].map(|(block_mib, depth)| vhd(block_mib, depth, false));
    check(&chains, &[Witness::SevenZip])
}

/// The samples, or a word that there are none.
fn samples_or_skip() -> Option<PathBuf> {
    let samples = samples();
    if samples.is_none() {
        skip("there are no sample images");
    }
    samples
}

#[test]
fn images_of_windows_read_as_they_should() -> Result<()> {
    let Some(samples) = samples_or_skip() else { return Ok(()) };
    let (host, folder) = (OsHost::shared(), tempfile::tempdir()?);
    for (name, depth, expected) in [
        ("windows10/ntfs-parent.vhdx", 1, "c5523065bc6ef822"),
        ("windows10/ntfs-differential.vhdx", 2, "1ef1fb5360247aa7"),
        ("windows10/ntfs-dynamic.vhdx", 1, "b92731f8e4bf3532"),
        ("windows10/ntfs-fixed.vhdx", 1, "5237dd895f380523"),
        ("disk2vhd/test-disk2vhd.vhdx", 1, "96d964042be9b58dda1725567abfb0cf9fd8380e2118754afa979c2ad445938a"),
        ("windows-dirty-log/vhdx-log-replay.vhdx", 1, "3ba3b309425b7ff5"),
        ("windows10/ntfs-parent.vhd", 1, "c91d1766dd4b3327"),
        ("windows10/ntfs-differential.vhd", 2, "b7922a46a6b08fa4"),
        ("windows10/ntfs-dynamic.vhd", 1, "8b10b52e3d1e7607"),
        ("windows10/ntfs-fixed.vhd", 1, "cd81fade3878f1b2"),
        ("vhdutil-chain3/l0.vhd", 1, "551c2db8a5a854d04b0c7eebaa3e4a8da05b2427ccd95ee180377c1f21f3aabe"),
        ("vhdutil-chain3/l1.vhd", 2, "f338f7ecc2959634329771b94071a35a7bd035a5c54f9c96ff8a0b978d894edb"),
        ("vhdutil-chain3/l2.vhd", 3, "da27984d447565ef185d2055e8c9de7dc6f1415bdc9b6fdfb51296714c78eafe"),
    ] {
        let path = unpack(&samples, name, folder.path())?;
        let file = sha256_of(fs::File::open(&path)?)?;
        let chain = open(&host, &path).with_context(|| name.to_owned())?;
        ensure!(chain.images().len() == depth, "{name}: {} images", chain.images().len());
        let hash = sha256_of_chain(&chain)?;
        ensure!(hash.starts_with(expected), "{name}: {hash}, must be {expected}");
        ensure!(sha256_of(fs::File::open(&path)?)? == file, "{name} was changed by a look at it");
    }
    // The same folder, looked at as a whole.
    let seen = Folder::scan(&host, folder.path())?;
    ensure!(seen.unreadable.is_empty(), "{:?}", seen.unreadable);
    let at = |name: &str| seen.images.iter().position(|image| image.path.ends_with(name)).context("an image");
    let (parent, child) = (at("ntfs-parent.vhdx")?, at("ntfs-differential.vhdx")?);
    ensure!(seen.images[child].parent == ParentState::Found { index: parent });
    ensure!(seen.chain_of(child) == Some(vec![parent, child]));
    let chain = ["l0.vhd", "l1.vhd", "l2.vhd"].map(at).into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(seen.chain_of(chain[2]) == Some(chain));
    let alone = seen.images.iter().filter(|image| image.parent != ParentState::Base).count();
    ensure!(alone == 4, "{alone} have a parent");
    Ok(())
}

/// A big-endian number in a file's bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Footer, header, locators and blocks of a file by the specification's sections; what is its own (who made it, when,
/// and as what) left out.
fn layout(bytes: &[u8]) -> Result<Vec<String>> {
    let sum_is_right = |part: &[u8], field: usize| {
        let sum = part.iter().enumerate().filter(|(at, _)| !(field..field + 4).contains(at));
        let sum = sum.fold(0_u32, |sum, (_, byte)| sum.wrapping_add((*byte).into()));
        number(part, field, 4) == u64::from(!sum)
    };
    let footer = &bytes[bytes.len() - 512..];
    ensure!(&footer[..8] == b"conectix" && sum_is_right(footer, 64), "the footer");
    ensure!(footer[84..].iter().all(|byte| *byte == 0), "saved state and what is reserved");
    let mut seen =
        vec![format!("features, version: {:x?}", &footer[8..16]), format!("sizes, geometry, type: {:x?}", &footer[40..64])];
    if number(footer, 60, 4) == 2 {
        seen.push(format!("data offset: {:x}", number(footer, 16, 8)));
        ensure!(number(footer, 48, 8) + 512 == bytes.len() as u64, "the disk, and its footer");
        return Ok(seen);
    }
    ensure!(&bytes[..512] == footer, "the footer's copy");
    let offset = number(footer, 16, 8) as usize;
    let header = &bytes[offset..offset + 1024];
    ensure!(&header[..8] == b"cxsparse" && sum_is_right(header, 36), "the dynamic header");
    ensure!(header[56..64].iter().chain(&header[768..]).all(|byte| *byte == 0), "the parent's time, and what is reserved");
    let (table, entries) = (number(header, 16, 8) as usize, number(header, 28, 4) as usize);
    seen.push(format!("header at {offset}: {:x?}, version, entries, block size: {:x?}", &header[8..16], &header[24..36]));
    ensure!(table.is_multiple_of(512), "the table at {table}");
    let text = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        String::from_utf16(&bytes.chunks_exact(2).map(|two| unit([two[0], two[1]])).collect::<Vec<_>>())
    };
    let name = text(&header[64..576], u16::from_be_bytes)?;
    let name = name.trim_end_matches('\0').to_owned();
    for (place, entry) in header[576..768].chunks_exact(24).enumerate().filter(|(_, entry)| entry[..4] != [0; 4]) {
        let [space, length, at] = [(4, 4), (8, 4), (16, 8)].map(|(at, width)| number(entry, at, width) as usize);
        // In bytes, as Windows has it, and inside the file, before the footer.
        ensure!(space >= length && at.is_multiple_of(512) && at + length <= bytes.len() - 512, "{entry:x?}");
        let path = text(&bytes[at..at + length], u16::from_le_bytes)?;
        ensure!(!path.contains('\0'), "without a terminator: {path:?}");
        let file = path.rsplit('\\').next().unwrap_or_default();
        let is_absolute = path == name;
        let kind = String::from_utf8_lossy(&entry[..4]);
        seen.push(format!(
            "locator {place}: {kind} {file}, relative {}, the header's name {is_absolute}",
            path.starts_with(r".\")
        ));
    }
    let blocks = (0..entries).map(|entry| number(bytes, table + entry * 4, 4)).filter(|place| *place != 0xFFFF_FFFF);
    ensure!(
        blocks.clone().all(|place| (place * 512 + 512).is_multiple_of(4096)),
        "data on 4 KiB: {:?}",
        blocks.collect::<Vec<_>>()
    );
    Ok(seen)
}

#[test]
fn our_vhds_are_laid_out_as_those_of_windows() -> Result<()> {
    let Some(samples) = samples_or_skip() else { return Ok(()) };
    let host = OsHost::shared();
    for (sample, kind) in [
        ("windows10/ntfs-fixed.vhd", ImageType::Fixed),
        ("windows10/ntfs-dynamic.vhd", ImageType::Dynamic),
        ("virtualpc/virtualpc-dynamic.vhd", ImageType::Dynamic),
        ("windows10/ntfs-differential.vhd", ImageType::Differencing),
    ] {
        let (theirs, ours) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let theirs = fs::read(unpack(&samples, sample, theirs.path())?)?;
        let size = ByteCount(number(&theirs, theirs.len() - 512 + 48, 8));
        let path = ours.path().join("new.vhd");
        let image = if kind == ImageType::Differencing {
            let options = CreateOptions { kind: ImageType::Fixed, ..CreateOptions::dynamic(size) };
            let parent = disk::create(&host, &ours.path().join("ntfs-parent.vhd"), ImageFormat::Vhd, &options)?;
            parent.freeze()?;
            disk::create_child(&host, &path, &*parent, None)?
        } else {
            disk::create(&host, &path, ImageFormat::Vhd, &CreateOptions { kind, ..CreateOptions::dynamic(size) })?
        };
        image.write_at(&[1; 512], 0)?;
        image.freeze()?;
        drop(image);
        let (ours, theirs) = (layout(&fs::read(&path)?)?, layout(&theirs)?);
        ensure!(ours == theirs, "{sample}:\n{ours:#?}\n{theirs:#?}");
    }
    Ok(())
}

/// Virtual PC's is 127 GiB of almost nothing.
#[test]
fn a_disk_of_virtual_pc_has_the_size_that_its_footer_says() -> Result<()> {
    let Some(samples) = samples_or_skip() else { return Ok(()) };
    let (host, folder) = (OsHost::shared(), tempfile::tempdir()?);
    let path = unpack(&samples, "virtualpc/virtualpc-dynamic.vhd", folder.path())?;
    let chain = open(&host, &path)?;
    ensure!(chain.virtual_size().0 == 136_365_211_648);
    ensure!(chain.stretches(0, chain.virtual_size().0)?.iter().all(|part| part.owner.is_none()));
    ensure!(chain.images()[0].check()?.is_empty());
    Ok(())
}

#[test]
fn a_replayed_log_stays_replayed() -> Result<()> {
    let Some(samples) = samples_or_skip() else { return Ok(()) };
    let (host, folder) = (OsHost::shared(), tempfile::tempdir()?);
    let path = unpack(&samples, "windows-dirty-log/vhdx-log-replay.vhdx", folder.path())?;
    // Opened for writing, the log goes into the file; then those who ignore logs read it right too.
    drop(disk::open(&host, &path, ImageFormat::Vhdx, Access::Write)?);
    for witness in Witness::ALL.into_iter().filter(|witness| witness.is_there()) {
        let hash = witness.sha256(std::slice::from_ref(&path)).with_context(|| format!("{witness:?}"))?;
        ensure!(hash.starts_with("3ba3b309425b7ff5"), "{witness:?}: {hash}");
    }
    Ok(())
}

#[test]
fn a_checkpoint_without_its_parent_is_refused_by_name() -> Result<()> {
    let Some(samples) = samples_or_skip() else { return Ok(()) };
    let (host, folder) = (OsHost::shared(), tempfile::tempdir()?);
    let path = unpack(&samples, "hyperv2019/differencing.avhdx", folder.path())?;
    let error = Chain::open(&host, &path, Access::Look, &Gate::around(&path)).unwrap_err();
    let image = disk::open(&host, &path, ImageFormat::Vhdx, Access::Look)?;
    let link = image.info().parent.context("a parent")?;
    match *error.kind {
        DiskErrorKind::ParentMissing { name, linkage } => {
            ensure!(Some(&name) == link.relative_path.as_ref() && name.to_lowercase().ends_with("vhdx"), "{name}");
            ensure!(linkage == link.linkage && !linkage.is_nil());
        }
        other => panic!("{other}"),
    }
    let seen = Folder::scan(&host, folder.path())?;
    ensure!(matches!(&seen.images[0].parent, ParentState::Missing { linkage, .. } if *linkage == link.linkage));
    Ok(())
}

#[test]
fn a_parent_that_changed_is_reported_with_both_identifiers() -> Result<()> {
    let Some(samples) = samples_or_skip() else { return Ok(()) };
    let (host, folder) = (OsHost::shared(), tempfile::tempdir()?);
    let parent = unpack(&samples, "windows10/ntfs-parent.vhdx", folder.path())?;
    let child = unpack(&samples, "windows10/ntfs-differential.vhdx", folder.path())?;
    let image = disk::open(&host, &parent, ImageFormat::Vhdx, Access::Write)?;
    let before = image.info().data_write_id;
    image.write_at(&[1; 512], 0)?;
    image.freeze()?;
    let after = image.info().data_write_id;
    drop(image);
    match *open(&host, &child).unwrap_err().downcast::<disk::DiskError>()?.kind {
        DiskErrorKind::ParentChanged { parent: named, expected, found } => {
            ensure!((expected, found) == (before, after) && named.ends_with("ntfs-parent.vhdx"));
        }
        other => panic!("{other}"),
    }
    let seen = Folder::scan(&host, folder.path())?;
    ensure!(
        matches!(seen.images[0].parent, ParentState::Changed { index: 1, expected, found } if (expected, found) == (before, after))
    );
    Ok(())
}
