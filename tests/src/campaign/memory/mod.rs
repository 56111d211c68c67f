//! Rounds on a volume in memory: everything follows from the round's seed.
//!
//! ```text
//! Round::operation   choose, order a fault, carry out, come back from a crash, check
//!   operations       what is asked of the engine
//!   working          a machine that goes on writing while a snapshot is taken, or a merge goes on under it
//!   check            opens the machine as the program does, and compares it with what it may be
//! ```

mod check;
mod operations;
mod working;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use snaptree_core::disk::ImageFormat;
use snaptree_core::engine::{Command, RequestId};
use snaptree_core::fresh;
use snaptree_core::snapshot::{MachineId, MachineKind, Settings, WorkloadProfile};
use snaptree_core::store::{ImportRequest, MachineStore, NewMachine};
use snaptree_core::testing::{CrashMode, Door, FakeClock, Fault, MemHost, Random};
use snaptree_core::units::ByteCount;

use super::desk::Desk;
use super::model::{Disks, Now, State};
use super::{Extent, Report};
use crate::content::Content;
use crate::lab::{self, FOREIGN, Shape};

/// Operations of a round.
const OPERATIONS: u64 = 60;
/// A machine has at most so many snapshots.
const MOST_NODES: usize = 8;

/// How the images of the machine are made that comes from somebody else.
const SHAPES: [Shape; 6] = [
    Shape { format: ImageFormat::Vhdx, sectors: 8_195, sector: 512, blocks: &[1, 2, 1, 2], fixed: true, grows: 0 },
    Shape { format: ImageFormat::Vhdx, sectors: 6_001, sector: 512, blocks: &[2, 1, 2, 1], fixed: false, grows: 700 },
    Shape { format: ImageFormat::Vhdx, sectors: 1_100, sector: 4096, blocks: &[2, 2, 1], fixed: false, grows: 0 },
    Shape { format: ImageFormat::Vhdx, sectors: 69_632, sector: 512, blocks: &[32, 2, 32], fixed: false, grows: 0 },
    Shape { format: ImageFormat::Vhd, sectors: 8_195, sector: 512, blocks: &[1, 2, 1, 2], fixed: true, grows: 300 },
    Shape { format: ImageFormat::Vhd, sectors: 12_001, sector: 512, blocks: &[2, 2, 1], fixed: false, grows: 0 },
];

/// Carries out rounds; see [`Extent`].
pub fn campaign(extent: Extent, report: &mut Report) {
    let until = Instant::now() + extent.time;
    for seed in extent.seed..extent.seed.saturating_add(extent.rounds) {
        let may_end = report.rounds >= extent.least_rounds;
        if may_end && Instant::now() >= until {
            break;
        }
        let began = report.operations();
        let until = may_end.then_some(until);
        let ended = catch_unwind(AssertUnwindSafe(|| round(seed, until, extent.traces, report)));
        report.rounds += 1;
        let problem = match ended {
            Ok(Ok(())) => continue,
            Ok(Err(problem)) => problem,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                format!("panicked: {}", text.unwrap_or_default())
            }
        };
        let operation = report.operations() - began;
        report
            .violations
            .push(format!("operation {operation}: {problem}\n    again: campaign --mode memory --seed {seed} --rounds 1"));
    }
}

/// One round; what was wrong, in words.
fn round(seed: u64, until: Option<Instant>, traces: bool, report: &mut Report) -> Result<(), String> {
    fresh::follow_seed(Some(seed));
    let ended = Round::begin(seed, traces, report).and_then(|mut round| {
        for number in 0..OPERATIONS {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            round.operation(number)?;
        }
        round.end()
    });
    fresh::follow_seed(None);
    ended
}

/// One machine, and what its nodes must show.
struct Subject {
    id: MachineId,
    name: String,
    /// Whether the built-in machine works on its disks; otherwise the round writes to them itself.
    has_guest: bool,
    /// What each snapshot shows, those that are deleted included.
    known: BTreeMap<String, Disks>,
    state: State,
    /// What undoing the last apply brings back.
    undo: Option<Now>,
    taken: u32,
}

/// What an operation may have made of its machine.
struct Expected {
    /// Whether it was carried out: then only the last of the states is right.
    done: bool,
    /// Before it, in its midst, and after it.
    states: Vec<State>,
    /// The built-in machine has worked: Now shows whatever it wrote.
    worked: bool,
    /// Labels that may be back: an undeletion brings all of its action's that it can.
    may_be_back: BTreeSet<String>,
}

