//! What every kind of image must pass: the rules of [`Image`], one function each.

use std::sync::Arc;

use uuid::Uuid;

use super::{RamImage, Random, ReferenceDisk};
use crate::disk::{CreateOptions, Extent, Image, ImageType, ParentTarget, Presence};
use crate::units::ByteCount;

/// Makes images of one kind for the conformance suite.
pub trait ImageMaker {
    /// A new image without a parent; `name` is used once.
    fn base(&self, name: &str, options: &CreateOptions) -> Arc<dyn Image>;
    /// A new child.
    fn child(&self, name: &str, parent: &dyn Image, block_size: ByteCount) -> Arc<dyn Image>;
    /// Whether its images have room for two identifiers of their parent. Those without keep the one that they have.
    fn keeps_two_linkages(&self) -> bool {
        true
    }
    /// Closes the only handle of an image, and opens it again for writing.
    fn reopen(&self, image: Arc<dyn Image>) -> Arc<dyn Image>;
}

/// Makes [`RamImage`]s.
#[derive(Debug, Default)]
pub struct RamImageMaker;

impl ImageMaker for RamImageMaker {
    fn base(&self, name: &str, options: &CreateOptions) -> Arc<dyn Image> {
        RamImage::create(name, options)
    }
    fn child(&self, name: &str, parent: &dyn Image, block_size: ByteCount) -> Arc<dyn Image> {
        RamImage::create_child(name, parent, Some(block_size))
    }
    fn reopen(&self, image: Arc<dyn Image>) -> Arc<dyn Image> {
        image
    }
}

/// Runs the whole suite; `options` gives sizes, and its block size is used for children too.
/// The disk should be a few MiB: all of it is read many times. Panics, with the seed, at what is wrong.
pub fn image_conformance(maker: &dyn ImageMaker, options: &CreateOptions, seed: u64) {
    let suite = Suite { maker, options, seed };
    suite.content_is_kept();
    suite.child_owns_exactly_what_was_written();
    suite.ranges_are_checked();
    suite.growth_is_zero();
    suite.frozen_is_read_only();
    suite.identifiers_and_links_are_kept();
    suite.released_is_absent();
    suite.base_has_no_parent();
    suite.identity_is_taken_over();
}

struct Suite<'a> {
    maker: &'a dyn ImageMaker,
    options: &'a CreateOptions,
    seed: u64,
}

/// An image, what it must read as, and per sector whether it must own it.
struct Checked {
    image: Arc<dyn Image>,
    content: ReferenceDisk,
    owned: Vec<bool>,
}

impl Checked {
    fn new(image: Arc<dyn Image>) -> Self {
        let info = image.info();
        let content = ReferenceDisk::new(info.virtual_size.0, info.logical_sector_size);
        let owned = vec![false; (info.virtual_size.0 / u64::from(info.logical_sector_size)) as usize];
        Self { image, content, owned }
    }

    fn sector(&self) -> u64 {
        self.image.info().logical_sector_size.into()
    }

    /// A range of whole sectors: mostly short, sometimes whole blocks.
    fn range(&self, random: &mut Random) -> (u64, u64) {
        let (sector, block, size) = (self.sector(), self.image.info().block_size.0, self.content.size());
        if random.chance(1, 5) && block < size {
            let first = random.below(size / block);
            let length = block * (1 + random.below(2));
            return (first * block, length.min(size - first * block));
        }
        let sectors = size / sector;
        let first = random.below(sectors);
        let most = if random.chance(1, 4) { 600 } else { 20 };
        (first * sector, (1 + random.below(most)).min(sectors - first) * sector)
    }

    fn own(&mut self, (offset, length): (u64, u64), owned: bool) {
        let sector = self.sector();
        self.owned[(offset / sector) as usize..((offset + length) / sector) as usize].fill(owned);
    }

    /// One random write or zeroing.
    fn change(&mut self, random: &mut Random) {
        let (offset, length) = self.range(random);
        if random.chance(1, 4) {
            let trims = random.chance(1, 3);
            let zeroed = if trims { self.image.trim(offset, length) } else { self.image.write_zeroes(offset, length) };
            zeroed.unwrap();
            self.content.zero(offset, length);
        } else {
            let bytes = random.bytes(length as usize);
            self.image.write_at(&bytes, offset).unwrap();
            self.content.write(&bytes, offset);
        }
        self.own((offset, length), true);
    }

