//! What stands in our files, and in what order it gets there.

use std::path::Path;
use std::sync::Arc;

use super::super::header::Headers;
use super::super::image::VhdxImage;
use super::options;
use crate::disk::pages::RawFile;
use crate::disk::{self, CreateOptions, DiskErrorKind, Image, ImageFormat, ImageType, ParentTarget, Presence};
use crate::host_file::{Access, SharedHost};
use crate::testing::{CrashMode, Door, Fault, MemHost, Random};
use crate::units::ByteCount;

fn bytes(host: &SharedHost, path: &str, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    host.open(Path::new(path), Access::Look).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn a_child_names_its_parent_as_windows_does() {
    let host = MemHost::new().shared();
    for folder in ["/m", "/m/Virtual Hard Disks", "/m/Snapshots"] {
        host.create_dir_all(Path::new(folder)).unwrap();
    }
    let parent = Path::new("/m/Virtual Hard Disks/disk.vhdx");
    let base = disk::create(&host, parent, ImageFormat::Vhdx, &options(2, 512, 1 << 30)).unwrap();
    let child = disk::create_child(&host, Path::new("/m/Snapshots/a.avhdx"), &*base, None).unwrap();
    assert_eq!(bytes(&host, "/m/Snapshots/a.avhdx", 8, 18), [utf16("Snaptree"), vec![0, 0]].concat());
    let link = child.info().parent.unwrap();
    assert_eq!(link.relative_path.as_deref(), Some(r"..\Virtual Hard Disks\disk.vhdx"));
    assert_eq!(link.absolute_path.as_deref(), Some(r"\m\Virtual Hard Disks\disk.vhdx"));
    assert_eq!((link.linkage, link.linkage2), (base.info().data_write_id, None));
    let metadata = bytes(&host, "/m/Snapshots/a.avhdx", 5 << 20, 1 << 20);
    for text in ["parent_linkage2{00000000-0000-0000-0000-000000000000}", &format!("parent_linkage{}", link.linkage.braced())] {
        let text = utf16(text);
        assert!(metadata.windows(text.len()).any(|part| part == text));
    }
    let target = ParentTarget { path: "/m/Snapshots/b.avhdx".into(), data_write_id: link.linkage };
    child.set_parent(&target).unwrap();
    assert_eq!(child.info().parent.unwrap().relative_path.as_deref(), Some(r".\b.avhdx"));
}

#[test]
fn identifiers_change_once_for_each_opening_and_before_the_first_change() {
    let host = MemHost::new();
    let path = Path::new("/a.vhdx");
    let image = disk::create(&host.shared(), path, ImageFormat::Vhdx, &options(1, 512, 4 << 20)).unwrap();
    let created = image.info().data_write_id;
    let before = host.steps();
    image.flush().unwrap();
    assert_eq!(image.info().data_write_id, created);
    image.write_at(&[1; 512], 0).unwrap();
    let first = image.info().data_write_id;
    assert_ne!(first, created);
    image.write_at(&[1; 512], 1 << 20).unwrap();
    image.flush().unwrap();
    assert_eq!(image.info().data_write_id, first);
    // A plain overwrite is one step.
    let steps = host.steps();
    assert!(steps > before);
    image.write_at(&[2; 512], 0).unwrap();
    assert_eq!(host.steps(), steps + 1);
    drop(image);
    let open = || disk::open(&host.shared(), path, ImageFormat::Vhdx, Access::Write).unwrap();
    let image = open();
    assert_eq!(image.pin_data_write_id().unwrap(), image.info().data_write_id);
    let pinned = image.info().data_write_id;
    assert_ne!(pinned, first);
    image.write_at(&[3; 512], 0).unwrap();
    assert_eq!(image.info().data_write_id, pinned);
    drop(image);
    let image = open();
    image.set_data_write_id(created).unwrap();
    image.write_at(&[3; 512], 2 << 20).unwrap();
    drop(image);
    assert_eq!(open().info().data_write_id, created);
}

#[test]
fn acknowledged_writes_survive_a_leaked_image() {
    let host = MemHost::new();
    let path = Path::new("/a.vhdx");
    let base = disk::create(&host.shared(), Path::new("/b.vhdx"), ImageFormat::Vhdx, &options(1, 4096, 64 << 20)).unwrap();
    let image = disk::create_child(&host.shared(), path, &*base, Some(ByteCount::mib(1))).unwrap();
    let mut random = Random::new(5);
    let mut written = Vec::new();
    for stamp in 1..60_u8 {
        let offset = random.below(16384) * 4096;
        image.write_at(&[stamp; 4096], offset).unwrap();
        written.retain(|(other, _)| *other != offset);
        written.push((offset, stamp));
    }
    std::mem::forget(image);
    for (mode, there) in [(CrashMode::Kill, true), (CrashMode::PowerLoss, false)] {
        let host = host.crash(mode, 6);
        for access in [Access::Look, Access::Write, Access::Read] {
            let image = disk::open(&host.shared(), path, ImageFormat::Vhdx, access).unwrap();
            assert_eq!(image.check().unwrap(), Vec::<String>::new());
            for (offset, stamp) in &written {
                let mut sector = [0; 4096];
                image.read_at(&mut sector, *offset).unwrap();
                assert!(sector == [*stamp; 4096] || !there, "{offset} {access:?}");
            }
        }
        assert!(!host.shared().exists(Path::new("/a.vhdx.pending")), "{mode:?}");
    }
}

#[test]
fn the_side_file_is_emptied_before_it_is_too_long_to_be_read() {
    let (host, path, side) = (MemHost::new(), Path::new("/a.vhdx"), Path::new("/a.vhdx.pending"));
    disk::create(&host.shared(), path, ImageFormat::Vhdx, &options(1, 512, 64 << 20)).unwrap();
    let image = VhdxImage::open(&host.shared(), path, Access::Write).unwrap();
    image.write_at(&[1; 512], 0).unwrap();
    // One page, again and again: no number of changed pages calls for a commit.
    let unused = image.geometry().regions.bat.end() - 4096;
    for _ in 0..(33 << 20) / 4096 {
        image.apply(&mut image.settled(), vec![(unused, vec![0; 4096])], false).unwrap();
    }
    let length = |host: &MemHost| host.shared().open(side, Access::Look).unwrap().len().unwrap();
    assert!(length(&host) > 33 << 20);
    let killed = host.crash(CrashMode::Kill, 1);
    let read = |host: &MemHost| -> disk::Result<[u8; 512]> {
        let mut sector = [0; 512];
        disk::open(&host.shared(), path, ImageFormat::Vhdx, Access::Look)?.read_at(&mut sector, 0)?;
        Ok(sector)
    };
    assert_eq!(read(&killed).unwrap(), [1; 512]);
    image.write_at(&[2; 512], 1 << 20).unwrap();
    assert_eq!(length(&host), 0);
    killed.shared().open(side, Access::Write).unwrap().set_len((64 << 20) + 1).unwrap();
    let error = read(&killed).unwrap_err().to_string();
    assert!(error.contains("pending"), "{error}");
}

/// A base, and its child with a part of a block in it, after a flush.
fn child_with_a_sector(host: &MemHost) -> Arc<dyn Image> {
    let host = host.shared();
    let base = disk::create(&host, Path::new("/a.vhdx"), ImageFormat::Vhdx, &options(1, 512, 4 << 20)).unwrap();
    let child = disk::create_child(&host, Path::new("/b.avhdx"), &*base, None).unwrap();
    child.write_at(&[1; 512], 0).unwrap();
    child.flush().unwrap();
    child
}

#[test]
fn a_guests_flush_leaves_the_log_in_use_until_the_next() {
    let host = MemHost::new();
    let child = child_with_a_sector(&host);
    let log_in_use = || {
        let file = host.shared().open(Path::new("/b.avhdx"), Access::Look).unwrap();
        Headers::read(&RawFile::new(file).unwrap()).unwrap().log_in_use()
    };
    let shown = || {
        let image = disk::open(&host.shared(), Path::new("/b.avhdx"), ImageFormat::Vhdx, Access::Look).unwrap();
        let mut bytes = [0; 8 * 512];
        image.read_at(&mut bytes, 0).unwrap();
        bytes.chunks(512).map(|sector| sector[0]).collect::<Vec<_>>()
    };
    // How often the file is flushed is what a guest waits for.
    let flushes = |flush: &dyn Fn() -> disk::Result<()>| {
        let door = |skip| Fault { door: Some(Door::Flush), skip, kind: std::io::ErrorKind::Other, sticky: false };
        let skipped = 100;
        host.inject(door(skipped));
        flush().unwrap();
        let met = host.faults_met();
        let mut left = 0;
        let file = host.shared().open(Path::new("/b.avhdx"), Access::Look).unwrap();
        while host.faults_met() == met {
            let _ = file.flush();
            left += 1;
        }
        host.heal();
        skipped + 1 - left
    };
    assert!(!log_in_use());
    for sector in 1..4 {
        child.write_at(&[2; 512], sector * 512).unwrap();
        assert_eq!((flushes(&|| child.flush_logged()), log_in_use()), (2, true), "sector {sector}");
        assert_eq!(shown()[sector as usize], 2);
    }
    child.write_at(&[3; 512], 512).unwrap();
    assert_eq!((flushes(&|| child.flush_logged()), log_in_use()), (1, false), "nothing but data has changed");
    child.write_at(&[4; 512], 5 * 512).unwrap();
    child.flush_logged().unwrap();
    child.write_at(&[4; 512], 6 * 512).unwrap();
    assert_eq!((flushes(&|| child.flush()), log_in_use()), (3, false));
    child.write_at(&[4; 512], 7 * 512).unwrap();
    child.flush_logged().unwrap();
    child.freeze().unwrap();
    assert!(!log_in_use());
    assert_eq!(shown(), [1, 3, 2, 2, 0, 4, 4, 4]);
}

#[test]
fn whoever_looks_at_a_disk_that_is_written_sees_what_was_flushed() {
    let host = MemHost::new();
    let child = child_with_a_sector(&host);
    let looks = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut random = Random::new(7);
            for round in 0..20_000 {
                child.write_at(&[9; 512], (1 + random.below(8000)) * 512).unwrap();
                child.flush_logged().unwrap();
                if round % 100 == 0 {
                    child.trim(512, (4 << 20) - 512).unwrap();
                }
            }
        });
        let mut looks = 0;
        while !writer.is_finished() {
            let image = disk::open(&host.shared(), Path::new("/b.avhdx"), ImageFormat::Vhdx, Access::Look).unwrap();
            let mut bytes = [0; 512];
            image.read_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, [1; 512]);
            looks += 1;
        }
        looks
    });
    assert!(looks > 0);
}

