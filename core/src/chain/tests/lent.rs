//! While a run is lent for merging, other programs can open every image: no flush leaves a log in use.

use std::io::ErrorKind;
use std::path::Path;

use super::*;
use crate::disk::{ImageFormat, create, create_child};
use crate::testing::{Door, Fault, MemHost};

fn chain(host: &MemHost) -> Arc<Chain> {
    let shared = host.shared();
    let base = create(&shared, "/base.vhdx".as_ref(), ImageFormat::Vhdx, &CreateOptions::dynamic(ByteCount::mib(8))).unwrap();
    base.freeze().unwrap();
    let middle = create_child(&shared, "/middle.avhdx".as_ref(), &*base, None).unwrap();
    middle.write_at(&[1; 512], 0).unwrap();
    middle.freeze().unwrap();
    let leaf = create_child(&shared, "/leaf.avhdx".as_ref(), &*middle, None).unwrap();
    Arc::new(Chain::from_images(vec![base, middle, leaf]).unwrap())
}

/// Writes a sector and flushes; says whether another program would meet a log in the leaf (2.2.2: LogGuid of the header
/// with the larger SequenceNumber).
fn leaves_a_log(host: &MemHost, chain: &Chain, sector: u64) -> bool {
    chain.write_at(&[2; 512], sector * 512).unwrap();
    chain.flush().unwrap();
    has_a_log(host)
}

fn has_a_log(host: &MemHost) -> bool {
    let file = host.shared().open(Path::new("/leaf.avhdx"), Access::Look).unwrap();
    let header = |offset| {
        let mut bytes = [0; 64];
        file.read_exact_at(&mut bytes, offset).unwrap();
        (u64::from_le_bytes(bytes[8..16].try_into().unwrap()), bytes[48..64] != [0; 16])
    };
    header(64 << 10).max(header(128 << 10)).1
}

#[test]
fn flushes_leave_no_log_while_a_run_is_lent() {
    let host = MemHost::new();
    let chain = chain(&host);
    assert!(leaves_a_log(&host, &chain, 1));
    let run = LiveRun::begin(&chain, 0..2, 0, false).unwrap();
    assert!(!has_a_log(&host), "what stands above is emptied");
    assert!(!leaves_a_log(&host, &chain, 2));
    run.end().unwrap();
    assert!(leaves_a_log(&host, &chain, 3));
}

#[test]
fn a_run_that_cannot_be_lent_is_frozen_as_before() {
    let host = MemHost::new();
    let chain = chain(&host);
    assert!(leaves_a_log(&host, &chain, 1));
    host.inject(Fault { door: Some(Door::Flush), skip: 0, kind: ErrorKind::Other, sticky: false });
    LiveRun::begin(&chain, 0..2, 0, false).unwrap_err();
    let writable: Vec<bool> = chain.images().iter().map(|image| image.is_writable()).collect();
    assert_eq!(writable, [false, false, true]);
}

/// Changing steps of a flush after a sector of the leaf was written over, while a mark in the middle isn't durable yet,
/// beside those without one.
fn steps_of_flushes(run: std::ops::Range<usize>) -> (u64, u64) {
    let host = MemHost::new();
    let chain = chain(&host);
    let flush = || {
        let before = host.steps();
        chain.write_at(&[2; 512], 512).unwrap();
        chain.flush().unwrap();
        host.steps() - before
    };
    let run = LiveRun::begin(&chain, run, 0, false).unwrap();
    flush();
    let without = flush();
    let _ = run.release(1, &[(0, 512)]).unwrap();
    let with = flush();
    run.end().unwrap();
    (with, without)
}

#[test]
fn a_flush_covers_marks_only_where_the_run_is_written() {
    let (with, without) = steps_of_flushes(0..2);
    assert_eq!((with, without), (2, 2), "a write and a flush");
    let (with, without) = steps_of_flushes(0..3);
    assert!(with > without, "{with} steps, {without} without a mark");
}
