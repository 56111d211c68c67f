//! The store on a file system in memory, with real images.

mod crashes;
mod files;
mod foreign;
mod hostile;
mod hyperv;
mod reserve;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::chain::{Chain, Gate};
use crate::clock::SharedClock;
use crate::disk::{Image, ImageFormat};
use crate::host_file::Access;
use crate::snapshot::{DiskId, MachineKind, NodeRef, SnapshotId, Tree, WorkloadProfile, validate};
use crate::testing::{FakeClock, MemHost};
use crate::units::ByteCount;

const BLOCK: usize = 4096;
const BLOCKS: u64 = 16;
/// Stands for a block of which a part was written.
const TORN: u8 = 255;

/// What a disk reads as: one byte for each block.
type Content = Vec<u8>;

fn clock() -> SharedClock {
    FakeClock::noon()
}

fn library(host: &MemHost) -> Library {
    Library::open(&host.shared(), &clock(), Path::new("/lib")).unwrap()
}

fn new_machine(disks: usize) -> NewMachine {
    NewMachine {
        name: "web".into(),
        kind: MachineKind::Workload,
        memory: ByteCount::mib(1),
        disks: vec![ByteCount::mib(4); disks],
        format: ImageFormat::Vhdx,
        hardware: None,
        workload: WorkloadProfile::default(),
    }
}

fn open(host: &MemHost) -> MachineStore {
    MachineStore::open(&host.shared(), &clock(), Path::new("/lib/web")).unwrap()
}

fn disk0() -> DiskId {
    DiskId("disk0".into())
}

fn chain(store: &MachineStore, node: NodeRef, disk: &DiskId, access: Access) -> Chain {
    let image = Tree::of(store.machine()).images_of(node).unwrap()[disk];
    let gate = Gate::new([store.dir().to_path_buf()]);
    Chain::open(store.host(), &store.image_path(image).unwrap(), access, &gate).unwrap()
}

/// Writes one byte all over a block of Now's first disk, durably.
fn write(store: &MachineStore, block: u64, value: u8) {
    let chain = chain(store, NodeRef::Now, &disk0(), Access::Write);
    chain.write_at(&[value; BLOCK], block * BLOCK as u64).unwrap();
    chain.flush().unwrap();
}

fn content_of(chain: &Chain) -> Content {
    let mut buf = vec![0; BLOCK * BLOCKS as usize];
    chain.read_at(&mut buf, 0).unwrap();
    let whole = |block: &[u8]| block.iter().all(|byte| *byte == block[0]);
    let blocks = buf.chunks(BLOCK).map(|block| if whole(block) { block[0] } else { TORN });
    blocks.collect()
}

fn read(store: &MachineStore, node: NodeRef) -> Content {
    content_of(&chain(store, node, &disk0(), Access::Look))
}

fn take(store: &mut MachineStore, label: &str) -> SnapshotId {
    let taken = store.clock().now();
    let prepared = store.prepare_take(label, "", &BTreeMap::new(), ByteCount::ZERO).unwrap();
    store.publish_take(&prepared, None, false, taken).unwrap()
}

/// Label to content of every node, Now under its own name.
fn contents(store: &MachineStore) -> BTreeMap<String, Content> {
    let nodes = store.machine().snapshots.iter().map(|(id, node)| (node.label.clone(), read(store, NodeRef::Snapshot(*id))));
    nodes.chain([("Now".to_owned(), read(store, NodeRef::Now))]).collect()
}

/// What must hold whenever a machine was opened.
fn check_sound(store: &MachineStore) {
    validate(store.machine()).unwrap();
    assert_eq!(store.orphans().unwrap(), [], "files that nothing names");
    assert!(!store.host().exists(&store.path(Path::new("journal.json"))));
    for item in &store.machine().trash {
        assert!(store.host().exists(&store.path(&item.file)), "{} is in the trash", item.file.display());
    }
    for image in store.machine().images.values() {
        assert!(store.host().exists(&store.path(&image.file)));
    }
}
