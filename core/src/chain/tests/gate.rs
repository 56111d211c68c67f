//! Attacks on the gate: a parent locator is input from a stranger.

use std::path::PathBuf;

use super::*;
use crate::disk::{DiskErrorKind, ParentLink};
use crate::host_file::Host;
use crate::testing::MemHost;

fn host() -> MemHost {
    let host = MemHost::new();
    for path in ["/vms/disks/base.vhdx", "/vms/snapshots/child.avhdx", "/etc/shadow", "/vms-other/base.vhdx"] {
        let path = Path::new(path);
        host.create_dir_all(path.parent().unwrap()).unwrap();
        host.create_new(path).unwrap();
    }
    host.link(Path::new("/vms/disks/out"), Path::new("/etc")).unwrap();
    host.link(Path::new("/vms/disks/in.vhdx"), Path::new("base.vhdx")).unwrap();
    host.link(Path::new("/short"), Path::new("/vms")).unwrap();
    host
}

fn ask(host: &MemHost, root: &str, relative: Option<&str>, absolute: Option<&str>) -> Result<Vec<PathBuf>, DiskErrorKind> {
    let link = ParentLink {
        relative_path: relative.map(Into::into),
        absolute_path: absolute.map(Into::into),
        volume_path: Some(r"\\?\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\base.vhdx".into()),
        ..ParentLink::default()
    };
    let gate = Gate::new([PathBuf::from(root)]);
    gate.candidates(host, Path::new("/vms/snapshots/child.avhdx"), &link).map_err(|error| *error.kind)
}

#[test]
fn paths_inside_are_found() {
    let host = host();
    let base = vec![PathBuf::from("/vms/disks/base.vhdx")];
    for relative in [r"..\disks\base.vhdx", "../disks/base.vhdx", r".\..\disks\.\base.vhdx", r"..\disks\in.vhdx"] {
        assert_eq!(ask(&host, "/vms", Some(relative), None).unwrap(), base, "{relative}");
    }
    assert_eq!(ask(&host, "/vms", None, Some("/vms/disks/base.vhdx")).unwrap(), base);
    assert_eq!(ask(&host, "/short", None, Some("/short/disks/base.vhdx")).unwrap(), base, "an opened folder may be a link");
    assert_eq!(ask(&host, "/short", Some(r"..\disks\base.vhdx"), Some("/etc/shadow")).unwrap(), base, "one of two is enough");
    assert_eq!(ask(&host, "/vms", Some(r"..\disks\base.vhdx"), Some("/vms/disks/base.vhdx")).unwrap(), base, "both are one");
    let child = PathBuf::from("/vms/snapshots/child.avhdx");
    assert_eq!(ask(&host, "/vms", Some(r".\child.avhdx"), None).unwrap(), [child]);
}

#[test]
fn paths_outside_are_refused() {
    let host = host();
    for (relative, absolute, outside) in [
        (Some(r"..\..\etc\shadow"), None, "/etc/shadow"),
        (Some("../../../../../../etc/shadow"), None, "/etc/shadow"),
        (Some("/etc/shadow"), None, "/etc/shadow"),
        (None, Some("/etc/shadow"), "/etc/shadow"),
        (None, Some(r"\etc\shadow"), "/etc/shadow"),
        (Some(r"..\disks\out\shadow"), None, "/etc/shadow"),
        (None, Some("/vms/../etc/shadow"), "/etc/shadow"),
        (None, Some("/vms-other/base.vhdx"), "/vms-other/base.vhdx"),
        (Some(r"..\..\nothing\there.vhdx"), None, "/nothing/there.vhdx"),
    ] {
        match ask(&host, "/vms", relative, absolute) {
            Err(DiskErrorKind::OutsideGate(path)) => assert_eq!(path, Path::new(outside)),
            other => panic!("{relative:?} {absolute:?}: {other:?}"),
        }
    }
    // Nothing was opened: nothing passes.
    assert!(matches!(ask(&host, "/not there", Some(r"..\disks\base.vhdx"), None), Err(DiskErrorKind::OutsideGate(_))));
}

#[test]
fn paths_of_other_computers_and_missing_ones_are_no_candidates() {
    let host = host();
    for (relative, absolute) in [
        (None, None),
        (None, Some(r"C:\VMs\base.vhdx")),
        (None, Some(r"\\server\share\base.vhdx")),
        (None, Some(r"\\?\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\base.vhdx")),
        (Some(r"..\disks\gone.vhdx"), None),
        (Some("..\\disks\\base.vhdx\0.txt"), None),
        (Some(""), Some("")),
        (None, Some(r"disks\base.vhdx")),
    ] {
        assert_eq!(ask(&host, "/vms", relative, absolute).unwrap(), Vec::<PathBuf>::new(), "{relative:?} {absolute:?}");
    }
}

#[test]
fn an_images_own_folder_is_around_it() {
    let host = host();
    let link = ParentLink { relative_path: Some(r".\base.vhdx".into()), ..ParentLink::default() };
    let child = Path::new("/vms/disks/child.avhdx");
    assert_eq!(Gate::around(child).candidates(&host, child, &link).unwrap(), [PathBuf::from("/vms/disks/base.vhdx")]);
}
