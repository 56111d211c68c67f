//! Manifests and journals of strangers: an error with the file and the field, and every file as it was.

use serde_json::{Value, json};

use super::*;
use crate::host_file::{Host, publish_file, read_file};

const DIR: &str = "/lib/web";

/// A machine with snapshots A (with memory) and B, one more image in the trash, and a file outside.
fn machine() -> MemHost {
    let host = MemHost::new();
    let mut store = library(&host).create(&new_machine(1)).unwrap();
    write(&store, 0, 1);
    let prepared = store.prepare_take("A", "", &BTreeMap::new(), ByteCount::ZERO).unwrap();
    publish_file(&host, &prepared.memory_path, b"memory").unwrap();
    store.publish_take(&prepared, Some(ByteCount(6)), false, store.clock().now()).unwrap();
    drop(prepared);
    write(&store, 1, 2);
    let b = take(&mut store, "B");
    write(&store, 2, 3);
    store.apply(b).unwrap();
    drop(store);
    host.create_dir_all(Path::new("/outside")).unwrap();
    publish_file(&host, Path::new("/outside/secret"), b"nobody's business").unwrap();
    host
}

/// Every file and what is in it, but for locks.
fn files(host: &MemHost) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let files = host.files().into_iter().filter(|file| file.extension().is_none_or(|end| end != "lock"));
    files.map(|file| (file.clone(), read_file(host, &file, 64 << 20).unwrap())).collect()
}

fn text(host: &MemHost) -> String {
    String::from_utf8(read_file(host, &Path::new(DIR).join("machine.json"), 1 << 20).unwrap()).unwrap()
}

/// Neither looked at nor opened, with these words, and nothing is changed.
fn refused(host: &MemHost, name: &str, content: &str, words: &[&str]) {
    publish_file(host, &Path::new(DIR).join(name), content.as_bytes()).unwrap();
    let before = files(host);
    let mut errors = vec![MachineStore::open(&host.shared(), &clock(), Path::new(DIR)).unwrap_err().to_string()];
    if name == "machine.json" {
        errors.push(MachineStore::look(&host.shared(), Path::new(DIR)).unwrap_err().to_string());
    }
    for error in errors {
        assert!(error.contains(DIR) && words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }
    assert!(files(host) == before, "{words:?}: something was changed");
}

#[test]
fn manifests_that_cannot_be_are_named() {
    let host = machine();
    let good = text(&host);
    let value: Value = serde_json::from_str(&good).unwrap();
    let (image, snapshot) = ("/images", "/snapshots");
    let id_of = |map: &str| value.pointer(map).unwrap().as_object().unwrap().keys().next().unwrap().clone();
    let (image, snapshot) = (format!("{image}/{}", id_of(image)), format!("{snapshot}/{}", id_of(snapshot)));
    let disk = format!("{snapshot}/images/disk0");
    for (place, new, word) in [
        (format!("{image}/file"), json!("../../outside/secret"), "stay inside"),
        (format!("{image}/file"), json!("/outside/secret"), "stay inside"),
        (format!("{image}/file"), json!("a\0b"), "stay inside"),
        (format!("{image}/file"), json!("a\\b"), "stay inside"),
        (format!("{image}/file"), json!("."), "stay inside"),
        (format!("{image}/file"), json!(""), "empty"),
        (format!("{image}/file"), json!("x".repeat(5000)), "longer than"),
        (format!("{image}/file"), json!("machine.json"), "another purpose"),
        (format!("{image}/parent"), json!(uuid::Uuid::nil()), "there is no image"),
        (format!("{image}/parent"), json!(id_of("/images")), "circle"),
        (format!("{image}/format"), json!("raw"), "unknown variant"),
        (format!("{snapshot}/parent"), json!(uuid::Uuid::nil()), "there is no snapshot"),
        (format!("{snapshot}/parent"), json!(id_of("/snapshots")), "circle"),
        (format!("{snapshot}/label"), json!("a\u{7}b"), "control"),
        (disk, json!(uuid::Uuid::nil()), "there is no image"),
        ("/now/parent".into(), json!(uuid::Uuid::nil()), "there is no snapshot"),
        ("/trash/0/file".into(), json!("Deleted/../x"), "stay inside"),
        ("/trash/0/file".into(), json!("Snapshots/x"), "Deleted"),
        ("/generation".into(), json!(u64::MAX), "generation"),
        ("/generation".into(), json!(-1), "line "),
        ("/generation".into(), json!(1e300), "line "),
        ("/configuration/memory".into(), json!(4097), "multiple of 4096"),
        ("/created".into(), json!("+999999-01-01T00:00:00Z"), "line "),
    ] {
        let mut changed = value.clone();
        *changed.pointer_mut(&place).unwrap_or_else(|| panic!("{place}")) = new;
        refused(&host, "machine.json", &changed.to_string(), &[word]);
    }
    // A key twice: the last one must not win.
    let id = id_of("/images");
    let record = value.pointer(&image).unwrap();
    let twice = good.replacen("\"images\": {", &format!("\"images\": {{ \"{}\": {record},", id.to_uppercase()), 1);
    refused(&host, "machine.json", &twice, &["there twice", "line "]);
    refused(&host, "machine.json", &good.replacen("\"name\"", "\"name\": \"x\", \"name\"", 1), &["duplicate field"]);
    // What takes a parser's stack or memory.
    for bomb in ["[".repeat(1 << 20), "{\"format\":".repeat(1 << 20), format!("{{\"format\": {}", "9".repeat(1 << 20))] {
        refused(&host, "machine.json", &bomb, &["line 1"]);
    }
    publish_file(&host, &Path::new(DIR).join("machine.json"), good.as_bytes()).unwrap();
    host.shared().open(&Path::new(DIR).join("machine.json"), Access::Write).unwrap().set_len(1 << 40).unwrap();
    let error = MachineStore::look(&host.shared(), Path::new(DIR)).unwrap_err().to_string();
    assert!(error.contains("1099511627776 bytes"), "{error}");
}

#[test]
fn large_manifests_are_read_in_one_walk() {
    // Forty thousand snapshots that all hang from the end of as many ghosts, and as much trash beside as many images.
    let host = machine();
    let mut machine = MachineStore::look(&host.shared(), Path::new(DIR)).unwrap();
    let ghost = |parent: Option<SnapshotId>| crate::snapshot::Ghost {
        snapshot: crate::snapshot::Snapshot {
            parent,
            images: BTreeMap::new(),
            ..machine.snapshots.values().next().unwrap().clone()
        },
        deleted: machine.created,
        children: Vec::new(),
        was_parent_of_now: false,
        action: uuid::Uuid::nil(),
        sealed: false,
    };
    let (mut below, mut ghosts) = (None, BTreeMap::new());
    for number in 0..20_000_u128 {
        let id = SnapshotId(uuid::Uuid::from_u128(number << 64));
        ghosts.insert(id, ghost(below));
        below = Some(id);
    }
    machine.ghosts.extend(ghosts);
    for number in 0..20_000_u128 {
        let mut node = machine.snapshots.values().next().unwrap().clone();
        (node.label, node.parent) = (format!("node {number}"), below);
        machine.snapshots.insert(SnapshotId(uuid::Uuid::from_u128(number << 64 | 1)), node);
    }
    // Not sound, and found to be so at once.
    assert!(validate(&machine).is_err());
    assert!(Tree::of(&machine).rows().len() > 20_000);
}
