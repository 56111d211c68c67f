//! MANY images as one disk, found in one step through an owner map.
//!
//! ```text
//! open ── gate ──> images (base 0 .. leaf n) ──> Chain
//!   read:   owner map ──> image and place ──> image.read_host
//!                └─ not known yet: resolve, asking the images from the leaf downwards
//!   write:  leaf, then the owner map where the leaf didn't own the sectors
//!   push_leaf: a new leaf on top; flush: every image with unflushed changes, lowest first
//! ```

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use serde::Serialize;

use crate::disk::{DiskError, Image, Result};
use crate::host_file::{Access, SharedHost};
use crate::locks::{lock, lock_alone, lock_shared};
use crate::units::ByteCount;

mod changes;
mod convert;
mod device;
mod folder;
mod gate;
mod inspect;
mod live;
mod open;
mod owner_map;
mod resolve;
#[cfg(test)]
mod tests;

pub use convert::{Conversion, Source, Target, convert, unfinished};
pub use device::{BlockDevice, Layer};
pub use folder::{Folder, FolderImage, ParentState, find_files};
pub use gate::{Gate, parent_name};
pub use inspect::{BlockMap, Blocks, Inspected, Inspection, Square, inspect};
pub use live::{Flaw, GRAIN, Held, LiveRun};
pub use open::{MAX_DEPTH, Trace, trace};

use changes::Changes;
use live::{Content, Routing};
use owner_map::{Link, Links, OwnerMap};
use resolve::{Piece, Place, resolve};

/// What the owner map of a chain may take, unless it is opened with another limit.
const MAP_LIMIT: ByteCount = ByteCount::mib(8);

/// How much [`Chain::stretches`] asks the images for at a time.
const STRETCHES_STEP: u64 = 1 << 30;

/// How much [`Chain::trim`] does while reads wait.
const TRIM_WINDOW: u64 = 256 << 20;

/// A stretch of the disk and the image of the chain that owns its newest data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// First byte on the virtual disk.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Index of the owner in the chain, the base being 0; `None` where nobody holds anything.
    pub owner: Option<u16>,
    /// Whether the owner says zeros.
    pub zero: bool,
}

/// The images behind one disk, from the base (index 0) to the leaf. May be used from several threads at once.
#[derive(Debug)]
pub struct Chain {
    map: OwnerMap,
    changes: Changes,
    /// Shared by everything that writes; exclusive while another leaf is put on top, or writes begin to go elsewhere:
    /// routed while a run under the leaf is merged.
    writers: RwLock<Option<Arc<Routing>>>,
    /// Exclusive while the leaf gives up places that a reader may look at.
    places: RwLock<()>,
    /// Bytes that its user wrote or made zero.
    written: AtomicU64,
    /// One flush after the other: a second one must not return before the first has. Counts the runs that are lent for
    /// merging: then other programs can open the images between any two steps.
    flushing: Mutex<usize>,
    /// A rule of merging that a test has switched off.
    #[cfg(any(test, feature = "testing"))]
    flaw: Mutex<Flaw>,
}

impl Chain {
    /// Opens the leaf and, through the gate, all its parents (always `Access::Read` or `Look`). Checks identifiers.
    ///
    /// # Errors
    /// What [`trace`] stops at: a parent that is missing, was changed, or lies outside the gate;
    /// loops, too many images, different sector sizes, and every error of opening an image.
    pub fn open(host: &SharedHost, leaf: &Path, access: Access, gate: &Gate) -> Result<Self> {
        let trace = trace(host, leaf, access, gate)?;
        match trace.stopped {
            Some(error) => Err(error),
            None => Self::from_images(trace.images),
        }
    }

    /// A chain of images that are open already, the base first; identifiers are checked.
    ///
    /// # Errors
    /// Where an image isn't the child of the one before, or the first has a parent itself.
    pub fn from_images(images: Vec<Arc<dyn Image>>) -> Result<Self> {
        Self::with_map_limit(images, MAP_LIMIT)
    }

    /// The same, with another limit for the memory of the owner map.
    ///
    /// # Errors
    /// As [`Chain::from_images`].
    pub fn with_map_limit(images: Vec<Arc<dyn Image>>, limit: ByteCount) -> Result<Self> {
        open::check_chain(&images)?;
        Ok(Self {
            map: OwnerMap::new(links(images), limit.0 as usize),
            changes: Changes::default(),
            writers: RwLock::default(),
            places: RwLock::default(),
            written: AtomicU64::new(0),
            flushing: Mutex::default(),
            #[cfg(any(test, feature = "testing"))]
            flaw: Mutex::default(),
        })
    }

    /// The images, base first.
    pub fn images(&self) -> Vec<Arc<dyn Image>> {
        self.map.links().iter().map(|link| link.image.clone()).collect()
    }