    /// The whole image: content, extents against reads, ownership, structure.
    fn check(&self, what: &str) {
        self.content.assert_same(what, |buf, offset| self.image.read_at(buf, offset).unwrap());
        let (sector, size) = (self.sector(), self.content.size());
        let extents = self.image.extents(0, size + 8 * sector).unwrap();
        let mut at = 0;
        let mut before: Option<Extent> = None;
        for extent in extents {
            assert_eq!(extent.offset, at, "{what}: a gap before {extent:?}");
            assert!(extent.length > 0 && extent.length.is_multiple_of(sector), "{what}: {extent:?}");
            at += extent.length;
            if let Some(before) = before {
                let apart = match (before.presence, extent.presence) {
                    (Presence::Data { host_offset: a }, Presence::Data { host_offset: b }) => a + before.length != b,
                    (a, b) => a != b,
                };
                assert!(apart, "{what}: {before:?} and {extent:?} are one");
            }
            before = Some(extent);
            self.check_extent(&extent, what);
        }
        assert_eq!(at, size + 8 * sector, "{what}: the extents end early");
        let beyond = self.image.extents(size, 8 * sector).unwrap();
        assert!(beyond.iter().all(|extent| extent.presence == Presence::Zero), "{what}: beyond the end are zeros");
        assert_eq!(self.image.check().unwrap(), Vec::<String>::new(), "{what}: structure");
    }

    fn check_extent(&self, extent: &Extent, what: &str) {
        let (sector, size) = (self.sector(), self.content.size());
        let inside = extent.length.min(size.saturating_sub(extent.offset));
        if self.image.info().kind == ImageType::Differencing {
            let range = (extent.offset / sector) as usize..((extent.offset + inside) / sector) as usize;
            let owned = extent.presence != Presence::Absent;
            if let Some(wrong) = self.owned[range.clone()].iter().position(|is| *is != owned) {
                panic!("{what}: sector {} is in {extent:?}, but owned must be {}", range.start + wrong, !owned);
            }
        }
        let mut done = 0;
        while done < inside {
            let step = (inside - done).min(1 << 20);
            let mut direct = vec![0; step as usize];
            match extent.presence {
                Presence::Data { host_offset } => self.image.read_host(&mut direct, host_offset + done).unwrap(),
                Presence::Zero | Presence::Absent => {}
            }
            let expected = self.content.read(extent.offset + done, step);
            assert!(direct == expected, "{what}: {extent:?} reads otherwise than the image");
            done += step;
        }
    }
}

