//! Whose the images are, in folders of Hyper-V's and in machines of this program.

use super::*;
use crate::hyperv::Value;
use crate::store::{Library, NewMachine};
use crate::testing::vmcx;

pub(crate) const MACHINE: &str = "10000000-0000-4000-8000-000000000001";
pub(crate) const FIRST: &str = "20000000-0000-4000-8000-000000000001";

fn node(children: Vec<(&'static str, Value)>) -> Value {
    Value::Node(children.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Writes the configuration of a machine or a snapshot with one disk.
pub(crate) fn configure(host: &MemHost, role: &str, id: &str, name: &str, disk: &str) {
    configure_with(host, role, id, name, disk, false);
}

/// The same, with a merge before it or not.
pub(crate) fn configure_with(host: &MemHost, role: &str, id: &str, name: &str, disk: &str, merge_pending: bool) {
    let text = |text: &str| Value::Text(text.into());
    let drive = node(vec![("pathname", text(&format!("D:\\VMs\\{disk}"))), ("type", text("VHD"))]);
    let ide = node(vec![("controller0", node(vec![("drive0", drive)]))]);
    let properties = node(vec![("name", text(name)), ("type_id", text(role)), ("global_id", text(id))]);
    let settings = node(vec![("global", node(vec![("logical_id", text(MACHINE))]))]);
    let global = node(vec![("disk_merge_pending", Value::Bool(merge_pending))]);
    let parts = vec![
        ("_83f8638b-8dca-4152-9eda-2ca8b33039b4_", ide),
        ("global_settings", global),
        ("properties", properties),
        ("settings", settings),
    ];
    let dir = PathBuf::from("/vms").join(role);
    host.create_dir_all(&dir).unwrap();
    publish_file(host, &dir.join(format!("{id}.vmcx")), &vmcx(&node(vec![("configuration", node(parts))]))).unwrap();
}

/// base (First) - one (nobody) - now, and backup beside now.
fn folder() -> MemHost {
    let host = MemHost::new();
    chain(&host, ImageFormat::Vhdx, &["base.vhdx", "one.avhdx", "now.avhdx"]);
    let one = open(&host.shared(), "one.avhdx", Access::Read);
    disk::create_child(&host.shared(), &path("backup.avhdx"), &*one, None).unwrap().freeze().unwrap();
    drop(one);
    configure(&host, "Virtual Machines", MACHINE, "WEB01", "now.avhdx");
    configure(&host, "Snapshots", FIRST, "Before SP1", "base.vhdx");
    host
}

#[test]
fn configurations_say_whose_an_image_is() {
    let host = folder();
    let found = look(&host);
    assert_eq!((found.kind, &found.problems), (FolderKind::HyperV, &Vec::new()));
    let name = |snapshot: Option<&str>| NodeName { machine: "WEB01".into(), snapshot: snapshot.map(str::to_owned) };
    assert_eq!(of(&found, "now.avhdx").role, Role::Owned { node: name(None) });
    assert_eq!(of(&found, "base.vhdx").role, Role::Owned { node: name(Some("Before SP1")) });
    assert_eq!(of(&found, "one.avhdx").role, Role::LeftOver { nodes: vec![name(None)] });
    assert_eq!(of(&found, "backup.avhdx").role, Role::LeftOver { nodes: Vec::new() });
    assert_eq!(of(&found, "backup.avhdx").standing(), Standing::LeftOver);
    assert!(of(&found, "one.avhdx").reason.contains("no configuration names it; read through by “WEB01, now”"));
    assert_eq!(found.in_use, None);

    // The base itself, once no snapshot names it: a chain needs one.
    host.remove_file(&path("Snapshots").join(format!("{FIRST}.vmcx"))).unwrap();
    assert_eq!(of(&look(&host), "base.vhdx").role, Role::Shared { nodes: vec![name(None)] });
}

#[test]
fn a_merge_that_hyper_v_has_before_it_is_said() {
    let host = folder();
    assert_eq!(look(&host).merges_pending, Vec::<String>::new());
    configure_with(&host, "Virtual Machines", MACHINE, "WEB01", "now.avhdx", true);
    let found = look(&host);
    assert_eq!(found.merges_pending, ["WEB01"]);
    assert!(of(&found, "one.avhdx").reason.ends_with("Hyper-V has a merge before it"), "{found:?}");
}

#[test]
fn a_configuration_that_is_open_means_that_the_machine_is_in_use() {
    let host = folder();
    let file = path("Virtual Machines").join(format!("{MACHINE}.vmcx"));
    let _open = host.open(&file, Access::Write).unwrap();
    assert_eq!(look(&host).in_use, Some(format!("a process has {} open", file.display())));
}

#[test]
fn what_was_kept_by_a_repair_is_no_part_of_the_folder() {
    let host = folder();
    let before = look(&host);
    let kept = path(folder::KEPT);
    host.create_dir_all(&kept).unwrap();
    let bytes = crate::host_file::read_file(&host, &path("one.avhdx"), 1 << 30).unwrap();
    publish_file(&host, &kept.join("0.avhdx"), &bytes).unwrap();
    assert_eq!(look(&host), before);
}

#[test]
fn a_manifest_says_whose_an_image_is() {
    let host = MemHost::new();
    let clock = crate::clock::SystemClock::shared();
    let library = Library::open(&host.shared(), &clock, Path::new("/library")).unwrap();
    let new = NewMachine {
        name: "WEB01".into(),
        kind: crate::snapshot::MachineKind::Disks,
        memory: ByteCount::mib(64),
        disks: vec![ByteCount::mib(4)],
        format: ImageFormat::Vhdx,
        workload: crate::snapshot::WorkloadProfile::default(),
        hardware: None,
    };
    let store = library.create(&new).unwrap();
    let dir = store.dir().to_owned();
    let stray = dir.join("Snapshots/stray.vhdx");
    host.create_dir_all(&dir.join("Snapshots")).unwrap();
    disk::create(&host.shared(), &stray, ImageFormat::Vhdx, &CreateOptions::dynamic(ByteCount::mib(4))).unwrap();
    let found = diagnose(&host.shared(), &dir).unwrap();
    assert_eq!(found.in_use.as_deref(), Some("the machine is open in another process"));
    drop(store);
    let found = diagnose(&host.shared(), &dir).unwrap();
    assert_eq!((found.kind, &found.in_use, found.images.len()), (FolderKind::Machine, &None, 2));
    assert_eq!(found.of(&stray).unwrap().standing(), Standing::LeftOver);
    assert_eq!(found.images.iter().filter(|image| image.standing() == Standing::Owned).count(), 1);

    // The library as a whole isn't the place to change it.
    let found = diagnose(&host.shared(), Path::new("/library")).unwrap();
    assert!(found.in_use.unwrap().contains("belongs to a machine of this program"));
}
