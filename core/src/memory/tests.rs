//! Saving and restoring, while threads write and when files are wrong.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::*;
use crate::clock::{SharedClock, SystemClock};
use crate::disk::{DiskError, DiskErrorKind};
use crate::host_file::{Access, Host, HostFile, OsHost};
use crate::units::ByteCount;

/// A file that fails once this many more writes were done.
#[derive(Debug)]
struct Failing(Arc<dyn HostFile>, AtomicU64);

impl HostFile for Failing {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.0.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.0.punch_hole(offset, len)
    }
    fn held_bytes(&self) -> io::Result<ByteCount> {
        self.0.held_bytes()
    }
    fn relock(&self, access: Access) -> io::Result<()> {
        self.0.relock(access)
    }
}

fn new_file(folder: &tempfile::TempDir, name: &str) -> Arc<dyn HostFile> {
    OsHost.create_new(&folder.path().join(name)).unwrap()
}

fn clock() -> SharedClock {
    SystemClock::shared()
}

fn mark(page: &mut Page, number: u64, version: u64) {
    page[..8].copy_from_slice(&number.to_le_bytes());
    page[8..16].copy_from_slice(&version.to_le_bytes());
    page[PAGE_SIZE - 8..].copy_from_slice(&version.to_le_bytes());
}

fn image_of(memory: &GuestMemory) -> Vec<Page> {
    (0..memory.pages()).map(|page| memory.read(page, |content| *content)).collect()
}

/// Memory in which every third page has content, one is zero though it was written, and most of it is untouched.
fn some_memory() -> Arc<GuestMemory> {
    let memory = Arc::new(GuestMemory::new(3000));
    (0..900).step_by(3).for_each(|page| memory.write(page, |content| mark(content, page, 7)));
    memory.write(2999, |content| mark(content, 2999, 7));
    memory.write(1500, |content| content[0] = 0);
    memory
}

#[test]
fn what_was_saved_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let memory = some_memory();
    let (file, id) = (new_file(&folder, "memory.stm"), Uuid::from_u128(77));
    let report = save(&memory, file.clone(), id, clock()).unwrap();
    assert_eq!(report.file.0, file.len().unwrap());
    assert_eq!(inspect(&*file).unwrap(), SavedInfo { id, pages: 3000, held_pages: 301 });
    assert!(report.file.0 < 302 * 4200, "zero pages take no space: {report:?}");
    assert!(image_of(&restore(&*file).unwrap()) == image_of(&memory));

    let nothing = Arc::new(GuestMemory::new(1 << 20));
    let file = new_file(&folder, "nothing.stm");
    save(&nothing, file.clone(), id, clock()).unwrap();
    assert_eq!(restore(&*file).unwrap().pages(), 1 << 20);
}

#[test]
fn writes_after_the_begin_are_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let pages = 6000;
    let memory = Arc::new(GuestMemory::new(pages));
    (0..pages).filter(|page| page % 7 != 0).for_each(|page| memory.write(page, |content| mark(content, page, 1)));
    for round in 0..3 {
        let file = new_file(&folder, &format!("{round}.stm"));
        let expected = image_of(&memory);
        let mut capture = Capture::begin(&memory, file.clone(), Uuid::from_u128(round), clock()).unwrap();
        let stop = AtomicBool::new(false);
        let saved = thread::scope(|scope| {
            for worker in 0..3 {
                let (memory, stop) = (&memory, &stop);
                scope.spawn(move || {
                    let mut n: u64 = worker;
                    while !stop.load(Ordering::Relaxed) {
                        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let page = (n >> 33) % pages;
                        memory.write(page, |content| mark(content, page, n));
                    }
                });
            }
            let mut done = ByteCount::ZERO;
            let saved = loop {
                let progress = match capture.step(ByteCount::kib(256)) {
                    Ok(progress) => progress,
                    Err(error) => break Err(error),
                };
                assert!(progress.done >= done && progress.done <= progress.total);
                done = progress.done;
                if progress.finished {
                    break Ok(progress);
                }
            };
            stop.store(true, Ordering::Relaxed);
            saved
        });
        assert_eq!(saved.unwrap().done, ByteCount(pages * 4096));
        assert!(image_of(&restore(&*file).unwrap()) == expected, "round {round}");
        assert!(image_of(&memory) != expected);
    }
}

