//! Each defect, repaired, read back byte for byte, undone byte for byte, and cut short at every step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::chain::{Chain, Gate};
use crate::diagnose::tests::{chain, open};
use crate::diagnose::{Defect, diagnose};
use crate::disk::{self, CreateOptions, ImageFormat};
use crate::host_file::{Access, Host, publish_file, read_file};
use crate::testing::{EveryStep, MemHost, Random};
use crate::units::ByteCount;

const BOTH: [(ImageFormat, [&str; 3]); 2] =
    [(ImageFormat::Vhdx, ["base.vhdx", "one.avhdx", "two.avhdx"]), (ImageFormat::Vhd, ["base.vhd", "one.avhd", "two.avhd"])];

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("/vms/{name}"))
}

/// Every file's bytes.
fn content(host: &MemHost) -> BTreeMap<PathBuf, Vec<u8>> {
    host.files().into_iter().map(|file| (file.clone(), read_file(host, &file, 1 << 30).unwrap())).collect()
}

/// What a leaf shows.
fn shown(host: &MemHost, leaf: &str) -> Vec<u8> {
    let chain = Chain::open(&host.shared(), &path(leaf), Access::Read, &Gate::new([PathBuf::from("/vms")])).unwrap();
    let mut bytes = vec![0; chain.virtual_size().0 as usize];
    chain.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn planned(host: &MemHost, choices: &Choices) -> Plan {
    let steps = host.steps();
    let plan = plan(&host.shared(), &diagnose(&host.shared(), Path::new("/vms")).unwrap(), choices);
    assert_eq!(host.steps(), steps, "a plan changes nothing");
    plan
}

fn parent(child: &str, parent: &str) -> Choices {
    Choices { parents: BTreeMap::from([(path(child), path(parent))]), set_aside: false }
}

/// Repairs, and compares what is shown; then undoes, and compares every byte of the folder.
fn repaired_and_undone(host: &MemHost, choices: &Choices, leaf: &str, expected: &[u8]) {
    let before = content(host);
    let plan = planned(host, choices);
    assert!(!plan.steps.is_empty(), "{plan:?}");
    let done = execute(&host.shared(), &plan, choices).unwrap();
    assert_eq!(done.done.len(), plan.steps.len());
    assert_eq!(diagnose(&host.shared(), Path::new("/vms")).unwrap().defects().count(), 0);
    assert!(shown(host, leaf) == expected, "what {leaf} shows");
    assert_eq!(past(&host.shared(), Path::new("/vms")).unwrap().len(), 1);
    undo(&host.shared(), Path::new("/vms")).unwrap();
    let after = content(host);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (file, bytes) in &before {
        assert!(after[file] == *bytes, "{} isn't what it was", file.display());
    }
}

#[test]
fn a_parent_that_was_moved_or_renamed_is_reconnected() {
    for (format, names) in BOTH {
        for to in ["old/".to_owned() + names[0], format!("other-{}", names[0])] {
            let host = MemHost::new();
            chain(&host, format, &names);
            let expected = shown(&host, names[2]);
            host.create_dir_all(Path::new("/vms/old")).unwrap();
            host.rename(&path(names[0]), &path(&to)).unwrap();
            repaired_and_undone(&host, &Choices::default(), names[2], &expected);
        }
    }
}

#[test]
fn a_parent_that_was_written_to_or_resized_is_linked_again() {
    let (format, names) = BOTH[0];
    for grows in [false, true] {
        let host = MemHost::new();
        chain(&host, format, &names);
        let mut expected = shown(&host, names[2]);
        let base = open(&host.shared(), names[0], Access::Write);
        if grows {
            base.grow(ByteCount::mib(8)).unwrap();
        } else {
            base.write_at(&[9; 512], 1 << 20).unwrap();
            expected[1 << 20..(1 << 20) + 512].fill(9);
        }
        base.freeze().unwrap();
        drop(base);
        let plan = planned(&host, &Choices::default());
        assert!(plan.steps[0].warnings[0].contains("may differ"), "{plan:?}");
        repaired_and_undone(&host, &Choices::default(), names[2], &expected);
    }
}

#[test]
fn a_replaced_parent_is_linked_only_where_a_person_says_so() {
    for (format, names) in BOTH {
        let host = MemHost::new();
        chain(&host, format, &names);
        host.remove_file(&path(names[0])).unwrap();
        let other = disk::create(&host.shared(), &path(names[0]), format, &CreateOptions::dynamic(ByteCount::mib(4))).unwrap();
        other.freeze().unwrap();
        drop(other);
        let mut expected = vec![0; 4 << 20];
        expected[4096..8192].fill(2);
        expected[8192..12288].fill(3);
        let plan = planned(&host, &Choices::default());
        assert_eq!((plan.steps.len(), plan.refused.len()), (0, 1), "{plan:?}");
        assert!(plan.refused[0].reason.contains("is another disk"), "{plan:?}");
        repaired_and_undone(&host, &parent(names[1], names[0]), names[2], &expected);
    }
}

#[test]
fn a_missing_parent_is_waited_for_and_a_loop_is_opened_by_a_choice() {
    let (format, names) = BOTH[0];
    let host = MemHost::new();
    chain(&host, format, &names);
    let expected = shown(&host, names[2]);
    let one = open(&host.shared(), names[1], Access::Write);
    let data_write_id = open(&host.shared(), names[2], Access::Look).info().data_write_id;
    one.set_parent(&disk::ParentTarget { path: path(names[2]), data_write_id }).unwrap();
    one.freeze().unwrap();
    drop(one);
    let found = diagnose(&host.shared(), Path::new("/vms")).unwrap();
    assert_eq!(found.of(&path(names[1])).unwrap().defect, Some(Defect::Loop), "{found:?}");
    let plan = planned(&host, &Choices::default());
    assert_eq!((plan.steps.len(), plan.refused.len()), (0, 2), "{plan:?}");
    // Not to itself through another one.
    let wrong = planned(&host, &parent(names[1], names[2]));
    assert!(wrong.steps.is_empty() && wrong.refused.iter().any(|refused| refused.reason.contains("lead back")), "{wrong:?}");
    repaired_and_undone(&host, &parent(names[1], names[0]), names[2], &expected);

    host.remove_file(&path(names[0])).unwrap();
    let plan = planned(&host, &parent(names[1], "gone.vhdx"));
    assert!(plan.refused.iter().any(|refused| refused.reason.contains("isn't an image of this folder")), "{plan:?}");
}

#[test]
fn a_refused_repair_leaves_nothing_behind() {
    let (format, names) = BOTH[0];
    let host = MemHost::new();
    chain(&host, format, &names);
    let refused = |host: &MemHost, plan: &Plan| {
        let (before, steps) = (content(host), host.steps());
        let error = execute(&host.shared(), plan, &Choices::default()).unwrap_err();
        assert!(error.is_refusal(), "{error}");
        assert!(content(host) == before && host.steps() == steps && !host.exists(&path(KEPT)), "{error}");
        error.to_string()
    };
    assert_eq!(refused(&host, &planned(&host, &Choices::default())), "there is nothing that can be repaired");
    host.rename(&path(names[0]), &path("other.vhdx")).unwrap();
    let plan = planned(&host, &Choices::default());
    let held = open(&host.shared(), names[2], Access::Write);
    assert!(refused(&host, &plan).contains("planned"));
    assert!(refused(&host, &planned(&host, &Choices::default())).contains("the folder is in use: a process has"));
    drop(held);
    host.rename(&path("other.vhdx"), &path("another.vhdx")).unwrap();
    assert!(refused(&host, &plan).contains("the folder has changed since"));
}

#[test]
fn what_was_written_since_is_not_undone() {
    for (format, names) in BOTH {
        let host = MemHost::new();
        chain(&host, format, &names);
        host.rename(&path(names[0]), &path(&format!("other-{}", names[0]))).unwrap();
        let plan = planned(&host, &Choices::default());
        execute(&host.shared(), &plan, &Choices::default()).unwrap();
        let one = open(&host.shared(), names[1], Access::Write);
        one.write_at(&[5; 4096], 3 << 20).unwrap();
        one.freeze().unwrap();
        drop(one);
        let before = content(&host);
        let error = undo(&host.shared(), Path::new("/vms")).unwrap_err();
        assert!(error.is_refusal() && error.to_string().contains("was changed since the repair"), "{error}");
        assert!(content(&host) == before);
    }
}

#[test]
fn what_was_kept_is_input() {
    let (format, names) = BOTH[0];
    let host = MemHost::new();
    chain(&host, format, &names);
    publish_file(&host, Path::new("/outside"), b"theirs").unwrap();
    host.link(&path("link"), Path::new("/outside")).unwrap();
    for file in ["../outside", "/outside", "link", ""] {
        host.create_dir_all(&path(KEPT).join("1")).unwrap();
        let kept = kept::Kept::create(&host.shared(), &path(KEPT).join("1/kept")).unwrap();
        kept.keep(&kept::Back::Bytes { file: file.into(), offset: 0 }, b"ours").unwrap();
        drop(kept);
        let error = undo(&host.shared(), Path::new("/vms")).unwrap_err();
        assert!(error.to_string().contains("isn't a file inside the folder"), "{file:?}: {error}");
        assert_eq!(read_file(&host, Path::new("/outside"), 100).unwrap(), b"theirs");
        host.remove_dir_all(&path(KEPT)).unwrap();
    }
}

/// A record that is damaged isn't taken for a torn end while others stand behind it.
#[test]
fn a_damaged_record_is_no_torn_end() {
    let host = MemHost::new();
    host.create_dir_all(Path::new("/vms")).unwrap();
    let (shared, root, records) = (host.shared(), Path::new("/vms"), path("records"));
    let made = || {
        publish_file(&host, &path("file"), &[1; 64]).unwrap();
        let _ = host.remove_file(&records);
        let kept = kept::Kept::create(&shared, &records).unwrap();
        let mut starts = Vec::new();
        for offset in 0..3 {
            starts.push(host.open(&records, Access::Look).unwrap().len().unwrap());
            kept.keep(&kept::Back::Bytes { file: "file".into(), offset }, &[7]).unwrap();
        }
        starts
    };
    let taken_back = || {
        let taken = kept::Kept::take_all_back(&shared, root, &records);
        (taken, read_file(&host, &path("file"), 64).unwrap()[..3].to_vec())
    };
    let starts = made();
    assert!(matches!(taken_back(), (Ok(()), bytes) if bytes == [7, 7, 7]));
    for (at, record) in starts.iter().enumerate() {
        // Each byte of its length, its checksum, its head.
        for byte in (0..8).chain([12]) {
            for flip in [0x01, 0x80, 0xff] {
                made();
                let file = host.open(&records, Access::Write).unwrap();
                let mut old = [0];
                file.read_exact_at(&mut old, record + byte).unwrap();
                file.write_all_at(&[old[0] ^ flip], record + byte).unwrap();
                drop(file);
                match taken_back() {
                    (Err(RepairError::Invalid { offset, .. }), bytes) if at < 2 => {
                        assert_eq!((offset, &bytes[..]), (*record, &[1, 1, 1][..]), "nothing is changed");
                    }
                    (Ok(()), bytes) if at == 2 => assert_eq!(bytes, [7, 7, 1], "the last one may be torn"),
                    other => panic!("record {at}, byte {byte}: {other:?}"),
                }
            }
        }
    }
    // Wherever the end is torn.
    for cut in starts[2]..starts[2] + 20 {
        made();
        host.open(&records, Access::Write).unwrap().set_len(cut).unwrap();
        assert!(matches!(taken_back(), (Ok(()), bytes) if bytes == [7, 7, 1]), "cut at {cut}");
    }
}

mod exposed;
mod left_over;

/// A repair, or its undo, is cut short: after recovery the folder is as before it, or repaired.
#[test]
fn cut_short_at_every_step() {
    let every = std::env::var_os("SNAPTREE_EVERY_STEP").is_some();
    for (format, names) in BOTH {
        for undoes in [false, true] {
            let run = EveryStep {
                name: if undoes { "undo of a repair" } else { "repair" },
                seed: Random::new(7).next_u64(),
                power_losses: 2,
                least_steps: 8,
                most_points: if every { u64::MAX } else { 16 },
            };
            run.crash(
                |host| {
                    chain(host, format, &names);
                    host.rename(&path(names[0]), &path(&format!("other-{}", names[0]))).unwrap();
                    host.flush_dir(Path::new("/vms")).unwrap();
                    host.flush_dir(Path::new("/")).unwrap();
                    let before = content(host);
                    if undoes {
                        let plan = planned(host, &Choices::default());
                        execute(&host.shared(), &plan, &Choices::default()).unwrap();
                    }
                    before
                },
                |host, _| {
                    let shared = host.shared();
                    match undoes {
                        true => undo(&shared, Path::new("/vms")).is_ok(),
                        false => diagnose(&shared, Path::new("/vms")).is_ok_and(|found| {
                            execute(&shared, &plan(&shared, &found, &Choices::default()), &Choices::default()).is_ok()
                        }),
                    }
                },
                |host, before, acknowledged, _| {
                    recover(&host.shared(), Path::new("/vms")).unwrap();
                    let kept = past(&host.shared(), Path::new("/vms")).unwrap();
                    if *acknowledged {
                        assert_eq!(kept.len(), usize::from(!undoes), "what was acknowledged stays");
                    }
                    if kept.is_empty() {
                        assert!(content(host) == *before, "as it was before the repair");
                    } else {
                        assert_eq!(diagnose(&host.shared(), Path::new("/vms")).unwrap().defects().count(), 0);
                        undo(&host.shared(), Path::new("/vms")).unwrap();
                        assert!(content(host) == *before, "undone");
                    }
                },
            );
        }
    }
}

#[test]
fn what_was_kept_is_given_back_when_somebody_says_so() {
    let (format, names) = BOTH[0];
    let host = MemHost::new();
    chain(&host, format, &names);
    let expected = shown(&host, names[2]);
    host.rename(&path(names[0]), &path("other.vhdx")).unwrap();
    let (shared, folder) = (host.shared(), Path::new("/vms"));
    assert_eq!(forget(&shared, folder).unwrap(), ByteCount::ZERO, "nothing was kept yet");
    execute(&shared, &planned(&host, &Choices::default()), &Choices::default()).unwrap();
    assert!(forget(&shared, folder).unwrap() > ByteCount::ZERO);
    assert!(!host.exists(&Path::new("/vms").join(KEPT)));
    assert!(past(&shared, folder).unwrap().is_empty());
    assert!(undo(&shared, folder).is_err(), "there is nothing to undo");
    assert!(recover(&shared, folder).unwrap().is_none());
    assert!(shown(&host, names[2]) == expected);
}

/// A repair that another process is about to carry out isn't taken for one that was cut short.
#[test]
fn what_is_under_way_is_not_taken_back() {
    let (format, names) = BOTH[0];
    let host = MemHost::new();
    chain(&host, format, &names);
    host.rename(&path(names[0]), &path("other.vhdx")).unwrap();
    let (shared, folder) = (host.shared(), Path::new("/vms"));
    let kept = folder.join(KEPT);
    host.create_dir_all(&kept.join("1")).unwrap();
    let lock = host.lock(&kept.join("lock")).unwrap();
    assert!(recover(&shared, folder).is_err() && undo(&shared, folder).is_err(), "somebody is at it");
    assert!(host.exists(&kept.join("1")));
    drop(lock);
    assert!(recover(&shared, folder).unwrap().is_some(), "now it was cut short");
    assert!(!host.exists(&kept));
}

/// What is cut off can be most of an image: it is kept in pieces.
#[test]
fn a_file_that_is_cut_short_comes_back_whole() {
    let host = MemHost::new();
    host.create_dir_all(Path::new("/vms")).unwrap();
    let bytes: Vec<u8> = (0..9 << 20).map(|at: u32| (at / 4099) as u8).collect();
    publish_file(&host, &path("large"), &bytes).unwrap();
    let kept = kept::Kept::create(&host.shared(), &path("records")).unwrap();
    let keeper = keep::Keeper::shared(&host.shared(), Path::new("/vms"), &kept);
    let file = keeper.open(&path("large"), Access::Write).unwrap();
    file.set_len(1000).unwrap();
    file.write_all_at(&[1; 100], 950).unwrap();
    file.flush().unwrap();
    drop((file, keeper, kept));
    assert_ne!(content(&host)[&path("large")], bytes);
    kept::Kept::take_all_back(&host.shared(), Path::new("/vms"), &path("records")).unwrap();
    assert!(content(&host)[&path("large")] == bytes);
}
