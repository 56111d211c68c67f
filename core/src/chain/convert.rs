//! The disk that a chain, or a raw file, shows, as one new file of any format: sparse, complete or not there at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Chain;
use crate::disk::{self, CreateOptions, DiskError, Image, ImageFormat, ImageType, Result};
use crate::host_file::{Access, HostFile, SharedHost};
use crate::units::ByteCount;

/// Read at once.
const CHUNK: u64 = 4 << 20;
/// Zeros of this length aren't written.
const GRAIN: usize = 64 << 10;

/// What is read.
#[derive(Debug)]
pub enum Source {
    /// An image with all that it reads through.
    Chain(Box<Chain>),
    /// A file whose bytes are the disk's; it is for the caller to know, not for the bytes to say.
    Raw(Arc<dyn HostFile>, ByteCount),
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// An image without a parent.
    Image {
        /// Its format.
        format: ImageFormat,
        /// Fixed or dynamic.
        kind: ImageType,
        /// Unit of allocation; `None` is the format's usual.
        block_size: Option<ByteCount>,
    },
    /// The disk's bytes alone.
    Raw,
}

/// Where a conversion stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conversion {
    /// Bytes of the disk that were looked at.
    pub done: ByteCount,
    /// All that may hold data.
    pub total: ByteCount,
    /// Bytes written.
    pub written: ByteCount,
}

enum Output {
    Image(Arc<dyn Image>),
    Raw(Arc<dyn HostFile>),
}

impl Source {
    /// Opens a raw file.
    pub fn raw(host: &SharedHost, path: &Path) -> Result<Self> {
        let file = host.open(path, Access::Read).map_err(|error| DiskError::io(path, "open the disk", error))?;
        let length = file.len().map_err(|error| DiskError::io(path, "ask for the length", error))?;
        if length == 0 || !length.is_multiple_of(512) {
            return Err(DiskError::refused(path, format!("{length} bytes aren't whole sectors of 512")));
        }
        Ok(Self::Raw(file, ByteCount(length)))
    }

    /// Whether it can be written there, and how many bytes at most; nothing is begun.
    ///
    /// # Errors
    /// As [`convert`].
    pub fn check(&self, host: &SharedHost, to: &Path, target: Target) -> Result<ByteCount> {
        let total = ByteCount(self.stretches()?.iter().map(|(_, length)| length).sum());
        check(host, self, to, target, total)?;
        Ok(total)
    }

    fn size(&self) -> ByteCount {
        match self {
            Self::Chain(chain) => chain.virtual_size(),
            Self::Raw(_, size) => *size,
        }
    }

    fn sector_size(&self) -> u32 {
        match self {
            Self::Chain(chain) => chain.logical_sector_size(),
            Self::Raw(..) => 512,
        }
    }

    /// Stretches that may hold data.
    fn stretches(&self) -> Result<Vec<(u64, u64)>> {
        let size = self.size().0;
        Ok(match self {
            Self::Chain(chain) => {
                let held = chain.stretches(0, size)?.into_iter().filter(|stretch| !stretch.zero);
                held.map(|stretch| (stretch.offset, stretch.length)).collect()
            }
            Self::Raw(..) => vec![(0, size)],
        })
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self {
            Self::Chain(chain) => chain.read_at(buf, offset),
            Self::Raw(file, _) => {
                file.read_exact_at(buf, offset).map_err(|error| DiskError::io(file.path(), "read the disk", error))
            }
        }
    }
}

/// Writes the disk to a new file. `progress` is asked after each piece; `false` ends it, and nothing is left then.
/// `None` where it was ended.
///
/// # Errors
/// Before anything is begun: where the file is there already, the format can't hold the disk, or there is no room.
pub fn convert(
    host: &SharedHost,
    source: &Source,
    to: &Path,
    target: Target,
    progress: &mut dyn FnMut(Conversion) -> bool,
) -> Result<Option<Conversion>> {
    let stretches = source.stretches()?;
    let total = ByteCount(stretches.iter().map(|(_, length)| length).sum());
    check(host, source, to, target, total)?;
    let temporary = unfinished(to);
    if host.exists(&temporary) {
        host.remove_file(&temporary).map_err(|error| DiskError::io(&temporary, "remove what was left", error))?;
    }
    let written = Output::create(host, source, &temporary, target).and_then(|output| {
        let mut stands = Conversion { total, ..Conversion::default() };
        let whole = copy(source, &output, &stretches, &mut stands, progress)?;
        output.end()?;
        Ok(whole.then_some(stands))
    });
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let published = written.and_then(|stands| match stands {
        Some(stands) => {
            host.rename(&temporary, to).map_err(|error| DiskError::io(to, "rename the new file", error))?;
            host.flush_dir(folder).map_err(|error| DiskError::io(to, "flush the folder", error))?;
            Ok(Some(stands))
        }
        None => Ok(None),
    });
    if !matches!(published, Ok(Some(_))) {
        for left in disk::side_files(&temporary).into_iter().chain([temporary]).filter(|file| host.exists(file)) {
            // The error that matters is the first.
            let _ = host.remove_file(&left);
        }
    }
    published
}