#[test]
fn a_writer_without_room_waits_for_the_saver() {
    let folder = tempfile::tempdir().unwrap();
    let pages = 20_000;
    let memory = Arc::new(GuestMemory::new(pages));
    (0..pages).for_each(|page| memory.write(page, |content| mark(content, page, 1)));
    let file = new_file(&folder, "memory.stm");
    let mut capture = Capture::begin(&memory, file.clone(), Uuid::nil(), clock()).unwrap();
    let written = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for page in (0..pages).rev() {
                memory.write(page, |content| mark(content, page, 2));
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Until the place for originals is full: then it stands still.
        let (began, mut before) = (Instant::now(), 0);
        while before == 0 || written.load(Ordering::Relaxed) > before {
            assert!(began.elapsed() < Duration::from_secs(60), "it writes on and on");
            before = written.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(200));
        }
        assert!(before < pages, "the place for originals is bounded");
        while !capture.step(ByteCount::mib(1)).unwrap().finished {}
    });
    let report = capture.report();
    assert!(report.intercepted_writes >= 8192 && report.longest_stall >= Duration::from_millis(50), "{report:?}");
    let restored = restore(&*file).unwrap();
    assert!((0..pages).all(|page| restored.read(page, |content| content[8] == 1)));
    assert!((0..pages).all(|page| memory.read(page, |content| content[8] == 2)));
}

#[test]
fn a_capture_that_ends_early_lets_writers_go() {
    let folder = tempfile::tempdir().unwrap();
    let pages = 20_000;
    let memory = Arc::new(GuestMemory::new(pages));
    (0..pages).for_each(|page| memory.write(page, |content| mark(content, page, 1)));
    for fails in [false, true] {
        let file: Arc<dyn HostFile> = Arc::new(Failing(new_file(&folder, &format!("{fails}.stm")), AtomicU64::new(3)));
        let mut capture = Capture::begin(&memory, file.clone(), Uuid::nil(), clock()).unwrap();
        let second = Capture::begin(&memory, file.clone(), Uuid::nil(), clock());
        assert!(second.unwrap_err().to_string().contains("being saved already"));
        thread::scope(|scope| {
            let writer = scope.spawn(|| (0..pages).for_each(|page| memory.write(page, |content| mark(content, page, 2))));
            while fails && capture.step(ByteCount::mib(1)).is_ok() {}
            if fails {
                assert!(capture.step(ByteCount::mib(1)).is_err());
            } else {
                drop(capture);
            }
            writer.join().unwrap();
        });
        assert!(inspect(&*file).is_err(), "a file that was not finished is not taken for one that was");
    }
}

fn saved_bytes(folder: &tempfile::TempDir) -> Vec<u8> {
    let file = new_file(folder, "good.stm");
    save(&some_memory(), file.clone(), Uuid::from_u128(5), clock()).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn restore_bytes(folder: &tempfile::TempDir, bytes: &[u8]) -> Result<GuestMemory, DiskError> {
    let path = folder.path().join("bad.stm");
    if path.exists() {
        OsHost.remove_file(&path).unwrap();
    }
    let file = OsHost.create_new(&path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    restore(&*file)
}

#[test]
fn every_changed_byte_and_every_cut_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let good = saved_bytes(&folder);
    assert!(restore_bytes(&folder, &good).is_ok());
    let seed = 20_261u64;
    let random = (0..150u64).map(|n| (n.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) % good.len() as u64) as usize);
    let edges = (0..108).chain(good.len() - 100..good.len());
    for at in edges.chain(random) {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let error = restore_bytes(&folder, &bad).expect_err(&format!("byte {at} changed, seed {seed}"));
        assert!(
            error.offset.is_some() && matches!(*error.kind, DiskErrorKind::Invalid { .. }),
            "byte {at}, seed {seed}: {error}"
        );
    }
    for length in [0, 1, 63, 64, 127, 128, 4096, good.len() / 2, good.len() - 64, good.len() - 1] {
        let error = restore_bytes(&folder, &good[..length]).expect_err(&format!("cut at {length}"));
        assert!(error.offset.is_some(), "cut at {length}: {error}");
    }
    let error = restore_bytes(&folder, &good[..good.len() - 1]).unwrap_err().to_string();
    assert!(error.contains("cut off or never finished"), "{error}");
    let record = restore_bytes(&folder, &[&good[..5000], &[good[5000] ^ 1], &good[5001..]].concat()).unwrap_err().to_string();
    assert!(record.contains("at byte 64: record checksum is "), "{record}");
}