    /// Size of the disk: the leaf's.
    pub fn virtual_size(&self) -> ByteCount {
        ByteCount(self.map.shape().size)
    }

    /// The leaf's logical sector size in bytes.
    pub fn logical_sector_size(&self) -> u32 {
        self.map.shape().sector
    }

    /// Bytes that its user wrote, or made zero, since it was opened.
    pub fn written(&self) -> ByteCount {
        ByteCount(self.written.load(Ordering::Relaxed))
    }

    /// Memory that the owner map takes now.
    pub fn map_bytes(&self) -> ByteCount {
        ByteCount(self.map.bytes() as u64)
    }

    /// Who owns what in a range, in order, without gaps, neighbours of one kind joined. Asks the images themselves.
    ///
    /// # Errors
    /// Where the range isn't whole sectors of the disk, or an image can't be read.
    pub fn stretches(&self, offset: u64, length: u64) -> Result<Vec<Stretch>> {
        self.check_range(offset, length)?;
        Self::stretches_of(&self.map.links(), offset, length)
    }

    fn stretches_of(links: &Links, offset: u64, length: u64) -> Result<Vec<Stretch>> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut at = offset;
        while at < offset + length {
            let step = (STRETCHES_STEP - at % STRETCHES_STEP).min(offset + length - at);
            for Piece { offset, length, place } in resolve(links, at, step)? {
                let (owner, zero) = match place {
                    Place::Data { owner, .. } => (Some(owner), false),
                    Place::Zero { owner } => (Some(owner), true),
                    Place::Nobody | Place::Unknown => (None, true),
                };
                match stretches.last_mut() {
                    Some(last) if (last.owner, last.zero) == (owner, zero) => last.length += length,
                    _ => stretches.push(Stretch { offset, length, owner, zero }),
                }
            }
            at += step;
        }
        Ok(stretches)
    }

    /// Reads whole sectors.
    ///
    /// # Errors
    /// Where the range isn't whole sectors of the disk, or an image can't be read.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        let mut pieces = Vec::with_capacity(4);
        for _ in 0..4 {
            let Some(before) = self.changes.quiet() else { break };
            let result = self.read_once(buf, offset, &mut pieces);
            if self.changes.none_since(before) {
                return result;
            }
        }
        // Places are being given up all the time: wait until that rests.
        let _places = lock_shared(&self.places);
        loop {
            let before = self.changes.generation();
            let result = self.read_once(buf, offset, &mut pieces);
            if self.changes.none_since(before) {
                return result;
            }
        }
    }

    fn read_once(&self, buf: &mut [u8], offset: u64, pieces: &mut Vec<Piece>) -> Result<()> {
        let links = self.map.lookup(offset, buf.len() as u64, pieces)?;
        let mut rest = buf;
        for piece in pieces {
            let (part, after) = rest.split_at_mut(piece.length as usize);
            rest = after;
            match piece.place {
                Place::Data { owner, host } => links[usize::from(owner)].image.read_host(part, host)?,
                Place::Zero { .. } | Place::Nobody | Place::Unknown => part.fill(0),
            }
        }
        Ok(())
    }

    /// Writes whole sectors: to the leaf, unless a run under it is being merged ([`LiveRun`]).
    ///
    /// # Errors
    /// Where the range isn't whole sectors of the disk, the leaf isn't writable, or its file fails.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.written.fetch_add(buf.len() as u64, Ordering::Relaxed);
        let writers = lock_shared(&self.writers);
        if let Some(routing) = &*writers {
            return self.write_routed(routing, Content::Bytes(buf), offset, buf.len() as u64);
        }
        let before = self.changes.quiet();
        let (leaf, owned) = self.map.leaf_owns(offset, buf.len() as u64);
        let result = leaf.image.write_at(buf, offset);
        if !owned || result.is_err() || before.is_none_or(|before| !self.changes.none_since(before)) {
            self.map.update(offset, buf.len() as u64);
        }
        leaf.set_unflushed();
        result
    }

    /// Zeroes whole sectors, where [`Chain::write_at`] would write them.
    ///
    /// # Errors
    /// As [`Chain::write_at`].
    pub fn write_zeroes(&self, offset: u64, length: u64) -> Result<()> {
        self.zero(Content::Zeros, offset, length)
    }

    /// The disk's user needs the whole sectors of this range no longer: they read as zeros from now on, and space comes
    /// back where the leaf's format can give it back. What reads as zeros already is left alone.
    ///
    /// # Errors
    /// As [`Chain::write_at`].
    pub fn trim(&self, offset: u64, length: u64) -> Result<()> {
        let shape = self.map.shape();
        let sector = u64::from(shape.sector);
        let end = offset.saturating_add(length).min(shape.size) / sector * sector;
        let mut at = offset.next_multiple_of(sector);
        let block = self.map.leaf().image.info().block_size.0.max(sector);
        while at < end {
            // Whole blocks of the leaf where that is possible: these lose their place.
            let window_end = end.min((at / block * block).saturating_add(block.max(TRIM_WINDOW)));
            let (mut from, mut to) = (at, at);
            while to < window_end {
                let block_end = window_end.min((to / block + 1) * block);
                if self.holds_data(to, block_end - to)? {
                    to = block_end;
                    continue;
                }
                self.trim_stretch(from, to)?;
                (from, to) = (block_end, block_end);
            }
            self.trim_stretch(from, to)?;
            at = window_end;
        }
        Ok(())
    }

    fn trim_stretch(&self, from: u64, to: u64) -> Result<()> {
        if from == to { Ok(()) } else { self.zero(Content::Trimmed, from, to - from) }
    }

    /// Whether any image shows data here.
    fn holds_data(&self, offset: u64, length: u64) -> Result<bool> {
        let mut pieces = Vec::with_capacity(4);
        self.map.lookup(offset, length, &mut pieces)?;
        Ok(pieces.iter().any(|piece| !matches!(piece.place, Place::Nobody | Place::Zero { .. })))
    }

    fn zero(&self, content: Content<'_>, offset: u64, length: u64) -> Result<()> {
        self.check_range(offset, length)?;
        self.written.fetch_add(length, Ordering::Relaxed);
        let writers = lock_shared(&self.writers);
        let _places = lock_alone(&self.places);
        let _change = self.changes.begin();
        if let Some(routing) = &*writers {
            return self.write_routed(routing, content, offset, length);
        }
        let leaf = self.map.leaf();
        let result = content.put(&*leaf.image, 0, length, offset);
        self.map.update(offset, length);
        leaf.set_unflushed();
        result
    }

    /// Everything acknowledged is durable afterwards, in every image with unflushed changes, lowest first; while no run is
    /// being merged, maybe only in an image's log.
    ///
    /// # Errors
    /// Where a file fails; that image counts as unflushed still.
    pub fn flush(&self) -> Result<()> {
        let lent = lock(&self.flushing);
        let flush = if *lent > 0 { |image: &dyn Image| image.flush() } else { |image: &dyn Image| image.flush_logged() };
        #[cfg(any(test, feature = "testing"))]
        if *lock(&self.flaw) == Flaw::FlushAll {
            return self.map.leaf().flush(flush);
        }
        if let Some(routing) = &*lock_shared(&self.writers) {
            routing.flushed();
        }
        self.map.links().iter().try_for_each(|link| link.flush(flush))
    }

    /// Puts a new leaf (a child of the present one) on top; quick, no flush. Writes go to it from the
    /// return on, and none goes to the old leaf any longer, but [`Chain::flush`] still covers that.
    ///
    /// # Errors
    /// Where the image isn't a child of the present leaf, or the chain would be too long.
    pub fn push_leaf(&self, leaf: Arc<dyn Image>) -> Result<()> {
        let writers = lock_alone(&self.writers);
        if writers.is_some() {
            return Err(DiskError::refused(&leaf.path(), "what lies under the leaf is being merged"));
        }
        let links = self.map.links();
        let present = &self.map.leaf().image;
        open::check_depth(links.len() + 1, &leaf.path())?;
        open::check_pair(&**present, &leaf.info(), &leaf.path())?;
        let links = links.iter().cloned().chain([Arc::new(Link::new(leaf))]).collect();
        self.map.push(links);
        Ok(())
    }

    /// To be called after images of this chain were changed from outside (released, merged into, grown)
    /// and before space that they gave up is punched: nothing is taken from what was known before, and
    /// reads under way that may have seen the old places are done again.
    pub fn invalidate(&self) {
        let _change = self.changes.begin();
        self.map.forget();
    }

    /// Replaces the images, base first, such as by a merged one; waits for writes under way.
    ///
    /// # Errors
    /// As [`Chain::from_images`]; the chain stays as it was then.
    pub fn swap(&self, images: Vec<Arc<dyn Image>>) -> Result<()> {
        open::check_chain(&images)?;
        let _writers = lock_alone(&self.writers);
        let _change = self.changes.begin();
        self.map.replace(links(images));
        Ok(())
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<()> {
        let shape = self.map.shape();
        let sector = u64::from(shape.sector);
        if offset.checked_add(length).is_some_and(|end| end <= shape.size)
            && offset.is_multiple_of(sector)
            && length.is_multiple_of(sector)
        {
            return Ok(());
        }
        let text = format!("{length} bytes at {offset} are not whole sectors of a disk of {} bytes", shape.size);
        Err(DiskError::refused(&self.map.leaf().image.path(), text))
    }
}

fn links(images: Vec<Arc<dyn Image>>) -> Links {
    images.into_iter().map(|image| Arc::new(Link::new(image))).collect()
}