/// What a flush failed to write is in the log still.
#[test]
fn a_flush_that_fails_after_a_guests_loses_nothing() {
    for seed in 0..20 {
        let host = MemHost::new();
        host.set_failed_flush_drops(true);
        let child = child_with_a_sector(&host);
        child.write_at(&[2; 512], 512).unwrap();
        child.flush_logged().unwrap();
        host.inject(Fault { door: Some(Door::Flush), skip: 0, kind: std::io::ErrorKind::Other, sticky: false });
        child.flush_logged().unwrap_err();
        for again in [child.flush_logged(), child.flush(), child.write_at(&[3; 512], 1024)] {
            assert!(again.unwrap_err().to_string().contains("a flush failed before"));
        }
        std::mem::forget(child);
        let host = host.crash(CrashMode::PowerLoss, seed).shared();
        let image = disk::open(&host, Path::new("/b.avhdx"), ImageFormat::Vhdx, Access::Write).unwrap();
        let mut bytes = [0; 1024];
        image.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [[1; 512], [2; 512]].concat()[..], "seed {seed}");
    }
}

#[test]
fn fixed_and_large_disks_have_the_right_tables() {
    let host = MemHost::new().shared();
    // More payload entries than one MiB of BAT holds, and bitmap entries between them.
    let big = options(1, 512, 300 << 30);
    let image = disk::create(&host, Path::new("/big.vhdx"), ImageFormat::Vhdx, &big).unwrap();
    let offsets: Vec<u64> = (0..8).map(|n| n * (40 << 30) + 512).collect();
    for &offset in &offsets {
        image.write_at(&[9; 512], offset).unwrap();
    }
    image.grow(ByteCount::gib(900)).unwrap();
    image.write_at(&[8; 512], 899 << 30).unwrap();
    drop(image);
    let image = disk::open(&host, Path::new("/big.vhdx"), ImageFormat::Vhdx, Access::Write).unwrap();
    let data: Vec<_> = image.extents(0, 900 << 30).unwrap();
    let data: Vec<u64> = data.iter().filter(|e| matches!(e.presence, Presence::Data { .. })).map(|e| e.offset).collect();
    let blocks: Vec<u64> = offsets.iter().map(|o| o >> 20 << 20).chain([899 << 30]).collect();
    assert_eq!(data, blocks);
    assert_eq!(image.check().unwrap(), Vec::<String>::new());

    let fixed = CreateOptions { kind: ImageType::Fixed, ..options(1, 512, 5 << 20) };
    let image = disk::create(&host, Path::new("/fixed.vhdx"), ImageFormat::Vhdx, &fixed).unwrap();
    assert!(image.extents(0, 5 << 20).unwrap().iter().all(|e| matches!(e.presence, Presence::Data { .. })));
    assert_eq!(image.info().kind, ImageType::Fixed);
}