struct Round<'a> {
    random: Random,
    host: MemHost,
    clock: Arc<FakeClock>,
    desk: Desk,
    subjects: Vec<Subject>,
    /// A merge that goes on while other machines are worked on.
    background: Option<(usize, RequestId)>,
    /// Whose merge has ended with the program.
    ended: Option<usize>,
    report: &'a mut Report,
    /// The computer has lost power in this operation.
    power_lost: bool,
    traces: bool,
    /// Whether the volume can give space inside files back.
    punches: bool,
}

impl<'a> Round<'a> {
    fn begin(seed: u64, traces: bool, report: &'a mut Report) -> Result<Self, String> {
        let mut random = Random::new(seed ^ 0x00c0_ffee);
        let (host, clock) = (MemHost::new(), FakeClock::noon());
        let punches = !random.chance(1, 4);
        host.set_can_punch(punches);
        let mut subjects = Vec::new();
        let shape = SHAPES[random.below(SHAPES.len() as u64) as usize];
        let contents = lab::make_foreign(&host, &shape, seed);
        let library = lab::library(&host).map_err(|error| error.to_string())?;
        let request = ImportRequest { path: FOREIGN.into(), name: "imported".into(), remove_originals: true, computer: None };
        let store = library.import(&request, &mut |_, _| true).map_err(|error| error.to_string())?;
        let contents: BTreeMap<String, Disks> =
            lab::name_contents(contents).into_iter().map(|(label, content)| (label, vec![content])).collect();
        subjects.push(Subject::new(&store, false, contents));
        let format = if random.chance(1, 2) { ImageFormat::Vhd } else { ImageFormat::Vhdx };
        for (name, has_guest, disks) in [("plain", false, vec![3, 2]), ("guest", true, vec![4, 2])] {
            let new = NewMachine {
                name: name.into(),
                kind: MachineKind::Workload,
                memory: ByteCount::mib(2),
                disks: disks.into_iter().map(ByteCount::mib).collect(),
                format,
                hardware: None,
                workload: WorkloadProfile {
                    seed,
                    page_writes_per_second: 100,
                    disk_writes_per_second: 2000,
                    hot_share: 0.5,
                    frames_per_second: 20,
                },
            };
            let zeros = new.disks.iter().map(|size| Content::zeros(size.0)).collect();
            let mut store = library.create(&new).map_err(|error| error.to_string())?;
            // It works until the volume is really full.
            let settings = Settings { pause_free: ByteCount::ZERO, ..Settings::default() };
            store.set_settings(settings).map_err(|error| error.to_string())?;
            subjects.push(Subject::new(&store, has_guest, [(lab::NOW.to_owned(), zeros)].into()));
        }
        drop(store);
        let desk = Desk::open(&host, &clock)?;
        Ok(Self {
            random,
            host,
            clock,
            desk,
            subjects,
            background: None,
            ended: None,
            report,
            power_lost: false,
            traces,
            punches,
        })
    }

    /// One random operation, perhaps with a fault, and the check afterwards.
    fn operation(&mut self, number: u64) -> Result<(), String> {
        let busy = self.background.map(|(subject, _)| subject);
        let free: Vec<usize> = (0..self.subjects.len()).filter(|subject| Some(*subject) != busy).collect();
        let at = free[self.random.below(free.len() as u64) as usize];
        let kind = self.choose(at);
        let fault = self.arm(kind);
        if self.traces {
            eprintln!("{number}: {kind} on {} with {fault}", self.subjects[at].name);
        }
        let met = self.host.faults_met();
        (self.power_lost, self.ended) = (false, None);
        let expected = match kind {
            "write" => self.write(at),
            "work" => self.work(at),
            "take" => self.take(at),
            "take while it works" => self.take_live(at),
            "merge while it works" => self.merge_live(at),
            "apply" => self.apply(at),
            "undo apply" => self.undo_apply(at),
            "delete" => self.delete(at),
            "undelete" => self.undelete(at),
            "rename" => self.rename(at),
            "empty trash" => self.empty_trash(at),
            "merge" => self.merge(at),
            "merge, cut short" => self.merge_cut_short(at),
            "merge beside" => self.merge_beside(at),
            _ => self.reopen(at),
        };
        let crashed = self.host.has_crashed();
        let hit = crashed || self.host.faults_met() > met;
        self.host.heal();
        self.host.set_capacity(None);
        let expected = expected?;
        if !expected.done && !hit && fault != "full" && ["write", "take while it works", "merge while it works"].contains(&kind) {
            return Err(format!("{kind} failed without a fault"));
        }
        if hit {
            Report::count(&mut self.report.faults, fault);
        }
        let counts = match (expected.done, hit) {
            (true, _) => &mut self.report.done,
            (false, true) => &mut self.report.failed,
            (false, false) => &mut self.report.refused,
        };
        Report::count(counts, kind);
        if crashed {
            self.come_back(fault)?;
        } else {
            self.host.disarm();
        }
        let ends = crashed || number + 1 == OPERATIONS || self.random.chance(1, 3);
        if let Some((other, id)) = self.background.take_if(|_| ends)
            && !crashed
        {
            self.desk.wait(id)?;
            self.settle_unchanged(other)?;
        }
        if let Some(other) = self.ended.take_if(|_| !crashed) {
            self.settle_unchanged(other)?;
        }
        let name = self.subjects[at].name.clone();
        self.settle(at, expected).map_err(|problem| format!("{kind} on {name} with {fault}: {problem}"))?;
        if crashed {
            for other in (0..self.subjects.len()).filter(|other| *other != at) {
                self.settle_unchanged(other)?;
            }
        }
        Ok(())
    }

