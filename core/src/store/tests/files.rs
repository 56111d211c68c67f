//! What happens to files, and what is refused.

use super::*;
use crate::host_file::{Host, publish_file};
use crate::snapshot::Settings;

#[test]
fn a_machine_goes_through_its_life() {
    let host = MemHost::new();
    let library = library(&host);
    let mut store = library.create(&new_machine(2)).unwrap();
    write(&store, 0, 1);
    let a = take(&mut store, "A");
    write(&store, 0, 2);
    let b = take(&mut store, "B");
    write(&store, 1, 3);
    let before = contents(&store);
    let (at_a, at_b) = (before["A"].clone(), before["B"].clone());
    assert_eq!((at_a[0], at_b[0], before["Now"][1]), (1, 2, 3));

    store.apply(a).unwrap();
    assert_eq!(read(&store, NodeRef::Now), at_a);
    assert_eq!(store.trash_files().len(), 2);
    store.undo_apply().unwrap();
    assert_eq!(contents(&store), before);
    store.undo_apply().unwrap();
    write(&store, 2, 9);
    check_sound(&store);

    // A is read through by Now and B, B by nothing but what lies in the trash.
    assert!(store.delete(&[a], false, false).unwrap().is_empty());
    assert_eq!(store.delete(&[b], false, false).unwrap().len(), 2);
    check_sound(&store);
    assert_eq!(store.undelete(b).unwrap(), [b]);
    assert_eq!(read(&store, NodeRef::Snapshot(b)), at_b);
    assert_eq!(store.undelete(a).unwrap(), [a]);
    store.rename(a, "first").unwrap();
    store.set_note(a, "before the update").unwrap();
    store.protect(a, true).unwrap();
    assert!(store.delete(&[a], false, false).unwrap_err().is_refusal());
    store.set_settings(Settings { trash_hours: 0, ..Settings::default() }).unwrap();
    check_sound(&store);

    let generation = store.machine().generation;
    let machine = store.machine().clone();
    drop(store);
    let mut store = open(&host);
    assert_eq!(store.machine(), &machine);
    assert_eq!(store.machine().generation, generation);
    assert!(store.recovered().0.is_empty());
    store.empty_trash(true).unwrap();
    check_sound(&store);
    assert!(host.files().iter().all(|file| !file.starts_with("/lib/web/Deleted")));
    assert_eq!(read(&store, NodeRef::Now)[2], 9);
}

#[test]
fn what_trying_out_a_volume_has_left_goes_at_the_next_opening() {
    let host = MemHost::new();
    drop(library(&host).create(&new_machine(1)).unwrap());
    for folder in ["/lib", "/lib/web"] {
        host.create_new(&Path::new(folder).join(format!("{}1", crate::store::TRIAL))).unwrap();
    }
    library(&host);
    let store = open(&host);
    assert_eq!(store.orphans().unwrap(), []);
    assert!(host.files().iter().all(|file| !file.to_string_lossy().contains(crate::store::TRIAL)), "{:?}", host.files());
}

