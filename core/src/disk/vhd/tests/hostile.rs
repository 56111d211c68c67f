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

/// Where a block's data goes over the footer, the first change of the footer would be one of the disk.
#[test]
fn a_block_over_the_footer_is_read_and_never_written_to() {
    let host = made();
    let file = host.shared().open(Path::new(PATH), Access::Write).unwrap();
    let length = file.len().unwrap();
    let mut entry = [0; 8];
    file.read_exact_at(&mut entry, 512 + 16).unwrap();
    let table = u64::from_be_bytes(entry);
    // As if it began a sector later.
    let mut last = [0; 4];
    let blocks: Vec<u32> = (0..16)
        .map(|block| {
            file.read_exact_at(&mut last, table + block * 4).unwrap();
            u32::from_be_bytes(last)
        })
        .collect();
    let (block, place) =
        blocks.iter().enumerate().filter(|(_, place)| **place != u32::MAX).max_by_key(|(_, place)| **place).unwrap();
    file.write_all_at(&(place + 1).to_be_bytes(), table + block as u64 * 4).unwrap();
    drop(file);
    let bytes = |host: &MemHost| {
        let file = host.shared().open(Path::new(PATH), Access::Look).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let before = bytes(&host);
    assert_eq!(before.len() as u64, length);
    let open = |access| disk::open(&host.shared(), Path::new(PATH), ImageFormat::Vhd, access).unwrap();
    let wrong = open(Access::Look).check().unwrap();
    assert!(wrong.iter().any(|problem| problem.contains("over the footer")), "{wrong:?}");
    let error = open(Access::Write).write_at(&[9; 512], 0).unwrap_err().to_string();
    assert!(error.contains("over the footer"), "{error}");
    assert!(bytes(&host) == before, "nothing was changed");
}

/// What a side file says is of the table and of bitmaps.
#[test]
fn a_side_file_does_not_reach_the_header_or_the_footer() {
    for (at, refused) in [(512, true), (1535, true), (511, true), (u64::MAX, true), (2048, false)] {
        let host = made();
        let file = host.shared().open(Path::new(PATH), Access::Look).unwrap();
        let at = if at == u64::MAX { file.len().unwrap() - 512 } else { at };
        let (mut id, mut byte) = ([0; 16], [0]);
        file.read_exact_at(&mut id, file.len().unwrap() - 512 + 68).unwrap();
        file.read_exact_at(&mut byte, at).unwrap();
        drop(file);
        let mut side = crate::disk::pending::Pending::new(&host.shared(), Path::new(PATH));
        side.append(id, &vec![(at, byte.to_vec())]).unwrap();
        drop(side);
        for access in [Access::Look, Access::Write] {
            let opened = disk::open(&host.shared(), Path::new(PATH), ImageFormat::Vhd, access);
            assert_eq!(opened.is_err(), refused, "at {at}: {:?}", opened.err());
        }
    }
}
