//! Killed or without power at any step: what was acknowledged or flushed is there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FORMATS, options};
use crate::disk::{self, Image, ImageFormat};
use crate::host_file::Access;
use crate::testing::{CrashMode, CrashPoint, MemHost, Random, for_each_crash_point, for_some_crash_points};
use crate::units::ByteCount;

const SECTOR: u64 = 512;
const SIZE: u64 = (4 << 20) + 3 * SECTOR;
const PATH: &str = "/leaf";

/// Per sector what it may read as after a crash: stamps, 0 being zeros.
#[derive(Clone)]
struct Expected {
    /// Durable, or written since the last flush; the last one is the acknowledged one.
    values: Vec<Vec<u32>>,
    /// Written by the operation that failed.
    in_flight: Vec<Option<u32>>,
}

impl Expected {
    fn put(&mut self, first: u64, count: u64, stamp: u32, acknowledged: bool) {
        for sector in first as usize..(first + count) as usize {
            if acknowledged {
                self.values[sector].push(stamp);
            } else {
                self.in_flight[sector] = Some(stamp);
            }
        }
    }

    fn flushed(&mut self) {
        for values in &mut self.values {
            values.drain(..values.len() - 1);
        }
    }
}

fn sectors(stamp: u32, count: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat((count * SECTOR / 4) as usize)
}

fn prepare(host: &MemHost, format: ImageFormat, differencing: bool) -> Expected {
    let host = host.shared();
    let options = options(ByteCount::mib(1), SECTOR as u32, SIZE);
    let base = Path::new(if differencing { "/base" } else { PATH });
    let base = disk::create(&host, base, format, &options).unwrap();
    let leaf = match differencing {
        true => disk::create_child(&host, Path::new(PATH), &*base, options.block_size).unwrap(),
        false => base.clone(),
    };
    let count = SIZE / SECTOR;
    let mut expected = Expected { values: vec![vec![0]; count as usize], in_flight: vec![None; count as usize] };
    for (first, stamp) in [(0, 1), (2047, 2), (count - 4, 3)] {
        leaf.write_at(&sectors(stamp, 4), first * SECTOR).unwrap();
        expected.put(first, 4, stamp, true);
    }
    leaf.flush().unwrap();
    expected.flushed();
    expected
}

/// Random changes until one fails, or all are done; says what may be there.
fn change(image: &Arc<dyn Image>, expected: &mut Expected, seed: u64) {
    let mut random = Random::new(seed);
    let count = SIZE / SECTOR;
    for stamp in 10..34 {
        let whole = random.chance(1, 4);
        let first = if whole { random.below(4) * 2048 } else { random.below(count) };
        let length = if whole { 2048 } else { (1 + random.below(40)).min(count - first) };
        let (value, done, durable) = match random.below(10) {
            0..=3 => (stamp, image.write_at(&sectors(stamp, length), first * SECTOR), false),
            4..=5 => (0, image.write_zeroes(first * SECTOR, length * SECTOR), false),
            6 => {
                // Gives up sectors of a differencing image, whole blocks of others.
                let released = image.release(&[(first * SECTOR, length * SECTOR)]);
                let absent = image.info().parent.is_some() || whole;
                let flushed = |released| image.flush().map(|()| released);
                let done = released.and_then(flushed).and_then(|released| image.punch(released).map(drop));
                if !absent {
                    assert!(done.is_err() || image.is_writable());
                    if done.is_ok() {
                        expected.flushed()
                    } else {
                        return;
                    }
                    continue;
                }
                (0, done, true)
            }
            flush => match if flush == 7 { image.flush() } else { image.flush_logged() } {
                Ok(()) => {
                    expected.flushed();
                    continue;
                }
                Err(_) => return,
            },
        };
        expected.put(first, length, value, done.is_ok());
        if done.is_err() {
            return;
        }
        if durable {
            expected.flushed();
        }
    }
}

fn check(host: &MemHost, format: ImageFormat, expected: &Expected, point: CrashPoint) {
    let host = host.shared();
    for access in [Access::Look, Access::Write] {
        let image = disk::open(&host, Path::new(PATH), format, access).unwrap();
        assert_eq!(image.check().unwrap(), Vec::<String>::new(), "{access:?} {point:?}");
        let mut content = vec![0; SIZE as usize];
        image.read_at(&mut content, 0).unwrap();
        for (sector, bytes) in content.chunks_exact(SECTOR as usize).enumerate() {
            let stamp = u32::from_le_bytes(bytes[..4].try_into().unwrap());
            assert!(bytes.chunks_exact(4).all(|part| part == &bytes[..4]), "sector {sector} is torn, {access:?} {point:?}");
            let values = &expected.values[sector];
            let acknowledged = match point.mode {
                CrashMode::Kill => values.last() == Some(&stamp),
                CrashMode::PowerLoss => values.contains(&stamp),
            };
            let right = acknowledged || expected.in_flight[sector] == Some(stamp);
            assert!(
                right,
                "sector {sector} is {stamp}, may be {values:?}, {:?}, {access:?} {point:?}",
                expected.in_flight[sector]
            );
        }
    }
    // And it goes on.
    let image = disk::open(&host, Path::new(PATH), format, Access::Write).unwrap();
    image.write_at(&sectors(99, 3), 1000 * SECTOR).unwrap();
    image.freeze().unwrap();
    assert!(!host.exists(Path::new("/leaf.pending")), "{point:?}");
}

