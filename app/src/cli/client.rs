//! A client of the engine: asks, follows what it says, shows the progress of jobs.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use snaptree_core::clock::SystemClock;
use snaptree_core::engine::{
    Answer, Command, Engine, EngineHandle, EngineOptions, Event, JobAction, JobPhase, JobState, LibraryState, MachineState, Mode,
    PlanState, Power, Request, RequestId, Screen, powershell,
};
use snaptree_core::host_file::OsHost;
use snaptree_core::snapshot::{MachineId, by_name};
use snaptree_core::units::ByteCount;

use super::output::Output;
use super::{Common, Done, Failure, answers, json, names};
use crate::text;

/// How long the engine may take to look at a machine's files.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a list of all machines waits for their figures.
const SOON: Duration = Duration::from_secs(10);
/// How often Ctrl+C is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Set by Ctrl+C.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// One session with the engine.
pub struct Client {
    engine: EngineHandle,
    library: Option<Arc<LibraryState>>,
    machines: BTreeMap<MachineId, Arc<MachineState>>,
    plan: Option<Arc<PlanState>>,
    mode: Mode,
    powershell: bool,
    next: u64,
    progress: Progress,
}

/// What an engine stands on here.
pub fn options(library: &Path) -> EngineOptions {
    EngineOptions {
        host: OsHost::shared(),
        clock: SystemClock::shared(),
        library: std::path::absolute(library).unwrap_or_else(|_| library.to_path_buf()),
        executable: std::env::current_exe().ok(),
    }
}

impl Client {
    /// Starts the engine on the library, and knows its machines when it returns.
    pub fn open(common: &Common) -> Result<Self, Failure> {
        let mut client = Self {
            engine: Engine::start(options(&common.library()?))?,
            library: None,
            machines: BTreeMap::new(),
            plan: None,
            powershell: common.powershell,
            mode: if common.what_if { Mode::WhatIf } else { Mode::Do },
            next: 0,
            progress: Progress::new(),
        };
        client.until("the library", |client| {
            let library = client.library.as_ref()?;
            library.machines.iter().all(|id| client.machines.contains_key(id)).then_some(())
        })?;
        Ok(client)
    }

    /// The library.
    pub fn library(&self) -> Arc<LibraryState> {
        self.library.clone().unwrap_or_default()
    }

    /// All machines, by name, once it is known which of them run.
    pub fn all(&mut self) -> Result<Vec<Arc<MachineState>>, Failure> {
        self.until("the machines' owners", |client| client.machines.values().all(|m| m.power != Power::Starting).then_some(()))?;
        let mut all: Vec<_> = self.machines.values().cloned().collect();
        all.sort_by(|a, b| by_name(&a.machine.name, &b.machine.name));
        Ok(all)
    }

    /// The machine that is meant, once it is known whether it runs.
    pub fn machine(&mut self, name: &str) -> Result<Arc<MachineState>, Failure> {
        let id = names::machine(self.machines.values(), name)?.machine.id;
        self.until(name, |client| client.machines.get(&id).filter(|m| m.power != Power::Starting).cloned())
    }

    /// The same, once its files are looked at and its disks are counted, as far as they can be.
    pub fn counted(&mut self, name: &str) -> Result<Arc<MachineState>, Failure> {
        let id = self.machine(name)?.machine.id;
        self.until(name, |client| client.machines.get(&id).filter(|m| is_counted(m)).cloned())
    }

    /// Waits until every machine's files are looked at and its disks are counted, but not for long:
    /// what isn't known by then is shown as unknown.
    pub fn settle(&mut self) {
        let began = Instant::now();
        while began.elapsed() < SOON && !self.machines.values().all(|m| is_counted(m)) {
            if self.event(LOOK).is_err() {
                return;
            }
        }
    }

    /// The next picture of a running machine's screen.
    pub fn screen(&mut self, name: &str) -> Result<Arc<Screen>, Failure> {
        let id = self.machine(name)?.machine.id;
        let began = Instant::now();
        while began.elapsed() < SOON {
            if let Some(Event::Live { machine, screen, .. }) = self.event(LOOK)?
                && machine == id
            {
                return Ok(screen);
            }
        }
        Err(Failure::failed(format!("no picture of its screen came within {} s", SOON.as_secs())))
    }

    /// The plan of all merges, made of what is known now.
    pub fn plan(&mut self) -> Result<Arc<PlanState>, Failure> {
        self.all()?;
        self.settle();
        self.call(Command::MakePlan)?;
        self.until("the plan", |client| client.plan.clone())
    }