/// The name of a new file that isn't complete yet.
pub fn unfinished(to: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(".new");
    to.with_file_name(name)
}

fn check(host: &SharedHost, source: &Source, to: &Path, target: Target, data: ByteCount) -> Result<()> {
    let refused = |reason: String| Err(DiskError::refused(to, reason));
    if host.exists(to) {
        return refused("it is there already, and isn't overwritten".into());
    }
    let (size, sector) = (source.size(), source.sector_size());
    let mut needed = data;
    if let Target::Image { format, kind, .. } = target {
        let (extension, largest) = (format.extension(), format.largest_disk());
        if size > largest {
            // In a unit in which both differ.
            let gib = |bytes: ByteCount| bytes.0.div_ceil(1 << 30);
            let (most, has) = (gib(largest), gib(size));
            return refused(format!("a .{extension} file holds a disk of at most {most} GiB, and this one has {has} GiB"));
        }
        if format == ImageFormat::Vhd && sector != 512 {
            return refused(format!("the disk has sectors of {sector} bytes, and a .{extension} file holds only 512"));
        }
        needed = if kind == ImageType::Fixed && format == ImageFormat::Vhdx { size.max(data) } else { data };
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let free = host.free_bytes(folder).map_err(|error| DiskError::io(folder, "ask for the free space", error))?;
    if matches!(source, Source::Chain(_)) && free < needed {
        return refused(format!("up to {needed} are to be written, and {free} are free"));
    }
    Ok(())
}

fn copy(
    source: &Source,
    output: &Output,
    stretches: &[(u64, u64)],
    stands: &mut Conversion,
    progress: &mut dyn FnMut(Conversion) -> bool,
) -> Result<bool> {
    let mut buf = vec![0; CHUNK as usize];
    for &(offset, length) in stretches {
        let mut at = offset;
        while at < offset + length {
            let piece = (CHUNK - at % CHUNK).min(offset + length - at);
            let part = &mut buf[..piece as usize];
            source.read(part, at)?;
            let is_zero = |grain: &[u8]| grain.iter().all(|byte| *byte == 0);
            let mut from = 0;
            while from < part.len() {
                let zero = is_zero(&part[from..part.len().min(from + GRAIN)]);
                let run = part[from..].chunks(GRAIN).take_while(|grain| is_zero(grain) == zero).map(<[u8]>::len).sum::<usize>();
                if !zero {
                    output.write(&part[from..from + run], at + from as u64)?;
                    stands.written += ByteCount(run as u64);
                }
                from += run;
            }
            at += piece;
            stands.done += ByteCount(piece);
            if !progress(*stands) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

impl Output {
    fn create(host: &SharedHost, source: &Source, path: &Path, target: Target) -> Result<Self> {
        let size = source.size();
        match target {
            Target::Image { format, kind, block_size } => {
                let logical_sector_size = source.sector_size();
                let options = CreateOptions { kind, block_size, logical_sector_size, ..CreateOptions::dynamic(size) };
                Ok(Self::Image(disk::create(host, path, format, &options)?))
            }
            Target::Raw => {
                let file = host.create_new(path).map_err(|error| DiskError::io(path, "create the file", error))?;
                file.set_len(size.0).map_err(|error| DiskError::io(path, "set the length", error))?;
                Ok(Self::Raw(file))
            }
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        match self {
            Self::Image(image) => image.write_at(bytes, offset),
            Self::Raw(file) => {
                file.write_all_at(bytes, offset).map_err(|error| DiskError::io(file.path(), "write the disk", error))
            }
        }
    }

    /// Durable, and complete for every reader.
    fn end(&self) -> Result<()> {
        match self {
            Self::Image(image) => image.freeze(),
            Self::Raw(file) => file.flush().map_err(|error| DiskError::io(file.path(), "flush", error)),
        }
    }
}
