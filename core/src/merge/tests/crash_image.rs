//! An image in memory that can be cut off at any change, and lose what wasn't flushed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use crate::disk::{CreateOptions, DiskError, Extent, Image, ImageInfo, ParentTarget, Released, Result};
use crate::testing::{RamImage, Random};
use crate::units::ByteCount;

/// How many changes of all images still happen before everything fails.
#[derive(Debug, Clone, Default)]
pub struct Fuse(Arc<AtomicI64>);

impl Fuse {
    pub fn set(&self, changes: i64) {
        self.0.store(changes, Ordering::Relaxed);
    }
    pub fn left(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What an image is being asked at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before something is read.
    Reading,
    Read,
    Written,
    Flush,
}

/// Called at each [`Point`], but not for what it does itself: a guest that works meanwhile.
pub type Meddler = Box<dyn FnMut(Point) + Send>;

/// Where the meddler stands, shared by all images.
#[derive(Clone, Default)]
pub struct Hook(Arc<Mutex<Option<Meddler>>>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl Hook {
    pub fn set(&self, meddler: Option<Meddler>) {
        *self.0.lock().unwrap() = meddler;
    }

    pub fn at(&self, point: Point) {
        let meddler = self.0.lock().unwrap().take();
        if let Some(mut meddler) = meddler {
            meddler(point);
            self.set(Some(meddler));
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Zero(u64, u64),
    Grow(ByteCount),
    Release(Vec<(u64, u64)>),
    Punch(Released),
    SetId(Uuid),
    SetLinkage(Uuid, Option<Uuid>),
}

impl Change {
    fn apply(&self, image: &RamImage) -> Result<()> {
        match self {
            Self::Write(offset, bytes) => image.write_at(bytes, *offset),
            Self::Zero(offset, length) => image.write_zeroes(*offset, *length),
            Self::Grow(size) => image.grow(*size),
            Self::Release(stretches) => image.release(stretches).map(drop),
            Self::Punch(released) => image.punch(released.clone()).map(drop),
            Self::SetId(id) => image.set_data_write_id(*id),
            Self::SetLinkage(linkage, linkage2) => image.set_linkage(*linkage, *linkage2),
        }
    }
}

/// How the image was made, so that its history can be played again.
#[derive(Debug, Clone)]
enum Origin {
    Base(CreateOptions),
    /// A parent as it was then, the block size, the linkage.
    Child(Arc<RamImage>, ByteCount, Uuid),
}

/// A [`RamImage`] with its history.
#[derive(Debug)]
pub struct CrashImage {
    name: String,
    origin: Origin,
    inner: Arc<RamImage>,
    /// Every change, and how many of them are durable.
    history: Mutex<(Vec<Change>, usize)>,
    fuse: Fuse,
    pub hook: Hook,
}

impl CrashImage {
    pub fn base(name: &str, options: &CreateOptions, fuse: &Fuse) -> Arc<Self> {
        Self::new(name, Origin::Base(options.clone()), fuse, Hook::default())
    }

    pub fn child(name: &str, parent: &Arc<Self>, block_size: ByteCount, fuse: &Fuse) -> Arc<Self> {
        let info = parent.info();
        let options = CreateOptions { disk_id: Some(info.disk_id), ..CreateOptions::dynamic(info.virtual_size) };
        let then = RamImage::create(parent.path(), &options);
        Self::new(name, Origin::Child(then, block_size, info.data_write_id), fuse, parent.hook.clone())
    }

    fn new(name: &str, origin: Origin, fuse: &Fuse, hook: Hook) -> Arc<Self> {
        let inner = Self::make(name, &origin);
        let id = inner.info().data_write_id;
        inner.set_data_write_id(id).unwrap();
        let history = Mutex::new((vec![Change::SetId(id)], 1));
        Arc::new(Self { name: name.into(), origin, inner, history, fuse: fuse.clone(), hook })
    }

    fn make(name: &str, origin: &Origin) -> Arc<RamImage> {
        match origin {
            Origin::Base(options) => RamImage::create(name, options),
            Origin::Child(parent, block_size, linkage) => {
                let image = RamImage::create_child(name, &**parent, Some(*block_size));
                image.set_linkage(*linkage, None).unwrap();
                image
            }
        }
    }

    /// Everything so far is durable.
    pub fn settle(&self) {
        let mut history = self.history.lock().unwrap();
        history.1 = history.0.len();
    }

    /// What is found after the end of the process (`None`) or the loss of power.
    pub fn after_crash(&self, power_loss: Option<&mut Random>) -> Arc<Self> {
        let (changes, durable) = self.history.lock().unwrap().clone();
        let kept: Vec<Change> = match power_loss {
            None => changes,
            Some(random) => {
                let share = random.below(4);
                let all = share == 3;
                let keep = |index: usize, change: &Change, random: &mut Random| {
                    index < durable || all || (!matches!(change, Change::Punch(_)) && random.chance(share, 3))
                };
                let indexed = changes.into_iter().enumerate();
                indexed.filter(|(index, change)| keep(*index, change, random)).map(|(_, change)| change).collect()
            }
        };
        let inner = Self::make(&self.name, &self.origin);
        for change in &kept {
            change.apply(&inner).unwrap();
        }
        let history = Mutex::new((kept.clone(), kept.len()));
        let (name, origin, fuse) = (self.name.clone(), self.origin.clone(), self.fuse.clone());
        Arc::new(Self { name, origin, inner, history, fuse, hook: self.hook.clone() })
    }

    /// Takes note of a change; the one at which the fuse burns out isn't done, or only in part.
    fn change(&self, change: Change, durable: bool) -> Result<()> {
        let left = self.fuse.0.fetch_sub(1, Ordering::Relaxed);
        let mut history = self.history.lock().unwrap();
        if left <= 0 {
            if let (0, Change::Write(offset, bytes)) = (left, change) {
                let half = bytes.len() / 1024 * 512;
                if half > 0 {
                    let torn = Change::Write(offset, bytes[..half].to_vec());
                    torn.apply(&self.inner)?;
                    history.0.push(torn);
                }
            }
            return Err(self.crashed());
        }
        change.apply(&self.inner)?;
        history.0.push(change);
        if durable {
            history.1 = history.0.len();
        }
        Ok(())
    }

    fn crashed(&self) -> DiskError {
        DiskError::refused(&self.inner.path(), "crashed")
    }
}

impl Image for CrashImage {
    fn path(&self) -> PathBuf {
        self.inner.path()
    }
    fn info(&self) -> ImageInfo {
        self.inner.info()
    }
    fn is_writable(&self) -> bool {
        self.inner.is_writable()
    }
    fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>> {
        self.inner.extents(offset, length)
    }
    fn read_host(&self, buf: &mut [u8], host_offset: u64) -> Result<()> {
        self.hook.at(Point::Reading);
        let read = self.inner.read_host(buf, host_offset);
        self.hook.at(Point::Read);
        read
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let written = self.change(Change::Write(offset, buf.to_vec()), false);
        self.hook.at(Point::Written);
        written
    }
    fn write_zeroes(&self, offset: u64, length: u64) -> Result<()> {
        self.change(Change::Zero(offset, length), false)
    }
    fn flush(&self) -> Result<()> {
        if self.fuse.0.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(self.crashed());
        }
        // What was done before isn't durable yet, and then it is.
        self.hook.at(Point::Flush);
        if self.fuse.left() < 0 {
            return Err(self.crashed());
        }
        self.settle();
        self.hook.at(Point::Flush);
        Ok(())
    }
    fn grow(&self, virtual_size: ByteCount) -> Result<()> {
        self.change(Change::Grow(virtual_size), true)
    }
    fn freeze(&self) -> Result<()> {
        self.flush()?;
        self.inner.freeze()
    }
    fn pin_data_write_id(&self) -> Result<Uuid> {
        self.inner.pin_data_write_id()
    }
    fn held_bytes(&self) -> Result<ByteCount> {
        self.inner.held_bytes()
    }
    fn check(&self) -> Result<Vec<String>> {
        self.inner.check()
    }
    fn release(&self, stretches: &[(u64, u64)]) -> Result<Released> {
        if self.fuse.0.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(self.crashed());
        }
        let mut history = self.history.lock().unwrap();
        let released = self.inner.release(stretches)?;
        history.0.push(Change::Release(stretches.to_vec()));
        Ok(released)
    }
    fn punch(&self, released: Released) -> Result<ByteCount> {
        let before = self.inner.held_bytes()?;
        self.change(Change::Punch(released), false)?;
        Ok(before.saturating_sub(self.inner.held_bytes()?))
    }
    fn set_data_write_id(&self, id: Uuid) -> Result<()> {
        self.change(Change::SetId(id), true)
    }
    fn set_linkage(&self, linkage: Uuid, linkage2: Option<Uuid>) -> Result<()> {
        self.change(Change::SetLinkage(linkage, linkage2), true)
    }
    fn set_parent(&self, parent: &ParentTarget) -> Result<()> {
        self.inner.set_parent(parent)
    }
    fn become_base(&self) -> Result<()> {
        self.inner.become_base()
    }
    fn take_identity_of(&self, other: &dyn Image) -> Result<()> {
        self.inner.take_identity_of(other)
    }
}
