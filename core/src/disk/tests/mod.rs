//! What images of every format must pass: the rules of every image, crashes at every step, a full volume.

mod crash;
mod full;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{self, CreateOptions, Image, ImageFormat, ImageType};
use crate::host_file::{Access, SharedHost};
use crate::testing::{ImageMaker, MemHost, image_conformance};
use crate::units::ByteCount;

const FORMATS: [ImageFormat; 2] = [ImageFormat::Vhdx, ImageFormat::Vhd];

struct Maker(SharedHost, ImageFormat);

impl Maker {
    fn path(name: &str) -> PathBuf {
        Path::new("/").join(name).with_extension("image")
    }
}

impl ImageMaker for Maker {
    fn base(&self, name: &str, options: &CreateOptions) -> Arc<dyn Image> {
        disk::create(&self.0, &Self::path(name), self.1, options).unwrap()
    }
    fn child(&self, name: &str, parent: &dyn Image, block_size: ByteCount) -> Arc<dyn Image> {
        disk::create_child(&self.0, &Self::path(name), parent, Some(block_size)).unwrap()
    }
    fn keeps_two_linkages(&self) -> bool {
        self.1 != ImageFormat::Vhd
    }
    fn reopen(&self, image: Arc<dyn Image>) -> Arc<dyn Image> {
        let path = image.path();
        drop(image);
        disk::open(&self.0, &path, self.1, Access::Write).unwrap()
    }
}

fn options(block_size: ByteCount, sector: u32, size: u64) -> CreateOptions {
    CreateOptions { block_size: Some(block_size), logical_sector_size: sector, ..CreateOptions::dynamic(ByteCount(size)) }
}

#[test]
fn images_keep_the_rules() {
    let (mib, both) = (ByteCount::mib, &FORMATS[..]);
    for (seed, block, sector, can_punch, formats) in [
        (1, mib(1), 512, true, both),
        (2, mib(2), 512, false, both),
        (3, mib(2), 4096, true, &FORMATS[..1]),
        (4, mib(32), 512, true, both),
        (5, mib(256), 4096, true, &FORMATS[..1]),
        (6, mib(256), 512, true, both),
        (7, ByteCount(512 << 10), 512, true, &FORMATS[1..]),
        (8, ByteCount(4 << 10), 512, true, &FORMATS[1..]),
    ] {
        for format in formats {
            let host = MemHost::new();
            host.set_can_punch(can_punch);
            image_conformance(&Maker(host.shared(), *format), &options(block, sector, (5 << 20) + 9 * 4096), seed);
        }
    }
}

#[test]
fn fixed_images_keep_the_rules() {
    for format in FORMATS {
        let host = MemHost::new();
        let fixed = CreateOptions { kind: ImageType::Fixed, ..options(ByteCount::mib(1), 512, 5 << 20) };
        image_conformance(&Maker(host.shared(), format), &fixed, 7);
    }
}
