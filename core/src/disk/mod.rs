//! ONE disk image. Ask first where the data is ([`Image::extents`]), then do I/O;
//! the same answer feeds reading, merging, cost and the picture.
//!
//! ```text
//! pages    a file's bytes, and a small cache of its metadata, changed parts included
//! pending  the side file: acknowledged changes that are not in the image yet
//! released space that is to be given back to the volume
//! vhdx, vhd
//!
//! create ─┐
//! open ───┴─> Image ── write / zero / flush ──> freeze ──> read only, log empty
//!                └─ release + punch, grow, relink, become_base: only a merge and its switch
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::host_file::{Access, SharedHost};
use crate::units::ByteCount;

mod error;
mod pages;
mod parent_paths;
mod pending;
mod released;
#[cfg(test)]
mod tests;
pub mod vhd;
pub mod vhdx;

use pages::RawFile;

pub use error::{DiskError, DiskErrorKind, Result, is_full};

/// The container's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// [MS-VHDX].
    Vhdx,
    /// Virtual Hard Disk Image Format Specification 1.0.
    Vhd,
}

impl ImageFormat {
    /// How Hyper-V ends the name of a file without a parent.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
        }
    }

    /// How Hyper-V ends the name of a snapshot's file.
    pub fn child_extension(self) -> &'static str {
        match self {
            Self::Vhdx => "avhdx",
            Self::Vhd => "avhd",
        }
    }

    /// The largest disk.
    pub fn largest_disk(self) -> ByteCount {
        match self {
            Self::Vhdx => vhdx::VIRTUAL_SIZE_MAX,
            Self::Vhd => vhd::VIRTUAL_SIZE_MAX,
        }
    }

    /// What a file's name says that it is; to be believed only of a file that isn't there yet.
    pub fn of_name(path: &Path) -> Option<Self> {
        let extension = path.extension()?;
        let is = |known: &str| extension.eq_ignore_ascii_case(known);
        [Self::Vhdx, Self::Vhd].into_iter().find(|format| is(format.extension()) || is(format.child_extension()))
    }
}

/// How an image keeps its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageType {
    /// Every block has its place from the start.
    Fixed,
    /// Blocks get a place when they are first written.
    Dynamic,
    /// As dynamic, and what isn't here is read from the parent.
    Differencing,
}

/// How a child names its parent. Every path is input from a stranger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentLink {
    /// The parent's data-write identifier when the link was made.
    pub linkage: Uuid,
    /// A second accepted identifier, while identifiers are being changed (`parent_linkage2`); zero is none.
    pub linkage2: Option<Uuid>,
    /// Relative to the child's folder, as in the file (usually with backslashes).
    pub relative_path: Option<String>,
    /// With a volume's GUID, as in the file.
    pub volume_path: Option<String>,
    /// Absolute, as in the file.
    pub absolute_path: Option<String>,
    /// When the parent's file was last changed, as the child has it, in seconds since 1970 (VHD only, where it says so).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_modified: Option<i64>,
}

impl ParentLink {
    /// Whether an image's identifier is one that the child accepts; zero is none.
    pub fn accepts(&self, parent: &ImageInfo) -> bool {
        let second = self.linkage2.filter(|second| !second.is_nil());
        let is = |id: Uuid| self.linkage == id || second == Some(id);
        is(parent.data_write_id) || parent.former_id.is_some_and(is)
    }
}

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// The container's format.
    pub format: ImageFormat,
    /// Fixed, dynamic or differencing.
    pub kind: ImageType,
    /// Size of the disk that the image shows.
    pub virtual_size: ByteCount,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
    /// Unit of allocation.
    pub block_size: ByteCount,
    /// The same for a disk and all its children (VirtualDiskID); zero in a VHD, which has none.
    pub disk_id: Uuid,
    /// Changes when what the disk shows changes (VHDX: DataWriteGuid, VHD: Unique Id); children hold it as `linkage`.
    pub data_write_id: Uuid,
    /// The identifier before this one, where children that still hold it are right (VHD, while identifiers are changed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_id: Option<Uuid>,
    /// The link to the parent, for differencing images.
    pub parent: Option<ParentLink>,
}

/// What one image holds for a stretch of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// The image holds data, at this offset of its file.
    Data {
        /// Offset in the image's file of the stretch's first byte.
        host_offset: u64,
    },
    /// The image says: zeros. It owns them as it owns data (ZERO, UNMAPPED, UNDEFINED,
    /// and what lies beyond the image's end).
    Zero,
    /// The image holds nothing: ask the parent; without a parent it reads as zeros.
    Absent,
}

