//! Merging plain files: content, names, other readers, and crashes at any step.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::machine::fill;
use crate::chain::{Chain, Gate};
use crate::disk::{self, CreateOptions, ImageFormat};
use crate::host_file::{Access, Host, publish_file, read_file};
use crate::merge::copy::AT_ONCE_FROM;
use crate::merge::{MergeError, merge_files};
use crate::testing::{CrashMode, CrashPoint, MemHost, Random, for_some_crash_points};
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
    build_of(host, seed, ByteCount::mib(4));
}

fn build_of(host: &MemHost, seed: u64, size: ByteCount) {
    let random = &mut Random::new(seed);
    host.create_dir_all(Path::new("/disks")).unwrap();
    host.flush_dir(Path::new("/")).unwrap();
    let shared = host.shared();
    let options = CreateOptions { block_size: Some(ByteCount::mib(1)), ..CreateOptions::dynamic(size) };
    for (name, below) in [("x1", None), ("x2", Some("x1")), ("x3", Some("x2")), ("x4", Some("x3")), ("other", Some("x3"))] {
        let image = match below {
            None => disk::create(&shared, &path(name), ImageFormat::Vhdx, &options).unwrap(),
            Some(below) => {
                let below = disk::open(&shared, &path(below), ImageFormat::Vhdx, Access::Read).unwrap();
                disk::create_child(&shared, &path(name), &*below, None).unwrap()
            }
        };
        fill(&*image, random);
        if let Some(half) = size.0.checked_sub(ByteCount::mib(16).0).map(|rest| rest / 2) {
            image.write_at(&random.bytes(half as usize), random.below(half / 4096) * 4096).unwrap();
        }
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

/// A merge of `top` into `x1` that is cut off at `most` of its steps at most goes on to the end.
fn goes_on_after_a_crash(top: &str, size: ByteCount, most: u64) {
    let journal = path(&format!(".{top}.merge.json"));
    // What reads through another image of the run is in the way.
    let others: &[&str] = if top == "x3" { &["other", "x4"] } else { &[] };
    let setup = |host: &MemHost| {
        build_of(host, 7, size);
        if top == "x4" {
            host.remove_file(&path("other")).unwrap();
            host.flush_dir(Path::new("/disks")).unwrap();
        }
        (content(host, top), others.iter().map(|other| content(host, other)).collect())
    };
    let operation = |host: &MemHost, _: &(Vec<u8>, Vec<Vec<u8>>)| {
        let _ = merge(host, top, Some("x1"));
    };
    let check = |host: &MemHost, (shown, shown_by_others): &(Vec<u8>, Vec<Vec<u8>>), (), _: CrashPoint| {
        if host.exists(&path(top)) {
            match merge(host, top, Some("x1")) {
                Ok(Some(_)) => {}
                other => panic!("{other:?}"),
            }
        } else if host.exists(&journal) {
            merge(host, top, Some("x1")).unwrap();
        }
        assert!(content(host, "x1") == *shown, "the merged image differs");
        for (other, shown) in others.iter().zip(shown_by_others) {
            assert!(content(host, other) == *shown, "{other} differs");
        }
        let mut left: Vec<_> = others.iter().chain(&["x1"]).map(|name| path(name)).collect();
        left.sort();
        assert_eq!(host.files(), left);
    };
    for_some_crash_points(7, most, setup, operation, check);
}

#[test]
fn a_merge_of_files_goes_on_after_a_crash() {
    goes_on_after_a_crash("x3", ByteCount::mib(4), u64::MAX);
}

/// Two images between the target and the top: after a loss of power any of them may be back.
#[test]
fn a_merge_of_more_files_goes_on_after_a_crash() {
    goes_on_after_a_crash("x4", ByteCount::mib(4), u64::MAX);
}

#[test]
fn a_merge_that_works_on_its_images_side_by_side_goes_on_after_a_crash() {
    let host = MemHost::new();
    build_of(&host, 7, ByteCount::mib(48));
    let merged = merge(&host, "x3", Some("x1")).unwrap().unwrap();
    assert!(merged.progress.total >= AT_ONCE_FROM, "{merged:?}");
    goes_on_after_a_crash("x3", ByteCount::mib(48), 12);
}

/// Every file and what is in it.
fn files(host: &MemHost) -> Vec<(PathBuf, Vec<u8>)> {
    host.files().into_iter().map(|file| (file.clone(), read_file(host, &file, 64 << 20).unwrap())).collect()
}

#[test]
fn a_journal_names_only_files_of_its_merge() {
    let host = MemHost::new();
    build(&host, 3);
    host.create_dir_all(Path::new("/outside")).unwrap();
    publish_file(&host, Path::new("/outside/secret"), b"nobody's business").unwrap();
    publish_file(&host, &path("notes"), b"not an image").unwrap();
    let id = |name: &str| {
        let shared = host.shared();
        disk::open(&shared, &path(name), ImageFormat::Vhdx, Access::Look).unwrap().info().data_write_id
    };
    let list = |names: &[&str]| -> Vec<_> {
        let full = |name: &&str| if name.starts_with('/') { PathBuf::from(name) } else { path(name) };
        names.iter().map(|name| json!({ "file": full(name), "format": "vhdx" })).collect()
    };
    let nil = uuid::Uuid::nil();
    let make = |run: &[&str], children: &[&str], switch: bool, top: uuid::Uuid| {
        let (run, children) = (list(run), list(children));
        let ids: Vec<_> = run[1..].iter().map(|_| nil).collect();
        let files = json!({ "run": run, "target": 0, "kept": run[0]["file"], "parent": null, "data_write_id": top,
            "children": children });
        json!({ "format": "snaptree-file-merge", "run": run, "new_ids": ids, "children": children,
            "switch": if switch { files } else { json!(null) } })
    };
    let top = id("x3");
    for (journal, words) in [
        // Removed without a look, as the top is gone already.
        (make(&["x1", "notes", "gone"], &[], true, top), "about /disks/gone"),
        (make(&["x1", "x4", "x3"], &[], true, top), "doesn't read through the image below it"),
        (make(&["x1", "notes", "x3"], &[], true, top), "notes"),
        (make(&["x1", "x2", "x4"], &[], true, top), "about /disks/x4"),
        (make(&["x2", "x1", "x3"], &[], false, top), "doesn't read through the image below it"),
        (make(&["x1", "x3"], &[], false, top), "doesn't read through the image below it"),
        (make(&["x2", "x3"], &["x2"], true, top), "doesn't read through the top"),
        (make(&["x2", "x3"], &["x1"], false, top), "doesn't read through the top"),
        (make(&["x2", "x3"], &["/outside/secret"], false, top), "outside the folders"),
        (make(&["/outside/secret", "x3"], &[], false, top), "outside the folders"),
        (make(&["x3"], &[], false, top), "isn't the journal"),
        (json!({ "format": "else" }), "missing field"),
        (json!(null), "line 1"),
    ] {
        publish_file(&host, &path(".x3.merge.json"), journal.to_string().as_bytes()).unwrap();
        let before = files(&host);
        let error = merge(&host, "x3", Some("x1")).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert!(files(&host) == before, "{words}: something was changed");
    }
    // The top is gone: what stands between is no leftover of its merge.
    host.remove_file(&path("x3")).unwrap();
    let journal = make(&["x1", "x2", "x3"], &[], true, top);
    publish_file(&host, &path(".x3.merge.json"), journal.to_string().as_bytes()).unwrap();
    let before = files(&host);
    let error = merge(&host, "x3", Some("x1")).unwrap_err().to_string();
    assert!(error.contains("x1 isn't what stands for the top"), "{error}");
    assert!(files(&host) == before);
    let journal = make(&["x1", "x2", "x3"], &[], true, id("x1"));
    publish_file(&host, &path(".x3.merge.json"), journal.to_string().as_bytes()).unwrap();
    let before = files(&host);
    let error = merge(&host, "x3", Some("x1")).unwrap_err().to_string();
    assert!(error.contains("x2 isn't the image that the run had there"), "{error}");
    assert!(files(&host) == before);
}

#[test]
fn a_reader_that_a_journal_does_not_list_is_linked_too() {
    let host = MemHost::new();
    build(&host, 4);
    let kept = ["other", "x4"].map(|name| content(&host, name));
    let journal = path(".x3.merge.json");
    for in_switch in [false, true] {
        let cut = |step: u64| {
            let host = host.fork();
            host.crash_at(host.steps() + step);
            assert!(merge(&host, "x3", Some("x1")).is_err());
            let host = host.crash(CrashMode::Kill, 0);
            let text = read_file(&host, &journal, 1 << 20).ok()?;
            let value: Value = serde_json::from_slice(&text).unwrap();
            (value["switch"].is_object() == in_switch).then_some((host, value))
        };
        let (host, mut value) = (1..400).find_map(cut).unwrap();
        let listed = if in_switch { &mut value["switch"]["children"] } else { &mut value["children"] };
        assert_eq!(listed.as_array().unwrap().len(), 2);
        *listed = json!([]);
        publish_file(&host, &journal, value.to_string().as_bytes()).unwrap();
        merge(&host, "x3", Some("x1")).unwrap().unwrap();
        assert!(["other", "x4"].map(|name| content(&host, name)) == kept, "in the switch: {in_switch}");
    }
}
