//! Manifests and journals of strangers: an error with the file and the field, and every file as it was.

use serde_json::{Value, json};

use super::*;
use crate::host_file::{Host, publish_file, read_file};
use crate::snapshot::{FileRef, ImageId, SwitchFiles, SwitchRecord};

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

fn journal(host: &MemHost, entry: &Value) -> String {
    let machine = MachineStore::look(&host.shared(), Path::new(DIR)).unwrap();
    json!({ "format": "snaptree-journal", "version": 1, "machine": machine.id, "entry": entry }).to_string()
}

/// `change` whose files are taken away while the manifest is as old as it, or newer.
fn change(generation: u64, created: &str, removes: &str, from: &str) -> Value {
    let list = |file: &str| if file.is_empty() { json!([]) } else { json!([file]) };
    let moves = if from.is_empty() { json!([]) } else { json!([{ "from": from, "to": "Deleted/away" }]) };
    json!({ "change": { "generation": generation, "operation": "x", "created": list(created), "moves": moves,
        "removes": list(removes), "restored": [] } })
}

#[test]
fn journals_take_nothing_away_that_is_needed() {
    let host = machine();
    let found = MachineStore::look(&host.shared(), Path::new(DIR)).unwrap();
    let (old, new) = (found.generation - 1, found.generation);
    let of_a = found.snapshots.values().find(|node| node.memory.is_some()).unwrap();
    let memory = of_a.memory.as_ref().unwrap().file.clone();
    let folder = memory.parent().unwrap().to_path_buf();
    let trashed = found.trash[0].file.clone();
    let leaf = found.images[&found.now.images[&disk0()]].clone();
    let base = found.images[&of_a.images[&disk0()]].file.clone();
    host.link(&Path::new(DIR).join("Alias"), Path::new("Virtual Hard Disks")).unwrap();
    host.link(&Path::new(DIR).join("out"), Path::new("/outside")).unwrap();
    let aliased = "Alias/disk0.vhdx".to_owned();
    let needed = [&memory, &trashed, &leaf.file, &base].map(|file| file.to_str().unwrap().to_owned());
    for file in needed.iter().chain([&aliased]) {
        for entry in [change(new, file, "", ""), change(old, "", file, ""), change(old, "", "", file)] {
            refused(&host, "journal.json", &journal(&host, &entry), &["journal.json", "belongs to the machine"]);
        }
    }
    for file in ["out/secret", "out/new/file"] {
        for entry in [change(new, file, "", ""), change(old, "", file, ""), change(old, "", "", file)] {
            refused(&host, "journal.json", &journal(&host, &entry), &["leads out"]);
        }
        let moved = json!({ "change": { "generation": old, "operation": "x", "created": [], "removes": [], "restored": [],
            "moves": [{ "from": "nothing", "to": file }] } });
        refused(&host, "journal.json", &journal(&host, &moved), &["leads out"]);
    }
    let parent = of_a.images[&disk0()];
    let grown = json!({ "change": { "generation": old, "operation": "x", "created": [], "removes": [], "restored": [],
        "moves": [], "grown": [{ "image": parent, "size": 1_u64 << 30 }] } });
    refused(&host, "journal.json", &journal(&host, &grown), &["can't grow"]);
    let take = |generation: u64, folder: &Path, file: &Path| {
        let mut record = leaf.clone();
        record.file = file.into();
        let leaves = json!({ "disk0": { "image": uuid::Uuid::nil(), "record": record } });
        json!({ "take": { "generation": generation, "snapshot": uuid::Uuid::nil(), "leaves": leaves, "folder": folder,
            "complete": false } })
    };
    let fresh = Path::new("Snapshots/fresh");
    for entry in [
        take(new, &folder, Path::new("Snapshots/new.avhdx")),
        take(old, &folder, Path::new("Snapshots/new.avhdx")),
        take(new, fresh, &leaf.file),
        take(new, fresh, &memory),
        take(new, fresh, &trashed),
    ] {
        refused(&host, "journal.json", &journal(&host, &entry), &["belongs to the machine"]);
    }
    refused(&host, "journal.json", &journal(&host, &take(new, Path::new("Snapshots"), fresh)), &["must lie in Snapshots"]);
    refused(&host, "journal.json", &journal(&host, &take(new, Path::new("Snapshots/../.."), fresh)), &["stay inside"]);
    let twice = take(new, fresh, Path::new("Snapshots/new.avhdx")).to_string().replace("\"disk0\":{", "\"disk0\":{},\"disk0\":{");
    refused(&host, "journal.json", &journal(&host, &json!(null)).replace("null", &twice), &["line 1"]);
    for bad in ["", "{}", "[[[[", "{\"format\":\"snaptree-journal\",\"version\":1}"] {
        refused(&host, "journal.json", bad, &["journal.json", "line 1"]);
    }
}

