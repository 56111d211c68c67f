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
use snaptree_tests::guest::{Linux, Said, said};
use snaptree_tests::program::{Home, program};
use snaptree_tests::witness::{not_allowed_here, skip};

/// A library with one machine.
struct Lab {
    home: Home,
    /// Who runs the program.
    user: Option<User>,
}

/// Another user than the one who tests.
#[derive(Clone)]
struct User {
    id: u32,
    /// What that user finds as the device by which writes are tracked.
    device: Option<PathBuf>,
}

impl Lab {
    /// Its disk has the boot sector.
    fn new() -> Result<Self> {
        Self::with(None, &["--disk", "8M", "--memory", "32M"], &boot_sector())
    }

    /// It is created with these options; its disk begins with this content.
    fn with(user: Option<User>, options: &[&str], content: &[u8]) -> Result<Self> {
        let lab = Self { home: Home::new(), user };
        let owned = |path: &Path| match &lab.user {
            Some(user) => std::os::unix::fs::chown(path, Some(user.id), Some(user.id)),
            None => Ok(()),
        };
        for folder in [lab.home.path().to_path_buf()].into_iter().chain(["data", "run"].map(|name| lab.home.path().join(name))) {
            owned(&folder)?;
        }
        lab.done(&[&["machine", "create", "GUEST", "--kind", "qemu"], options].concat())?;
        let base = lab.folder()?.join("Virtual Hard Disks/disk0.vhdx");
        let image = disk::open(&OsHost::shared(), &base, ImageFormat::Vhdx, Access::Write)?;
        for (index, part) in content.chunks(1 << 20).enumerate().filter(|(_, part)| part.iter().any(|byte| *byte != 0)) {
            image.write_at(part, (index << 20) as u64)?;
        }
        image.freeze()?;
        Ok(lab)
    }

    /// With a Linux that counts.
    fn linux(user: Option<User>, linux: &Linux) -> Result<Self> {
        let boot = linux.boot();
        let (kernel, initrd) = (boot.kernel.display().to_string(), boot.initrd.context("a file system")?.display().to_string());
        let options =
            ["--disk", "64M", "--memory", "160M", "--kernel", &kernel, "--initrd", &initrd, "--append", &boot.command_line];
        Self::with(user, &options, &linux.file_system(64 << 20)?)
    }

    /// What the guest has said.
    fn said(&self) -> Result<Vec<Said>> {
        let bytes = std::fs::read(self.home.path().join("data/snaptree/machines/GUEST/console.log"))?;
        said(&String::from_utf8_lossy(&bytes))
    }

    /// The record that was flushed last, as far as it was said.
    fn flushed(&self) -> Result<u64> {
        Ok(self
            .said()?
            .iter()
            .rev()
            .find_map(|said| if let Said::Done(number, _) = said { Some(*number) } else { None })
            .unwrap_or(0))
    }

    /// Waits until a record after this one is flushed.
    fn flushes_beyond(&self, number: u64) -> Result<u64> {
        let (began, mut flushed) = (Instant::now(), 0);
        wait_until("records are flushed", || {
            flushed = self.flushed()?;
            Ok(flushed > number)
        })
        .with_context(|| format!("{flushed} is the last, {number} wasn't passed"))?;
        println!("    {flushed} is flushed after {:.1?}", began.elapsed());
        Ok(flushed)
    }

    /// Goes back to a snapshot of a machine that stands still; its first record from there on must be so.
    fn goes_back(&self, label: &str, so: impl Fn(u64) -> bool) -> Result<()> {
        let console = self.home.path().join("data/snaptree/machines/GUEST/console.log");
        let before = std::fs::read(&console)?.len();
        self.done(&["snapshot", "apply", "GUEST", label, "--no-safety"])?;
        let mut first = None;
        wait_until("it goes on", || {
            first = said_after(&std::fs::read(&console)?, before)?.first().copied();
            Ok(first.is_some())
        })?;
        ensure!(matches!(first, Some(Said::Begin(number) | Said::Done(number, _)) if so(number)), "{label}: {first:?}");
        Ok(())
    }

