//! What a Hyper-V administrator would type instead.

use super::*;
use crate::chain::Target;
use crate::disk::ImageType;
use crate::engine::{ConvertImage, powershell};

fn typed(bench: &mut Bench, machine: MachineId, command: &Command) -> String {
    let state = bench.state(machine);
    powershell(command, Some((&state.machine, &state.folder))).expect("Hyper-V has it too")
}

#[test]
fn each_action_has_its_cmdlets() {
    let mut bench = Bench::in_memory(&MemHost::new());
    let machine = bench.create("WEB's", ByteCount::mib(1), &[ByteCount::mib(4)], quick());
    let [one, two, three] = ["Before [update]", "two", "three"].map(|label| bench.take(machine, label, false));
    let mut says = |command: Command| typed(&mut bench, machine, &command);
    let select = |label: &str| format!("Get-VMSnapshot -VMName 'WEB''s' | Where-Object Name -EQ '{label}'");
    let take = Command::Take { machine, label: "x".into(), note: String::new(), memory: true };
    assert_eq!(says(take), "Checkpoint-VM -Name 'WEB''s' -SnapshotName 'x'");
    let apply = Command::Apply { machine, snapshot: one, safety: Some("before".into()) };
    let restore = format!("{} | Restore-VMSnapshot", select("Before [update]"));
    assert_eq!(says(apply), format!("Checkpoint-VM -Name 'WEB''s' -SnapshotName 'before'\n{restore}"));
    let delete = Command::Delete { machine, snapshots: vec![one, two], subtree: true, free_now: false };
    let remove = |label| format!("{} | Remove-VMSnapshot -IncludeAllChildSnapshots", select(label));
    assert_eq!(says(delete), format!("{}\n{}", remove("Before [update]"), remove("two")));
    let rename = Command::Rename { machine, snapshot: two, label: "second".into() };
    assert_eq!(says(rename), format!("{} | Rename-VMSnapshot -NewName 'second'", select("two")));
    assert_eq!(says(Command::TurnOff(machine)), "Stop-VM -Name 'WEB''s' -TurnOff");

    let none = |bench: &mut Bench, command: &Command| {
        let state = bench.state(machine);
        powershell(command, Some((&state.machine, &state.folder)))
    };
    let merge = Command::Merge { machine, disk: None, limit: None, until: None };
    assert_eq!(none(&mut bench, &merge), None, "nothing is due");
    let undelete = Command::Undelete { machine, snapshot: one };
    assert_eq!(none(&mut bench, &undelete), None, "Hyper-V can't");

    bench.done(Command::Delete { machine, snapshots: vec![two, three], subtree: false, free_now: false });
    let state = bench.state(machine);
    let file = |id: ImageId| state.folder.join(&state.machine.images[&id].file).display().to_string().replace('\'', "''");
    let top = state.machine.now.images.values().next().copied().expect("a leaf");
    let parent = |id: ImageId| state.machine.images[&id].parent.expect("a parent");
    let lowest = parent(parent(top));
    let (from, to) = (format!("'{}'", file(top)), format!("'{}'", file(lowest)));
    let drive = format!("Get-VMHardDiskDrive -VMName 'WEB''s' | Where-Object Path -EQ {from}");
    let expected = format!("Merge-VHD -Path {from} -DestinationPath {to}\n{drive} | Set-VMHardDiskDrive -Path {to}");
    assert_eq!(typed(&mut bench, machine, &merge), expected);

    // What is merged into an image that another one reads through.
    bench.done(Command::Apply { machine, snapshot: one, safety: Some("kept".into()) });
    let branch = bench.take(machine, "branch", false);
    bench.take(machine, "last", false);
    bench.done(Command::Delete { machine, snapshots: vec![branch], subtree: false, free_now: false });
    let state = bench.state(machine);
    let file = |id: ImageId| {
        format!("'{}'", state.folder.join(&state.machine.images[&id].file).display().to_string().replace('\'', "''"))
    };
    let now = state.machine.now.images.values().next().copied().expect("a leaf");
    let parent = |id: ImageId| state.machine.images[&id].parent.expect("a parent");
    let (top, lowest) = (parent(now), parent(parent(now)));
    let said = typed(&mut bench, machine, &merge);
    let expected = format!("Merge-VHD -Path {} -DestinationPath {}", file(top), file(lowest));
    let relinked = format!("Set-VHD -Path {} -ParentPath {} -IgnoreIdMismatch", file(now), file(lowest));
    assert!(said.contains(&format!("{expected}\n{relinked}")), "{said}");
}

#[test]
fn what_is_new_is_made_from_its_parts() {
    let create = CreateMachine {
        name: "PC01".into(),
        kind: MachineKind::Qemu,
        memory: ByteCount::gib(2),
        disks: vec![ByteCount::gib(20)],
        format: ImageFormat::Vhdx,
        workload: WorkloadProfile::default(),
        hardware: Some(crate::snapshot::Hardware { processors: 4, ..Default::default() }),
    };
    let lines = powershell(&Command::Create(create), None).expect("it has");
    assert_eq!(
        lines.lines().collect::<Vec<_>>(),
        [
            "New-VHD -Path 'PC01-disk0.vhdx' -SizeBytes 21474836480 -Dynamic",
            "New-VM -Name 'PC01' -MemoryStartupBytes 2147483648 -Generation 2 -NoVHD",
            "Set-VMProcessor -VMName 'PC01' -Count 4",
            "Add-VMHardDiskDrive -VMName 'PC01' -Path 'PC01-disk0.vhdx'",
        ]
    );
    let target = Target::Image { format: ImageFormat::Vhd, kind: ImageType::Fixed, block_size: None };
    let convert = |target| ConvertImage { image: "/a.vhdx".into(), raw: false, folders: Vec::new(), to: "/b.vhd".into(), target };
    assert_eq!(
        powershell(&Command::Convert(convert(target)), None).as_deref(),
        Some("Convert-VHD -Path '/a.vhdx' -DestinationPath '/b.vhd' -VHDType Fixed")
    );
    assert_eq!(powershell(&Command::Convert(convert(Target::Raw)), None), None, "it has no raw disks");
}
