//! The built program, by its command line: what it does, what it says, and how it ends.
#![cfg(unix)]

mod home;

use std::io::Write as _;
use std::process::Stdio;

use home::{Home, text};
use serde_json::Value;

/// A machine with three snapshots and writes between them.
fn three() -> Home {
    let home = Home::new();
    home.done(&["machine", "create", "WEB01", "--disk", "32M", "--memory", "2M", "--seed", "7"]);
    for label in ["one", "two", "three"] {
        home.done(&["workload", "run", "WEB01", "--seconds", "0.3"]);
        home.done(&["snapshot", "take", "WEB01", label]);
    }
    home.done(&["workload", "run", "WEB01", "--seconds", "0.3"]);
    home
}

#[test]
fn a_stopped_machine_by_verbs() {
    let home = three();
    assert_eq!(home.labels(), ["snapshot one", "snapshot two", "snapshot three", "now Now"]);
    home.verify(&["one", "two", "three"]);

    // What would be done is said, and isn't done.
    let plan = home.json(0, &["snapshot", "delete", "WEB01", "two", "--what-if"]);
    let cost = &plan["plan"]["delete"];
    assert_eq!(cost["merges"]["merges"], 1);
    assert!(cost["before"]["depth"].as_u64() > cost["after"]["depth"].as_u64(), "{plan}");
    assert_eq!(home.labels().len(), 4);

    home.done(&["snapshot", "delete", "WEB01", "two"]);
    assert_eq!(home.labels(), ["snapshot one", "ghost two", "snapshot three", "now Now"]);
    assert!(home.rows()[1]["ghost"]["merge_due"].as_bool().expect("known"));
    assert!(home.done(&["tree", "WEB01"]).contains("still held, merge due"));
    home.done(&["snapshot", "undelete", "WEB01", "two"]);
    assert_eq!(home.labels(), ["snapshot one", "snapshot two", "snapshot three", "now Now"]);

    // What was planned is what is moved.
    home.done(&["snapshot", "delete", "WEB01", "two"]);
    let planned = home.json(0, &["merge", "WEB01", "--what-if"])["plan"]["merge"]["total"].clone();
    // Nothing was merged here yet: the time is a guess, and says so.
    assert_eq!((&planned["merges"], text(&planned["time"]["basis"])), (&1.into(), "probe"), "{planned}");
    home.done(&["merge", "WEB01"]);
    assert_eq!(home.labels(), ["snapshot one", "snapshot three", "now Now"]);
    home.verify(&["one", "three"]);
    home.ends(3, &["merge", "WEB01"]);
    home.ends(2, &["snapshot", "undelete", "WEB01", "two"]);

    // Back, with what Now held kept first, and back again.
    home.done(&["snapshot", "apply", "WEB01", "one"]);
    assert_eq!(home.labels(), ["snapshot one", "snapshot three", "snapshot Before one", "now Now"]);
    let rows = home.rows();
    assert_eq!(rows[3]["parent"], rows[0]["id"]);
    assert!(text(&home.json(0, &["tree", "WEB01"])["power"]) == "off");
    home.verify(&["one", "three", "Before one"]);
    home.done(&["snapshot", "rename", "WEB01", "Before one", "kept"]);
    home.done(&["snapshot", "note", "WEB01", "kept", "a note"]);
    home.done(&["snapshot", "protect", "WEB01", "kept"]);
    home.ends(3, &["snapshot", "delete", "WEB01", "kept"]);
    home.done(&["snapshot", "protect", "WEB01", "kept", "--off"]);
    let kept = home.rows()[2].clone();
    assert_eq!((text(&kept["label"]), text(&kept["note"]), &kept["protected"]), ("kept", "a note", &false.into()));

    // By the beginning of its identifier; then out of the trash for good.
    home.done(&["snapshot", "delete", "WEB01", &text(&kept["id"])[..13]]);
    assert!(home.json(0, &["machine", "show", "WEB01"])["trash"].as_u64() > Some(0));
    home.done(&["trash", "empty", "WEB01"]);
    assert_eq!(home.json(0, &["machine", "show", "WEB01"])["trash"], 0);
    home.verify(&["one", "three"]);

    home.done(&["machine", "remove", "WEB01", "--delete-files"]);
    assert_eq!(home.json(0, &["machine", "list"]), Value::Array(vec![]));
}