    /// The whole disk of the machine, which is off.
    fn content(&self) -> Result<Vec<u8>> {
        let manifest: Value = serde_json::from_slice(&std::fs::read(self.folder()?.join("machine.json"))?)?;
        let leaf = manifest["now"]["images"]["disk0"].as_str().context("a leaf")?;
        let file = self.folder()?.join(manifest["images"][leaf]["file"].as_str().context("its file")?);
        let chain = Chain::open(&OsHost::shared(), &file, Access::Look, &Gate::new([self.folder()?]))?;
        let mut content = vec![0; chain.virtual_size().0 as usize];
        chain.read_at(&mut content, 0)?;
        Ok(content)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.user {
            Some(User { device: Some(_), .. }) => self.home.command("unshare".as_ref()),
            _ => self.home.command(&program()),
        };
        match &self.user {
            None => {}
            Some(User { id, device: None }) => {
                std::os::unix::process::CommandExt::gid(&mut command, *id);
                std::os::unix::process::CommandExt::uid(&mut command, *id);
            }
            Some(User { id, device: Some(device) }) => {
                command.args(["--mount", "sh", "-c", WITH_DEVICE]).arg(device).arg(id.to_string()).arg(program());
            }
        }
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

/// Mounts a device over the one by which writes are tracked, and goes on as a user; for a mount namespace of its own.
const WITH_DEVICE: &str = r#"mount --bind "$0" /dev/userfaultfd || exit 1
user=$1; shift
exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@""#;

/// An ordinary user, who mustn't track writes; told as skipped where there can't be one.
fn nobody() -> Result<Option<User>> {
    const NOBODY: u32 = 65534;
    let is_root = Command::new("id").arg("-u").output()?.stdout == b"0\n";
    if !is_root {
        skip("only root can become another user, who mustn't track writes");
        return Ok(None);
    }
    if std::fs::read("/proc/sys/vm/unprivileged_userfaultfd")? != b"0\n" {
        skip("every user may track writes here");
        return Ok(None);
    }
    Ok(Some(User { id: NOBODY, device: None }))
}

/// The same user, to whom the device by which writes are tracked is given; in this folder.
fn nobody_with_device(folder: &Path) -> Result<Option<User>> {
    let Some(user) = nobody()? else { return Ok(None) };
    let Ok(device) = std::fs::metadata("/dev/userfaultfd") else {
        not_allowed_here("the kernel has no /dev/userfaultfd");
        return Ok(None);
    };
    let number = std::os::unix::fs::MetadataExt::rdev(&device);
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    let node = folder.join("userfaultfd");
    let made = Command::new("mknod").arg(&node).args(["c", &major.to_string(), &minor.to_string()]).output()?;
    if !made.status.success() {
        not_allowed_here(&format!("no device can be made: {}", String::from_utf8_lossy(&made.stderr)));
        return Ok(None);
    }
    std::os::unix::fs::chown(&node, Some(user.id), Some(user.id))?;
    std::fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut tries = Command::new("unshare");
    tries.args(["--mount", "sh", "-c", WITH_DEVICE]).arg(&node).arg(user.id.to_string());
    let tried = tries.args(["sh", "-c", ": <>/dev/userfaultfd"]).output();
    match tried {
        Ok(tried) if tried.status.success() => Ok(Some(User { device: Some(node), ..user })),
        tried => {
            not_allowed_here(&format!("no device can be mounted for one process only: {tried:?}"));
            Ok(None)
        }
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
    let content = lab.content()?;
    boot_sector::newest(|buf, offset| {
        buf.copy_from_slice(&content[offset as usize..][..buf.len()]);
        Ok(())
    })
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

#[test]
fn a_linux_whose_owner_is_killed_again_and_again_loses_nothing() -> Result<()> {
    let Some(linux) = Linux::prepare()? else { return Ok(()) };
    let lab = Lab::linux(None, &linux)?;
    lab.done(&["machine", "start", "GUEST"])?;
    let sockets = lab.sockets()?;
    let guest = lab.guest(&sockets)?;
    let mut flushed = lab.flushes_beyond(10)?;
    let in_background = |args: &[&str]| lab.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    for round in 0..6_u64 {
        // In the middle of its writes, of a take, and of a merge.
        let label = format!("cut {round}");
        let under_way = match round % 3 {
            0 => None,
            1 => Some(in_background(&["snapshot", "take", "GUEST", &label])?),
            _ => {
                for label in [&*format!("a{round}"), &*format!("b{round}")] {
                    lab.done(&["snapshot", "take", "GUEST", label, "--no-memory"])?;
                    flushed = lab.flushes_beyond(flushed + 3)?;
                }
                lab.done(&["snapshot", "delete", "GUEST", &format!("a{round}")])?;
                Some(in_background(&["merge", "GUEST", "--limit", "100K"])?)
            }
        };
        sleep(Duration::from_millis(60 + 40 * round));
        kill(lab.owner()?)?;
        if let Some(mut under_way) = under_way {
            under_way.wait()?;
        }
        flushed = lab.flushes_beyond(lab.flushed()? + 5)?;
        ensure!(lab.guest(&sockets)? == guest, "the same guest");
        wait_until("it is known to run", || Ok(lab.power()? == "running"))?;
    }
    let (code, text) = lab.ask(&["merge", "GUEST"])?;
    ensure!(code == Some(0) || text.contains("No merge is due"), "{text}");
    lab.done(&["machine", "stop", "GUEST"])?;
    let said = lab.said()?;
    ensure!(said.last() == Some(&Said::Bye), "{:?}", said.last());
    ensure!(said.iter().filter(|said| matches!(said, Said::Ready(_))).count() == 1, "it has never begun anew");
    assert_eq!(linux.records(&lab.content()?)?, lab.flushed()?, "every record is there");
    lab.nothing_is_left(&sockets)
}

#[test]
fn where_writes_cannot_be_tracked_it_stands_still_and_that_is_said_before() -> Result<()> {
    let (Some(linux), Some(user)) = (Linux::prepare()?, nobody()?) else { return Ok(()) };
    let lab = Lab::linux(Some(user), &linux)?;
    lab.done(&["machine", "start", "GUEST"])?;
    let shown = lab.show()?;
    ensure!(shown["outside"]["stands_still_to_save"].is_string(), "{shown}");
    let remedy = shown["outside"]["remedy"].as_str().context("what helps")?.to_owned();
    ensure!(remedy.contains("userfaultfd") && !remedy.contains('\n'), "{remedy}");
    let shown = lab.done(&["machine", "show", "GUEST"])?;
    ensure!(shown.lines().any(|line| line == remedy), "{shown}");
    let sockets = lab.sockets()?;
    let mut flushed = lab.flushes_beyond(10)?;
    let said = lab.done(&["snapshot", "take", "GUEST", "still", "--what-if"])?;
    ensure!(said.contains("stands still for about") && said.lines().any(|line| line == remedy), "{said}");
    for label in ["still", "again"] {
        let said = lab.done(&["snapshot", "take", "GUEST", label])?;
        println!("{said}");
        ensure!(said.contains("stands still for about"), "it isn't said: {said}");
        flushed = lab.flushes_beyond(flushed + 5)?;
    }
    // While somebody has paused it, it hasn't changed since its memory was saved last.
    lab.done(&["machine", "pause", "GUEST"])?;
    for label in ["paused", "paused still"] {
        let said = lab.done(&["snapshot", "take", "GUEST", label])?;
        ensure!(!said.contains("could not be saved"), "{said}");
        ensure!(lab.power()? == "paused");
    }
    let at_pause = lab.flushed()?;
    lab.done(&["machine", "resume", "GUEST"])?;
    flushed = lab.flushes_beyond(at_pause + 5)?;
    lab.done(&["machine", "pause", "GUEST"])?;
    lab.goes_back("paused still", |number| number == at_pause || number == at_pause + 1)?;
    lab.done(&["machine", "pause", "GUEST"])?;
    lab.goes_back("still", |number| number < flushed)?;
    wait_until("it goes on", || Ok(lab.flushed()? > flushed))?;
    lab.done(&["machine", "stop", "GUEST"])?;
    assert_eq!(linux.records(&lab.content()?)?, lab.flushed()?, "every record is there");
    lab.nothing_is_left(&sockets)
}

#[test]
fn who_may_track_writes_has_memory_saved_while_it_runs() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("snaptree-").tempdir()?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let (Some(linux), Some(user)) = (Linux::prepare()?, nobody_with_device(folder.path())?) else { return Ok(()) };
    let lab = Lab::linux(Some(user), &linux)?;
    lab.done(&["machine", "start", "GUEST"])?;
    let shown = lab.show()?;
    ensure!(shown["outside"]["stands_still_to_save"].is_null() && shown["outside"]["remedy"].is_null(), "{shown}");
    let sockets = lab.sockets()?;
    let flushed = lab.flushes_beyond(10)?;
    let said = lab.done(&["snapshot", "take", "GUEST", "live", "--what-if"])?;
    ensure!(!said.contains("stands still"), "{said}");
    let taken: Value = serde_json::from_str(&lab.done(&["snapshot", "take", "GUEST", "live", "--json"])?)?;
    let (pause, save) = (taken["latency"]["pause"].as_f64(), taken["latency"]["save"].as_f64());
    println!("it stood still for {pause:?} s, and was saved in {save:?} s");
    ensure!(pause.context("a pause")? < save.context("a save")?, "it stood still until its memory was saved: {taken}");
    let flushed = lab.flushes_beyond(flushed + 20)?;
    lab.done(&["machine", "pause", "GUEST"])?;
    lab.goes_back("live", |number| number < flushed)?;
    wait_until("it goes on", || Ok(lab.flushed()? > flushed))?;
    lab.done(&["machine", "stop", "GUEST"])?;
    assert_eq!(linux.records(&lab.content()?)?, lab.flushed()?, "every record is there");
    lab.nothing_is_left(&sockets)
}

/// What was said from a place on.
fn said_after(console: &[u8], from: usize) -> Result<Vec<Said>> {
    said(&String::from_utf8_lossy(&console[from.min(console.len())..]))
}
