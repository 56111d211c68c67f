//! Guests outlive their owners: what is killed comes back, and the guest has noticed nothing. By the built program.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::disk::{self, ImageFormat};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::testing::NbdClient;
use snaptree_tests::boot_sector::{self, RING, SECTOR, boot_sector, processes_with, qemu, ring, wait_until};
use snaptree_tests::program::{Home, program};

/// A library with one machine, whose disk has the boot sector.
struct Lab {
    home: Home,
}

impl Lab {
    fn new() -> Result<Self> {
        let lab = Self { home: Home::new() };
        lab.done(&["machine", "create", "GUEST", "--kind", "qemu", "--disk", "8M", "--memory", "32M"])?;
        let image = disk::open(
            &OsHost::shared(),
            &lab.folder()?.join("Virtual Hard Disks/disk0.vhdx"),
            ImageFormat::Vhdx,
            Access::Write,
        )?;
        image.write_at(&boot_sector(), 0)?;
        image.freeze()?;
        Ok(lab)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&program());
        command.args(args).stdin(Stdio::null());
        command
    }

    fn ask(&self, args: &[&str]) -> Result<(Option<i32>, String)> {
        let began = Instant::now();
        let output = self.command(args).output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{args:?}: {} after {:.1?}", output.status, began.elapsed());
        Ok((output.status.code(), said))
    }

    fn done(&self, args: &[&str]) -> Result<String> {
        let (code, said) = self.ask(args)?;
        ensure!(code == Some(0), "{args:?}: {code:?}: {said}");
        Ok(said)
    }

    fn show(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.done(&["machine", "show", "GUEST", "--json"])?)?)
    }

    fn folder(&self) -> Result<PathBuf> {
        Ok(self.show()?["folder"].as_str().context("a folder")?.into())
    }

    fn sockets(&self) -> Result<PathBuf> {
        Ok(self.show()?["outside"]["sockets"].as_str().context("it runs")?.into())
    }

    fn power(&self) -> Result<String> {
        Ok(self.show()?["power"].as_str().context("a state")?.into())
    }

    /// The process that owns the machine, not the one that watches over it.
    fn owner(&self) -> Result<u32> {
        let owners: Vec<u32> = processes_with("--alone").into_iter().filter(|id| self.home.processes().contains(id)).collect();
        ensure!(owners.len() == 1, "owners: {owners:?}");
        Ok(owners[0])
    }

    fn guest(&self, sockets: &Path) -> Result<u32> {
        let all = processes_with(&sockets.join("monitor").display().to_string());
        ensure!(all.len() == 1, "guests: {all:?}");
        Ok(all[0])
    }

    /// Nothing runs any more, and only the library is left.
    fn nothing_is_left(&self, sockets: &Path) -> Result<()> {
        wait_until("all processes end", || Ok(self.home.processes().is_empty()))?;
        let run = sockets.parent().context("a folder")?;
        let left: Vec<_> = std::fs::read_dir(run)?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    }
}

fn kill(id: u32) -> Result<()> {
    ensure!(Command::new("kill").args(["-9", &id.to_string()]).status()?.success(), "{id} wasn't there to be killed");
    wait_until("it is gone", || Ok(std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default().is_empty()))
}

/// The newest record that another client of the disks sees; `None` while nobody serves them.
fn newest_live(sockets: &Path) -> Result<Option<u64>> {
    let Ok(mut client) = NbdClient::connect(&sockets.join("disks")) else { return Ok(None) };
    let read = client.go("disk0").and_then(|_| client.ask(0, 0, SECTOR, (RING * SECTOR) as u32, &[]));
    let Ok(answer) = read else { return Ok(None) };
    ensure!(answer.errno == 0 && answer.data.len() as u64 == RING * SECTOR, "{} {}", answer.errno, answer.text);
    let numbers = ring(|buf, _| {
        buf.copy_from_slice(&answer.data);
        Ok(())
    })?;
    Ok(numbers.into_iter().max())
}

/// Waits until the guest has written more than that; returns its newest record.
fn writes_beyond(sockets: &Path, number: u64) -> Result<u64> {
    let mut newest = number;
    let began = Instant::now();
    wait_until("the guest writes", || {
        newest = newest_live(sockets)?.unwrap_or(0);
        Ok(newest > number)
    })
    .with_context(|| format!("{newest} is the newest, {number} wasn't passed"))?;
    println!("    it has written {newest} after {:.1?}", began.elapsed());
    Ok(newest)
}

/// The newest record of the machine, which is off; none may be missing.
fn newest(lab: &Lab) -> Result<u64> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(lab.folder()?.join("machine.json"))?)?;
    let leaf = manifest["now"]["images"]["disk0"].as_str().context("a leaf")?;
    let file = lab.folder()?.join(manifest["images"][leaf]["file"].as_str().context("its file")?);
    let chain = Chain::open(&OsHost::shared(), &file, Access::Look, &Gate::new([lab.folder()?]))?;
    boot_sector::newest(|buf, offset| chain.read_at(buf, offset))
}

