//! Machines of QEMU in the engine: created, started, taken, gone back to, merged and stopped. Their guest is a boot sector,
//! that writes all the time.
#![cfg(unix)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use snaptree_core::disk::{self, ImageFormat};
use snaptree_core::engine::{Answer, Command, CreateMachine, JobPhase, Outside, Power};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::snapshot::{DiskBus, Hardware, MachineId, MachineKind, SnapshotId, WorkloadProfile};
use snaptree_core::testing::NbdClient;
use snaptree_core::units::ByteCount;
use snaptree_tests::boot_sector::{self, RING, SECTOR, boot_sector, qemu, ring};
use snaptree_tests::driver::Driver;

const MEMORY: ByteCount = ByteCount::mib(32);
const SIZE: ByteCount = ByteCount::mib(8);

/// A machine whose first disk has the boot sector.
fn create(driver: &mut Driver, hardware: Hardware) -> Result<MachineId> {
    let create = CreateMachine {
        name: "GUEST".into(),
        kind: MachineKind::Qemu,
        memory: MEMORY,
        disks: vec![SIZE],
        format: ImageFormat::Vhdx,
        workload: WorkloadProfile::default(),
        hardware: Some(hardware),
    };
    let Answer::Created(machine) = driver.done(Command::Create(create)) else { anyhow::bail!("not created") };
    let files = driver.files(machine, None);
    let base = files.values().next().and_then(|files| files.first()).context("a base")?;
    let image = disk::open(&OsHost::shared(), base, ImageFormat::Vhdx, Access::Write)?;
    image.write_at(&boot_sector(), 0)?;
    image.freeze()?;
    Ok(machine)
}

fn outside(driver: &mut Driver, machine: MachineId) -> Result<Outside> {
    driver.state(machine).outside.clone().context("it runs as a process")
}

/// The newest record that the disk of a running machine shows to another client.
fn newest_live(driver: &mut Driver, machine: MachineId) -> Result<u64> {
    let mut client = NbdClient::connect(&outside(driver, machine)?.sockets.join("disks"))?;
    client.go("disk0")?;
    let answer = client.ask(0, 0, SECTOR, (RING * SECTOR) as u32, &[])?;
    ensure!(answer.errno == 0 && answer.data.len() as u64 == RING * SECTOR, "{} {}", answer.errno, answer.text);
    let numbers = ring(|buf, _| {
        buf.copy_from_slice(&answer.data);
        Ok(())
    })?;
    Ok(numbers.into_iter().max().unwrap_or(0))
}

/// The newest record of a snapshot, or of a machine that is off; none may be missing.
fn newest(driver: &mut Driver, machine: MachineId, at: Option<SnapshotId>) -> Result<u64> {
    let chains = driver.chains(machine, at, Access::Look);
    let chain = chains.values().next().context("a disk")?;
    boot_sector::newest(|buf, offset| chain.read_at(buf, offset))
}

/// Lets the engine work until the guest has written so many more records.
fn writes_on(driver: &mut Driver, machine: MachineId, more: u64) -> Result<u64> {
    let before = newest_live(driver, machine)?;
    for _ in 0..1200 {
        driver.pass(Duration::from_millis(100));
        let now = newest_live(driver, machine)?;
        if now > before + more {
            return Ok(now);
        }
    }
    anyhow::bail!("the guest has written nothing after {before}")
}

/// Everything is off, and nothing is left of it.
fn nothing_is_left(driver: &mut Driver, machine: MachineId, outside: &Outside) -> Result<()> {
    let state = driver.state(machine);
    assert_eq!((&state.power, &state.outside), (&Power::Off, &None));
    ensure!(!outside.sockets.exists(), "{} is left", outside.sockets.display());
    Ok(())
}

