//! What configurations say of machines.

use super::stores::node;
use crate::hyperv::{Config, Role, Value};
use crate::units::ByteCount;

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn drive(path: &str) -> Value {
    node([("pathname", text(path)), ("type", text("VHD"))])
}

/// A machine with an IDE disk, a DVD drive, and two SCSI controllers.
fn sample() -> Value {
    let scsi = |instance| node([("device", text("d422512d-2bf2-4752-809d-7b82b5fcb1b4")), ("instance", text(instance))]);
    let (first, second) = ("11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000");
    let dvd = node([("pathname", text("C:\\setup.iso")), ("type", text("ISO"))]);
    let controller = |name, drive| node([("controller0", node([(name, drive)]))]);
    node([(
        "configuration",
        node([
            ("manifest", node([("vdev001", scsi(first)), ("vdev002", scsi(second))])),
            ("_22222222-0000-4000-8000-000000000000_", controller("drive3", drive("D:\\logs.vhdx"))),
            ("_11111111-0000-4000-8000-000000000000_", controller("drive0", drive("D:\\data.vhdx"))),
            (
                "_83f8638b-8dca-4152-9eda-2ca8b33039b4_",
                node([
                    ("controller0", node([("drive0", drive("C:\\VMs\\web.vhdx")), ("drive1", drive(""))])),
                    ("controller1", node([("drive0", dvd)])),
                ]),
            ),
            (
                "properties",
                node([
                    ("name", text("web")),
                    ("notes", text("Ask Ann")),
                    ("type_id", text("Snapshots")),
                    ("global_id", text("{282874FC-59D6-4F30-BC04-5FDD909C82E0}")),
                    ("creation_time", Value::Bytes(vec![0xa7, 0x6e, 0x45, 0x66, 0x9e, 0x97, 0xd7, 0x01])),
                    ("parent_id", text("00000000-0000-0000-0000-000000000000")),
                ]),
            ),
            (
                "settings",
                node([
                    ("global", node([("logical_id", text("582874fc-59d6-4f30-bc04-5fdd909c82e0"))])),
                    ("memory", node([("bank", node([("size", Value::Int(1024))]))])),
                    ("processors", node([("count", Value::UInt(4))])),
                ]),
            ),
            ("global_settings", node([("disk_merge_pending", Value::Bool(true))])),
        ]),
    )])
}

#[test]
fn a_configuration_says_what_hyper_v_shows() {
    let config = Config::of(&sample()).unwrap();
    assert_eq!((config.role, &*config.name, &*config.notes), (Some(Role::Snapshot), "web", "Ask Ann"));
    assert_eq!(config.id.unwrap().to_string(), "282874fc-59d6-4f30-bc04-5fdd909c82e0");
    assert_eq!(config.machine.unwrap().to_string(), "582874fc-59d6-4f30-bc04-5fdd909c82e0");
    assert_eq!(config.parent, None, "zero is none");
    assert_eq!(config.created.unwrap().to_rfc3339(), "2021-08-22T21:41:00.717226300+00:00");
    assert_eq!((config.memory, config.processors, config.merge_pending), (ByteCount::mib(1024), 4, true));
    let drives: Vec<_> = config.drives.iter().map(|drive| (drive.slot.to_string(), drive.file_name())).collect();
    let wanted = [("ide0-0", "web.vhdx"), ("scsi0-0", "data.vhdx"), ("scsi1-3", "logs.vhdx")];
    assert_eq!(drives, wanted.map(|(slot, file)| (slot.to_owned(), file)), "no DVD, no empty drive");
}

#[test]
fn what_is_no_configuration_is_none() {
    assert_eq!(Config::of(&node([])), None);
    assert_eq!(Config::of(&node([("configuration", node([("properties", node([]))]))])), None);
}
