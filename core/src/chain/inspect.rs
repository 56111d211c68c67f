//! All that can be said of an image and of what it reads through, for people. Changes nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Chain, Gate, trace};
use crate::disk::{DiskError, Extent, Image, ImageInfo, Presence, Result, Structure};
use crate::host_file::{Access, SharedHost};
use crate::units::ByteCount;

/// Squares of a block map at most.
const SQUARES: u64 = 1536;
/// Stretches of the disk that are asked for at once.
const STEP: u64 = 16 << 30;

/// An image and what it reads through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The base, or as far down as was found, first; the inspected one last.
    pub images: Vec<Inspected>,
    /// Why the first one's parent wasn't found, where it should have one.
    pub broken: Option<String>,
    /// Where the disk's data is.
    pub map: BlockMap,
}

/// One image of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// Its file.
    pub path: PathBuf,
    /// What it is.
    pub info: ImageInfo,
    /// Bytes that the file has.
    pub length: ByteCount,
    /// Bytes that it takes on the volume.
    pub held: ByteCount,
    /// Its parts but for the payload.
    pub parts: Vec<Structure>,
    /// How its blocks are used.
    pub blocks: Blocks,
    /// What is wrong with its structure.
    pub problems: Vec<String>,
}

/// How many blocks there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// All data.
    pub data: u64,
    /// Data or zeros in a part, the rest is asked of the parent or zeros.
    pub partial: u64,
    /// All zeros that the image says.
    pub zero: u64,
    /// Nothing.
    pub absent: u64,
}

/// Where the disk's data is, in squares of equal length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMap {
    /// Bytes of the disk that a square stands for; the last one may be shorter.
    pub square: ByteCount,
    /// What is in each.
    pub squares: Vec<Square>,
}

/// What a square of the map stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Square {
    /// The image that holds most of what is there, by its place; `None` where nobody holds anything.
    pub owner: Option<u16>,
    /// How much of it is data, in 255ths; a bit of data is at least one.
    pub data: u8,
}

/// Looks at an image; its parents may be missing.
///
/// # Errors
/// Where the image itself can't be opened, or a file can't be read.
pub fn inspect(host: &SharedHost, image: &Path, gate: &Gate) -> Result<Inspection> {
    let trace = trace(host, image, Access::Look, gate)?;
    let map = map_of(&trace.images, trace.stopped.is_none())?;
    let images = trace.images.iter().map(|image| inspect_one(host, &**image)).collect::<Result<_>>()?;
    Ok(Inspection { images, broken: trace.stopped.map(|error| error.to_string()), map })
}

fn inspect_one(host: &SharedHost, image: &dyn Image) -> Result<Inspected> {
    let (path, info) = (image.path(), image.info());
    let length = host.open(&path, Access::Look).and_then(|file| file.len());
    let length = ByteCount(length.map_err(|error| DiskError::io(&path, "ask for the length", error))?);
    let blocks = blocks_of(image, &info)?;
    let (held, parts, problems) = (image.held_bytes()?, image.structures()?, image.check()?);
    Ok(Inspected { path, info, length, held, parts, blocks, problems })
}

/// Extents of the whole disk, some at a time.
fn each_extent(image: &dyn Image, size: u64, step: u64, mut visit: impl FnMut(Extent)) -> Result<()> {
    let mut at = 0;
    while at < size {
        let length = step.min(size - at);
        image.extents(at, length)?.into_iter().for_each(&mut visit);
        at += length;
    }
    Ok(())
}

fn blocks_of(image: &dyn Image, info: &ImageInfo) -> Result<Blocks> {
    let (size, block) = (info.virtual_size.0, info.block_size.0);
    let mut blocks = Blocks::default();
    // Bytes of the block under way: data, zeros.
    let (mut data, mut zero) = (0, 0);
    each_extent(image, size, STEP.next_multiple_of(block), |extent| {
        let (mut at, end) = (extent.offset, extent.offset + extent.length);
        while at < end {
            let block_end = (at / block + 1) * block;
            let piece = block_end.min(end) - at;
            match extent.presence {
                Presence::Data { .. } => data += piece,
                Presence::Zero => zero += piece,
                Presence::Absent => {}
            }
            at += piece;
            if at == block_end || at == size {
                let shown = at - (at - 1) / block * block;
                let kind = match (data == shown, zero == shown, data + zero) {
                    (true, ..) => &mut blocks.data,
                    (_, true, _) => &mut blocks.zero,
                    (.., 0) => &mut blocks.absent,
                    _ => &mut blocks.partial,
                };
                *kind += 1;
                (data, zero) = (0, 0);
            }
        }
    })?;
    Ok(blocks)
}

/// What the chain shows; of a broken one, what is left of it.
fn map_of(images: &[std::sync::Arc<dyn Image>], whole: bool) -> Result<BlockMap> {
    let Some(last) = images.last() else { return Ok(BlockMap::default()) };
    let info = last.info();
    let (size, sector) = (info.virtual_size.0, u64::from(info.logical_sector_size));
    let square = size.div_ceil(SQUARES).next_power_of_two().max(sector);
    let mut counts = Counts { square, owners: vec![Default::default(); size.div_ceil(square) as usize] };
    if whole {
        let chain = Chain::from_images(images.to_vec())?;
        let mut at = 0;
        while at < size {
            let length = STEP.min(size - at);
            for stretch in chain.stretches(at, length)? {
                if let Some(owner) = stretch.owner {
                    counts.add(stretch.offset, stretch.length, owner, !stretch.zero);
                }
            }
            at += length;
        }
    } else {
        // Newest first: what is there hides what is below.
        for (place, image) in images.iter().enumerate().rev() {
            let place = place as u16;
            each_extent(&**image, size, STEP, |extent| {
                if let Some(is_data) = match extent.presence {
                    Presence::Data { .. } => Some(true),
                    Presence::Zero => Some(false),
                    Presence::Absent => None,
                } {
                    counts.add(extent.offset, extent.length, place, is_data);
                }
            })?;
        }
    }
    Ok(counts.map())
}

struct Counts {
    square: u64,
    /// For each square: bytes by owner, and bytes of data.
    owners: Vec<(Vec<(u16, u64)>, u64)>,
}

impl Counts {
    fn add(&mut self, offset: u64, length: u64, owner: u16, is_data: bool) {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let place = at / self.square;
            let piece = ((place + 1) * self.square).min(end) - at;
            let (owners, data) = &mut self.owners[place as usize];
            match owners.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, bytes)) => *bytes += piece,
                None => owners.push((owner, piece)),
            }
            *data += if is_data { piece } else { 0 };
            at += piece;
        }
    }

    fn map(self) -> BlockMap {
        let square = self.square;
        let squares = self.owners.into_iter().map(|(owners, data)| Square {
            owner: owners.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(owner, _)| owner),
            data: (data.min(square) * 255).div_ceil(square) as u8,
        });
        BlockMap { square: ByteCount(square), squares: squares.collect() }
    }
}
