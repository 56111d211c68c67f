//! Strangers' bytes: cut anywhere, bits flipped anywhere. An error or a clean open, never a panic.

use std::path::Path;

use super::super::header::Headers;
use super::options;
use crate::disk::pages::RawFile;
use crate::disk::{self, ImageFormat, Presence};
use crate::host_file::Access;
use crate::testing::{CrashMode, MemHost, Random};

const PATH: &str = "/small.vhdx";

/// A differencing image with full, partial and zero blocks, and a log that must be replayed if asked for.
fn small(dirty_log: bool) -> MemHost {
    let host = MemHost::new();
    let shared = host.shared();
    let options = options(1, 512, 5 << 20);
    let base = disk::create(&shared, Path::new("/base.vhdx"), ImageFormat::Vhdx, &options).unwrap();
    let image = disk::create_child(&shared, Path::new(PATH), &*base, options.block_size).unwrap();
    image.write_at(&vec![1; 1 << 20], 0).unwrap();
    image.write_zeroes(2 << 20, 1 << 20).unwrap();
    image.flush().unwrap();
    image.write_at(&[2; 4096], (1 << 20) + 512).unwrap();
    if !dirty_log {
        drop(image);
        return host.crash(CrashMode::Kill, 0);
    }
    // The flush's steps: log, flush, header, flush, and then the pages in place.
    host.crash_at(host.steps() + 4);
    assert!(image.flush().is_err());
    std::mem::forget(image);
    let after = host.crash(CrashMode::Kill, 0);
    let file = after.shared().open(Path::new(PATH), Access::Look).unwrap();
    assert!(Headers::read(&RawFile::new(file).unwrap()).unwrap().log_in_use());
    after
}

/// Everything that a reader, and then a writer, does with an image.
fn use_it(host: &MemHost) {
    let shared = host.shared();
    for access in [Access::Look, Access::Write] {
        let Ok(image) = disk::open(&shared, Path::new(PATH), ImageFormat::Vhdx, access) else { continue };
        let size = image.info().virtual_size.0;
        // A flipped bit can make the disk large, but never make us read or list much at once.
        let shown = size.min(8 << 20);
        if let Ok(extents) = image.extents(0, shown) {
            for extent in extents {
                if let Presence::Data { host_offset } = extent.presence {
                    let _ = image.read_host(&mut vec![0; extent.length.min(4096) as usize], host_offset);
                }
            }
        }
        let _ = image.read_at(&mut vec![0; shown as usize], 0);
        if size < 1 << 30 {
            let _ = image.check();
        }
        if access == Access::Write {
            let sector = vec![7; image.info().logical_sector_size as usize];
            for offset in [0, 3 << 20, 1 << 20] {
                let _ = image.write_at(&sector, offset);
            }
            let _ = image.release(&[(0, 4096)]);
            let _ = image.flush();
        }
    }
}

#[test]
fn cut_files_are_refused_or_open() {
    for dirty_log in [false, true] {
        let whole = small(dirty_log);
        let length = whole.shared().open(Path::new(PATH), Access::Look).unwrap().len().unwrap();
        let mut random = Random::new(21);
        for _ in 0..60 {
            let host = whole.fork();
            let cut = match random.below(3) {
                0 => random.below(length),
                1 => random.below(length >> 20) << 20,
                _ => random.below(length >> 12) << 12,
            };
            host.shared().open(Path::new(PATH), Access::Write).unwrap().set_len(cut).unwrap();
            use_it(&host);
        }
    }
}

#[test]
fn flipped_bits_are_refused_or_open() {
    // Where something stands: identifier, headers, region tables, log, metadata, BAT.
    let parts: [(u64, u64); 8] = [
        (0, 8),
        (64 << 10, 80),
        (128 << 10, 80),
        (192 << 10, 80),
        (1 << 20, 4 << 10),
        ((5 << 20) + 4, 250),
        ((5 << 20) + (64 << 10), 400),
        (6 << 20, 48),
    ];
    for dirty_log in [false, true] {
        let whole = small(dirty_log);
        let mut random = Random::new(22);
        for round in 0..160 {
            let host = whole.fork();
            {
                let file = host.shared().open(Path::new(PATH), Access::Write).unwrap();
                for _ in 0..1 + round % 3 {
                    let (start, length) = parts[random.below(parts.len() as u64) as usize];
                    let at = start + random.below(length);
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, at).unwrap();
                    byte[0] ^= 1 << random.below(8);
                    file.write_all_at(&byte, at).unwrap();
                }
            }
            use_it(&host);
        }
    }
}

#[test]
fn a_dirty_log_reads_the_same_in_memory_and_replayed() {
    let host = small(true);
    let mut contents = Vec::new();
    for access in [Access::Look, Access::Read, Access::Write, Access::Look] {
        let image = disk::open(&host.shared(), Path::new(PATH), ImageFormat::Vhdx, access).unwrap();
        let mut content = vec![0; 5 << 20];
        image.read_at(&mut content, 0).unwrap();
        assert_eq!(content[(1 << 20) + 512..][..4096], [2; 4096]);
        contents.push((content, image.extents(0, 5 << 20).unwrap()));
        let file = host.shared().open(Path::new(PATH), Access::Look).unwrap();
        let in_use = Headers::read(&RawFile::new(file).unwrap()).unwrap().log_in_use();
        assert_eq!(in_use, contents.len() < 3, "{access:?}");
    }
    assert!(contents.windows(2).all(|pair| pair[0] == pair[1]));
}
