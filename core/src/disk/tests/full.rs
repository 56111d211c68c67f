//! A full volume: what found no room is written again when there is some, and nothing is lost or in doubt meanwhile.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::{FORMATS, options};
use crate::disk::{self, Image, ImageFormat};
use crate::host_file::Access;
use crate::testing::{CrashMode, Door, Fault, MemHost, Random};
use crate::units::ByteCount;

const SIZE: u64 = 24 << 20;
const UNIT: u64 = 4096;

/// A base of stamps, and its empty child.
fn pair(host: &MemHost, format: ImageFormat) -> Arc<dyn Image> {
    let base = disk::create(&host.shared(), Path::new("/base"), format, &options(ByteCount::mib(1), 512, SIZE)).unwrap();
    base.write_at(&[1; UNIT as usize], 0).unwrap();
    base.freeze().unwrap();
    let child = disk::create_child(&host.shared(), Path::new("/leaf"), &*base, Some(ByteCount::mib(1))).unwrap();
    child.write_at(&[2; 512], 0).unwrap();
    child.flush().unwrap();
    child
}

/// As the machine does it: again and again, with a little more room each time.
fn until_done(host: &MemHost, failed: &mut u64, mut act: impl FnMut() -> disk::Result<()>) {
    for _ in 0..2000 {
        match act() {
            Ok(()) => return,
            Err(error) => assert!(error.is_full(), "{error}"),
        }
        *failed += 1;
        host.set_capacity(Some(host.used() + ByteCount(UNIT)));
    }
    panic!("it never went well");
}

#[test]
fn what_found_no_room_is_written_again() {
    for (format, seed) in FORMATS.into_iter().flat_map(|format| (0..12).map(move |seed| (format, seed))) {
        let host = MemHost::new();
        let image = pair(&host, format);
        let mut random = Random::new(seed);
        let mut expected = vec![0u8; (SIZE / UNIT) as usize];
        let (mut failed, mut flushed) = (0, 0);
        for stamp in 3..120u8 {
            host.set_capacity(Some(host.used()));
            let unit = random.below(SIZE / UNIT);
            if random.chance(1, 6) {
                let length = 1 + random.below(64).min(SIZE / UNIT - unit - 1);
                until_done(&host, &mut failed, || image.write_zeroes(unit * UNIT, length * UNIT));
                expected[unit as usize..(unit + length) as usize].fill(0);
            } else {
                until_done(&host, &mut failed, || image.write_at(&[stamp; UNIT as usize], unit * UNIT));
                expected[unit as usize] = stamp;
            }
            if random.chance(1, 8) {
                let before = failed;
                until_done(&host, &mut failed, || image.flush());
                flushed += u64::from(failed > before);
            }
        }
        assert!(failed > 100 && flushed > 0, "{failed} failed, {flushed} flushes among them");
        until_done(&host, &mut failed, || image.flush());
        let length = image.held_bytes().unwrap();
        for mode in [CrashMode::Kill, CrashMode::PowerLoss] {
            let after = host.crash(mode, seed).shared();
            let image = disk::open(&after, Path::new("/leaf"), format, Access::Read).unwrap();
            assert_eq!(image.check().unwrap(), Vec::<String>::new());
            for (unit, stamp) in expected.iter().enumerate() {
                let mut bytes = vec![9; UNIT as usize];
                image.read_at(&mut bytes, unit as u64 * UNIT).unwrap();
                let own = if unit == 0 { &bytes[512..] } else { &bytes };
                assert!(own.iter().all(|byte| byte == stamp), "seed {seed}, {mode:?}, unit {unit}: {} not {stamp}", own[0]);
            }
        }
        until_done(&host, &mut failed, || image.freeze());
        // Places that were given out and not used would make the file longer than all its blocks.
        let file = host.shared().open(Path::new("/leaf"), Access::Look).unwrap();
        assert!(file.len().unwrap() <= SIZE + (8 << 20), "{} bytes long, {length} held", file.len().unwrap());
    }
}

/// One flush after the other; of each, the write with this number finds the volume full: the log (0), a header (1), a
/// page (2 and more); VHD has bitmaps and the BAT only. After a header that failed there is no further try.
fn tries(format: ImageFormat, skips: [u64; 3]) {
    let host = MemHost::new();
    let image = pair(&host, format);
    for block in 0..20u8 {
        image.write_at(&[block + 1; UNIT as usize], u64::from(block) << 20).unwrap();
    }
    for skip in skips {
        host.inject(Fault { door: Some(Door::Write), skip, kind: ErrorKind::StorageFull, sticky: false });
        assert!(image.flush().unwrap_err().is_full());
        for (mode, seed) in
            [(CrashMode::Kill, 0), (CrashMode::PowerLoss, 1), (CrashMode::PowerLoss, 2), (CrashMode::PowerLoss, 3)]
        {
            let after = host.crash(mode, seed).shared();
            let again = disk::open(&after, Path::new("/leaf"), format, Access::Write);
            let again = again.unwrap_or_else(|error| panic!("{skips:?}, {skip}, {mode:?} {seed}: {error}"));
            assert_eq!(again.check().unwrap(), Vec::<String>::new(), "{skips:?}, {skip}, {mode:?} {seed}");
            let mut bytes = vec![0; UNIT as usize];
            for block in (0..20u8).filter(|_| mode == CrashMode::Kill) {
                again.read_at(&mut bytes, u64::from(block) << 20).unwrap();
                assert!(bytes.iter().all(|byte| *byte == block + 1), "{skips:?}, {skip}, block {block}");
            }
        }
        if skip == 1 && format == ImageFormat::Vhdx {
            return;
        }
        image.write_at(&[1; UNIT as usize], 0).unwrap();
    }
    image.flush().unwrap();
    let after = host.crash(CrashMode::PowerLoss, 4).shared();
    let again = disk::open(&after, Path::new("/leaf"), format, Access::Read).unwrap();
    let mut bytes = vec![0; UNIT as usize];
    for block in 0..20u8 {
        again.read_at(&mut bytes, u64::from(block) << 20).unwrap();
        assert!(bytes.iter().all(|byte| *byte == block + 1), "{skips:?}, block {block}");
    }
}

#[test]
fn a_crash_between_two_tries_of_a_flush_loses_nothing() {
    for first in 0..4 {
        for second in 0..4 {
            for third in 0..4 {
                tries(ImageFormat::Vhdx, [first, second, third]);
                tries(ImageFormat::Vhd, [first, second, third]);
            }
        }
    }
}

#[test]
fn a_flush_that_failed_is_not_done_again() {
    for format in FORMATS {
        flush_that_failed(format);
    }
}

fn flush_that_failed(format: ImageFormat) {
    let host = MemHost::new();
    let image = pair(&host, format);
    image.write_at(&[3; UNIT as usize], 5 << 20).unwrap();
    host.inject(Fault { door: Some(Door::Flush), skip: 0, kind: ErrorKind::StorageFull, sticky: false });
    assert!(image.flush().unwrap_err().is_full());
    assert!(!image.flush().unwrap_err().is_full(), "nobody knows what is durable");
}