#[test]
fn a_killed_owner_comes_back_and_the_guest_goes_on() -> Result<()> {
    if qemu()?.is_none() {
        return Ok(());
    }
    let lab = Lab::new()?;
    lab.done(&["machine", "start", "GUEST"])?;
    let sockets = lab.sockets()?;
    let guest = lab.guest(&sockets)?;
    let mut seen = writes_beyond(&sockets, 20)?;
    for round in 0..3 {
        lab.done(&["snapshot", "take", "GUEST", &format!("before {round}")])?;
        seen = writes_beyond(&sockets, seen + 20)?;
        let owner = lab.owner()?;
        kill(owner)?;
        let began = Instant::now();
        seen = writes_beyond(&sockets, seen + 20)?;
        println!("it went on {:?} after its owner was killed", began.elapsed());
        ensure!(lab.owner()? != owner && lab.guest(&sockets)? == guest, "the same guest, under another owner");
        wait_until("it is known to run", || Ok(lab.power()? == "running"))?;
    }
    // Who is paused stays so.
    lab.done(&["machine", "pause", "GUEST"])?;
    kill(lab.owner()?)?;
    wait_until("another owner is there", || Ok(lab.power()? == "paused"))?;
    let still = newest_live(&sockets)?;
    sleep(Duration::from_millis(500));
    assert_eq!(newest_live(&sockets)?, still, "it stands still");
    lab.done(&["machine", "resume", "GUEST"])?;
    seen = writes_beyond(&sockets, seen + 20)?;
    lab.done(&["snapshot", "apply", "GUEST", "before 1", "--no-safety"])?;
    lab.done(&["machine", "stop", "GUEST", "--hard"])?;
    ensure!(seen > 0 && newest(&lab)? > 0);
    lab.nothing_is_left(&sockets)
}

#[test]
fn an_owner_killed_during_a_take_or_a_merge_comes_back() -> Result<()> {
    if qemu()?.is_none() {
        return Ok(());
    }
    let lab = Lab::new()?;
    lab.done(&["machine", "start", "GUEST"])?;
    let sockets = lab.sockets()?;
    let guest = lab.guest(&sockets)?;
    let mut seen = writes_beyond(&sockets, 20)?;
    for round in 0..6 {
        let label = format!("cut {round}");
        let mut take = lab.command(&["snapshot", "take", "GUEST", &label]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        sleep(Duration::from_millis(40 + 30 * round));
        kill(lab.owner()?)?;
        take.wait()?;
        seen = writes_beyond(&sockets, seen + 20)?;
        ensure!(lab.guest(&sockets)? == guest, "the same guest");
    }
    wait_until("it is known to run", || Ok(lab.power()? == "running"))?;
    // Whether or not they were whole: what is due is merged, while the guest writes, and cut short as well.
    lab.done(&["snapshot", "take", "GUEST", "whole"])?;
    seen = writes_beyond(&sockets, seen + 20)?;
    lab.done(&["snapshot", "take", "GUEST", "last"])?;
    seen = writes_beyond(&sockets, seen + 20)?;
    lab.done(&["snapshot", "delete", "GUEST", "whole"])?;
    for round in 0..3 {
        let mut merge = lab.command(&["merge", "GUEST", "--limit", "64K"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        sleep(Duration::from_millis(150 + 100 * round));
        kill(lab.owner()?)?;
        merge.wait()?;
        seen = writes_beyond(&sockets, seen + 20)?;
        wait_until("it is known to run", || Ok(lab.power()? == "running"))?;
    }
    let (code, said) = lab.ask(&["merge", "GUEST"])?;
    ensure!(code == Some(0) || said.contains("No merge is due"), "{said}");
    writes_beyond(&sockets, seen + 20)?;
    ensure!(lab.guest(&sockets)? == guest, "the same guest");
    lab.done(&["machine", "stop", "GUEST", "--hard"])?;
    ensure!(newest(&lab)? > seen, "what was acknowledged is there");
    lab.nothing_is_left(&sockets)
}

#[test]
fn a_guest_without_anybody_is_told_of_and_taken_over_or_turned_off() -> Result<()> {
    if qemu()?.is_none() {
        return Ok(());
    }
    let lab = Lab::new()?;
    lab.done(&["machine", "start", "GUEST"])?;
    let sockets = lab.sockets()?;
    let guest = lab.guest(&sockets)?;
    let seen = writes_beyond(&sockets, 20)?;
    let kill_all = || -> Result<()> {
        let owner = lab.owner()?;
        // First the one that would start another owner.
        lab.home.processes().into_iter().filter(|id| ![owner, guest].contains(id)).try_for_each(kill)?;
        kill(owner)
    };
    kill_all()?;
    let shown = lab.show()?;
    ensure!(shown["power"] == "failed", "{shown}");
    let (code, said) = lab.ask(&["snapshot", "take", "GUEST", "now"])?;
    ensure!(code == Some(3) && said.contains("take the guest over"), "{code:?} {said}");
    lab.done(&["machine", "start", "GUEST"])?;
    ensure!(lab.guest(&sockets)? == guest, "the same guest");
    writes_beyond(&sockets, seen + 20)?;
    kill_all()?;
    lab.done(&["machine", "stop", "GUEST", "--hard"])?;
    ensure!(newest(&lab)? > seen);
    assert_eq!(lab.power()?, "off");
    std::fs::remove_file(sockets.with_extension("log")).ok();
    std::fs::remove_file(sockets.with_extension("sock")).ok();
    lab.nothing_is_left(&sockets)
}