impl Suite<'_> {
    fn what(&self, test: &str) -> String {
        format!("{test}, seed {}, block size {:?}", self.seed, self.options.block_size)
    }

    fn random(&self, salt: u64) -> Random {
        Random::new(self.seed.wrapping_mul(31).wrapping_add(salt))
    }

    fn base(&self, name: &str) -> Arc<dyn Image> {
        self.maker.base(&format!("{name}-base"), self.options)
    }

    /// A base, and a child with some content.
    fn child(&self, name: &str, random: &mut Random) -> (Arc<dyn Image>, Checked) {
        let base = self.base(name);
        let block_size = self.options.block_size.unwrap_or(ByteCount::mib(2));
        let mut child = Checked::new(self.maker.child(&format!("{name}-child"), &*base, block_size));
        for _ in 0..12 {
            child.change(random);
        }
        (base, child)
    }

    fn content_is_kept(&self) {
        let (what, mut random) = (self.what("content"), self.random(1));
        let mut checked = Checked::new(self.base("content"));
        assert!(checked.image.is_writable());
        checked.check(&what);
        for _ in 0..3 {
            for _ in 0..15 {
                checked.change(&mut random);
            }
            checked.check(&what);
            checked.image.flush().unwrap();
            checked.image = self.maker.reopen(checked.image);
            checked.check(&what);
        }
        assert!(checked.image.held_bytes().unwrap() > ByteCount::ZERO);
    }

    fn child_owns_exactly_what_was_written(&self) {
        let (what, mut random) = (self.what("child"), self.random(2));
        let (base, mut child) = self.child("child", &mut random);
        let (parent, info) = (base.info(), child.image.info());
        assert_eq!(info.kind, ImageType::Differencing);
        assert_eq!((info.virtual_size, info.disk_id), (parent.virtual_size, parent.disk_id), "{what}: copied from the parent");
        assert_eq!(info.parent.as_ref().map(|link| link.linkage), Some(parent.data_write_id), "{what}: linkage");
        child.check(&what);
        for _ in 0..3 {
            for _ in 0..10 {
                child.change(&mut random);
            }
            child.check(&what);
            child.image.flush().unwrap();
            child.image = self.maker.reopen(child.image);
            child.check(&what);
        }
    }

    fn ranges_are_checked(&self) {
        let image = self.base("ranges");
        let (size, sector) = (image.info().virtual_size.0, u64::from(image.info().logical_sector_size));
        let mut buf = vec![0; 2 * sector as usize];
        for offset in [size - sector, size, u64::MAX - sector + 1] {
            assert!(image.read_at(&mut buf, offset).is_err(), "read at {offset}");
            assert!(image.write_at(&buf, offset).is_err(), "write at {offset}");
            assert!(image.write_zeroes(offset, 2 * sector).is_err(), "zeroes at {offset}");
        }
        assert_eq!(image.info().virtual_size.0, size);
    }

    fn growth_is_zero(&self) {
        let (what, mut random) = (self.what("growth"), self.random(3));
        let (_base, mut child) = self.child("growth", &mut random);
        let sector = child.sector();
        for sectors in [3, 5000] {
            let (old, size) = (child.content.size(), child.content.size() + sectors * sector);
            child.image.grow(ByteCount(size)).unwrap();
            assert_eq!(child.image.info().virtual_size.0, size, "{what}");
            child.content.resize(size);
            child.owned.resize((size / sector) as usize, true);
            child.check(&what);
            child.change(&mut random);
            let bytes = random.bytes(sector as usize);
            child.image.write_at(&bytes, old).unwrap();
            child.content.write(&bytes, old);
        }
        child.image.flush().unwrap();
        child.image = self.maker.reopen(child.image);
        child.check(&what);
    }

    fn frozen_is_read_only(&self) {
        let (what, mut random) = (self.what("freeze"), self.random(4));
        let (_base, child) = self.child("freeze", &mut random);
        child.image.freeze().unwrap();
        assert!(!child.image.is_writable(), "{what}");
        let sector = vec![1; child.sector() as usize];
        assert!(child.image.write_at(&sector, 0).is_err(), "{what}");
        assert!(child.image.write_zeroes(0, child.sector()).is_err(), "{what}");
        assert!(child.image.grow(ByteCount(child.content.size() * 2)).is_err(), "{what}");
        assert!(child.image.set_data_write_id(Uuid::new_v4()).is_err(), "{what}");
        child.check(&what);
    }

    fn identifiers_and_links_are_kept(&self) {
        let (what, mut random) = (self.what("identifiers"), self.random(5));
        let (_base, mut child) = self.child("identifiers", &mut random);
        let pinned = child.image.pin_data_write_id().unwrap();
        assert_eq!(child.image.info().data_write_id, pinned, "{what}: pinned");
        child.change(&mut random);
        assert_eq!(child.image.info().data_write_id, pinned, "{what}: a write after the pin");

        let (id, old, new) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        child.image.set_data_write_id(id).unwrap();
        child.image.set_linkage(old, None).unwrap();
        child.image.set_linkage(new, Some(old)).unwrap();
        child.image = self.maker.reopen(child.image);
        let info = child.image.info();
        let link = info.parent.clone().expect("a parent");
        let two = self.maker.keeps_two_linkages();
        let expected = if two { (new, Some(old)) } else { (old, None) };
        assert_eq!((info.data_write_id, (link.linkage, link.linkage2)), (id, expected), "{what}");
        assert_eq!(info.former_id, (!two).then_some(pinned), "{what}: the identifier before");
        child.image.forget_former_id().unwrap();
        child.image.set_linkage(new, None).unwrap();
        child.image = self.maker.reopen(child.image);
        let info = child.image.info();
        assert_eq!((info.data_write_id, info.former_id), (id, None), "{what}: the one before is forgotten");
        let link = info.parent.expect("a parent");
        assert_eq!((link.linkage, link.linkage2), (new, None), "{what}: the second one is cleared");

        child.image.set_linkage(new, Some(old)).unwrap();
        let directory = child.image.path().parent().map(ToOwned::to_owned).unwrap_or_default();
        let target = ParentTarget { path: directory.join("another parent.vhdx"), data_write_id: old };
        child.image.set_parent(&target).unwrap();
        child.image = self.maker.reopen(child.image);
        let link = child.image.info().parent.expect("a parent");
        assert_eq!((link.linkage, link.linkage2), (old, None), "{what}: linked to another parent");
        let named = [&link.relative_path, &link.absolute_path];
        assert!(named.iter().any(|path| path.as_ref().is_some_and(|path| path.contains("another parent.vhdx"))), "{what}");
        child.check(&what);
    }

    fn released_is_absent(&self) {
        let (what, mut random) = (self.what("release"), self.random(6));
        let (_base, mut child) = self.child("release", &mut random);
        for _ in 0..4 {
            let ranges: Vec<(u64, u64)> = (0..3).map(|_| child.range(&mut random)).collect();
            let released = child.image.release(&ranges).unwrap();
            for (offset, length) in ranges {
                child.content.zero(offset, length);
                child.own((offset, length), false);
            }
            child.check(&what);
            child.image.flush().unwrap();
            child.image.punch(released).unwrap();
            child.check(&what);
            for _ in 0..6 {
                child.change(&mut random);
            }
            child.check(&what);
        }
        child.image.flush().unwrap();
        child.image = self.maker.reopen(child.image);
        child.check(&what);
        // All of it: nothing is held any longer.
        let size = child.content.size();
        let released = child.image.release(&[(0, size)]).unwrap();
        child.image.flush().unwrap();
        child.image.punch(released).unwrap();
        child.content.zero(0, size);
        child.own((0, size), false);
        child.check(&what);
        child.image = self.maker.reopen(child.image);
        child.check(&what);
    }

    fn base_has_no_parent(&self) {
        let (what, mut random) = (self.what("become base"), self.random(7));
        let (_base, mut child) = self.child("become", &mut random);
        child.image.become_base().unwrap();
        for again in [false, true] {
            if again {
                child.image = self.maker.reopen(child.image);
            }
            let info = child.image.info();
            assert_eq!((info.kind, info.parent), (ImageType::Dynamic, None), "{what}");
            child.check(&what);
        }
        child.change(&mut random);
        child.check(&what);
    }

    fn identity_is_taken_over(&self) {
        let (what, mut random) = (self.what("identity"), self.random(8));
        let sector = u64::from(self.options.logical_sector_size);
        for size in [self.options.virtual_size.0 + 7 * sector, self.options.virtual_size.0 - 9 * sector] {
            let (_base, mut child) = self.child(&format!("identity-{size}"), &mut random);
            let options = CreateOptions { virtual_size: ByteCount(size), ..self.options.clone() };
            let other = self.maker.base(&format!("identity-other-{size}"), &options);
            child.image.take_identity_of(&*other).unwrap();
            child.image = self.maker.reopen(child.image);
            let (info, other) = (child.image.info(), other.info());
            assert_eq!((info.virtual_size, info.disk_id), (other.virtual_size, other.disk_id), "{what}");
            child.content.resize(size);
            child.owned.resize((size / sector) as usize, true);
            child.check(&what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_images_keep_the_rules() {
        for (seed, block_mib, sector) in [(1, 1, 512), (2, 2, 4096), (3, 32, 512)] {
            let options = CreateOptions {
                block_size: Some(ByteCount::mib(block_mib)),
                logical_sector_size: sector,
                ..CreateOptions::dynamic(ByteCount(5 * (1 << 20) + 9 * 4096))
            };
            image_conformance(&RamImageMaker, &options, seed);
        }
    }

    #[test]
    fn fixed_ram_images_keep_content() {
        let options = CreateOptions { kind: ImageType::Fixed, ..CreateOptions::dynamic(ByteCount::mib(5)) };
        let suite = Suite { maker: &RamImageMaker, options: &options, seed: 4 };
        suite.content_is_kept();
    }
}