/// A stretch of the disk for which one answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// First byte on the virtual disk.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// What the image holds there.
    pub presence: Presence,
}

impl Extent {
    /// Adds an extent, joined with the one before where they are one.
    fn push(extents: &mut Vec<Self>, extent: Self) {
        if let Some(last) = extents.last_mut() {
            let joined = match (last.presence, extent.presence) {
                (Presence::Data { host_offset: a }, Presence::Data { host_offset: b }) => a + last.length == b,
                (a, b) => a == b,
            };
            if joined {
                last.length += extent.length;
                return;
            }
        }
        extents.push(extent);
    }
}

/// Space inside an image's file that no durable metadata names any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "released space comes back only when it is punched"]
pub struct Released {
    /// Offset and length of each range in the file.
    pub host_ranges: Vec<(u64, u64)>,
}

/// What a parent is, to whoever links a child to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentTarget {
    /// Where the parent will be.
    pub path: PathBuf,
    /// Its data-write identifier.
    pub data_write_id: Uuid,
}

/// One open image; may be used from several threads at once.
///
/// Offsets and lengths are bytes of the virtual disk and multiples of its logical sector size.
/// A range past the end is an error, but for [`Image::extents`], which answers `Zero` there.
///
/// *Acknowledged means in the kernel*: when a write returns, a kill of this process loses
/// neither its data nor the metadata that finds it. *Flushed means durable.*
pub trait Image: Send + Sync + fmt::Debug {
    /// The file, as it was opened or last moved.
    fn path(&self) -> PathBuf;
    /// What the image is, now.
    fn info(&self) -> ImageInfo;
    /// Whether it may be changed through this value.
    fn is_writable(&self) -> bool;
    /// What the image holds of a range, in order, without gaps, neighbours of one kind joined.
    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>>;
    /// Reads bytes at an offset of the *file* that [`Image::extents`] has named.
    fn read_host(&self, buf: &mut [u8], host_offset: u64) -> Result<()>;
    /// Reads what this image alone holds; absent stretches are filled with zeros.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;
    /// Writes; in a differencing image exactly these sectors become present.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;
    /// Makes the range zero *and owned by this image*, with as little space as the format allows.
    fn write_zeroes(&self, offset: u64, length: u64) -> Result<()>;
    /// The same for what nobody needs any more: gives back all the space that it can.
    fn trim(&self, offset: u64, length: u64) -> Result<()> {
        self.write_zeroes(offset, length)
    }
    /// Data and metadata of every acknowledged write are durable afterwards, and in their places.
    fn flush(&self) -> Result<()>;
    /// The same for a guest that waits: where the format has a log, metadata may be durable there alone. Other programs
    /// have to replay it to read the file, until the next [`Image::flush`].
    fn flush_logged(&self) -> Result<()> {
        self.flush()
    }
    /// Grows the disk; the new range is explicitly zero, so that a larger parent doesn't show through.
    fn grow(&self, virtual_size: ByteCount) -> Result<()>;
    /// Flushes, empties the log and makes this value read-only; the file is then complete
    /// for readers that ignore logs, and its lock becomes a shared one.
    fn freeze(&self) -> Result<()>;
    /// Opens the same file for writing, in place of this value: that gives up its lock, and can still be read
    /// through until it is dropped.
    fn thaw(&self) -> Result<Arc<dyn Image>> {
        Err(DiskError::refused(&self.path(), "it can't be opened for writing while it is in use"))
    }
    /// The data-write identifier, renewed now if this opening hasn't yet: later writes
    /// of this opening won't change it again. To be called before a child is created.
    fn pin_data_write_id(&self) -> Result<Uuid>;
    /// Bytes that the file (and its side files) take on the volume.
    fn held_bytes(&self) -> Result<ByteCount>;
    /// Structural check: everything found wrong, in words. Changes nothing.
    fn check(&self) -> Result<Vec<String>>;
    /// The parts of the file that aren't payload, and what they say, in the order in which they stand. Changes nothing.
    fn structures(&self) -> Result<Vec<Structure>> {
        Ok(Vec::new())
    }
    /// Metadata that this program doesn't know and that travels with the image ([`Image::take_identity_of`]).
    fn optional_items(&self) -> Result<Vec<MetadataItem>> {
        Ok(Vec::new())
    }

