//! Single images: damaged, looked at, and written as a disk is.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snaptree_core::disk::{self, CreateOptions, DiskError, DiskErrorKind, Image, ImageFormat, ImageType, Presence};
use snaptree_core::host_file::{Access, Host};
use snaptree_core::testing::{CrashMode, MemHost, Random};
use snaptree_core::units::ByteCount;

use super::runner::Target;
use super::samples;
use super::vhdx::{Bytes, pending};
use super::{vhd, vhdx};

/// What the volume of a case holds at most.
const CAPACITY: ByteCount = ByteCount::mib(256);
/// Disks up to this size are written, and compared with a model.
const MODEL_MAX: u64 = 16 << 20;
/// How much of a disk is asked for at once.
const STEP: u64 = 1 << 30;

pub struct ImageTarget {
    host: MemHost,
    images: Vec<PathBuf>,
    format: ImageFormat,
}

impl ImageTarget {
    pub fn new(format: ImageFormat) -> Self {
        let host = MemHost::new();
        let mut images = samples::load(&host, format);
        let is_vhd = format == ImageFormat::Vhd;
        for (index, (kind, block_mib, sector, size)) in [
            (ImageType::Dynamic, 1, 512, 5 << 20),
            (ImageType::Fixed, 1, 512, 3 << 20),
            (ImageType::Dynamic, 2, if is_vhd { 512 } else { 4096 }, (9 << 20) + 4096),
            (ImageType::Dynamic, 256, 512, if is_vhd { 2040 << 30 } else { 64 << 40 }),
            (ImageType::Dynamic, 32, 512, 300 << 30),
        ]
        .into_iter()
        .enumerate()
        {
            let options = CreateOptions {
                kind,
                block_size: Some(ByteCount::mib(block_mib)),
                logical_sector_size: sector,
                ..CreateOptions::dynamic(ByteCount(size))
            };
            let path = PathBuf::from(format!("/own{index}.{}", format.extension()));
            let image = disk::create(&host.shared(), &path, format, &options).expect("an image");
            image.write_at(&[1; 8192], 4096).expect("a write");
            let child = PathBuf::from(format!("/child{index}.{}", format.child_extension()));
            let child_image = disk::create_child(&host.shared(), &child, &*image, options.block_size).expect("a child");
            child_image.write_at(&[2; 4096], 0).expect("a write");
            child_image.write_at(&[3; 4096], 1 << 20).expect("a write");
            child_image.write_zeroes(2 << 20, 4096).expect("zeros");
            image.freeze().expect("frozen");
            // One is left as a killed process leaves it, with a side file.
            if index == 0 {
                child_image.flush().expect("flushed");
                child_image.write_at(&[4; 512], (3 << 20) + 512).expect("a write");
                std::mem::forget(child_image);
            }
            images.extend([path, child]);
        }
        Self { host: host.crash(CrashMode::Kill, 0), images, format }
    }
}

impl Target for ImageTarget {
    fn case(&mut self, random: &mut Random) -> Result<(), String> {
        let host = self.host.fork();
        host.set_capacity(Some(CAPACITY));
        host.set_can_punch(random.chance(3, 4));
        let path = &self.images[random.below(self.images.len() as u64) as usize];
        {
            let bytes = Bytes(host.open(path, Access::Write).map_err(|error| error.to_string())?);
            let key = match self.format {
                ImageFormat::Vhdx => {
                    vhdx::damage(&bytes, random);
                    (vhdx::key(&bytes), vhdx::table(&bytes))
                }
                ImageFormat::Vhd => {
                    vhd::damage(&bytes, random);
                    (vhd::key(&bytes), vhd::table(&bytes))
                }
            };
            if random.chance(1, 8) {
                pending(&host, path, key, random);
            }
        }
        let steps = host.steps();
        let access = if random.chance(1, 2) { Access::Look } else { Access::Read };
        match disk::open(&host.shared(), path, self.format, access) {
            Ok(image) => look(&*image, random)?,
            Err(error) => explains(&error, path)?,
        }
        if host.steps() != steps {
            return Err("a look has changed something".into());
        }
        write(&host, path, self.format, random)
    }
}

/// An error names its file, and says where in it.
fn explains(error: &DiskError, path: &Path) -> Result<(), String> {
    let placed = error.offset.is_some() || matches!(*error.kind, DiskErrorKind::Io { operation: "open the image", .. });
    if error.path.starts_with(path) && placed { Ok(()) } else { Err(format!("an error that doesn't say where: {error}")) }
}

