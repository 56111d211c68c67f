//! Folders with one defect each, made from our own images.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::disk::{self, CreateOptions, Image, ImageFormat, ParentTarget};
use crate::host_file::{Access, Host, SharedHost, publish_file};
use crate::testing::MemHost;
use crate::units::ByteCount;

pub(crate) fn open(host: &SharedHost, name: &str, access: Access) -> Arc<dyn Image> {
    let path = PathBuf::from(format!("/vms/{name}"));
    let format = disk::probe(host, &path).unwrap();
    disk::open(host, &path, format, access).unwrap()
}

/// `base`, `one`, `two` and so on, each with a sector of its own content.
pub(crate) fn chain(host: &MemHost, format: ImageFormat, names: &[&str]) {
    let shared = host.shared();
    host.create_dir_all(Path::new("/vms")).unwrap();
    let mut below: Option<Arc<dyn Image>> = None;
    for (at, name) in names.iter().enumerate() {
        let path = PathBuf::from(format!("/vms/{name}"));
        let image = match &below {
            None => disk::create(&shared, &path, format, &CreateOptions::dynamic(ByteCount::mib(4))),
            Some(below) => disk::create_child(&shared, &path, &**below, None),
        };
        let image = image.unwrap();
        image.write_at(&[at as u8 + 1; 4096], at as u64 * 4096).unwrap();
        image.freeze().unwrap();
        below = Some(image);
    }
}

fn look(host: &MemHost) -> Diagnosis {
    let steps = host.steps();
    let found = diagnose(&host.shared(), Path::new("/vms")).unwrap();
    assert_eq!(host.steps(), steps, "nothing is written");
    let text = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Diagnosis>(&text).unwrap(), found);
    found
}

fn of<'a>(found: &'a Diagnosis, name: &str) -> &'a Finding {
    found.of(&PathBuf::from(format!("/vms/{name}"))).unwrap_or_else(|| panic!("{name} isn't in {found:?}"))
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("/vms/{name}"))
}

const BOTH: [(ImageFormat, [&str; 3]); 2] =
    [(ImageFormat::Vhdx, ["base.vhdx", "one.avhdx", "two.avhdx"]), (ImageFormat::Vhd, ["base.vhd", "one.avhd", "two.avhd"])];

#[test]
fn a_whole_chain_has_no_defect() {
    for (format, names) in BOTH {
        let host = MemHost::new();
        chain(&host, format, &names);
        let found = look(&host);
        assert_eq!((found.kind, found.defects().count(), &found.in_use), (FolderKind::Images, 0, &None), "{found:?}");
        assert_eq!(of(&found, names[0]).children, [path(names[1])]);
        assert_eq!(of(&found, names[2]).parent, Some(path(names[1])));
        assert_eq!(of(&found, names[0]).reason, "1 image reads through it");
    }
}

#[test]
fn a_parent_that_was_moved_or_renamed_is_found_by_its_identifier() {
    for (format, names) in BOTH {
        let host = MemHost::new();
        chain(&host, format, &names);
        host.create_dir_all(Path::new("/vms/old")).unwrap();
        let moved = path("old").join(names[0]);
        host.rename(&path(names[0]), &moved).unwrap();
        let found = look(&host);
        assert_eq!(of(&found, names[1]).defect, Some(Defect::Moved { parent: moved.clone() }), "{found:?}");
        assert_eq!((found.defects().count(), of(&found, names[2]).broken_below.clone()), (1, None));

        let renamed = path(&format!("other{}", names[0]));
        host.rename(&moved, &renamed).unwrap();
        let found = look(&host);
        assert_eq!(of(&found, names[1]).defect, Some(Defect::Renamed { parent: renamed }), "{found:?}");
        assert!(of(&found, names[1]).reason.contains("its parent was renamed"), "{found:?}");
    }
}

#[test]
fn a_parent_that_is_gone_or_unreadable_makes_orphans() {
    for (format, names) in BOTH {
        let host = MemHost::new();
        chain(&host, format, &names);
        host.remove_file(&path(names[0])).unwrap();
        let found = look(&host);
        let orphan = of(&found, names[1]);
        assert_eq!((orphan.standing(), &orphan.defect), (Standing::Orphaned, &Some(Defect::Orphaned)));
        assert!(orphan.reason.contains("is gone: no image here has the identifier"), "{}", orphan.reason);
        let above = of(&found, names[2]);
        assert_eq!((&above.defect, &above.broken_below), (&None, &Some(path(names[1]))));

        publish_file(&host, &path(names[0]), &[7; 4096]).unwrap();
        let found = look(&host);
        assert_eq!(of(&found, names[0]).defect, Some(Defect::Unreadable));
        let reason = &of(&found, names[1]).reason;
        assert!(reason.contains("can't be read") && reason.contains(names[0]), "{reason}");
    }
}

