//! Images of others: looked at, and brought in.

use super::*;
use crate::disk::{self, CreateOptions};
use crate::host_file::Host;

/// base - one - two, and base - other, written with `/pics/` paths.
fn foreign(host: &MemHost) -> BTreeMap<&'static str, Content> {
    host.create_dir_all(Path::new("/pics")).unwrap();
    let shared = host.shared();
    let options = CreateOptions::dynamic(ByteCount::mib(4));
    let mut contents = BTreeMap::new();
    let mut content = vec![0; BLOCKS as usize];
    let base = disk::create(&shared, Path::new("/pics/base.vhdx"), ImageFormat::Vhdx, &options).unwrap();
    let put = |image: &dyn Image, content: &mut Content, block: usize, value: u8| {
        image.write_at(&[value; BLOCK], (block * BLOCK) as u64).unwrap();
        image.freeze().unwrap();
        content[block] = value;
    };
    put(&*base, &mut content, 0, 1);
    contents.insert("base", content.clone());
    let mut other_content = content.clone();
    let one = disk::create_child(&shared, Path::new("/pics/one.avhdx"), &*base, None).unwrap();
    put(&*one, &mut content, 1, 2);
    contents.insert("one", content.clone());
    let two = disk::create_child(&shared, Path::new("/pics/two.avhdx"), &*one, None).unwrap();
    put(&*two, &mut content, 2, 3);
    contents.insert("two", content);
    let other = disk::create_child(&shared, Path::new("/pics/other.avhdx"), &*base, None).unwrap();
    put(&*other, &mut other_content, 3, 4);
    contents.insert("other", other_content);
    contents
}

fn request(path: &str) -> ImportRequest {
    ImportRequest { path: path.into(), name: "web".into(), remove_originals: false, computer: None }
}

#[test]
fn a_folder_is_looked_at_in_place() {
    let host = MemHost::new();
    foreign(&host);
    let (steps, files) = (host.steps(), host.files());
    let view = open_folder(&host.shared(), Path::new("/pics")).unwrap();
    assert_eq!((host.steps(), host.files()), (steps, files), "nothing is written");
    assert_eq!(view.problems, Vec::<String>::new());
    assert_eq!(view.machines.len(), 1);
    let machine = &view.machines[0];
    validate(machine).unwrap();
    assert_eq!((machine.images.len(), machine.snapshots.len()), (4, 3));
    assert!(machine.images.values().any(|record| record.file == Path::new("two.avhdx")));
    assert_eq!(open_folder(&host.shared(), Path::new("/pics")).unwrap(), view, "the same each time");

    host.remove_file(Path::new("/pics/base.vhdx")).unwrap();
    let view = open_folder(&host.shared(), Path::new("/pics")).unwrap();
    assert!(view.machines.is_empty() && view.problems.len() == 3, "{:?}", view.problems);
    assert!(view.problems.iter().all(|problem| problem.contains("base.vhdx") && problem.contains("identifier")));
}

#[test]
fn a_folder_comes_in_as_a_tree() {
    let host = MemHost::new();
    let expected = foreign(&host);
    let mut reported = Vec::new();
    let mut control = |done: ByteCount, total: ByteCount| {
        reported.push((done, total));
        true
    };
    let mut store = library(&host).import(&request("/pics"), &mut control).unwrap();
    let (done, total) = reported.pop().unwrap();
    assert_eq!(done, total);
    check_sound(&store);
    // The originals aren't needed any longer.
    host.remove_dir_all(Path::new("/pics")).unwrap();
    let found = contents(&store);
    assert_eq!(found.len(), 4);
    for (label, content) in &found {
        let wanted = if label == "Now" {
            expected.iter().find(|(name, _)| !found.contains_key(**name)).unwrap().1
        } else {
            &expected[&**label]
        };
        assert_eq!(content, wanted, "{label}");
    }
    // And it is a machine like any other.
    let one = *store.machine().snapshots.iter().find(|(_, node)| node.label == "one").unwrap().0;
    write(&store, 4, 9);
    take(&mut store, "more");
    store.apply(one).unwrap();
    store.delete(&[one], false, false).unwrap();
    assert_eq!(read(&store, NodeRef::Now), expected["one"]);
}

#[test]
fn a_leaf_comes_in_with_its_chain() {
    let host = MemHost::new();
    let expected = foreign(&host);
    let library = library(&host);
    let request = ImportRequest { remove_originals: true, ..request("/pics/two.avhdx") };
    let store = library.import(&request, &mut |_, _| true).unwrap();
    let found = contents(&store);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["Now", "base", "one"]);
    assert_eq!(found["Now"], expected["two"]);
    assert!(!host.exists(Path::new("/pics/one.avhdx")) && host.exists(Path::new("/pics/other.avhdx")));
}

#[test]
fn an_import_that_is_cancelled_or_refused_leaves_nothing() {
    let host = MemHost::new();
    foreign(&host);
    let library = library(&host);
    let files = host.files();
    let error = library.import(&request("/pics"), &mut |done: ByteCount, _| done < ByteCount::mib(5)).unwrap_err();
    assert!(matches!(*error.kind, StoreErrorKind::Cancelled), "{error}");
    assert_eq!(host.files(), files);
    host.remove_file(Path::new("/pics/one.avhdx")).unwrap();
    for path in ["/pics", "/pics/two.avhdx"] {
        let error = library.import(&request(path), &mut |_, _| true).unwrap_err().to_string();
        assert!(error.contains("one.avhdx") && error.contains("identifier"), "{error}");
    }
    assert!(library.import(&request("/nowhere"), &mut |_, _| true).is_err());
    assert!(!host.exists(Path::new("/lib/web")));
}
