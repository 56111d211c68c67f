//! Images that no configuration names.

use super::*;
use crate::diagnose::tests::of_hyper_v::{FIRST, MACHINE, configure, configure_with};
use crate::diagnose::{ASIDE, Role, Standing};

/// base (First) - 30 that nobody names - now - above, which nobody names either.
fn folder(host: &MemHost, format: ImageFormat, left: usize) -> Vec<String> {
    let (base, child) = (format.extension(), format.child_extension());
    let mut names = vec![format!("base.{base}")];
    names.extend((1..=left).map(|at| format!("left{at}.{child}")));
    names.extend([format!("now.{child}"), format!("above.{child}")]);
    chain(host, format, &names.iter().map(|name| &**name).collect::<Vec<_>>());
    configure(host, "Virtual Machines", MACHINE, "WEB01", &format!("now.{child}"));
    configure(host, "Snapshots", FIRST, "Before SP1", &names[0]);
    names
}

#[test]
fn a_left_over_chain_of_thirty_goes_into_the_image_that_reads_through_it() {
    for format in [ImageFormat::Vhdx, ImageFormat::Vhd] {
        let host = MemHost::new();
        let names = folder(&host, format, 30);
        let (now, above) = (&names[31], &names[32]);
        // Zeros that an image owns hide what stands below.
        let mid = open(&host.shared(), &names[30], Access::Write);
        mid.write_zeroes(8192, 4096).unwrap();
        let id = mid.info().data_write_id;
        mid.freeze().unwrap();
        drop(mid);
        let top = open(&host.shared(), now, Access::Write);
        top.set_linkage(id, None).unwrap();
        top.freeze().unwrap();
        drop(top);
        let (expected, shown_above, base) =
            (shown(&host, now), shown(&host, above), read_file(&host, &path(&names[0]), 1 << 30).unwrap());
        let before = content(&host);

        let plan = planned(&host, &Choices::default());
        assert_eq!((plan.steps.len(), plan.refused.len()), (1, 0), "{plan:?}");
        let Change::Merge { run, into, parent, .. } = &plan.steps[0].change else { panic!("{plan:?}") };
        assert_eq!((run.len(), into, parent), (30, &path(now), &path(&names[0])));
        assert_eq!((run[0].clone(), run[29].clone()), (path(&names[1]), path(&names[30])), "the lowest first");
        execute(&host.shared(), &plan, &Choices::default()).unwrap();
        assert!(shown(&host, now) == expected && shown(&host, above) == shown_above);
        let found = diagnose(&host.shared(), Path::new("/vms")).unwrap();
        assert_eq!((found.images.len(), found.defects().count()), (3, 0), "{found:?}");
        assert_eq!(found.of(&path(now)).unwrap().parent, Some(path(&names[0])));
        assert!(read_file(&host, &path(&names[0]), 1 << 30).unwrap() == base, "others read through the base");
        undo(&host.shared(), Path::new("/vms")).unwrap();
        assert!(content(&host) == before);
    }
}

/// Hyper-V has said that it will merge: nothing of it is merged or moved here.
#[test]
fn what_hyper_v_merges_is_left_to_it() {
    let host = MemHost::new();
    let names = folder(&host, ImageFormat::Vhdx, 2);
    configure_with(&host, "Virtual Machines", MACHINE, "WEB01", &names[3], true);
    let choices = Choices { set_aside: true, ..Choices::default() };
    let plan = planned(&host, &choices);
    assert_eq!(plan.steps, [], "{plan:?}");
    let refused: Vec<&Path> = plan.refused.iter().map(|refused| &*refused.image).collect();
    assert_eq!(refused, [path(&names[4]), path(&names[1]), path(&names[2])]);
    assert!(plan.refused.iter().all(|refused| refused.reason.contains("Hyper-V has a merge of \"WEB01\" before it")), "{plan:?}");
}

#[test]
fn what_several_read_through_is_not_merged() {
    let host = MemHost::new();
    let names = folder(&host, ImageFormat::Vhdx, 2);
    let two = open(&host.shared(), &names[2], Access::Read);
    disk::create_child(&host.shared(), &path("backup.avhdx"), &*two, None).unwrap().freeze().unwrap();
    drop(two);
    let plan = planned(&host, &Choices::default());
    assert_eq!(plan.steps.len(), 1, "{plan:?}");
    let Change::Merge { run, into, .. } = &plan.steps[0].change else { panic!("{plan:?}") };
    assert_eq!((&run[..], into), (&[path(&names[1])][..], &path(&names[2])), "up to the one that two read through");
    assert!(plan.refused[0].reason.contains("2 images read through it"), "{plan:?}");
    let (expected, backup) = (shown(&host, &names[3]), shown(&host, "backup.avhdx"));
    execute(&host.shared(), &plan, &Choices::default()).unwrap();
    assert!(shown(&host, &names[3]) == expected && shown(&host, "backup.avhdx") == backup);
}