fn taken_gone_back_to_and_merged(bus: DiskBus) -> Result<()> {
    if qemu()?.is_none() {
        return Ok(());
    }
    let mut driver = Driver::new();
    let machine = create(&mut driver, Hardware { bus, ..Hardware::default() })?;
    driver.done(Command::Start(machine));
    assert_eq!(driver.state(machine).power, Power::Running);
    let at_first = outside(&mut driver, machine)?;
    ensure!(at_first.viewer.exists() && at_first.stands_still_to_save.is_none(), "{at_first:?}");
    writes_on(&mut driver, machine, 20)?;
    let mut taken = Vec::new();
    for label in ["one", "two", "three"] {
        let (snapshot, latency) = driver.take(machine, label, true);
        let latency = latency.context("it ran")?;
        println!("{bus:?}, {label}: stood still for {:?}, saved in {:?}", latency.pause, latency.save);
        assert_eq!(latency.memory, MEMORY);
        taken.push(snapshot);
        writes_on(&mut driver, machine, 20)?;
    }
    let state = driver.state(machine);
    for snapshot in &taken {
        let node = &state.machine.snapshots[snapshot];
        let picture = std::fs::read(state.folder.join(node.screen.as_ref().context("a picture")?))?;
        ensure!(picture.starts_with(b"\x89PNG") && node.memory.is_some());
    }
    // Back and forth; each goes on from its own number.
    for snapshot in [taken[0], taken[2], taken[1]] {
        let stored = newest(&mut driver, machine, Some(snapshot))?;
        driver.done(Command::Apply { machine, snapshot, safety: None });
        assert_eq!(driver.state(machine).power, Power::Running, "it goes on");
        let now = writes_on(&mut driver, machine, 20)?;
        ensure!(now > stored, "{now} after {stored}");
        driver.done(Command::Pause(machine));
        let first = newest_live(&mut driver, machine)?;
        driver.pass(Duration::from_millis(300));
        assert_eq!(newest_live(&mut driver, machine)?, first, "it stands still");
        driver.done(Command::Resume(machine));
    }
    // The middle goes, and is merged while the guest writes.
    driver.delete(machine, &[taken[0]]);
    driver.merge(machine);
    writes_on(&mut driver, machine, 20)?;
    assert_eq!(driver.state(machine).power, Power::Running);
    driver.done(Command::TurnOff(machine));
    nothing_is_left(&mut driver, machine, &at_first)?;
    for at in [None, Some(taken[1]), Some(taken[2])] {
        newest(&mut driver, machine, at)?;
        for chain in driver.chains(machine, at, Access::Look).into_values() {
            for image in chain.images() {
                assert_eq!(image.check()?, [""; 0], "{}", image.path().display());
            }
        }
    }
    Ok(())
}

#[test]
fn a_running_guest_is_taken_gone_back_to_and_merged() -> Result<()> {
    taken_gone_back_to_and_merged(DiskBus::Virtio)
}

#[test]
fn the_same_with_sata() -> Result<()> {
    taken_gone_back_to_and_merged(DiskBus::Sata)
}

#[test]
fn a_guest_that_does_not_obey_runs_on_until_it_is_turned_off() -> Result<()> {
    if qemu()?.is_none() {
        return Ok(());
    }
    let mut driver = Driver::new();
    let machine = create(&mut driver, Hardware::default())?;
    driver.done(Command::Start(machine));
    let at_first = outside(&mut driver, machine)?;
    writes_on(&mut driver, machine, 5)?;
    // This one doesn't listen to its power button.
    let stop = driver.submit(Command::Stop(machine));
    driver.pass(Duration::from_secs(1));
    let waits = driver.jobs.last().context("a job")?.clone();
    ensure!(waits.phase == JobPhase::Running && waits.title.contains("shut down"), "{waits:?}");
    writes_on(&mut driver, machine, 5)?;
    driver.done(Command::TurnOff(machine));
    let refusal = driver.wait(stop).expect_err("it was cancelled");
    ensure!(refusal.reason.contains("power button"), "{refusal}");
    nothing_is_left(&mut driver, machine, &at_first)
}

#[test]
fn a_killed_guest_is_off_and_says_why() -> Result<()> {
    if qemu()?.is_none() {
        return Ok(());
    }
    let mut driver = Driver::new();
    let machine = create(&mut driver, Hardware::default())?;
    driver.done(Command::Start(machine));
    let at_first = outside(&mut driver, machine)?;
    let (snapshot, _) = driver.take(machine, "before", true);
    let before = writes_on(&mut driver, machine, 20)?;
    let ids = boot_sector::processes_with(&at_first.sockets.display().to_string());
    assert_eq!(ids.len(), 1, "{ids:?}");
    let killed = std::process::Command::new("kill").args(["-9", &ids[0].to_string()]).status()?;
    ensure!(killed.success());
    driver.pass_until("it is noticed", |driver| driver.known(machine).is_some_and(|state| !state.power.is_up()));
    let Power::Failed(why) = driver.state(machine).power.clone() else { anyhow::bail!("it is only off") };
    ensure!(why.contains("QEMU has ended") && why.contains('9'), "{why}");
    ensure!(!at_first.sockets.exists(), "its sockets are left");
    // Who comes later is told as well.
    let mut driver = driver.reopen();
    driver.pass_until("it is known", |driver| driver.known(machine).is_some());
    assert_eq!(driver.state(machine).power, Power::Failed(why));
    ensure!(newest(&mut driver, machine, None)? >= before, "what was acknowledged is there");
    // What is gone back to has not failed; the failed state can be had again, but not its failure.
    driver.done(Command::Apply { machine, snapshot, safety: None });
    assert_eq!(driver.state(machine).power, Power::Saved);
    let mut driver = driver.reopen();
    driver.pass_until("it is known", |driver| driver.known(machine).is_some());
    assert_eq!(driver.state(machine).power, Power::Saved);
    driver.done(Command::UndoApply(machine));
    assert_eq!(driver.state(machine).power, Power::Off);
    // It begins anew, as after a power cut.
    driver.done(Command::Start(machine));
    driver.pass(Duration::from_millis(500));
    driver.done(Command::TurnOff(machine));
    let mut driver = driver.reopen();
    driver.pass_until("it is known", |driver| driver.known(machine).is_some());
    nothing_is_left(&mut driver, machine, &at_first)
}