#[test]
fn acknowledged_survives_a_kill_and_flushed_a_loss_of_power() {
    for (format, (seed, differencing)) in
        FORMATS.iter().flat_map(|format| [(11, true), (12, false), (13, true)].map(|case| (*format, case)))
    {
        for_some_crash_points(
            seed,
            60,
            |host| prepare(host, format, differencing),
            |host, expected| {
                let mut expected = expected.clone();
                if let Ok(image) = disk::open(&host.shared(), Path::new(PATH), format, Access::Write) {
                    change(&image, &mut expected, seed);
                    // As a kill does it: nobody closes anything.
                    std::mem::forget(image);
                }
                expected
            },
            |host, _, expected, point| check(host, format, &expected, point),
        );
    }
}

/// A running machine's disk: small writes into blocks that are there in part, and flush after flush.
#[test]
fn a_guests_flushes_survive_a_kill_and_a_loss_of_power() {
    for (format, seed) in FORMATS.iter().flat_map(|format| [(*format, 21), (*format, 22)]) {
        for_each_crash_point(
            seed,
            |host| prepare(host, format, true),
            |host, expected| {
                let (mut expected, mut random) = (expected.clone(), Random::new(seed));
                let Ok(image) = disk::open(&host.shared(), Path::new(PATH), format, Access::Write) else { return expected };
                for stamp in 10..30 {
                    let (first, length) = (random.below(SIZE / SECTOR - 8), 1 + random.below(8));
                    let done = image.write_at(&sectors(stamp, length), first * SECTOR);
                    expected.put(first, length, stamp, done.is_ok());
                    let flushed = match random.below(8) {
                        0 => Ok(false),
                        1 => image.flush().map(|()| true),
                        _ => image.flush_logged().map(|()| true),
                    };
                    match done.and(flushed) {
                        Ok(true) => expected.flushed(),
                        Ok(false) => {}
                        Err(_) => break,
                    }
                }
                std::mem::forget(image);
                expected
            },
            |host, _, expected, point| check(host, format, &expected, point),
        );
    }
}

#[test]
fn growing_relinking_and_dropping_the_parent_happen_or_not() {
    for format in FORMATS {
        change_what_the_image_is(format);
    }
}

/// What the header of a VHD says.
fn table_entries(image: &Arc<dyn Image>) -> u64 {
    let parts = image.structures().unwrap();
    let mut says = parts.iter().flat_map(|part| &part.says);
    says.find(|(name, _)| name == "Max Table Entries").unwrap().1.parse().unwrap()
}

fn change_what_the_image_is(format: ImageFormat) {
    let bigger = SIZE + (3 << 20);
    let longer = AtomicU64::new(0);
    for_some_crash_points(
        14,
        80,
        |host| prepare(host, format, true),
        |host, _| {
            let image = disk::open(&host.shared(), Path::new(PATH), format, Access::Write)?;
            image.grow(ByteCount(bigger))?;
            image.set_linkage(uuid::Uuid::from_u128(1), Some(uuid::Uuid::from_u128(2)))?;
            image.become_base()?;
            std::mem::forget(image);
            disk::Result::<()>::Ok(())
        },
        |host, expected, done, point| {
            let image = disk::open(&host.shared(), Path::new(PATH), format, Access::Look).unwrap();
            let info = image.info();
            assert_eq!(image.check().unwrap(), Vec::<String>::new(), "{point:?}");
            assert!([SIZE, bigger].contains(&info.virtual_size.0), "{point:?}");
            if let Some(link) = &info.parent {
                let new = link.linkage == uuid::Uuid::from_u128(1);
                let two = new && format == ImageFormat::Vhdx;
                assert_eq!(link.linkage2, two.then(|| uuid::Uuid::from_u128(2)), "{point:?}");
            }
            assert!(done.is_err() || info.parent.is_none() && info.virtual_size.0 == bigger, "{point:?}");
            let mut content = vec![0; info.virtual_size.0 as usize];
            image.read_at(&mut content, 0).unwrap();
            for (sector, bytes) in content.chunks_exact(SECTOR as usize).enumerate() {
                let stamp = expected.values.get(sector).map_or(0, |values| values[0]);
                assert!(bytes == sectors(stamp, 1), "sector {sector} {point:?}");
            }
            // The new range hides a larger parent.
            let new = image.extents(SIZE, info.virtual_size.0 - SIZE).unwrap();
            assert!(info.parent.is_none() || new.iter().all(|e| e.presence != disk::Presence::Absent), "{point:?}");
            if format == ImageFormat::Vhd {
                let blocks = info.virtual_size.0.div_ceil(1 << 20);
                longer.fetch_add(u64::from(table_entries(&image) > blocks), Ordering::Relaxed);
                drop(image);
                let image = disk::open(&host.shared(), Path::new(PATH), format, Access::Write).unwrap();
                assert_eq!((table_entries(&image), image.check().unwrap()), (blocks, Vec::new()), "{point:?}");
                let mut again = vec![0; content.len()];
                image.read_at(&mut again, 0).unwrap();
                assert!(again == content, "{point:?}");
            }
        },
    );
    assert_eq!(longer.into_inner() > 0, format == ImageFormat::Vhd, "a table was longer than the disk at some point");
}
