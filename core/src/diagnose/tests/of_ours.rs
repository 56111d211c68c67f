//! A machine of this program's library.

use super::*;
use crate::clock::SharedClock;
use crate::disk::ImageFormat;
use crate::snapshot::{MachineKind, WorkloadProfile};
use crate::store::{Library, MachineStore, NewMachine};
use crate::testing::FakeClock;

/// Killed while it took a snapshot, it has gone on in new leaves: the old one is no node's, and no left-over.
#[test]
fn what_a_take_that_was_cut_short_has_left_is_pending() {
    let host = MemHost::new();
    let (shared, dir) = (host.shared(), Path::new("/vms/web"));
    let clock: SharedClock = FakeClock::noon();
    let library = Library::open(&shared, &clock, Path::new("/vms")).unwrap();
    let new = NewMachine {
        name: "web".into(),
        kind: MachineKind::Workload,
        memory: ByteCount::mib(1),
        disks: vec![ByteCount::mib(4)],
        format: ImageFormat::Vhdx,
        hardware: None,
        workload: WorkloadProfile::default(),
    };
    let mut store = library.create(&new).unwrap();
    let prepared = store.prepare_take("a", "", &Default::default(), ByteCount::ZERO).unwrap();
    for leaf in prepared.leaves.values() {
        leaf.new.write_at(&[7; 4096], 0).unwrap();
        leaf.new.flush().unwrap();
    }
    drop((prepared, store));
    drop(MachineStore::open(&shared, &clock, dir).unwrap());
    let found = diagnose(&shared, dir).unwrap();
    let standings: Vec<Standing> = found.images.iter().map(Finding::standing).collect();
    assert_eq!((found.images.len(), found.defects().count()), (2, 0), "{found:?}");
    assert!(standings.contains(&Standing::Owned) && standings.contains(&Standing::Pending), "{found:?}");
}