    fn choose(&mut self, at: usize) -> &'static str {
        let subject = &self.subjects[at];
        let room = subject.state.labels.len() < MOST_NODES;
        let some = !subject.state.labels.is_empty();
        loop {
            let (kind, possible) = match self.random.below(22) {
                0..=3 if subject.has_guest => ("work", true),
                0..=3 => ("write", true),
                4..=6 => ("take", room),
                7 => ("take while it works", room && !subject.has_guest),
                8..=9 => ("apply", some),
                10 => ("undo apply", true),
                11..=12 => ("delete", some),
                13 => ("undelete", true),
                14 => ("rename", some),
                15 => ("empty trash", true),
                16 => ("merge", true),
                17 => ("merge, cut short", true),
                18 => ("merge beside", self.background.is_none()),
                19..=20 => ("merge while it works", !subject.has_guest),
                _ => ("reopen", true),
            };
            if possible {
                return kind;
            }
        }
    }

    /// Orders a fault, or none; what it is called.
    fn arm(&mut self, kind: &str) -> &'static str {
        let soon = if kind.starts_with("merge") { 400 } else { 90 };
        let skip = self.random.below(soon) * self.random.below(3) / 2;
        let sticky = self.random.chance(1, 2);
        match self.random.below(10) {
            0..=1 => {
                self.host.crash_at(self.host.steps() + skip);
                "kill"
            }
            // Not while the built-in machine works: it takes a unit of several writes, as a loss of power makes it, for an error.
            2..=3 if kind != "work" => {
                self.host.crash_at(self.host.steps() + skip);
                "power loss"
            }
            4 => {
                // As where others fill the volume up in the meantime.
                self.host.inject(Fault { door: Some(Door::Write), skip, kind: ErrorKind::StorageFull, sticky });
                "no space"
            }
            5 => {
                let more = self.random.below(48 << 20);
                self.host.set_capacity(Some(self.host.used() + ByteCount(more)));
                "full"
            }
            6 => {
                let doors = [Door::Read, Door::Write, Door::Flush, Door::Name];
                let door = doors[self.random.below(4) as usize];
                self.host.inject(Fault { door: Some(door), skip, kind: ErrorKind::Other, sticky });
                match door {
                    Door::Read => "failed reads",
                    Door::Write => "failed writes",
                    Door::Flush => "failed flushes",
                    Door::Name => "failed names",
                }
            }
            _ => "no fault",
        }
    }

    /// The computer, or the program, starts again.
    fn come_back(&mut self, fault: &str) -> Result<(), String> {
        self.power_lost = fault == "power loss";
        let mode = if self.power_lost { CrashMode::PowerLoss } else { CrashMode::Kill };
        let seed = self.random.next_u64();
        self.host = self.host.crash(mode, seed);
        if self.random.chance(1, 3) {
            // And ends again while it starts.
            self.host.crash_at(self.random.below(40));
            if let Ok(mut desk) = Desk::open(&self.host, &self.clock) {
                for at in 0..self.subjects.len() {
                    let _ = desk.ask(Command::EmptyTrash { machine: self.subjects[at].id, all: false });
                }
            }
            let again = self.random.next_u64();
            self.host = self.host.crash(mode, again);
        }
        self.desk = Desk::open(&self.host, &self.clock)?;
        Ok(())
    }
}

impl Subject {
    fn new(store: &MachineStore, has_guest: bool, mut contents: BTreeMap<String, Disks>) -> Self {
        let now = Now::exactly(contents.remove(lab::NOW).expect("Now"));
        Self {
            id: store.machine().id,
            name: store.machine().name.clone(),
            has_guest,
            state: State { labels: contents.keys().cloned().collect(), now },
            known: contents,
            undo: None,
            taken: 0,
        }
    }
}