#[test]
fn a_machine_has_one_owner_and_can_be_looked_at_meanwhile() {
    let host = MemHost::new();
    let library = library(&host);
    let store = library.create(&new_machine(1)).unwrap();
    let error = MachineStore::open(&host.shared(), &clock(), store.dir()).unwrap_err();
    assert!(matches!(*error.kind, StoreErrorKind::InUse), "{error}");
    let steps = host.steps();
    assert_eq!(&MachineStore::look(&host.shared(), store.dir()).unwrap(), store.machine());
    assert_eq!(host.steps(), steps, "a look writes nothing");
    assert!(matches!(*library.remove(store.machine().id, true).unwrap_err().kind, StoreErrorKind::InUse));
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_touched() {
    let host = MemHost::new();
    let mut store = library(&host).create(&new_machine(1)).unwrap();
    let a = take(&mut store, "A");
    let (files, machine) = (host.files(), store.machine().clone());
    let used = ByteCount::mib(1 << 20) - {
        host.set_capacity(Some(ByteCount::mib(1 << 20)));
        host.free_bytes(Path::new("/")).unwrap()
    };
    host.set_capacity(Some(used + ByteCount::mib(2)));
    let steps = host.steps();
    for error in [
        store.prepare_take("B", "", &BTreeMap::new(), ByteCount::ZERO).unwrap_err(),
        store.apply(a).unwrap_err(),
        store.prepare_take("A", "", &BTreeMap::new(), ByteCount::ZERO).unwrap_err(),
    ] {
        assert!(error.is_refusal(), "{error}");
    }
    assert_eq!((host.steps(), host.files(), store.machine()), (steps, files, &machine));
}

#[test]
fn files_of_newer_programs_and_broken_ones_are_told_with_their_place() {
    let host = MemHost::new();
    drop(library(&host).create(&new_machine(1)).unwrap());
    let path = Path::new("/lib/web/machine.json");
    let good = crate::host_file::read_file(&host, path, 1 << 20).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let attempt = |text: &str, wanted: &str| {
        publish_file(&host, path, text.as_bytes()).unwrap();
        let error = MachineStore::open(&host.shared(), &clock(), Path::new("/lib/web")).unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("machine.json"), "{error}");
    };
    attempt(&text.replace("\"version\": 1", "\"version\": 7"), "version: is 7");
    attempt(&text.replace("snaptree-machine", "else"), "format");
    attempt(&text[..text.len() / 2], "line ");
    attempt(&text.replace("Virtual Hard Disks/", "../"), "stay inside");
    attempt("", "line 1");
    publish_file(&host, path, &good).unwrap();

    // A journal that would take away a disk of the machine, or leave the folder.
    let machine = MachineStore::look(&host.shared(), Path::new("/lib/web")).unwrap();
    for (created, wanted) in
        [("Virtual Hard Disks/disk0.vhdx", "taken away"), ("../../etc/passwd", "inside"), ("machine.json", "purpose")]
    {
        let journal = serde_json::json!({ "format": "snaptree-journal", "version": 1, "machine": machine.id, "entry": { "change": {
            "generation": machine.generation, "operation": "x", "created": [created], "moves": [], "removes": [], "restored": [] } } });
        publish_file(&host, Path::new("/lib/web/journal.json"), journal.to_string().as_bytes()).unwrap();
        let error = MachineStore::open(&host.shared(), &clock(), Path::new("/lib/web")).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
        assert!(host.exists(Path::new("/lib/web/Virtual Hard Disks/disk0.vhdx")));
    }
}

#[test]
fn folders_that_lead_out_are_not_followed() {
    let host = MemHost::new();
    drop(library(&host).create(&new_machine(1)).unwrap());
    host.create_dir_all(Path::new("/other")).unwrap();
    host.rename(Path::new("/lib/web/Virtual Hard Disks"), Path::new("/other/disks")).unwrap();
    host.link(Path::new("/lib/web/Virtual Hard Disks"), Path::new("/other/disks")).unwrap();
    let error = MachineStore::open(&host.shared(), &clock(), Path::new("/lib/web")).unwrap_err();
    assert!(error.to_string().contains("leads out"), "{error}");
}

#[test]
fn history_outlives_a_torn_line() {
    let host = MemHost::new();
    host.create_dir_all(Path::new("/m")).unwrap();
    let history = History::of(&host.shared(), Path::new("/m"));
    assert!(history.read().unwrap().is_empty());
    let record = |bytes| HistoryRecord::Merge {
        at: clock().now(),
        disk: disk0(),
        bytes,
        stretches: 1,
        seconds: 0.5,
        estimated_seconds: None,
        probe: false,
        live: true,
        guest_bytes: Some(7),
    };
    history.append(&record(1)).unwrap();
    let path = Path::new("/m/history.jsonl");
    let file = host.open(path, Access::Write).unwrap();
    file.write_all_at(b"{\"merge\":{\"at", file.len().unwrap()).unwrap();
    drop(file);
    assert_eq!(history.read().unwrap(), [record(1)]);
    history.append(&record(2)).unwrap();
    assert_eq!(history.read().unwrap(), [record(1), record(2)]);
}