    // Only for a merge and its switch (merge.md).

    /// Marks stretches as not present (sector bits cleared in the same log entry); acknowledged as a write is,
    /// durable with the next flush. Whole sectors; in an image that can't (fixed) nothing is released.
    fn release(&self, stretches: &[(u64, u64)]) -> Result<Released>;
    /// Gives released space back to the volume. Only after the mark is durable and every reader of the old
    /// place has ended.
    fn punch(&self, released: Released) -> Result<ByteCount>;
    /// Sets the data-write identifier, durably. Where children have no room for a second one, the one before goes on being
    /// accepted ([`ImageInfo::former_id`]) until it is forgotten.
    fn set_data_write_id(&self, id: Uuid) -> Result<()>;
    /// The identifier before the last change isn't accepted any more, durably.
    fn forget_former_id(&self) -> Result<()> {
        Ok(())
    }
    /// Sets the parent's identifiers (linkage, linkage2) in one log entry, durably. An image that has room for one only
    /// keeps the one that it has, if it is either of them.
    fn set_linkage(&self, linkage: Uuid, linkage2: Option<Uuid>) -> Result<()>;
    /// Links to another parent: paths and linkage (linkage2 cleared), durably.
    fn set_parent(&self, parent: &ParentTarget) -> Result<()>;
    /// Turns a differencing image into one without a parent, in one log entry: absent sectors of partial
    /// blocks are filled with zeros and flushed before, bitmap entries cleared, HasParent and
    /// LeaveBlockAllocated cleared, the locator removed. Absent blocks read as zeros from then on.
    fn become_base(&self) -> Result<()>;
    /// Takes over the virtual-disk metadata of the image whose part it will play: exact size, VirtualDiskID,
    /// physical sector size, unknown optional items, durably.
    fn take_identity_of(&self, other: &dyn Image) -> Result<()>;
}

/// A part of an image's file, for people who look into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// What the format's specification calls it.
    pub name: String,
    /// Where it stands in the file.
    pub offset: u64,
    /// Bytes that it takes there.
    pub length: u64,
    /// Names and values of what it says.
    pub says: Vec<(String, String)>,
}

impl Structure {
    fn new(name: impl Into<String>, offset: u64, length: u64) -> Self {
        Self { name: name.into(), offset, length, says: Vec::new() }
    }

    fn say(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.says.push((name.into(), value.to_string()));
        self
    }
}

/// A metadata item that this program doesn't know and that isn't required: kept as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataItem {
    /// What it is, to whoever knows.
    pub id: Uuid,
    /// The format's flags (VHDX: bit 0 IsUser, bit 1 IsVirtualDisk, bit 2 IsRequired).
    pub flags: u32,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// What a new image shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOptions {
    /// Fixed or dynamic; ignored where there is a parent.
    pub kind: ImageType,
    /// Size of the disk; a child has its parent's.
    pub virtual_size: ByteCount,
    /// Unit of allocation; `None` is the format's usual (VHDX: 32 MiB dynamic, 2 MiB differencing).
    pub block_size: Option<ByteCount>,
    /// 512 or 4096.
    pub logical_sector_size: u32,
    /// 512 or 4096.
    pub physical_sector_size: u32,
    /// The disk's identifier; a child has its parent's. `None` makes a new one.
    pub disk_id: Option<Uuid>,
}

impl CreateOptions {
    /// A dynamic disk with the usual sectors (512 logical, 4096 physical).
    pub fn dynamic(virtual_size: ByteCount) -> Self {
        Self {
            kind: ImageType::Dynamic,
            virtual_size,
            block_size: None,
            logical_sector_size: 512,
            physical_sector_size: 4096,
            disk_id: None,
        }
    }
}

/// Opens an image of a known format (a recorded format is never probed again).
pub fn open(host: &SharedHost, path: &Path, format: ImageFormat, access: Access) -> Result<Arc<dyn Image>> {
    match format {
        ImageFormat::Vhdx => vhdx::open(host, path, access),
        ImageFormat::Vhd => vhd::open(host, path, access),
    }
}

/// Creates an image without a parent, complete and durable (its folder entry included), open for writing.
pub fn create(host: &SharedHost, path: &Path, format: ImageFormat, options: &CreateOptions) -> Result<Arc<dyn Image>> {
    match format {
        ImageFormat::Vhdx => vhdx::create(host, path, options),
        ImageFormat::Vhd => vhd::create(host, path, options),
    }
}

