//! Tests of VHDX images: the rules of every image; crashes; strangers' bytes; what stands in the file.

mod crash;
mod full;
mod hostile;
mod layout;
mod made_up;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{self, CreateOptions, Image, ImageFormat, ImageType};
use crate::host_file::{Access, SharedHost};
use crate::testing::{ImageMaker, MemHost, image_conformance};
use crate::units::ByteCount;

struct Maker(SharedHost);

impl Maker {
    fn path(name: &str) -> PathBuf {
        Path::new("/").join(name).with_extension("vhdx")
    }
}

impl ImageMaker for Maker {
    fn base(&self, name: &str, options: &CreateOptions) -> Arc<dyn Image> {
        disk::create(&self.0, &Self::path(name), ImageFormat::Vhdx, options).unwrap()
    }
    fn child(&self, name: &str, parent: &dyn Image, block_size: ByteCount) -> Arc<dyn Image> {
        disk::create_child(&self.0, &Self::path(name), parent, Some(block_size)).unwrap()
    }
    fn reopen(&self, image: Arc<dyn Image>) -> Arc<dyn Image> {
        let path = image.path();
        drop(image);
        disk::open(&self.0, &path, ImageFormat::Vhdx, Access::Write).unwrap()
    }
}

fn options(block_mib: u64, sector: u32, size: u64) -> CreateOptions {
    CreateOptions {
        block_size: Some(ByteCount::mib(block_mib)),
        logical_sector_size: sector,
        ..CreateOptions::dynamic(ByteCount(size))
    }
}

#[test]
fn images_keep_the_rules() {
    for (seed, block_mib, sector, can_punch) in
        [(1, 1, 512, true), (2, 2, 512, false), (3, 2, 4096, true), (4, 32, 512, true), (5, 256, 4096, true), (6, 256, 512, true)]
    {
        let host = MemHost::new();
        host.set_can_punch(can_punch);
        image_conformance(&Maker(host.shared()), &options(block_mib, sector, (5 << 20) + 9 * 4096), seed);
    }
}

#[test]
fn fixed_images_keep_the_rules() {
    let host = MemHost::new();
    let fixed = CreateOptions { kind: ImageType::Fixed, ..options(1, 512, 5 << 20) };
    image_conformance(&Maker(host.shared()), &fixed, 7);
}