#[test]
fn wrong_sizes_are_refused_and_leave_nothing() {
    let host = MemHost::new();
    for wrong in [
        options(3, 512, 1 << 20),
        options(512, 512, 1 << 20),
        options(1, 1024, 1 << 20),
        options(1, 512, 100),
        options(1, 512, 0),
    ] {
        let error = disk::create(&host.shared(), Path::new("/a.vhdx"), ImageFormat::Vhdx, &wrong).unwrap_err();
        assert!(matches!(*error.kind, DiskErrorKind::Refused(_)), "{error}");
    }
    assert_eq!(host.files(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn readers_and_writers_of_several_threads_see_whole_sectors() {
    let host = MemHost::new().shared();
    let base = disk::create(&host, Path::new("/b.vhdx"), ImageFormat::Vhdx, &options(1, 512, 8 << 20)).unwrap();
    let image: Arc<dyn Image> = disk::create_child(&host, Path::new("/a.vhdx"), &*base, Some(ByteCount::mib(1))).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let image = image.clone();
            scope.spawn(move || {
                let mut random = Random::new(thread);
                // Each thread has its own sectors of every block.
                for round in 1..200_u64 {
                    let offset = (random.below(8 * 512) * 4 + thread) * 512;
                    let bytes = [(round % 255) as u8 + 1; 512];
                    image.write_at(&bytes, offset).unwrap();
                    if random.chance(1, 20) {
                        image.flush().unwrap();
                    }
                    let mut back = [0; 512];
                    image.read_at(&mut back, offset).unwrap();
                    assert_eq!(back, bytes, "thread {thread}, round {round}");
                }
            });
        }
    });
    assert_eq!(image.check().unwrap(), Vec::<String>::new());
}