#[test]
fn what_only_the_built_in_machine_can_is_refused() -> Result<()> {
    let mut driver = Driver::new();
    let machine = create(&mut driver, Hardware::default())?;
    for command in [
        Command::Verify { machine, at: None },
        Command::RunWorkload { machine, milliseconds: 10, seed: None },
        Command::BadUpdate(machine),
    ] {
        let refusal = driver.ask(command).expect_err("refused");
        ensure!(refusal.reason.contains("QEMU runs this machine"), "{refusal}");
    }
    let too_many = CreateMachine {
        name: "MANY".into(),
        kind: MachineKind::Qemu,
        memory: MEMORY,
        disks: vec![SIZE; 7],
        format: ImageFormat::Vhdx,
        workload: WorkloadProfile::default(),
        hardware: Some(Hardware { bus: DiskBus::Sata, ..Hardware::default() }),
    };
    let refusal = driver.ask(Command::Create(too_many)).expect_err("refused");
    ensure!(refusal.reason.contains("room for 6"), "{refusal}");
    Ok(())
}

#[test]
fn hardware_changes_while_it_is_off_and_goes_back_with_a_snapshot() -> Result<()> {
    let mut driver = Driver::new();
    let machine = create(&mut driver, Hardware::default())?;
    let (before, _) = driver.take(machine, "before", false);
    let larger = Hardware { processors: 3, bus: DiskBus::Sata, ..Hardware::default() };
    let change = |memory, hardware: &Hardware| Command::SetHardware { machine, memory, hardware: hardware.clone() };
    driver.done(change(ByteCount::mib(96), &larger));
    let now = |driver: &mut Driver| {
        let configuration = &driver.state(machine).machine.configuration;
        (configuration.memory, configuration.hardware.clone())
    };
    assert_eq!(now(&mut driver), (ByteCount::mib(96), Some(larger.clone())));
    let impossible = driver.ask(change(MEMORY, &Hardware { processors: 0, ..Hardware::default() })).expect_err("refused");
    ensure!(impossible.reason.contains("0 processors"), "{impossible}");
    assert_eq!(now(&mut driver), (ByteCount::mib(96), Some(larger.clone())), "nothing of that is kept");
    driver.done(Command::Apply { machine, snapshot: before, safety: None });
    assert_eq!(now(&mut driver), (MEMORY, Some(Hardware::default())), "the snapshot's");

    let workload = driver.create("BUILT-IN", ByteCount::mib(8), &[SIZE], WorkloadProfile::default());
    let refusal = driver.ask(Command::SetHardware { machine: workload, memory: MEMORY, hardware: larger.clone() });
    ensure!(refusal.expect_err("refused").reason.contains("built-in machine"));
    if qemu()?.is_none() {
        return Ok(());
    }
    driver.done(Command::Start(machine));
    writes_on(&mut driver, machine, 5)?;
    let refusal = driver.ask(change(MEMORY, &larger)).expect_err("refused");
    ensure!(refusal.reason.contains("running"), "{refusal}");
    // A snapshot that is taken while somebody has paused it leaves it so, and is gone back to as well.
    driver.done(Command::Pause(machine));
    driver.take(machine, "still", true);
    let (still, _) = driver.take(machine, "still the same", true);
    let state = driver.state(machine);
    assert_eq!(state.power, Power::Paused);
    ensure!(state.machine.snapshots[&still].memory.is_some(), "its memory is saved as well");
    driver.done(Command::Resume(machine));
    writes_on(&mut driver, machine, 5)?;
    driver.done(Command::Apply { machine, snapshot: still, safety: None });
    writes_on(&mut driver, machine, 5)?;
    let at_last = outside(&mut driver, machine)?;
    driver.done(Command::TurnOff(machine));
    nothing_is_left(&mut driver, machine, &at_last)
}
