//! Folders that Hyper-V wrote, looked at in place.

use super::*;
use crate::disk::{self, CreateOptions};
use crate::host_file::{Host, publish_file};
use crate::hyperv::Value;
use crate::testing::vmcx;

const MACHINE: &str = "10000000-0000-4000-8000-000000000001";
const FIRST: &str = "20000000-0000-4000-8000-000000000001";
const SECOND: &str = "20000000-0000-4000-8000-000000000002";

fn node(children: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Node(children.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// A configuration's bytes. `day` counts from 2020-01-01.
fn configuration(role: &str, id: &str, name: &str, day: i64, disk: &str) -> Vec<u8> {
    let created = 132_223_104_000_000_000 + day * 864_000_000_000;
    let drive = node([("pathname", text(&format!("D:\\VMs\\{disk}"))), ("type", text("VHD"))]);
    vmcx(&node([(
        "configuration",
        node([
            ("_83f8638b-8dca-4152-9eda-2ca8b33039b4_", node([("controller0", node([("drive0", drive)]))])),
            (
                "properties",
                node([
                    ("name", text(name)),
                    ("type_id", text(role)),
                    ("global_id", text(id)),
                    ("creation_time", Value::Bytes(created.to_le_bytes().to_vec())),
                ]),
            ),
            (
                "settings",
                node([
                    ("global", node([("logical_id", text(MACHINE))])),
                    ("memory", node([("bank", node([("size", Value::Int(512))]))])),
                    ("processors", node([("count", Value::Int(4))])),
                ]),
            ),
        ]),
    )]))
}

/// base (First) - one (Second) - two (unnamed) - now.
fn folder(host: &MemHost) {
    let shared = host.shared();
    for dir in ["/vms/Snapshots", "/vms/Virtual Machines"] {
        host.create_dir_all(Path::new(dir)).unwrap();
    }
    let options = CreateOptions::dynamic(ByteCount::mib(4));
    let mut below = disk::create(&shared, Path::new("/vms/web.vhdx"), ImageFormat::Vhdx, &options).unwrap();
    below.freeze().unwrap();
    for name in ["one", "two", "now"] {
        below = disk::create_child(&shared, Path::new(&format!("/vms/{name}.avhdx")), &*below, None).unwrap();
        below.freeze().unwrap();
    }
    let put = |dir: &str, id: &str, bytes: Vec<u8>| {
        publish_file(host, Path::new(&format!("/vms/{dir}/{id}.vmcx")), &bytes).unwrap();
    };
    put("Virtual Machines", MACHINE, configuration("Virtual Machines", MACHINE, "WEB01", 0, "now.avhdx"));
    put("Snapshots", FIRST, configuration("Snapshots", FIRST, "Before SP1", 1, "web.vhdx"));
    put("Snapshots", SECOND, configuration("Snapshots", SECOND, "After SP1", 2, "Old place\\one.avhdx"));
}

#[test]
fn a_machine_of_hyper_v_is_shown_with_its_names_and_dates() {
    let host = MemHost::new();
    folder(&host);
    let steps = host.steps();
    let view = open_folder(&host.shared(), Path::new("/vms")).unwrap();
    assert_eq!(host.steps(), steps, "nothing is written");
    assert_eq!(view.problems, Vec::<String>::new());
    assert_eq!(view.machines.len(), 1);
    let machine = &view.machines[0];
    validate(machine).unwrap();
    assert_eq!((&*machine.name, machine.configuration.memory), ("WEB01", ByteCount::mib(512)));
    assert_eq!(view.processors.get(&machine.id), Some(&4));
    let id = |text: &str| SnapshotId(text.parse().unwrap());
    let (first, second) = (&machine.snapshots[&id(FIRST)], &machine.snapshots[&id(SECOND)]);
    assert_eq!((&*first.label, first.taken.to_rfc3339()), ("Before SP1", "2020-01-02T00:00:00+00:00".into()));
    assert_eq!((&*second.label, first.parent, second.parent), ("After SP1", None, Some(id(FIRST))));
    assert_eq!(machine.now.parent, Some(id(SECOND)), "through the image that nobody names");
    assert_eq!(machine.images.len(), 4);
    assert_eq!(open_folder(&host.shared(), Path::new("/vms")).unwrap(), view, "the same each time");
}

#[test]
fn without_configurations_the_parents_tell() {
    let host = MemHost::new();
    folder(&host);
    host.remove_dir_all(Path::new("/vms/Virtual Machines")).unwrap();
    let view = open_folder(&host.shared(), Path::new("/vms")).unwrap();
    assert_eq!(view.machines.len(), 1);
    assert_eq!(view.machines[0].snapshots.len(), 3, "each image below the newest");
    assert_eq!(view.problems.len(), 2, "{:?}", view.problems);
    assert!(view.problems.iter().all(|problem| problem.contains("the machine of the snapshot")));
}

#[test]
fn what_does_not_fit_is_said_and_the_rest_is_shown() {
    let host = MemHost::new();
    folder(&host);
    publish_file(&host, Path::new("/vms/Snapshots/broken.vmcx"), b"no store").unwrap();
    let second = format!("/vms/Snapshots/{SECOND}.vmcx");
    publish_file(&host, Path::new(&second), &configuration("Snapshots", SECOND, "After SP1", 2, "gone.avhdx")).unwrap();
    let below = disk::open(&host.shared(), Path::new("/vms/one.avhdx"), ImageFormat::Vhdx, Access::Read).unwrap();
    disk::create_child(&host.shared(), Path::new("/vms/backup.avhdx"), &*below, None).unwrap().freeze().unwrap();
    let view = open_folder(&host.shared(), Path::new("/vms")).unwrap();
    let said = |parts: &[&str]| view.problems.iter().any(|problem| parts.iter().all(|part| problem.contains(part)));
    assert!(said(&["broken.vmcx"]) && said(&["After SP1", "gone.avhdx", "isn't in this folder"]), "{:?}", view.problems);
    assert!(said(&["backup.avhdx", "no configuration names it"]), "{:?}", view.problems);
    assert_eq!(view.problems.len(), 3, "{:?}", view.problems);
    let machine = &view.machines[0];
    validate(machine).unwrap();
    assert_eq!((machine.snapshots.len(), machine.images.len()), (2, 4));
}
