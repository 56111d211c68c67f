use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::DateTime;
use clap::CommandFactory as _;
use snaptree_core::cost::{Calibration, VolumeState};
use snaptree_core::engine::{MachineState, Place, Power};
use snaptree_core::snapshot::{
    Configuration, Machine, MachineId, MachineKind, NodeRef, Now, Settings, Snapshot, SnapshotId, TreeRow, WorkloadProfile,
};
use snaptree_core::units::{ByteCount, ByteRate};

use super::output::{Align, table};
use super::*;

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

fn parsed(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("snaptree").chain(line.split_whitespace()))
}

#[test]
fn every_verb_of_the_design_is_understood() {
    for line in [
        "",
        "--library /x",
        "machine create WEB01 --disk 20G --disk 1T --memory 64M --format vhdx --kind workload",
        "machine list --json",
        "machine show WEB01",
        "machine start WEB01",
        "machine stop WEB01",
        "machine remove WEB01 --delete-files --what-if",
        "machine import leaf.avhdx --name X --move",
        "tree WEB01 --library /x",
        "tree --folder /x --json",
        "snapshot take WEB01 one --no-memory --note n",
        "snapshot apply WEB01 one --no-safety",
        "snapshot undo-apply WEB01",
        "snapshot delete WEB01 one two --subtree --free-now",
        "snapshot undelete WEB01 one",
        "snapshot rename WEB01 one two",
        "snapshot note WEB01 one text",
        "snapshot protect WEB01 one --off",
        "merge WEB01 --disk disk0 --limit 20M",
        "trash empty WEB01 --old",
        "workload run WEB01 --seconds 2.5 --seed 7",
        "workload verify WEB01 --at one",
        "disk info a.vhdx",
        "disk inspect a.vhdx --parents-in /x",
        "disk map a.vhdx --alone",
        "disk check a.vhdx --parents-in /x",
        "disk check --folder /x",
        "disk repair --folder /x --parent a.avhdx=b.vhdx --what-if",
        "disk repair --folder /x --set-aside --powershell",
        "disk repair --folder /x --undo",
        "disk hash a.vhdx",
        "disk create a.vhdx --size 1G --type fixed --block-size 1M --sector-size 4096",
        "disk create a.avhdx --parent b.vhdx",
        "machine create WEB01 --disk 20G --format vhd",
        "disk read a.vhdx --offset 512 --length 1K",
        "disk write a.vhdx --offset 0",
        "disk convert a.avhd b.vhdx --parents-in /x --type fixed",
        "disk convert a.img b.vhd --raw",
        "disk flatten a.avhdx b.vhdx",
        "disk merge a.avhdx --into b.vhdx",
        "disk serve a.avhdx --socket /run/s --read-only",
        "nbd WEB01 --disk disk0 --snapshot one --socket s",
        "plan",
        "plan --from 2026-06-06 --to 2026-06-07 --export ics plan.ics",
        "plan --export csv --json",
        "window list",
        "window add Nights --weekly sat,sun --from 22:00 --to 02:00 --machine WEB01 --machine DB01 --stopped --limit 50M",
        "window add Once --once 2026-06-06 --from 22:00 --to 2026-06-08T02:00",
        "window change Nights --rename Late --all --live --no-limit --off",
        "window remove Nights --what-if",
        "window pin WEB01 Nights --on 2026-06-06 --disk disk0",
        "window unpin WEB01",
        "advise",
        "advise WEB01",
        "serve WEB01",
        "demo --headless --keep",
    ] {
        if let Err(error) = parsed(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn wrong_usage_is_status_2() {
    for line in [
        "machine create WEB01",
        "machine create WEB01 --disk much",
        "machine frobnicate",
        "snapshot apply WEB01 one --no-safety --safety two",
        "snapshot delete WEB01",
        "disk create a.vhdx",
        "disk create a.vhdx --size 1G --parent b.vhdx",
        "disk create a.vhdx --size 1G --sector-size 1024",
        "disk convert a.vhd",
        "disk convert a.vhd b.vhdx --type thin",
        "disk flatten a.avhd",
        "machine create WEB01 --disk 1G --format qcow2",
        "merge WEB01 --limit 0",
        "workload run WEB01",
        "tree",
        "plan --export pdf",
        "plan plan.ics",
        "window add Nights --from 22:00 --to 02:00",
        "window add Nights --weekly sat --once 2026-06-06 --from 22:00 --to 02:00",
        "window change Nights --live --stopped",
        "window pin WEB01",
    ] {
        assert_eq!(parsed(line).expect_err(line).exit_code(), 2, "{line}");
    }
    assert_eq!(Failure::usage("x").status(), (2, "usage"));
    assert_eq!(Failure::from(Refusal::rule("x")).status(), (3, "rule"));
    assert_eq!(Failure::failed("x").status(), (1, "failed"));
}

#[test]
fn sizes_and_rates_are_read_as_people_write_them() {
    assert_eq!(parse::size("4096"), Ok(ByteCount(4096)));
    assert_eq!(parse::size("64k"), Ok(ByteCount::kib(64)));
    assert_eq!(parse::size("1.5GiB"), Ok(ByteCount::mib(1536)));
    assert_eq!(parse::size("2T"), Ok(ByteCount::gib(2048)));
    for bad in ["", "G", "-1", "1X", "1.2.3", "99999999T", "18446744073709551616"] {
        assert!(parse::size(bad).is_err(), "{bad}");
    }
    assert_eq!(parse::rate("20MB/s"), Ok(ByteRate(20.0 * 1024.0 * 1024.0)));
    assert!(parse::rate("0").is_err());
}

#[test]
fn columns_are_aligned() {
    let rows = vec![vec!["a".into(), "1".into()], vec!["longer".into(), "100".into()], vec!["|\\".into()]];
    let lines = table(&[("NAME", Align::Left), ("N", Align::Right)], &rows);
    assert_eq!(lines, ["NAME      N", "a         1", "longer  100", "|\\"]);
}

fn row(node: NodeRef, parent: Option<usize>) -> TreeRow {
    TreeRow { node, parent, depth: 0, on_path: false }
}

#[test]
fn lanes_branch_off_before_what_hangs_from_them() {
    let snapshot = || NodeRef::Snapshot(SnapshotId::new());
    let ghost = NodeRef::Ghost(SnapshotId::new());
    // 0 has the children 1 (with 2 and 3, of which 3 goes on to 4) and 5; Now hangs from 5.
    let rows = [
        row(snapshot(), None),
        row(snapshot(), Some(0)),
        row(snapshot(), Some(1)),
        row(ghost, Some(1)),
        row(snapshot(), Some(3)),
        row(snapshot(), Some(0)),
        row(NodeRef::Now, Some(5)),
    ];
    let drawn: Vec<String> = graph::lanes(&rows).into_iter().flat_map(|l| [l.before, vec![l.row]].concat()).collect();
    assert_eq!(drawn, ["o", "|\\", "| o", "| |\\", "| | o", "| :", "| o", "o", "*"]);
}

fn machine(name: &str) -> Machine {
    let configuration =
        Configuration { memory: ByteCount::mib(1), disks: Vec::new(), workload: WorkloadProfile::default(), hardware: None };
    Machine {
        format: "snaptree-machine".into(),
        version: 1,
        id: MachineId::new(),
        name: name.into(),
        kind: MachineKind::Workload,
        created: DateTime::UNIX_EPOCH,
        generation: 1,
        configuration,
        images: BTreeMap::new(),
        snapshots: BTreeMap::new(),
        now: Now { parent: None, images: BTreeMap::new(), memory: None },
        ghosts: BTreeMap::new(),
        trash: Vec::new(),
        merges: Vec::new(),
        applied: None,
        settings: Settings::default(),
    }
}

fn add(machine: &mut Machine, label: &str) -> SnapshotId {
    let id = SnapshotId::new();
    let snapshot = Snapshot {
        label: label.into(),
        note: String::new(),
        taken: DateTime::UNIX_EPOCH,
        parent: None,
        images: BTreeMap::new(),
        configuration: machine.configuration.clone(),
        memory: None,
        screen: None,
        protected: false,
    };
    machine.snapshots.insert(id, snapshot);
    id
}

fn state(machine: Machine) -> Arc<MachineState> {
    Arc::new(MachineState {
        machine: Arc::new(machine),
        folder: PathBuf::new(),
        place: Place::Library,
        power: Power::Off,
        files: BTreeMap::new(),
        census: BTreeMap::new(),
        calibration: Calibration::default(),
        volume: VolumeState::default(),
        guest: None,
        outside: None,
        probing: false,
        processors: None,
        problems: Vec::new(),
    })
}

#[test]
fn names_may_be_identifiers_and_ambiguous_ones_list_what_they_can_be() {
    let machines = [state(machine("WEB01")), state(machine("DB01")), state(machine("DB01"))];
    let find = |name: &str| names::machine(machines.iter(), name);
    assert_eq!(find("WEB01").expect("there").machine.name, "WEB01");
    let id = machines[1].machine.id;
    assert_eq!(find(&id.to_string()).expect("there").machine.id, id);
    let error = find("DB01").expect_err("two of them");
    assert_eq!(error.status().0, 2);
    assert!(error.to_string().contains(&machines[2].machine.id.to_string()), "{error}");
    assert!(find("SQL").expect_err("none").to_string().contains("WEB01"));

    let mut m = machine("WEB01");
    let one = add(&mut m, "one");
    assert_eq!(names::snapshot(&m, "one").expect("there"), one);
    assert_eq!(names::snapshot(&m, &one.to_string()[..8]).expect("there"), one);
    assert_eq!(names::snapshot(&m, "two").expect_err("none").status().0, 2);
    assert_eq!(names::deleted(&m, "one").expect_err("none").status().0, 2);
    assert_eq!(snapshot::safety_label(&m, "one"), "Before one");
    add(&mut m, "Before one");
    assert_eq!(snapshot::safety_label(&m, "one"), "Before one (2)");
}