#[test]
fn a_running_machine_has_an_owner_that_others_can_ask() {
    let home = three();
    home.done(&["machine", "start", "WEB01"]);
    assert_eq!(text(&home.json(0, &["machine", "show", "WEB01"])["power"]), "running");
    let refused = home.json(3, &["machine", "start", "WEB01"]);
    assert_eq!(text(&refused["error"]["kind"]), "rule");

    let taken = home.json(0, &["snapshot", "take", "WEB01", "live"]);
    assert_eq!(taken["latency"]["memory"], 2 << 20);
    assert!(taken["latency"]["pause"].as_f64().is_some_and(|pause| pause > 0.0), "{taken}");
    home.done(&["workload", "bad-update", "WEB01"]);
    home.done(&["snapshot", "apply", "WEB01", "live", "--no-safety"]);
    assert_eq!(text(&home.json(0, &["machine", "show", "WEB01"])["power"]), "running");
    home.done(&["machine", "stop", "WEB01"]);
    assert_ne!(text(&home.json(0, &["machine", "show", "WEB01"])["power"]), "running");
    home.ends(3, &["machine", "stop", "WEB01"]);
    let live = home.json(0, &["workload", "verify", "WEB01", "--at", "live"]);
    assert_eq!((&live["memory"], &live["wrong"]), (&(2 << 20).into(), &Value::Array(vec![])));
    home.verify(&["one", "two", "three"]);
}

#[test]
fn a_disk_is_made_larger() {
    let home = three();
    let size = || home.json(0, &["machine", "show", "WEB01"])["disks"][0]["size"].as_u64().expect("a size");
    let before = size();
    home.done(&["machine", "resize", "WEB01", "disk0", "64M", "--what-if"]);
    assert_eq!(size(), before);
    home.done(&["machine", "resize", "WEB01", "disk0", "64M"]);
    assert_eq!(size(), 64 << 20);
    home.ends(3, &["machine", "resize", "WEB01", "disk0", "32M"]);
    home.ends(2, &["machine", "resize", "WEB01", "disk7", "96M"]);
    home.done(&["snapshot", "apply", "WEB01", "one", "--no-safety"]);
    assert_eq!(size(), before, "a snapshot keeps the size that it had");
}

#[test]
fn failures_have_their_status_and_say_why() {
    let home = three();
    for args in [&["tree", "NOPE"][..], &["snapshot", "apply", "WEB01", "nope"], &["merge", "WEB01", "--disk", "disk9"]] {
        let said = home.json(2, args);
        assert_eq!(text(&said["error"]["kind"]), "usage", "{args:?}");
    }
    assert!(home.ends(2, &["machine", "frobnicate"]).is_empty());
    for args in [
        &["machine", "create", "WEB01", "--disk", "1M"][..],
        &["snapshot", "take", "WEB01", "one"],
        &["snapshot", "rename", "WEB01", "one", "two"],
        &["snapshot", "undo-apply", "WEB01"],
    ] {
        let said = home.json(3, args);
        assert_eq!(text(&said["error"]["kind"]), "rule", "{args:?}");
        assert!(text(&said["error"]["reason"]).len() > 10);
    }
    let said = home.json(1, &["disk", "info", "nothing.vhdx"]);
    assert_eq!(text(&said["error"]["kind"]), "failed");
}

