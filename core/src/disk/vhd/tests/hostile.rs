//! Strangers' bytes: an error or an image, never a panic, and nothing is read or kept without bound.

use std::path::Path;

use crate::disk::{self, CreateOptions, ImageFormat};
use crate::host_file::Access;
use crate::testing::{CrashMode, MemHost, Random};
use crate::units::ByteCount;

const PATH: &str = "/leaf.avhd";

fn made() -> MemHost {
    let host = MemHost::new();
    let shared = host.shared();
    let options = CreateOptions { block_size: Some(ByteCount(64 << 10)), ..CreateOptions::dynamic(ByteCount::mib(1)) };
    let base = disk::create(&shared, Path::new("/base.vhd"), ImageFormat::Vhd, &options).unwrap();
    let child = disk::create_child(&shared, Path::new(PATH), &*base, options.block_size).unwrap();
    child.write_at(&[1; 4096], 0).unwrap();
    child.write_at(&vec![2; 100 << 10], 200 << 10).unwrap();
    child.freeze().unwrap();
    drop((child, base));
    host.crash(CrashMode::Kill, 0)
}

/// Does everything with it that reads, and some that writes.
fn use_it(host: &MemHost) -> bool {
    let shared = host.shared();
    let mut opened = false;
    for access in [Access::Look, Access::Write] {
        let Ok(image) = disk::open(&shared, Path::new(PATH), ImageFormat::Vhd, access) else { continue };
        opened = true;
        let size = image.info().virtual_size.0;
        let _ = (image.check(), image.extents(0, size.min(64 << 20)), disk::probe(&shared, Path::new(PATH)));
        let mut buf = vec![0; size.min(1 << 20) as usize];
        let _ = image.read_at(&mut buf, 0);
        if access == Access::Write {
            let _ = (image.write_at(&[3; 512], 0), image.write_zeroes(512, 512), image.flush());
            let _ = image.set_linkage(uuid::Uuid::from_u128(1), None);
            let _ = image.release(&[(0, 4096)]).and_then(|released| image.punch(released));
            let _ = image.freeze();
        }
    }
    opened
}

#[test]
fn truncated_and_mutated_files_are_errors_or_images() {
    let prepared = made();
    let length = prepared.shared().open(Path::new(PATH), Access::Look).unwrap().len().unwrap();
    let (mut random, mut opened) = (Random::new(3), 0);
    for round in 0..3000_u64 {
        let host = prepared.fork();
        {
            let file = host.shared().open(Path::new(PATH), Access::Write).unwrap();
            if round % 10 == 0 {
                file.set_len(random.below(length)).unwrap();
            }
            for _ in 0..random.below(4) {
                // Mostly where the metadata is: the copy, the header, the locators, the BAT; the footer.
                let at = if random.chance(1, 4) { length - 1 - random.below(512) } else { random.below(4096) };
                let edge = [0, 0xFF, 1, 0x80, random.below(256) as u8][random.below(5) as usize];
                file.write_all_at(&[edge], at).unwrap();
            }
            if random.chance(3, 4) {
                fix_checksums(&*file, random.chance(1, 2));
            }
        }
        opened += u64::from(use_it(&host));
    }
    assert!(opened > 300, "only {opened} were opened at all: the test reaches nothing");
}

/// What a stranger would do as well.
fn fix_checksums(file: &dyn crate::host_file::HostFile, footers: bool) {
    let fix = |at: u64, length: usize, field: usize| {
        let mut bytes = vec![0; length];
        if file.read_exact_at(&mut bytes, at).is_err() {
            return;
        }
        bytes[field..field + 4].fill(0);
        let sum = super::super::format::checksum(&bytes);
        bytes[field..field + 4].copy_from_slice(&sum.to_be_bytes());
        file.write_all_at(&bytes, at).unwrap();
    };
    fix(512, 1024, 36);
    if footers {
        fix(0, 512, 64);
        fix(file.len().unwrap().saturating_sub(512), 512, 64);
    }
}