#[test]
fn a_parent_that_was_written_resized_or_replaced_is_told_apart() {
    let (format, names) = BOTH[0];
    let made = || {
        let host = MemHost::new();
        chain(&host, format, &names);
        host
    };
    let parent = path(names[0]);
    let host = made();
    open(&host.shared(), names[0], Access::Write).write_at(&[9; 512], 8192).unwrap();
    let found = look(&host);
    assert_eq!(of(&found, names[1]).defect, Some(Defect::WrittenUnder { parent: parent.clone() }), "{found:?}");
    assert_eq!(of(&found, names[1]).standing(), Standing::Broken);

    let host = made();
    open(&host.shared(), names[0], Access::Write).grow(ByteCount::mib(8)).unwrap();
    let found = look(&host);
    assert_eq!(of(&found, names[1]).defect, Some(Defect::Resized { parent: parent.clone() }), "{found:?}");

    for (format, names) in BOTH {
        let host = MemHost::new();
        chain(&host, format, &names);
        let parent = path(names[0]);
        host.remove_file(&parent).unwrap();
        disk::create(&host.shared(), &parent, format, &CreateOptions::dynamic(ByteCount::mib(4))).unwrap();
        let found = look(&host);
        assert_eq!(of(&found, names[1]).defect, Some(Defect::Replaced { parent }), "{found:?}");
    }
}

#[test]
fn a_child_that_was_resized_itself_is_right() {
    for (format, names) in BOTH {
        let host = MemHost::new();
        chain(&host, format, &names);
        open(&host.shared(), names[2], Access::Write).grow(ByteCount::mib(8)).unwrap();
        assert_eq!(look(&host).defects().count(), 0);
    }
}

#[test]
fn parents_in_a_circle_are_a_loop() {
    for (format, names) in BOTH {
        let host = MemHost::new();
        chain(&host, format, &names);
        let one = open(&host.shared(), names[1], Access::Write);
        let data_write_id = open(&host.shared(), names[2], Access::Look).info().data_write_id;
        // As the identifier of what is written to may change, the one of the other end is asked for last.
        one.set_parent(&ParentTarget { path: path(names[2]), data_write_id }).unwrap();
        one.freeze().unwrap();
        drop(one);
        let mut found = look(&host);
        if of(&found, names[2]).defect != Some(Defect::Loop) {
            let id = open(&host.shared(), names[1], Access::Look).info().data_write_id;
            let two = open(&host.shared(), names[2], Access::Write);
            two.set_linkage(id, None).unwrap();
            drop(two);
            found = look(&host);
        }
        for name in &names[1..] {
            assert_eq!(of(&found, name).defect, Some(Defect::Loop), "{found:?}");
        }
        assert_eq!(of(&found, names[0]).defect, None);
    }
}

#[test]
fn what_a_process_has_open_is_held() {
    let (format, names) = BOTH[0];
    let host = MemHost::new();
    chain(&host, format, &names);
    let _open = open(&host.shared(), names[2], Access::Write);
    let found = look(&host);
    assert_eq!(of(&found, names[2]).standing(), Standing::Held);
    assert_eq!(found.in_use, Some(format!("a process has {} open", path(names[2]).display())));
}

/// As other programs write it (ours says nothing, as Windows does).
#[test]
fn a_time_of_the_parent_that_differs_is_said_and_is_no_defect() {
    let dir = tempfile::tempdir().unwrap();
    let host = crate::host_file::OsHost::shared();
    let [base, child] = ["base.vhd", "one.avhd"].map(|name| host.canonical(dir.path()).unwrap().join(name));
    let below = disk::create(&host, &base, ImageFormat::Vhd, &CreateOptions::dynamic(ByteCount::mib(4))).unwrap();
    below.freeze().unwrap();
    disk::create_child(&host, &child, &*below, None).unwrap().freeze().unwrap();
    drop(below);
    let modified = host.modified(&base).unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (seconds, differs) in [(None, false), (Some(modified), false), (Some(modified - 3600), true)] {
        if let Some(seconds) = seconds {
            // The dynamic header's Parent Time Stamp, in seconds since 2000, and its checksum.
            let file = host.open(&child, Access::Write).unwrap();
            let mut header = [0; 1024];
            file.read_exact_at(&mut header, 512).unwrap();
            header[56..60].copy_from_slice(&(seconds - 946_684_800).to_be_bytes()[4..]);
            header[36..40].fill(0);
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[36..40].copy_from_slice(&(!sum).to_be_bytes());
            file.write_all_at(&header, 512).unwrap();
        }
        let found = diagnose(&host, dir.path()).unwrap();
        let one = found.of(&child).unwrap();
        assert_eq!((one.defect.clone(), one.reason.contains("written to since")), (None, differs), "{one:?}");
    }
}

#[test]
fn copies_of_a_parent_are_candidates() {
    let (format, names) = BOTH[0];
    let host = MemHost::new();
    chain(&host, format, &names);
    let bytes = crate::host_file::read_file(&host, &path(names[0]), 1 << 30).unwrap();
    publish_file(&host, &path("copy.vhdx"), &bytes).unwrap();
    let found = look(&host);
    assert_eq!(of(&found, names[1]).candidates, [path("copy.vhdx")]);
    assert_eq!(of(&found, names[1]).expects, of(&found, names[0]).info.as_ref().map(|info| info.data_write_id));
    assert_ne!(of(&found, names[1]).expects, Some(Uuid::nil()));
}

pub(crate) mod of_hyper_v;
mod of_ours;