fn written(home: &Home, file: &str, offset: &str, bytes: &[u8]) -> Option<i32> {
    let mut child = home.command(&["disk", "write", file, "--offset", offset]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program starts");
    // A refusal may come before everything is taken.
    let _ = child.stdin.take().expect("its input").write_all(bytes);
    child.wait().expect("it ends").code()
}

fn hash(home: &Home, file: &str) -> String {
    text(&home.json(0, &["disk", "hash", file])["sha256"]).to_owned()
}

#[test]
fn images_on_their_own() {
    let home = Home::new();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    home.done(&["disk", "create", "a.vhdx", "--size", "16M", "--block-size", "1M"]);
    home.ends(3, &["disk", "create", "a.vhdx", "--size", "16M"]);
    home.ends(2, &["disk", "create", "a.qcow2", "--size", "16M"]);
    home.done(&["disk", "create", "a.vhd", "--size", "16M"]);
    home.ends(2, &["disk", "create", "b.avhdx", "--parent", "a.vhd"]);
    home.ends(2, &["disk", "create", "c.avhd", "--parent", "a.vhdx"]);
    home.done(&["disk", "create", "w.vhdx", "--size", "16M", "--what-if"]);
    assert!(!home.0.path().join("w.vhdx").exists());
    assert_eq!(written(&home, "a.vhdx", "100", &bytes), Some(0));
    home.done(&["disk", "create", "b.avhdx", "--parent", "a.vhdx"]);
    assert_eq!(written(&home, "b.avhdx", "5M", b"hello"), Some(0));
    assert_eq!(written(&home, "a.vhdx", "0", b"no"), Some(3), "its child would show something else");
    assert_eq!(written(&home, "b.avhdx", "16M", b"x"), Some(2), "past the end");

    assert_eq!(home.json(0, &["disk", "info", "b.avhdx"])["chain"].as_array().map(Vec::len), Some(2));
    assert_eq!(home.json(0, &["disk", "check", "b.avhdx"])["problems"], Value::Array(vec![]));
    let map = home.json(0, &["disk", "map", "b.avhdx"]);
    let lengths = map["stretches"].as_array().expect("stretches").iter().map(|s| s["length"].as_u64().expect("a number"));
    assert_eq!(lengths.sum::<u64>(), 16 << 20);
    let read =
        |file: &str, offset: &str, length: &str| home.run(&["disk", "read", file, "--offset", offset, "--length", length]).stdout;
    assert!(read("b.avhdx", "100", "3000000") == bytes);
    assert_eq!(read("b.avhdx", "5M", "6"), b"hello\0");
    home.ends(2, &["disk", "read", "b.avhdx", "--offset", "16M", "--length", "1"]);

    let before = hash(&home, "b.avhdx");
    let plan = home.json(0, &["disk", "merge", "b.avhdx", "--what-if"]);
    let merged = home.json(0, &["disk", "merge", "b.avhdx"]);
    assert_eq!(plan["plan"]["merge"]["bytes"]["data"], merged["moved"]);
    assert_eq!(merged["finished"], true);
    assert!(!home.0.path().join("b.avhdx").exists());
    assert_eq!(hash(&home, "a.vhdx"), before);
}

#[test]
fn a_parent_outside_is_reached_only_where_it_is_allowed() {
    let home = Home::new();
    let folder = |name: &str| std::fs::create_dir(home.0.path().join(name)).expect("a folder");
    folder("base");
    folder("leaf");
    home.done(&["disk", "create", "base/a.vhdx", "--size", "4M"]);
    home.done(&["disk", "create", "leaf/b.avhdx", "--parent", "base/a.vhdx"]);
    for verb in ["hash", "info", "inspect"] {
        let output = home.run(&["disk", verb, "leaf/b.avhdx"]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.trim_end().ends_with("open one with both in it (--parents-in DIR)"), "{verb}: {told}");
        home.done(&["disk", verb, "leaf/b.avhdx", "--parents-in", "base"]);
    }
    let tree = home.ends(0, &["tree", "--folder", "base"]);
    assert!(tree.starts_with("a: memory not known\n"), "{tree}");
}

/// All files below a folder whose names end so.
fn ending(folder: &std::path::Path, end: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let found = entries.flat_map(|path| match path.is_dir() {
        true => ending(&path, end),
        false => Some(path).filter(|path| path.to_string_lossy().ends_with(end)).into_iter().collect(),
    });
    found.collect()
}

#[test]
fn a_machine_of_vhds() {
    let home = Home::new();
    let create = ["machine", "create", "WEB01", "--disk", "32M", "--memory", "2M", "--seed", "7", "--format", "vhd"];
    home.done(&[&create[..], &["--what-if"]].concat());
    home.ends(3, &["machine", "create", "WEB02", "--disk", "2041G", "--format", "vhd"]);
    home.ends(2, &["machine", "show", "WEB02"]);
    home.done(&create);
    for label in ["one", "two", "three"] {
        home.done(&["workload", "run", "WEB01", "--seconds", "0.3"]);
        home.done(&["snapshot", "take", "WEB01", label]);
    }
    home.done(&["workload", "run", "WEB01", "--seconds", "0.3"]);
    home.verify(&["one", "two", "three"]);
    home.done(&["snapshot", "delete", "WEB01", "two"]);
    home.done(&["merge", "WEB01"]);
    home.done(&["snapshot", "apply", "WEB01", "one", "--safety", "kept"]);
    home.verify(&["one", "three", "kept"]);
    let library = home.0.path().join("data");
    let is_kept = |path: &std::path::PathBuf| path.iter().all(|part| part != "Deleted");
    let leaves: Vec<_> = ending(&library, ".avhd").into_iter().filter(is_kept).collect();
    assert_eq!((ending(&library, ".vhd").len(), leaves.len()), (1, 3), "{leaves:?}");
    assert_eq!(ending(&library, "vhdx"), Vec::<std::path::PathBuf>::new());

    // Each snapshot as one file of the other format.
    for (number, image) in leaves.iter().enumerate() {
        let (image, new) = (image.to_str().expect("text"), format!("{number}.vhdx"));
        let folder = library.to_str().expect("text");
        home.ends(1, &["disk", "convert", image, &new]);
        home.done(&["disk", "convert", image, &new, "--parents-in", folder]);
        let theirs = home.json(0, &["disk", "hash", image, "--parents-in", folder]);
        assert_eq!(hash(&home, &new), text(&theirs["sha256"]));
    }
}

#[test]
fn images_from_one_format_to_another() {
    let home = Home::new();
    let there = |name: &str| home.0.path().join(name).exists();
    home.done(&["disk", "create", "a.vhd", "--size", "16M"]);
    assert_eq!(written(&home, "a.vhd", "100", &[7; 3_000_000]), Some(0));
    home.done(&["disk", "create", "b.avhd", "--parent", "a.vhd"]);
    assert_eq!(written(&home, "b.avhd", "5M", b"hello"), Some(0));
    let disk = hash(&home, "b.avhd");
    let convert = |from: &str, to: &str, more: &[&str]| {
        let said = home.json(0, &[&["disk", "convert", from, to], more].concat());
        assert_eq!(said["finished"], true, "{said}");
        said["written"].as_u64().expect("a number")
    };
    home.done(&["disk", "convert", "b.avhd", "w.vhdx", "--what-if"]);
    assert!(!there("w.vhdx"));
    assert!((3_000_000..4 << 20).contains(&convert("b.avhd", "c.vhdx", &[])));
    convert("c.vhdx", "d.raw", &[]);
    convert("d.raw", "e.vhd", &["--raw", "--type", "fixed"]);
    assert_eq!(home.json(0, &["disk", "info", "e.vhd"])["chain"][0]["image"]["kind"], "fixed");
    convert("e.vhd", "f.vhd", &[]);
    home.done(&["disk", "flatten", "b.avhd", "g.vhd"]);
    for name in ["c.vhdx", "e.vhd", "f.vhd", "g.vhd"] {
        assert_eq!(hash(&home, name), disk, "{name}");
        assert_eq!(home.json(0, &["disk", "check", name])["problems"], Value::Array(vec![]));
        assert_eq!(home.json(0, &["disk", "info", name])["chain"].as_array().map(Vec::len), Some(1));
    }
    assert_eq!(std::fs::metadata(home.0.path().join("d.raw")).expect("a file").len(), 16 << 20);

    // What can't be is refused, and nothing is left of it.
    home.ends(3, &["disk", "convert", "b.avhd", "c.vhdx"]);
    home.ends(2, &["disk", "convert", "b.avhd", "new.disk"]);
    home.ends(2, &["disk", "flatten", "b.avhd", "new.vhdx"]);
    home.ends(1, &["disk", "convert", "nothing.vhd", "new.vhdx"]);
    home.done(&["disk", "create", "large.vhdx", "--size", "2041G"]);
    home.ends(3, &["disk", "convert", "large.vhdx", "new.vhd"]);
    home.done(&["disk", "create", "coarse.vhdx", "--size", "16M", "--sector-size", "4096"]);
    home.ends(3, &["disk", "convert", "coarse.vhdx", "new.vhd"]);
    home.ends(2, &["disk", "create", "new.avhdx", "--parent", "a.vhd"]);
    home.ends(3, &["disk", "create", "new.vhd", "--size", "2041G"]);
    let left = ending(home.0.path(), ".new").len() + ending(home.0.path(), ".pending").len();
    assert!(!["new.disk", "new.vhdx", "new.vhd", "new.avhdx"].iter().any(|name| there(name)) && left == 0);
}