/// Creates a differencing child of `parent`, complete and durable, open for writing. The parent's
/// identifier must be pinned ([`Image::pin_data_write_id`]) if it is still being written.
pub fn create_child(host: &SharedHost, path: &Path, parent: &dyn Image, block_size: Option<ByteCount>) -> Result<Arc<dyn Image>> {
    match parent.info().format {
        ImageFormat::Vhdx => vhdx::create_child(host, path, parent, block_size),
        ImageFormat::Vhd => vhd::create_child(host, path, parent, block_size),
    }
}

/// Creates a file and has it written; its folder entry is durable then.
fn new_file<T>(host: &SharedHost, path: &Path, write: impl FnOnce(RawFile) -> Result<T>) -> Result<T> {
    let file = host.create_new(path).map_err(|e| DiskError::io(path, "create the image", e))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flush_folder = || host.flush_dir(folder).map_err(|e| DiskError::io(path, "flush the folder", e));
    let written = RawFile::new(file).and_then(write).and_then(|image| flush_folder().map(|()| image));
    if written.is_err() {
        // What couldn't be completed must not look like an image; the error that matters is the first.
        let _ = host.remove_file(path);
    }
    written
}

/// Refuses what isn't whole sectors.
fn check_sectors(path: &Path, (offset, length): (u64, u64), sector_size: u64) -> Result<()> {
    let is_whole = offset.is_multiple_of(sector_size) && length.is_multiple_of(sector_size);
    if is_whole && offset.checked_add(length).is_some() {
        return Ok(());
    }
    Err(DiskError::refused(path, format!("{length} bytes at {offset} aren't whole sectors of {sector_size} bytes")))
}

/// Refuses what isn't whole sectors inside the disk.
fn check_range(path: &Path, (offset, length): (u64, u64), sector_size: u64, virtual_size: u64) -> Result<()> {
    check_sectors(path, (offset, length), sector_size)?;
    if offset + length > virtual_size {
        return Err(DiskError::refused(path, format!("{length} bytes at {offset} end after the disk's {virtual_size} bytes")));
    }
    Ok(())
}

/// The side files that may stand beside an image, and that go when it goes.
pub fn side_files(image: &Path) -> Vec<PathBuf> {
    let mut pending = image.as_os_str().to_owned();
    pending.push(".pending");
    vec![pending.into()]
}

/// Tells the format from the file's own bytes; for files that nobody has recorded yet.
pub fn probe(host: &SharedHost, path: &Path) -> Result<ImageFormat> {
    match vhdx::probe(host, path) {
        Ok(()) => Ok(ImageFormat::Vhdx),
        Err(error) if matches!(*error.kind, DiskErrorKind::Invalid { .. }) => {
            vhd::probe(host, path).map(|()| ImageFormat::Vhd).map_err(|_| neither(path))
        }
        Err(error) => Err(error),
    }
}

/// Stretches in order, neighbours and overlaps joined.
fn joined(stretches: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut sorted = stretches.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (offset, length) in sorted {
        match joined.last_mut() {
            Some(last) if offset <= last.0 + last.1 => last.1 = last.1.max(offset + length - last.0),
            _ => joined.push((offset, length)),
        }
    }
    joined
}

fn neither(path: &Path) -> DiskError {
    DiskError::invalid(path, 0, "Signature", "isn't \"vhdxfile\", and there is no VHD footer at the file's end")
}

/// No more than this is listed.
const PROBLEMS_MAX: usize = 100;

/// What was found: the first in words, the others counted, as a BAT can have millions of wrong entries.
#[derive(Default)]
struct Problems {
    first: Vec<String>,
    more: u64,
    is_cut: bool,
}

impl Problems {
    fn push(&mut self, problem: impl Into<String>) {
        if self.first.len() < PROBLEMS_MAX {
            self.first.push(problem.into());
        } else {
            self.more += 1;
        }
    }

    /// Whether there are so many that no more need be looked for: to put millions into words takes minutes.
    fn are_enough(&mut self) -> bool {
        self.is_cut |= self.first.len() == PROBLEMS_MAX;
        self.is_cut
    }

    fn listed(mut self) -> Vec<String> {
        if self.is_cut {
            self.first.push("and perhaps more: the rest wasn't looked at".into());
        } else if self.more > 0 {
            self.first.push(format!("and {} more", self.more));
        }
        self.first
    }
}
