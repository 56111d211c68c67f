//! Rounds with the built program on real files. Its processes are killed with -9 at random instants: the one that was
//! asked, the owner of a running machine, or both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use snaptree_core::clock::SystemClock;
use snaptree_core::host_file::OsHost;
use snaptree_core::merge::complete_switch;
use snaptree_core::snapshot::{DiskId, Tree};
use snaptree_core::store::MachineStore;
use snaptree_core::testing::Random;

use super::{Extent, Report};
use crate::kept::MachineFolder;
use crate::program::Home;

/// Machines of a round.
const MACHINES: [&str; 3] = ["one", "two", "three"];
/// Operations of a round.
const OPERATIONS: u64 = 60;
/// A machine has at most so many snapshots.
const MOST_NODES: usize = 8;
/// How long a verb may take that nobody kills.
const PATIENCE: Duration = Duration::from_secs(120);

/// A digest per disk.
type Digests = BTreeMap<DiskId, String>;

/// Carries out rounds; see [`Extent`]. The seed decides what is asked and when it is killed; what the computer makes of it
/// differs from time to time.
pub fn campaign(program: &Path, extent: Extent, report: &mut Report) {
    let until = Instant::now() + extent.time;
    for seed in extent.seed..extent.seed.saturating_add(extent.rounds) {
        let may_end = report.rounds >= extent.least_rounds;
        if may_end && Instant::now() >= until {
            break;
        }
        report.rounds += 1;
        if let Err(problem) = round(program, seed, may_end.then_some(until), extent.traces, report) {
            let again = format!("campaign --mode processes --seed {seed} --rounds 1");
            report.violations.push(format!("{problem}\n    again (its instants are the computer's): {again}"));
        }
    }
}

fn round(program: &Path, seed: u64, until: Option<Instant>, traces: bool, report: &mut Report) -> Result<(), String> {
    let mut round = Round { program, random: Random::new(seed), home: Home::new(), subjects: Vec::new(), traces, report };
    for (number, name) in MACHINES.into_iter().enumerate() {
        let (seed, disk) = ((seed * 10 + number as u64).to_string(), format!("{}M", 12 << number));
        let format = if round.random.chance(1, 2) { "vhd" } else { "vhdx" };
        let create = ["machine", "create", name, "--disk", &disk, "--memory", "4M", "--seed", &seed, "--format", format];
        let status = round.verb(&create)?;
        if status != 0 {
            return Err(format!("{name} can't be made: status {status}"));
        }
        round.subjects.push(Subject { name, runs: false, known: BTreeMap::new(), labels: BTreeSet::new(), taken: 0 });
    }
    for _ in 0..OPERATIONS {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        round.operation()?;
    }
    round.end()
}

struct Subject {
    name: &'static str,
    /// Whether it runs, as far as was told.
    runs: bool,
    /// What each snapshot shows, those that are deleted included.
    known: BTreeMap<String, Digests>,
    /// Its snapshots.
    labels: BTreeSet<String>,
    taken: u32,
}

struct Round<'a> {
    program: &'a Path,
    random: Random,
    home: Home,
    subjects: Vec<Subject>,
    traces: bool,
    report: &'a mut Report,
}

/// What is killed while a verb works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    Nothing,
    Client,
    Owner,
    Both,
}

/// One thing to ask, and which snapshots there may be afterwards: before it, in its midst, and after it.
struct Asked {
    kind: &'static str,
    args: Vec<String>,
    labels: Vec<BTreeSet<String>>,
    /// Whether it starts the machine.
    starts: bool,
    /// Snapshots that may be back beside those.
    may_be_back: BTreeSet<String>,
}