    /// Asks, and waits for the answer; the progress of its job is shown meanwhile.
    pub fn call(&mut self, command: Command) -> Result<Answer, Failure> {
        self.next += 1;
        let id = RequestId(self.next);
        let machine = command.machine();
        self.engine.send(Request { id, command, mode: self.mode, expected_generation: None })?;
        catch_interrupts();
        loop {
            if INTERRUPTED.swap(false, Ordering::SeqCst)
                && let Some(machine) = machine
            {
                self.next += 1;
                let command = Command::Job { machine, action: JobAction::Cancel };
                let cancel = Request { id: RequestId(self.next), command, mode: Mode::Do, expected_generation: None };
                self.engine.send(cancel)?;
            }
            match self.event(LOOK)? {
                Some(Event::Answer { request, answer }) if request == id => {
                    self.progress.clear();
                    return Ok(answer?);
                }
                Some(Event::Job(job)) if Some(job.machine) == machine => self.progress.show(&job),
                _ => {}
            }
        }
    }

    /// Asks, and says the answer; or says what one would type on a Hyper-V host, where that is wanted instead.
    pub fn carry_out(&mut self, command: Command, output: &Output) -> Done {
        let state = command.machine().and_then(|id| self.machines.get(&id).cloned());
        if self.powershell {
            let typed = powershell(&command, state.as_ref().map(|state| (&*state.machine, &*state.folder)));
            let typed = typed.ok_or_else(|| Failure::refused("Hyper-V has nothing like it, or there is nothing to do"))?;
            output.say(&json::PowerShell { powershell: typed.clone() }, || vec![typed]);
            return Ok(());
        }
        let answer = self.call(command)?;
        answers::answer(output, state.as_ref().map(|state| &*state.machine), &answer)
    }

    /// Whether things are done, rather than planned or said.
    pub fn does_it(&self) -> bool {
        self.mode == Mode::Do && !self.powershell
    }

    /// Whether things are only to be planned.
    pub fn is_what_if(&self) -> bool {
        self.mode == Mode::WhatIf
    }

    /// The next event, taken into account; `None` where none came in this time.
    fn event(&mut self, wait: Duration) -> Result<Option<Event>, Failure> {
        let event = match self.engine.events().recv_timeout(wait) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::failed("the engine has ended")),
        };
        match &event {
            Event::Library(library) => self.library = Some(library.clone()),
            Event::Machine(state) => {
                self.machines.insert(state.machine.id, state.clone());
            }
            Event::Gone(id) => {
                self.machines.remove(id);
            }
            Event::Plan(plan) => self.plan = Some(plan.clone()),
            Event::Job(_) | Event::Live { .. } | Event::Answer { .. } => {}
        }
        Ok(Some(event))
    }

    /// Waits until something is there.
    fn until<T>(&mut self, what: &str, there: impl Fn(&Self) -> Option<T>) -> Result<T, Failure> {
        let began = Instant::now();
        loop {
            if let Some(found) = there(self) {
                return Ok(found);
            }
            if began.elapsed() > PATIENCE {
                return Err(Failure::failed(format!("{what} could not be looked at within {} s", PATIENCE.as_secs())));
            }
            self.event(LOOK)?;
        }
    }
}

/// Whether every image was looked at, every disk whose images can be read was counted, and the volume's first probe is made.
fn is_counted(state: &MachineState) -> bool {
    let machine = &state.machine;
    let looked_at = machine.images.keys().all(|id| state.files.contains_key(id));
    let readable = |disk: &_| {
        let images = machine.images.iter().filter(|(_, record)| record.disk == *disk);
        images.clone().count() > 0 && images.clone().all(|(id, _)| state.files.get(id).is_some_and(|f| f.problem.is_none()))
    };
    looked_at
        && !state.probing
        && machine.configuration.disks.iter().all(|disk| state.census.contains_key(&disk.id) || !readable(&disk.id))
}

/// Ctrl+C asks the job to end between two steps (a merge keeps what it moved); a second one ends the program.
fn catch_interrupts() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let caught = ctrlc::set_handler(|| {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        });
        if let Err(error) = caught {
            eprintln!("snaptree: Ctrl+C will end the program at once: {error}");
        }
    });
}

/// A line on the terminal that follows a job.
struct Progress {
    terminal: bool,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: stderr().is_terminal(), shown: false }
    }

    fn show(&mut self, job: &JobState) {
        if !self.terminal || !matches!(job.phase, JobPhase::Running | JobPhase::Paused) {
            return;
        }
        let mut line = job.title.clone();
        if job.total > ByteCount::ZERO {
            let percent = (job.done.0 as f64 / job.total.0 as f64 * 100.0).min(100.0);
            line += &format!(": {} of {} ({percent:.0} %)", text::bytes(job.done), text::bytes(job.total));
            line += &format!(", {}", text::rate(job.rate));
        }
        if let Some(left) = job.left {
            line += &format!(", {} left", text::duration(left));
        }
        eprint!("\r\x1b[K{line}");
        let _ = stderr().flush();
        self.shown = true;
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}