/// What a reader does.
pub fn look(image: &dyn Image, random: &mut Random) -> Result<(), String> {
    let info = image.info();
    let (size, sector) = (info.virtual_size.0, u64::from(info.logical_sector_size));
    let mut windows: Vec<(u64, u64)> =
        (0..size.min(8 * STEP)).step_by(STEP as usize).map(|at| (at, STEP.min(size - at))).collect();
    let last = size.saturating_sub(STEP) / sector * sector;
    windows.push((last, size - last));
    let somewhere = random.below(size) / sector * sector;
    windows.push((somewhere, STEP.min(size - somewhere)));
    for (start, length) in windows {
        let Ok(extents) = image.extents(start, length) else { continue };
        let mut at = start;
        for extent in &extents {
            if extent.offset != at || extent.length == 0 {
                return Err(format!("a gap before {} in extents from {start}", extent.offset));
            }
            at += extent.length;
        }
        if at != start + length {
            return Err(format!("extents from {start} end at {at}, not at {}", start + length));
        }
        for extent in extents.iter().take(16) {
            let mut own = vec![0; extent.length.min(4096) as usize];
            if let Presence::Data { host_offset } = extent.presence {
                let mut direct = own.clone();
                if image.read_host(&mut direct, host_offset).is_ok()
                    && image.read_at(&mut own, extent.offset).is_ok()
                    && own != direct
                {
                    return Err(format!("two ways to read the disk at {} differ", extent.offset));
                }
            }
        }
    }
    let mut shown = vec![0; size.min(MODEL_MAX) as usize];
    let _ = image.read_at(&mut shown, 0);
    let _ = (image.optional_items(), image.structures());
    // The largest table of ours, with 1 MiB blocks, is that of 300 GiB.
    if size / info.block_size.0 <= 1 << 19 {
        let _ = image.check();
    }
    Ok(())
}

fn content(image: &dyn Image) -> Option<Vec<u8>> {
    let mut content = vec![0; image.info().virtual_size.0 as usize];
    image.read_at(&mut content, 0).ok().map(|()| content)
}

/// Writes, and compares with a model; what was flushed is there after opening it again.
fn write(host: &MemHost, path: &Path, format: ImageFormat, random: &mut Random) -> Result<(), String> {
    let open = |host: &MemHost, access| disk::open(&host.shared(), path, format, access);
    let steps = host.steps();
    let image = match open(host, Access::Write) {
        Ok(image) => image,
        Err(error) if host.steps() != steps => return Err(format!("a file that is refused was changed: {error}")),
        Err(error) => return explains(&error, path),
    };
    let info = image.info();
    let (size, sector) = (info.virtual_size.0, u64::from(info.logical_sector_size));
    if size > MODEL_MAX {
        let at = random.below(size) / sector * sector;
        let _ = image.write_at(&vec![5; sector as usize], at).and_then(|()| image.flush());
        let _ = image.write_zeroes(at, sector);
        return Ok(());
    }
    let Some(mut model) = content(&*image) else { return Ok(()) };
    for _ in 0..random.below(12) {
        let start = random.below(size / sector) * sector;
        let most = if random.chance(1, 4) { 4096 } else { 16 };
        let length = (1 + random.below(most)) * sector;
        let range = start as usize..(start + length).min(size) as usize;
        let done = match random.below(6) {
            0..3 => {
                let bytes = random.bytes(range.len());
                let done = image.write_at(&bytes, start);
                model[range.clone()].copy_from_slice(&bytes);
                done
            }
            3 | 4 => {
                let done = image.write_zeroes(start, range.len() as u64);
                model[range.clone()].fill(0);
                done
            }
            _ => image.flush(),
        };
        if let Err(error) = done {
            return others(&*image, &model, range, &error);
        }
    }
    compare(&*image, &model, "before it was closed")?;
    if image.flush().is_err() {
        return Ok(());
    }
    let killed = random.chance(1, 2).then(|| host.crash(CrashMode::Kill, 0));
    drop(image);
    for (host, what) in killed.iter().map(|host| (host, "after a kill")).chain([(host, "after it was closed")]) {
        for access in [Access::Look, Access::Write] {
            let image: Arc<dyn Image> = open(host, access).map_err(|error| format!("{what}: {error}"))?;
            compare(&*image, &model, what)?;
        }
    }
    Ok(())
}

/// What a write that failed has done is unknown; everything around it is as it was, where it can be read.
fn others(image: &dyn Image, model: &[u8], failed: Range<usize>, error: &DiskError) -> Result<(), String> {
    for (index, expected) in model.chunks(4096).enumerate() {
        let at = index * 4096;
        let mut found = vec![0; expected.len()];
        if at + expected.len() <= failed.start || at >= failed.end {
            let differs = image.read_at(&mut found, at as u64).is_ok() && found != expected;
            if differs {
                return Err(format!("the disk at {at} was changed by a write at {} that failed: {error}", failed.start));
            }
        }
    }
    Ok(())
}

fn compare(image: &dyn Image, model: &[u8], what: &str) -> Result<(), String> {
    let mut found = vec![0; model.len()];
    image.read_at(&mut found, 0).map_err(|error| format!("{what}: {error}"))?;
    match found.iter().zip(model).position(|(found, expected)| found != expected) {
        Some(at) => Err(format!("byte {at} of the disk is {}, must be {}, {what}", found[at], model[at])),
        None => Ok(()),
    }
}