#[test]
fn a_switch_is_one_of_the_machines_own_runs() {
    let host = machine();
    let mut store = open(&host);
    take(&mut store, "C");
    let b = *store.machine().snapshots.iter().find(|(_, node)| node.label == "B").unwrap().0;
    store.delete(&[b], false, false).unwrap();
    let run = Tree::of(store.machine()).runs()[0].clone();
    let machine = store.machine().clone();
    drop(store);
    let file = |id: &ImageId| FileRef { file: machine.images[id].file.clone(), format: ImageFormat::Vhdx };
    let below = machine.images[&run.images[0]].parent.unwrap();
    let files = SwitchFiles {
        run: run.images.iter().map(file).collect(),
        target: 0,
        kept: file(&run.images[1]).file,
        parent: Some((file(&below).file, uuid::Uuid::nil())),
        data_write_id: uuid::Uuid::nil(),
        children: Vec::new(),
    };
    let good = SwitchRecord { disk: disk0(), run: run.images.clone(), files };
    let attempt = |words: &str, change: &dyn Fn(&mut SwitchRecord)| {
        let mut record = good.clone();
        change(&mut record);
        refused(&host, "journal.json", &journal(&host, &json!({ "switch": record })), &["journal.json", words]);
    };
    let leaf = machine.now.images[&disk0()];
    attempt("neither its target's nor its top's", &|record| record.files.kept = file(&below).file);
    attempt("neither its target's nor its top's", &|record| record.files.kept = "Snapshots/other.avhdx".into());
    attempt("no target", &|record| record.files.target = 2);
    attempt("no run", &|record| (record.run.truncate(1), record.files.run.truncate(1)).0);
    attempt("other images", &|record| record.files.run[0] = file(&below));
    attempt("other images", &|record| record.disk = DiskId("disk1".into()));
    attempt("aren't the machine's", &|record| record.run[1] = ImageId(uuid::Uuid::nil()));
    attempt("an image that the machine needs", &|record| record.run[0] = ImageId(uuid::Uuid::nil()));
    attempt("another parent", &|record| record.files.parent = None);
    attempt("doesn't read through its top", &|record| record.files.children = vec![file(&below)]);
    attempt("something else needs", &|record| {
        // The top is a snapshot's own image.
        record.run = vec![run.images[1], leaf];
        record.files.run = record.run.iter().map(file).collect();
        record.files.kept = file(&leaf).file;
    });
    attempt("something else needs", &|record| {
        // Nothing reads through the one by way of the other.
        record.run = vec![run.images[0], leaf];
        record.files.run = record.run.iter().map(file).collect();
        record.files.kept = file(&leaf).file;
    });
    publish_file(&host, Path::new("/lib/web/journal.json"), journal(&host, &json!({ "switch": good })).as_bytes()).unwrap();
    assert_eq!(open(&host).pending_switch(), Some(&good));
}