#[test]
fn older_lines_of_the_history_still_read() {
    let host = MemHost::new();
    host.create_dir_all(Path::new("/m")).unwrap();
    let line = b"{\"merge\":{\"at\":\"2026-01-05T10:00:00Z\",\"disk\":\"disk0\",\"bytes\":5,\"stretches\":2,\"seconds\":0.5,\
                 \"estimated_seconds\":null,\"probe\":false}}\n";
    let file = host.create_new(Path::new("/m/history.jsonl")).unwrap();
    file.write_all_at(line, 0).unwrap();
    let records = History::of(&host.shared(), Path::new("/m")).read().unwrap();
    let [HistoryRecord::Merge { bytes: 5, live: false, guest_bytes: None, .. }] = records[..] else { panic!("{records:?}") };
}

#[test]
fn the_library_finds_forgets_and_removes() {
    let host = MemHost::new();
    let library = library(&host);
    let id = library.create(&new_machine(0)).unwrap().machine().id;
    assert!(library.create(&new_machine(0)).unwrap_err().is_refusal());
    assert!(library.create(&NewMachine { name: "WEB".into(), ..new_machine(0) }).unwrap_err().is_refusal());
    assert!(library.create(&NewMachine { name: "../x".into(), ..new_machine(0) }).unwrap_err().is_refusal());
    assert_eq!(library.find("web").unwrap().machine.id, id);
    assert_eq!(library.find(&id.to_string()).unwrap().dir, Path::new("/lib/web"));
    library.remove(id, false).unwrap();
    assert!(library.find("web").is_err() && host.exists(Path::new("/lib/web/machine.json")));
    library.remember("web").unwrap();
    library.remove(id, true).unwrap();
    assert!(!host.exists(Path::new("/lib/web")) && library.scan().unwrap() == Scan::default());

    host.create_dir_all(Path::new("/pictures")).unwrap();
    library.add_folder(Path::new("/pictures")).unwrap();
    library.add_folder(Path::new("/pictures")).unwrap();
    assert_eq!(library.opened_folders().unwrap(), [Path::new("/pictures")]);
    library.drop_folder(Path::new("/pictures")).unwrap();
    assert!(library.opened_folders().unwrap().is_empty());
}

#[test]
fn a_machine_of_vhd_disks_has_vhd_children_and_no_larger_ones() {
    let host = MemHost::new();
    let new = NewMachine { format: ImageFormat::Vhd, ..new_machine(1) };
    let larger = NewMachine { disks: vec![ByteCount::gib(2041)], ..new.clone() };
    let library = library(&host);
    let before = host.files();
    let error = library.create(&larger).unwrap_err().to_string();
    assert!(error.contains(".vhd file holds a disk of at most"), "{error}");
    assert_eq!(host.files(), before, "nothing was begun");
    let mut store = library.create(&new).unwrap();
    let file = |store: &MachineStore| store.machine().images[&store.machine().now.images[&disk0()]].file.clone();
    assert_eq!(file(&store), Path::new("Virtual Hard Disks/disk0.vhd"));
    let base = chain(&store, NodeRef::Now, &disk0(), Access::Write);
    base.write_at(&[5; 512], 0).unwrap();
    drop(base);
    take(&mut store, "first");
    assert!(file(&store).extension().is_some_and(|extension| extension == "avhd"));
    let leaf = chain(&store, NodeRef::Now, &disk0(), Access::Write);
    let mut sector = [0; 512];
    leaf.read_at(&mut sector, 0).unwrap();
    assert_eq!((sector, leaf.images().len()), ([5; 512], 2));
    assert!(leaf.images().iter().all(|image| image.info().format == ImageFormat::Vhd));
}