impl Round<'_> {
    fn folder(&self, at: usize) -> Result<MachineFolder, String> {
        let name = self.subjects[at].name;
        MachineFolder::find(self.home.path(), name).ok_or_else(|| format!("{name} is gone"))
    }

    fn spawn(&self, args: &[&str]) -> Result<Child, String> {
        let mut command = self.home.command(self.program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map_err(|error| error.to_string())
    }

    /// A verb that nobody kills; its exit status.
    fn verb(&self, args: &[&str]) -> Result<i32, String> {
        let mut child = self.spawn(args)?;
        wait(&mut child, args)
    }

    /// Owners of this machine, by their command lines.
    fn owners(&self, at: usize) -> Result<Vec<u32>, String> {
        let id = self.folder(at)?.machine().map_err(|error| format!("{error:#}"))?.id.to_string();
        let is_owner = |process: &u32| {
            let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(" serve ") && line.contains(&id)
        };
        Ok(self.home.processes().into_iter().filter(is_owner).collect())
    }

    fn kill_owners(&self, at: usize) -> Result<bool, String> {
        let owners = self.owners(at)?;
        for owner in &owners {
            // It may have ended by itself just now.
            let _ = Command::new("kill").args(["-9", &owner.to_string()]).stderr(Stdio::null()).status();
        }
        let until = Instant::now() + Duration::from_secs(20);
        while owners.iter().any(|owner| Path::new(&format!("/proc/{owner}/exe")).exists()) {
            if Instant::now() > until {
                return Err("a killed owner doesn't end".into());
            }
            sleep(Duration::from_millis(2));
        }
        Ok(!owners.is_empty())
    }

    /// Kills owners until the machine is nobody's: one that was just started isn't known by its command line yet.
    fn end_owners(&mut self, at: usize) -> Result<(), String> {
        let dir = self.folder(at)?.path().to_path_buf();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if self.kill_owners(at)? {
                Report::count(&mut self.report.faults, "owner killed");
            }
            if !MachineStore::is_in_use(&OsHost::shared(), &dir) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("{}: it stays in use though its owners were killed", dir.display()));
            }
            sleep(Duration::from_millis(5));
        }
    }

    fn operation(&mut self) -> Result<(), String> {
        let at = self.random.below(self.subjects.len() as u64) as usize;
        let asked = self.choose(at)?;
        let runs = self.subjects[at].runs;
        let kill = match self.random.below(8) {
            0..=1 => Kill::Client,
            2 if runs => Kill::Owner,
            3..=4 if runs => Kill::Both,
            3 => Kill::Client,
            _ => Kill::Nothing,
        };
        let most = if self.random.chance(1, 3) { 400_000 } else { 60_000 };
        let delay = Duration::from_micros(self.random.below(most));
        if self.traces {
            eprintln!("{:?}, {kill:?} after {delay:?}", asked.args);
        }
        let args: Vec<&str> = asked.args.iter().map(String::as_str).collect();
        let mut child = self.spawn(&args)?;
        if asked.kind == "merge" && runs {
            return self.in_the_midst(at, kill, delay, &mut child, &args);
        }
        if kill == Kill::Nothing {
            let status = wait(&mut child, &args)?;
            self.count(asked.kind, status, &args)?;
            return self.check(at, &asked, status == 0);
        }
        sleep(delay);
        let ended = child.try_wait().map_err(|error| error.to_string())?.is_some();
        if kill != Kill::Owner && !ended {
            child.kill().map_err(|error| error.to_string())?;
            Report::count(&mut self.report.faults, "client killed");
        }
        if kill != Kill::Client && self.kill_owners(at)? {
            Report::count(&mut self.report.faults, "owner killed");
        }
        let status = wait(&mut child, &args)?;
        // What was asked for may still be under way in the owner: it ends, and is looked at then.
        if asked.starts && kill == Kill::Client {
            sleep(Duration::from_millis(100));
        }
        self.end_owners(at)?;
        self.subjects[at].runs = false;
        Report::count(&mut self.report.failed, asked.kind);
        self.check(at, &asked, status == 0)
    }

    /// A running machine is being merged: a snapshot is taken or deleted meanwhile, and the merge may be cancelled; or the
    /// owner is killed.
    fn in_the_midst(&mut self, at: usize, kill: Kill, delay: Duration, child: &mut Child, args: &[&str]) -> Result<(), String> {
        sleep(delay / 4);
        let beside = loop {
            let asked = self.choose(at)?;
            if ["take", "delete"].contains(&asked.kind) {
                break asked;
            }
        };
        let besides: Vec<&str> = beside.args.iter().map(String::as_str).collect();
        let status = self.verb(&besides)?;
        self.count(beside.kind, status, &besides)?;
        if kill == Kill::Nothing {
            let cancelled = self.random.chance(1, 2);
            if cancelled {
                let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).stderr(Stdio::null()).status();
            }
            let ended = wait(child, args)?;
            if !cancelled || ended == 0 {
                self.count("merge while it runs", ended, args)?;
            } else {
                Report::count(&mut self.report.failed, "merge while it runs");
            }
            return self.check(at, &beside, status == 0);
        }
        if self.kill_owners(at)? {
            Report::count(&mut self.report.faults, "owner killed");
        }
        wait(child, args)?;
        self.subjects[at].runs = false;
        Report::count(&mut self.report.failed, "merge while it runs");
        self.check(at, &beside, status == 0)
    }

    /// Counts what nobody has killed; it is done, or refused by a rule.
    fn count(&mut self, kind: &'static str, status: i32, args: &[&str]) -> Result<(), String> {
        let counts = match status {
            0 => &mut self.report.done,
            3 => &mut self.report.refused,
            _ => return Err(format!("{args:?} ends with status {status}, though nothing was killed")),
        };
        Report::count(counts, kind);
        Ok(())
    }

    /// Something to ask.
    fn choose(&mut self, at: usize) -> Result<Asked, String> {
        let machine = self.folder(at)?.machine().map_err(|error| format!("{error:#}"))?;
        let subject = &mut self.subjects[at];
        let (name, before) = (subject.name, subject.labels.clone());
        let some = (!before.is_empty()).then(|| {
            let index = self.random.below(before.len() as u64) as usize;
            before.iter().nth(index).cloned().unwrap_or_default()
        });
        let mut ghosts: Vec<String> = machine.ghosts.values().map(|ghost| ghost.snapshot.label.clone()).collect();
        ghosts.sort();
        let asked = |kind, args: &[&str], labels: Vec<BTreeSet<String>>| Asked {
            kind,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            labels,
            starts: false,
            may_be_back: BTreeSet::new(),
        };
        let with = |label: &str| before.iter().cloned().chain([label.to_owned()]).collect::<BTreeSet<_>>();
        let same = || vec![before.clone()];
        loop {
            return Ok(match (self.random.below(16), &some) {
                (0, _) if subject.runs => asked("stop", &["machine", "stop", name], same()),
                (0..=2, _) if !subject.runs => Asked { starts: true, ..asked("start", &["machine", "start", name], same()) },
                (3..=5, _) if before.len() < MOST_NODES => {
                    subject.taken += 1;
                    let label = format!("s{}", subject.taken);
                    let args: &[&str] = if self.random.chance(1, 3) {
                        &["snapshot", "take", name, &label, "--no-memory"]
                    } else {
                        &["snapshot", "take", name, &label]
                    };
                    asked("take", args, vec![before.clone(), with(&label)])
                }
                (6..=7, Some(label)) => {
                    if self.random.chance(1, 2) || before.len() >= MOST_NODES {
                        // Whether it then runs depends on the snapshot's memory: that is asked afterwards.
                        asked("apply", &["snapshot", "apply", name, label, "--no-safety"], same())
                    } else {
                        subject.taken += 1;
                        let safety = format!("s{}", subject.taken);
                        let args = ["snapshot", "apply", name, label, "--safety", &safety];
                        asked("apply", &args, vec![before.clone(), with(&safety)])
                    }
                }
                (8, _) => asked("undo apply", &["snapshot", "undo-apply", name], same()),
                (9..=10, Some(label)) => {
                    let mut after = before.clone();
                    after.remove(label);
                    asked("delete", &["snapshot", "delete", name, label], vec![before.clone(), after])
                }
                (11, _) if !ghosts.is_empty() => {
                    let label = &ghosts[self.random.below(ghosts.len() as u64) as usize];
                    let back = asked("undelete", &["snapshot", "undelete", name, label], vec![before.clone(), with(label)]);
                    Asked { may_be_back: ghosts.iter().cloned().collect(), ..back }
                }
                (12, _) if !subject.runs => asked("work", &["workload", "run", name, "--seconds", "1"], same()),
                (13..=14, _) if self.random.chance(1, 2) => asked("merge", &["merge", name, "--limit", "2M"], same()),
                (13..=14, _) => asked("merge", &["merge", name], same()),
                (15, _) => asked("empty trash", &["trash", "empty", name], same()),
                _ => continue,
            });
        }
    }

    /// The machine's snapshots are those that there may be, and show what they did. A machine that is off is verified
    /// by itself, byte for byte, and its folder holds nothing but what belongs to it.
    fn check(&mut self, at: usize, asked: &Asked, done: bool) -> Result<(), String> {
        self.subjects[at].runs = !self.owners(at)?.is_empty();
        let name = self.subjects[at].name;
        let wrong = |problem: String| format!("{name}, after {:?}: {problem}", asked.args);
        let folder = self.folder(at)?;
        if !self.subjects[at].runs {
            // As the program opens it before anything else.
            let opened = open_store(folder.path()).map_err(wrong)?;
            let orphans = opened.orphans().map_err(|error| wrong(error.to_string()))?;
            if !orphans.is_empty() {
                return Err(wrong(format!("files that nothing names: {orphans:?}")));
            }
            for item in &opened.machine().trash {
                if !opened.path(&item.file).exists() {
                    return Err(wrong(format!("{} is in the trash, but isn't there", item.file.display())));
                }
            }
        }
        let mut found: BTreeMap<String, Digests> = BTreeMap::new();
        for ((label, disk), digest) in folder.contents(false).map_err(|error| wrong(format!("{error:#}")))? {
            found.entry(label).or_default().insert(disk, digest);
        }
        let labels: BTreeSet<String> = found.keys().cloned().collect();
        let subject = &mut self.subjects[at];
        for (label, digests) in found {
            let known = subject.known.entry(label.clone()).or_insert_with(|| digests.clone());
            if *known != digests {
                return Err(wrong(format!("{label} has changed")));
            }
        }
        let allowed = if done { &asked.labels[asked.labels.len() - 1..] } else { &asked.labels[..] };
        let right = |allowed: &BTreeSet<String>| {
            allowed.is_subset(&labels) && labels.difference(allowed).all(|label| asked.may_be_back.contains(label))
        };
        if !allowed.iter().any(right) {
            return Err(wrong(format!("its snapshots are {labels:?}, there may be {allowed:?}")));
        }
        subject.labels = labels;
        if !subject.runs {
            folder.verify().map_err(|error| wrong(format!("{error:#}")))?;
            self.report.verified += self.size_of_nodes(&folder).map_err(wrong)?;
        }
        Ok(())
    }

    fn size_of_nodes(&self, folder: &MachineFolder) -> Result<u64, String> {
        let machine = folder.machine().map_err(|error| format!("{error:#}"))?;
        let size: u64 = machine.configuration.disks.iter().map(|disk| disk.size.0).sum();
        Ok(size * (machine.snapshots.len() as u64 + 1))
    }

    /// Everything is stopped, merged and emptied: nothing is left but what belongs to the nodes.
    fn end(&mut self) -> Result<(), String> {
        for at in 0..self.subjects.len() {
            let name = self.subjects[at].name;
            if self.subjects[at].runs {
                let status = self.verb(&["machine", "stop", name])?;
                // It may just have stopped by itself, having gone back to a snapshot without memory.
                if status != 0 && status != 3 {
                    return Err(format!("{name} can't be stopped: status {status}"));
                }
            }
            for args in [["trash", "empty", name].as_slice(), &["merge", name], &["trash", "empty", name]] {
                let status = self.verb(args)?;
                if status != 0 && status != 3 {
                    return Err(format!("{args:?} ends with status {status}"));
                }
            }
            let same = vec![self.subjects[at].labels.clone()];
            let ended =
                Asked { kind: "end", args: vec!["the end".into()], labels: same, starts: false, may_be_back: BTreeSet::new() };
            self.check(at, &ended, true)?;
            let store = open_store(self.folder(at)?.path())?;
            if !Tree::of(store.machine()).runs().is_empty() || !store.machine().trash.is_empty() {
                return Err(format!("{name}: a merge or something in the trash is left, though nothing hinders it"));
            }
        }
        Ok(())
    }
}

fn open_store(folder: &Path) -> Result<MachineStore, String> {
    let clock = SystemClock::shared();
    let folder: PathBuf = folder.into();
    let mut store = MachineStore::open(&OsHost::shared(), &clock, &folder).map_err(|error| error.to_string())?;
    complete_switch(&mut store).map_err(|error| error.to_string())?;
    Ok(store)
}

/// The exit status; what a signal has ended is -1.
fn wait(child: &mut Child, args: &[&str]) -> Result<i32, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(status.code().unwrap_or(-1));
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{args:?} doesn't end"));
        }
        sleep(Duration::from_millis(2));
    }
}