/// Files whose checksums are right and whose content is not.
#[test]
fn a_crafted_file_is_refused() {
    use format::{Header, IndexEntry, Trailer};
    use zerocopy::little_endian::{U32, U64};
    use zerocopy::{FromZeros, IntoBytes};

    let folder = tempfile::tempdir().unwrap();
    let craft = |pages: u64, numbers: &[u64], change: &dyn Fn(&mut Trailer)| {
        let mut header = Header::new_zeroed();
        (header.magic, header.version, header.page_size) = (format::HEADER_MAGIC, U32::new(1), U32::new(4096));
        header.pages = U64::new(pages);
        header.checksum = U32::new(crc32c::crc32c(header.as_bytes()));
        let mut record = Vec::new();
        format::begin_record(&mut record);
        record.resize(record.len() + numbers.len() * PAGE_SIZE, 1);
        let checksum = format::end_record(&mut record, [0; 16], 0, numbers);
        let (offset, count) = (U64::new(64), U32::new(numbers.len() as u32));
        let index = IndexEntry { offset, pages: count, checksum: U32::new(checksum) };
        let mut trailer = Trailer::new_zeroed();
        trailer.magic = format::TRAILER_MAGIC;
        trailer.index = U64::new(64 + record.len() as u64);
        (trailer.records, trailer.held_pages) = (U64::new(1), U64::new(numbers.len() as u64));
        trailer.index_checksum = U32::new(crc32c::crc32c(index.as_bytes()));
        change(&mut trailer);
        trailer.checksum = U32::new(crc32c::crc32c(trailer.as_bytes()));
        [header.as_bytes(), &record, index.as_bytes(), trailer.as_bytes()].concat()
    };
    let refused = |bytes: Vec<u8>, words: &str| {
        let error = restore_bytes(&folder, &bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    assert!(restore_bytes(&folder, &craft(10, &[4, 2], &|_| {})).is_ok());
    refused(craft(10, &[4, 4], &|_| {}), "4 is in the file twice");
    refused(craft(10, &[4, 10], &|_| {}), "page number is 10, must be below 10");
    refused(craft(u64::MAX, &[4], &|_| {}), "pages is 18446744073709551615, must be at most");
    refused(craft(10, &[4], &|trailer| trailer.records = U64::new(u64::MAX / 16 + 2)), "don't end at the trailer");
    refused(craft(10, &[4], &|trailer| trailer.index = U64::new(u64::MAX - 3)), "don't end at the trailer");
    refused(craft(10, &[4], &|trailer| trailer.held_pages = U64::new(2)), "held pages is 2, but the records hold 1");
}

/// A file that is long, but holds nothing, and says that all of it is index: nothing of that is believed before it is read.
#[test]
fn a_long_file_of_nothing_is_refused_at_once() {
    use format::{Header, Trailer};
    use zerocopy::little_endian::{U32, U64};
    use zerocopy::{FromZeros, IntoBytes};

    let folder = tempfile::tempdir().unwrap();
    let file = new_file(&folder, "long.stm");
    let length: u64 = 1 << 43;
    let mut header = Header::new_zeroed();
    (header.magic, header.version, header.page_size) = (format::HEADER_MAGIC, U32::new(1), U32::new(4096));
    header.pages = U64::new(crate::memory::MAX_PAGES);
    header.checksum = U32::new(crc32c::crc32c(header.as_bytes()));
    let mut trailer = Trailer::new_zeroed();
    (trailer.magic, trailer.index) = (format::TRAILER_MAGIC, U64::new(64));
    trailer.records = U64::new((length - 128) / 16);
    trailer.checksum = U32::new(crc32c::crc32c(trailer.as_bytes()));
    file.write_all_at(header.as_bytes(), 0).unwrap();
    file.write_all_at(trailer.as_bytes(), length - 64).unwrap();
    for error in [inspect(&*file).unwrap_err(), restore(&*file).unwrap_err()] {
        assert!(error.offset == Some(64) && error.to_string().contains("index offset is 0, must be 64"), "{error}");
    }
}

/// What is independent of the size must be so: a begin on 1 GiB, all of it written, takes well under a millisecond.
#[test]
fn the_begin_does_not_depend_on_the_size() {
    let folder = tempfile::tempdir().unwrap();
    let best = |mib: u64| {
        let memory = Arc::new(GuestMemory::new(mib * 256));
        (0..mib * 256).step_by(256).for_each(|page| memory.write(page, |content| mark(content, page, 1)));
        let clock = clock();
        let times = (0..5).map(|round| {
            let file = new_file(&folder, &format!("{mib}-{round}.stm"));
            let started = clock.elapsed();
            let capture = Capture::begin(&memory, file, Uuid::nil(), clock.clone()).unwrap();
            let took = clock.elapsed() - started;
            drop(capture);
            took
        });
        times.min().unwrap()
    };
    let (small, large) = (best(64), best(1024));
    assert!(large < Duration::from_millis(1), "64 MiB {small:?}, 1 GiB {large:?}");
}
