//! Merging plain files: content, names, other readers, and crashes at any step.

use std::path::{Path, PathBuf};

use super::machine::fill;
use crate::chain::{Chain, Gate};
use crate::disk::{self, CreateOptions, ImageFormat};
use crate::host_file::{Access, Host};
use crate::merge::{MergeError, merge_files};
use crate::testing::{CrashPoint, MemHost, Random, for_some_crash_points};
use crate::units::ByteCount;

fn path(name: &str) -> PathBuf {
    Path::new("/disks").join(name)
}

fn gate() -> Gate {
    Gate::new([PathBuf::from("/disks")])
}

fn content(host: &MemHost, name: &str) -> Vec<u8> {
    let chain = Chain::open(&host.shared(), &path(name), Access::Look, &gate()).unwrap_or_else(|error| panic!("{error}"));
    let mut bytes = vec![0; chain.virtual_size().0 as usize];
    chain.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// `x1` to `x4`, each reading through the one before, and `other`, which reads through `x3`.
fn build(host: &MemHost, seed: u64) {
    let random = &mut Random::new(seed);
    host.create_dir_all(Path::new("/disks")).unwrap();
    host.flush_dir(Path::new("/")).unwrap();
    let shared = host.shared();
    let options = CreateOptions { block_size: Some(ByteCount::mib(1)), ..CreateOptions::dynamic(ByteCount::mib(4)) };
    for (name, below) in [("x1", None), ("x2", Some("x1")), ("x3", Some("x2")), ("x4", Some("x3")), ("other", Some("x3"))] {
        let image = match below {
            None => disk::create(&shared, &path(name), ImageFormat::Vhdx, &options).unwrap(),
            Some(below) => {
                let below = disk::open(&shared, &path(below), ImageFormat::Vhdx, Access::Read).unwrap();
                disk::create_child(&shared, &path(name), &*below, None).unwrap()
            }
        };
        fill(&*image, random);
        image.freeze().unwrap();
    }
}

fn merge(host: &MemHost, top: &str, into: Option<&str>) -> Result<Option<crate::merge::Merged>, MergeError> {
    let into = into.map(path);
    merge_files(&host.shared(), &path(top), into.as_deref(), &gate(), &mut |_| true)
}

#[test]
fn a_file_is_merged_into_its_parent_or_further_down() {
    for (seed, into) in (0..6).zip([None, Some("x1")].into_iter().cycle()) {
        println!("seed {seed}");
        let host = MemHost::new();
        build(&host, seed);
        let (top, other, last) = (content(&host, "x3"), content(&host, "other"), content(&host, "x4"));
        merge(&host, "x3", into).unwrap().unwrap();
        let kept = into.unwrap_or("x2");
        assert_eq!(content(&host, kept), top, "{kept}");
        assert_eq!((content(&host, "other"), content(&host, "x4")), (other, last));
        let left: &[&str] = if into.is_some() { &["other", "x1", "x4"] } else { &["other", "x1", "x2", "x4"] };
        assert_eq!(host.files(), left.iter().map(|name| path(name)).collect::<Vec<_>>());
    }
}

#[test]
fn another_reader_in_between_is_named() {
    let host = MemHost::new();
    build(&host, 1);
    let before = host.files();
    let error = merge(&host, "x4", Some("x1")).unwrap_err().to_string();
    assert!(error.contains("/disks/other reads through /disks/x3"), "{error}");
    let error = merge(&host, "x3", Some("x4")).unwrap_err().to_string();
    assert!(error.contains("doesn't read through"), "{error}");
    assert_eq!(host.files(), before);
}

#[test]
fn a_merge_of_files_goes_on_after_a_crash() {
    let setup = |host: &MemHost| {
        build(host, 7);
        (content(host, "x3"), content(host, "other"))
    };
    let operation = |host: &MemHost, _: &(Vec<u8>, Vec<u8>)| {
        let _ = merge(host, "x3", Some("x1"));
    };
    let check = |host: &MemHost, (top, other): &(Vec<u8>, Vec<u8>), (), _: CrashPoint| {
        if host.exists(&path("x3")) {
            match merge(host, "x3", Some("x1")) {
                Ok(Some(_)) => {}
                other => panic!("{other:?}"),
            }
        } else if host.exists(&path(".x3.merge.json")) {
            merge(host, "x3", Some("x1")).unwrap();
        }
        assert!(content(host, "x1") == *top, "the merged image differs");
        assert!(content(host, "other") == *other, "the other image differs");
        assert_eq!(host.files(), ["other", "x1", "x4"].map(path));
    };
    for_some_crash_points(7, 30, setup, operation, check);
}