#[test]
fn files_that_are_links_are_not_followed_out() {
    for name in ["Virtual Hard Disks/disk0.vhdx", "history.jsonl"] {
        let host = machine();
        let path = Path::new(DIR).join(name);
        if host.exists(&path) {
            host.rename(&path, Path::new("/outside/moved")).unwrap();
        } else {
            publish_file(&host, Path::new("/outside/moved"), b"").unwrap();
        }
        host.link(&path, Path::new("/outside/moved")).unwrap();
        let before = files(&host);
        let error = MachineStore::open(&host.shared(), &clock(), Path::new(DIR)).unwrap_err().to_string();
        assert!(error.contains("leads out") && error.contains(name), "{error}");
        assert!(files(&host) == before);
    }
}

#[test]
fn only_what_a_creation_made_goes_with_it() {
    let host = machine();
    let name = Path::new("/lib/web/machine.json");
    let journal = journal(&host, &json!({ "create": { "files": ["Virtual Hard Disks/disk0.vhdx"] } }));
    publish_file(&host, Path::new("/lib/web/journal.json"), journal.as_bytes()).unwrap();
    // Somebody has put the manifest aside.
    host.rename(name, Path::new("/lib/web/machine.json.bak")).unwrap();
    let before = files(&host);
    library(&host);
    assert!(files(&host) == before);
    assert!(host.exists(Path::new("/lib/web/Virtual Hard Disks/disk0.vhdx")));
}

#[test]
fn trash_hours_and_times_at_the_edge_of_time_are_no_panic() {
    let host = machine();
    let mut value: Value = serde_json::from_str(&text(&host)).unwrap();
    value["settings"]["trash_hours"] = json!(u32::MAX);
    value["trash"][0]["removed"] = json!("+262142-12-31T23:59:59Z");
    value["trash"][0]["held"] = json!(u64::MAX);
    value["trash"].as_array_mut().unwrap().extend((0..2).map(|number| {
        json!({ "file": format!("Deleted/{number}"), "original": "x", "held": u64::MAX, "removed": "-262143-01-01T00:00:00Z",
            "reason": "merged", "action": uuid::Uuid::nil(), "image": null })
    }));
    publish_file(&host, Path::new("/lib/web/machine.json"), value.to_string().as_bytes()).unwrap();
    let mut store = open(&host);
    assert_eq!(store.empty_trash(false).unwrap(), ByteCount::ZERO);
    assert_eq!(store.empty_trash(true).unwrap(), ByteCount(u64::MAX));
}

#[test]
fn a_restored_image_is_linked_to_no_parent_but_its_own() {
    let host = machine();
    let mut value: Value = serde_json::from_str(&text(&host)).unwrap();
    let machine = MachineStore::look(&host.shared(), Path::new(DIR)).unwrap();
    // The manifest says that Now reads through A's image, its file that it reads through B's.
    let leaf = machine.now.images[&disk0()];
    let b = machine.images[&leaf].parent.unwrap();
    let a = machine.images[&b].parent.unwrap();
    value["images"][leaf.to_string()]["parent"] = json!(a);
    let before = read(&open(&host), NodeRef::Now);
    publish_file(&host, Path::new("/lib/web/machine.json"), value.to_string().as_bytes()).unwrap();
    let entry = json!({ "change": { "generation": machine.generation - 1, "operation": "x", "created": [], "moves": [],
        "removes": [], "restored": [leaf] } });
    publish_file(&host, Path::new("/lib/web/journal.json"), journal(&host, &entry).as_bytes()).unwrap();
    let error = MachineStore::open(&host.shared(), &clock(), Path::new(DIR)).unwrap_err().to_string();
    assert!(error.contains("is expected"), "{error}");
    let path = Path::new(DIR).join(&machine.images[&leaf].file);
    let gate = Gate::new([DIR.into()]);
    assert_eq!(content_of(&Chain::open(&host.shared(), &path, Access::Look, &gate).unwrap()), before);
}
