use std::io::ErrorKind;
use std::path::Path;

use super::*;
use crate::host_file::publish_file;
use crate::testing::for_each_crash_point;

fn read(host: &MemHost, path: &str) -> Vec<u8> {
    crate::host_file::read_file(host, Path::new(path), 1 << 30).unwrap()
}

#[test]
fn files_are_written_read_renamed_and_removed() {
    let host = MemHost::new();
    host.create_dir_all(Path::new("/a/b")).unwrap();
    let file = host.create_new(Path::new("/a/b/one")).unwrap();
    file.write_all_at(b"hello", 3).unwrap();
    assert_eq!(file.len().unwrap(), 8);
    assert_eq!(read(&host, "/a/b/../b/one"), b"\0\0\0hello");
    assert_eq!(file.read_exact_at(&mut [0; 2], 7).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(host.create_new(Path::new("/a/b/one")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    host.rename(Path::new("/a"), Path::new("/c")).unwrap();
    assert!(!host.exists(Path::new("/a/b/one")) && host.exists(Path::new("/c/b/one")));
    assert_eq!(host.list(Path::new("/c/b")).unwrap().len(), 1);
    host.remove_file(Path::new("/c/b/one")).unwrap();
    assert_eq!(file.len().unwrap(), 8, "an open file stays");
    host.remove_dir_all(Path::new("/c")).unwrap();
    assert!(host.list(Path::new("/")).unwrap().is_empty());
    assert_eq!(host.open(Path::new("/c"), Access::Look).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn locks_exclude_each_other_and_end_with_their_handle() {
    let host = MemHost::new();
    let path = Path::new("/f");
    let writer = host.create_new(path).unwrap();
    assert_eq!(host.open(path, Access::Read).unwrap_err().kind(), ErrorKind::WouldBlock);
    host.open(path, Access::Look).unwrap();
    writer.relock(Access::Read).unwrap();
    let reader = host.open(path, Access::Read).unwrap();
    assert_eq!(reader.write_all_at(b"x", 0).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(writer.relock(Access::Write).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(reader);
    writer.relock(Access::Write).unwrap();
    drop(writer);
    let lock = host.lock(path).unwrap();
    assert!(host.lock(path).is_err());
    drop(lock);
    host.lock(path).unwrap();
}

#[test]
fn links_lead_elsewhere_and_loops_end() {
    let host = MemHost::new();
    host.create_dir_all(Path::new("/real/inside")).unwrap();
    host.create_new(Path::new("/real/inside/f")).unwrap();
    host.link(Path::new("/short"), Path::new("real/inside")).unwrap();
    assert_eq!(host.canonical(Path::new("/short/../inside/f")).unwrap(), Path::new("/real/inside/f"));
    host.link(Path::new("/loop"), Path::new("/loop")).unwrap();
    assert!(host.canonical(Path::new("/loop/x")).is_err());
}

#[test]
fn a_kill_keeps_and_a_power_loss_loses_what_is_unflushed() {
    let host = MemHost::new();
    let file = host.create_new(Path::new("/f")).unwrap();
    file.write_all_at(&[1; 2048], 0).unwrap();
    file.flush().unwrap();
    host.flush_dir(Path::new("/")).unwrap();
    file.write_all_at(&[2; 2048], 0).unwrap();
    host.rename(Path::new("/f"), Path::new("/g")).unwrap();

    let killed = host.crash(CrashMode::Kill, 0);
    assert_eq!((read(&killed, "/g"), killed.boot_id()), (vec![2; 2048], host.boot_id()));
    killed.open(Path::new("/g"), Access::Write).expect("the lock is gone");

    let (mut old, mut new, mut torn, mut renamed) = (0, 0, 0, 0);
    for seed in 0..100 {
        let lost = host.crash(CrashMode::PowerLoss, seed);
        assert_ne!(lost.boot_id(), host.boot_id());
        let path = if lost.exists(Path::new("/g")) { "/g" } else { "/f" };
        renamed += u32::from(path == "/g");
        let bytes = read(&lost, path);
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])), "torn inside a sector");
        match (bytes.contains(&1), bytes.contains(&2)) {
            (true, false) => old += 1,
            (false, _) => new += 1,
            _ => torn += 1,
        }
    }
    assert!(old > 0 && new > 0 && torn > 0 && renamed > 0 && renamed < 100, "{old} {new} {torn} {renamed}");
}

#[test]
fn faults_come_when_they_were_ordered() {
    let host = MemHost::new();
    let file = host.create_new(Path::new("/f")).unwrap();
    let fault = |door, skip, sticky| Fault { door, skip, kind: ErrorKind::PermissionDenied, sticky };
    host.inject(fault(None, 1, false));
    file.write_all_at(&[1; 10], 0).unwrap();
    assert_eq!(file.flush().unwrap_err().kind(), ErrorKind::PermissionDenied);
    file.flush().unwrap();
    host.inject(fault(Some(Door::Read), 1, true));
    file.read_exact_at(&mut [0], 0).unwrap();
    for _ in 0..2 {
        file.read_exact_at(&mut [0], 0).unwrap_err();
        host.list(Path::new("/")).unwrap_err();
        file.write_all_at(&[1; 10], 0).unwrap();
    }
    assert_eq!(host.faults_met(), 5);
    host.heal();
    file.read_exact_at(&mut [0], 0).unwrap();
    host.crash_at(host.steps());
    assert!(!host.has_crashed() && file.set_len(0).is_err() && host.has_crashed());
    assert!(file.read_exact_at(&mut [0], 0).is_err() && !host.exists(Path::new("/f")));
    assert_eq!(read(&host.crash(CrashMode::Kill, 0), "/f").len(), 10);
}

#[test]
fn a_full_volume_takes_what_fits_and_gets_holes_back() {
    let host = MemHost::new();
    let file = host.create_new(Path::new("/f")).unwrap();
    file.write_all_at(&[1; 10], 0).unwrap();
    host.set_capacity(Some(ByteCount(8192)));
    host.watch_peak();
    assert_eq!(file.write_all_at(&[2; 12288], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!((read(&host, "/f"), host.free_bytes(Path::new("/")).unwrap()), (vec![2; 8192], ByteCount(0)));
    file.write_all_at(&[3; 4096], 4096).expect("what is there can be written over");
    assert_eq!((host.used(), host.peak()), (ByteCount(8192), ByteCount(8192)));
    host.set_can_punch(false);
    assert!(!file.punch_hole(0, 4096).unwrap());
    assert!(file.write_all_at(&[1; 4096], 8192).is_err());
    host.set_can_punch(true);
    assert!(file.punch_hole(0, 4096).unwrap());
    assert_eq!(file.held_bytes().unwrap(), ByteCount(4096));
    file.write_all_at(&[1; 4096], 8192).unwrap();
    host.remove_file(Path::new("/f")).unwrap();
    assert_eq!(host.used(), ByteCount(8192), "an open file takes its space until it is closed");
    drop(file);
    assert_eq!((host.used(), host.peak()), (ByteCount(0), ByteCount(8192)));
}

#[test]
fn a_failed_flush_may_drop_what_it_was_to_make_durable() {
    for drops in [false, true] {
        let host = MemHost::new();
        host.set_failed_flush_drops(drops);
        let file = host.create_new(Path::new("/f")).unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.flush().unwrap();
        host.flush_dir(Path::new("/")).unwrap();
        file.write_all_at(&[2; 2048], 0).unwrap();
        host.inject(Fault { door: Some(Door::Flush), skip: 0, kind: ErrorKind::Other, sticky: false });
        file.flush().unwrap_err();
        file.write_all_at(&[3; 1024], 3072).unwrap();
        file.flush().unwrap();
        let expected = if drops { [1, 1, 1, 3] } else { [2, 2, 1, 3] };
        for seed in 0..8 {
            let bytes = read(&host.crash(CrashMode::PowerLoss, seed), "/f");
            assert_eq!(bytes, expected.map(|byte| [byte; 1024]).concat());
        }
        assert_eq!(read(&host, "/f"), [2, 2, 1, 3].map(|byte| [byte; 1024]).concat(), "the kernel shows it");
    }
}

/// Two writes of one file, unflushed: a power loss keeps any of the two without the other.
#[test]
fn a_power_loss_keeps_any_subset_of_what_is_unflushed() {
    let host = MemHost::new();
    let file = host.create_new(Path::new("/f")).unwrap();
    file.write_all_at(&[1; 1024], 0).unwrap();
    file.flush().unwrap();
    host.flush_dir(Path::new("/")).unwrap();
    file.write_all_at(&[2; 512], 0).unwrap();
    file.write_all_at(&[2; 512], 512).unwrap();
    let after = |seed| read(&host.crash(CrashMode::PowerLoss, seed), "/f");
    let found: std::collections::BTreeSet<_> = (0..100).map(after).map(|bytes| (bytes[0], bytes[512])).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [(1, 1), (1, 2), (2, 1), (2, 2)]);
}

#[test]
fn large_files_are_cheap() {
    let file = MemHost::new().create_new(Path::new("/f")).unwrap();
    file.set_len(1 << 46).unwrap();
    file.write_all_at(&[7; 3], (1 << 46) - 3).unwrap();
    assert_eq!(file.held_bytes().unwrap(), ByteCount(4096));
}

#[test]
fn publish_file_is_old_or_new_at_every_crash_point() {
    let path = Path::new("/machine.json");
    let points = std::cell::Cell::new(0);
    for_each_crash_point(
        1,
        |host| publish_file(host, path, &[1; 5000]).unwrap(),
        |host, ()| publish_file(host, path, &[2; 7000]).is_ok(),
        |host, (), done, point| {
            let bytes = read(host, "/machine.json");
            assert!(bytes == [2; 7000] || (!done && bytes == [1; 5000]), "{point:?}");
            points.set(points.get() + 1);
        },
    );
    assert_eq!(points.get(), 6 * 3, "create, write, flush, rename, flush of the folder, and the end");
}

#[test]
fn a_crash_test_finds_a_missing_flush() {
    let found = std::panic::catch_unwind(|| {
        for_each_crash_point(
            1,
            |host| {
                host.create_new(Path::new("/f")).unwrap();
                host.flush_dir(Path::new("/")).unwrap();
            },
            |host, ()| host.open(Path::new("/f"), Access::Write).unwrap().write_all_at(&[1; 4096], 0).is_ok(),
            |host, (), done, _| assert!(!done || read(host, "/f") == [1; 4096]),
        );
    });
    assert!(found.is_err());
}
