//! A volume without a free byte.

use super::super::reserve::RESERVE;
use super::*;

/// Two snapshots, each with something written after it, on a volume that has not one byte left.
fn full(host: &MemHost) -> (MachineStore, [SnapshotId; 2]) {
    drop(library(host).create(&new_machine(1)).unwrap());
    let mut store = open(host);
    let snapshots = ["one", "two"].map(|label| {
        let id = take(&mut store, label);
        write(&store, 3, 7);
        id
    });
    host.set_capacity(Some(host.used()));
    (store, snapshots)
}

#[test]
fn a_snapshot_is_deleted_on_a_volume_without_a_free_byte() {
    let host = MemHost::new();
    let (mut store, [_, two]) = full(&host);
    let before = contents(&store);
    store.delete(&[two], false, true).expect("what was kept for that is used");
    assert!(!store.host().exists(&store.path(Path::new(RESERVE))), "it was used");
    let now = contents(&store);
    assert_eq!(now["Now"], before["Now"]);
    assert_eq!(now["one"], before["one"]);
    check_sound(&store);
    drop(store);

    host.set_capacity(None);
    let store = open(&host);
    let kept = store.host().open(&store.path(Path::new(RESERVE)), Access::Look).expect("it is kept again").len().unwrap();
    assert!(kept >= 64 << 10, "{kept}");
    check_sound(&store);
}

#[test]
fn it_is_not_taken_from_a_volume_that_has_little() {
    let host = MemHost::new();
    drop(library(&host).create(&new_machine(1)).unwrap());
    host.set_capacity(Some(host.used() + ByteCount::mib(63)));
    let store = open(&host);
    assert!(!store.host().exists(&store.path(Path::new(RESERVE))));
    drop(store);
    host.set_capacity(Some(host.used() + ByteCount::mib(65)));
    assert!(open(&host).host().exists("/lib/web/.reserve".as_ref()));
}

#[test]
fn one_that_was_cut_short_is_made_anew() {
    let host = MemHost::new();
    drop(library(&host).create(&new_machine(1)).unwrap());
    host.shared().create_new("/lib/web/.reserve".as_ref()).unwrap();
    let store = open(&host);
    assert!(store.host().open(&store.path(Path::new(RESERVE)), Access::Look).unwrap().len().unwrap() >= 64 << 10);
}