#[test]
fn what_was_written_to_a_merged_image_since_is_not_undone() {
    for format in [ImageFormat::Vhdx, ImageFormat::Vhd] {
        let host = MemHost::new();
        let names = folder(&host, format, 2);
        host.remove_file(&path(&names[4])).unwrap();
        let plan = planned(&host, &Choices::default());
        execute(&host.shared(), &plan, &Choices::default()).unwrap();
        // As another program does it: only the data is changed.
        let file = host.open(&path(&names[3]), Access::Write).unwrap();
        let image = open(&host.shared(), &names[3], Access::Look);
        let extents = image.extents(0, 4 << 20).unwrap();
        let place = extents.iter().find_map(|extent| match extent.presence {
            disk::Presence::Data { host_offset } => Some(host_offset),
            _ => None,
        });
        file.write_all_at(&[0xee; 512], place.unwrap()).unwrap();
        drop(file);
        assert!(undo(&host.shared(), Path::new("/vms")).unwrap_err().to_string().contains("was changed since the repair"));
    }
}

#[test]
fn orphans_and_what_nobody_needs_are_set_aside_and_come_back() {
    let host = MemHost::new();
    let names = folder(&host, ImageFormat::Vhdx, 0);
    chain(&host, ImageFormat::Vhdx, &["gone.vhdx", "orphan.avhdx", "over.avhdx"]);
    host.remove_file(&path("gone.vhdx")).unwrap();
    let (expected, before) = (shown(&host, &names[1]), content(&host));
    assert!(planned(&host, &Choices::default()).steps.is_empty());
    let choices = Choices { set_aside: true, ..Choices::default() };
    let plan = planned(&host, &choices);
    let moved: Vec<&Path> = plan.steps.iter().map(|step| step.change.image()).collect();
    assert_eq!(moved, [path(&names[2]), path("orphan.avhdx"), path("over.avhdx")], "not what a node names: {plan:?}");
    execute(&host.shared(), &plan, &choices).unwrap();
    let found = diagnose(&host.shared(), Path::new("/vms")).unwrap();
    assert_eq!(found.defects().count(), 0, "{found:?}");
    let aside = found.of(&path(ASIDE).join("orphan.avhdx")).unwrap();
    assert_eq!((aside.standing(), matches!(aside.role, Role::Pending { .. })), (Standing::Pending, true));
    assert!(planned(&host, &choices).steps.is_empty());
    assert!(shown(&host, &names[1]) == expected);
    undo(&host.shared(), Path::new("/vms")).unwrap();
    assert!(content(&host) == before && !host.exists(&path(ASIDE)));
}

#[test]
fn an_orphan_that_a_node_needs_stays() {
    let host = MemHost::new();
    let names = folder(&host, ImageFormat::Vhdx, 0);
    host.remove_file(&path(&names[0])).unwrap();
    let plan = planned(&host, &Choices { set_aside: true, ..Choices::default() });
    assert_eq!(plan.steps.len(), 1, "only what is above now: {plan:?}");
    assert_eq!(plan.steps[0].change.image(), path(&names[2]));
    assert_eq!((&plan.refused[0].image, plan.refused.len()), (&path(&names[1]), 1));
}

/// A merge of left-overs, or a move, is cut short: after recovery the folder is as before it, or repaired.
#[test]
fn cut_short_at_every_step() {
    let every = std::env::var_os("SNAPTREE_EVERY_STEP").is_some();
    let choices = Choices { set_aside: true, ..Choices::default() };
    let run = EveryStep {
        name: "merge of left-overs",
        seed: Random::new(8).next_u64(),
        power_losses: 2,
        least_steps: 20,
        most_points: if every { u64::MAX } else { 24 },
    };
    run.crash(
        |host| {
            let names = folder(host, ImageFormat::Vhdx, 2);
            for folder in ["/", "/vms", "/vms/Virtual Machines", "/vms/Snapshots"] {
                host.flush_dir(Path::new(folder)).unwrap();
            }
            (content(host), shown(host, &names[3]), names)
        },
        |host, _| {
            let shared = host.shared();
            diagnose(&shared, Path::new("/vms"))
                .is_ok_and(|found| execute(&shared, &plan(&shared, &found, &choices), &choices).is_ok())
        },
        |host, (before, expected, names), acknowledged, _| {
            recover(&host.shared(), Path::new("/vms")).unwrap();
            let kept = past(&host.shared(), Path::new("/vms")).unwrap();
            assert!(!kept.is_empty() || !*acknowledged, "what was acknowledged stays");
            assert!(shown(host, &names[3]) == *expected);
            if !kept.is_empty() {
                assert_eq!(diagnose(&host.shared(), Path::new("/vms")).unwrap().images.len(), 3);
                undo(&host.shared(), Path::new("/vms")).unwrap();
            }
            assert!(content(host) == *before, "as it was before the repair");
        },
    );
}

#[test]
fn a_merge_without_room_is_refused_before_anything_is_touched() {
    let host = MemHost::new();
    let names = folder(&host, ImageFormat::Vhdx, 3);
    let (plan, before) = (planned(&host, &Choices::default()), content(&host));
    assert!(plan.needs() > ByteCount::ZERO);
    host.set_capacity(Some(host.used() + plan.needs() - ByteCount(1)));
    let steps = host.steps();
    let error = execute(&host.shared(), &plan, &Choices::default()).unwrap_err();
    assert!(error.is_refusal() && error.to_string().contains("free 1 B first"), "{error}");
    assert!(host.steps() == steps && content(&host) == before);
    // What is kept beside takes a little more.
    host.set_capacity(Some(host.used() + plan.needs() + ByteCount::mib(1)));
    let expected = shown(&host, &names[4]);
    execute(&host.shared(), &plan, &Choices::default()).unwrap();
    assert!(shown(&host, &names[4]) == expected);
}
