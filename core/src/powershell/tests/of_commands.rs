//! Commands to the engine, as Hyper-V's.

use std::collections::BTreeMap;

use chrono::DateTime;

use super::*;
use crate::snapshot::{Configuration, MachineId, MachineKind, Now, Settings, Snapshot, WorkloadProfile};
use crate::units::ByteCount;

fn machine(label: &str) -> (Machine, SnapshotId) {
    let configuration =
        Configuration { memory: ByteCount::mib(64), disks: Vec::new(), workload: WorkloadProfile::default(), hardware: None };
    let snapshot = Snapshot {
        label: label.into(),
        note: String::new(),
        taken: DateTime::UNIX_EPOCH,
        parent: None,
        images: BTreeMap::new(),
        configuration: configuration.clone(),
        memory: None,
        screen: None,
        protected: false,
    };
    let id = SnapshotId(Uuid::from_u128(1));
    let machine = Machine {
        format: "snaptree-machine".into(),
        version: 1,
        id: MachineId(Uuid::from_u128(2)),
        name: "WEB01".into(),
        kind: MachineKind::Disks,
        created: DateTime::UNIX_EPOCH,
        generation: 1,
        configuration,
        images: BTreeMap::new(),
        snapshots: BTreeMap::from([(id, snapshot)]),
        now: Now { parent: Some(id), images: BTreeMap::new(), memory: None },
        ghosts: BTreeMap::new(),
        trash: Vec::new(),
        merges: Vec::new(),
        applied: None,
        settings: Settings::default(),
    };
    (machine, id)
}

#[test]
fn checkpoints_are_taken_applied_renamed_and_deleted() {
    let (web, snapshot) = machine("Bob's [1]");
    let machine = web.id;
    let said = |command: &Command| as_powershell(command, &web).map(|lines| lines.join("\n"));
    let take = |label: &str| Command::Take { machine, label: label.into(), note: String::new(), memory: false };
    let vm = "Get-VM | Where-Object Name -EQ 'WEB01'";
    let checkpoint = format!("{vm} | Get-VMSnapshot | Where-Object Name -EQ 'Bob''s [1]'");
    assert_eq!(said(&take("x'; Stop-VM *")), Some(format!("{vm} | Checkpoint-VM -SnapshotName 'x''; Stop-VM *'")));
    let apply = Command::Apply { machine, snapshot, safety: Some("before".into()) };
    let both = format!("{vm} | Checkpoint-VM -SnapshotName 'before'\n{checkpoint} | Restore-VMSnapshot -Confirm:$false");
    assert_eq!(said(&apply), Some(both));
    let rename = Command::Rename { machine, snapshot, label: "two".into() };
    assert_eq!(said(&rename), Some(format!("{checkpoint} | Rename-VMSnapshot -NewName 'two'")));
    let delete = |subtree| Command::Delete { machine, snapshots: vec![snapshot], subtree, free_now: false };
    assert_eq!(said(&delete(false)), Some(format!("{checkpoint} | Remove-VMSnapshot")));
    assert_eq!(said(&delete(true)), Some(format!("{checkpoint} | Remove-VMSnapshot -IncludeAllChildSnapshots")));
    assert_eq!(said(&Command::TurnOff(machine)), Some(format!("{vm} | Stop-VM -TurnOff")));
    assert_eq!(said(&Command::UndoApply(machine)), None, "Hyper-V has nothing like it");
    let unknown = Command::Rename { machine, snapshot: SnapshotId(Uuid::from_u128(9)), label: "two".into() };
    assert_eq!(said(&unknown), None);
}
