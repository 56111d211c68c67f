//! The engine as a whole, on real files, driven by hand.

mod agent;
mod beside;
mod merging;
mod planning;
mod powershell;
mod probe;
mod random;
mod room;
mod running;
mod stopped;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tempfile::TempDir;

use super::{
    Answer, Command, CreateMachine, Engine, EngineOptions, Event, JobState, MachineState, Mode, PlanState, Refusal, Request,
    RequestId, SubscriberId, WorkloadCounters,
};
use crate::chain::{Chain, Gate};
use crate::clock::{SharedClock, SystemClock};
use crate::disk::ImageFormat;
use crate::host_file::{Access, OsHost, SharedHost};
use crate::snapshot::{DiskId, ImageId, MachineId, MachineKind, SnapshotId, WorkloadProfile};
use crate::testing::MemHost;
use crate::units::ByteCount;

/// An engine without a thread, on a folder of its own.
struct Bench {
    folder: TempDir,
    engine: Engine,
    me: SubscriberId,
    events: Receiver<Event>,
    states: BTreeMap<MachineId, Arc<MachineState>>,
    jobs: Vec<JobState>,
    live: BTreeMap<MachineId, WorkloadCounters>,
    plan: Option<Arc<PlanState>>,
    answers: BTreeMap<RequestId, Result<Answer, Refusal>>,
    requests: u64,
}

impl Bench {
    fn new() -> Self {
        Self::on(tempfile::tempdir().expect("a folder"))
    }

    fn on(folder: TempDir) -> Self {
        let library = folder.path().join("library");
        Self::with(folder, OsHost::shared(), library)
    }

    /// On files in memory.
    fn in_memory(host: &MemHost) -> Self {
        Self::with(tempfile::tempdir().expect("a folder"), host.shared(), "/library".into())
    }

    fn with(folder: TempDir, host: SharedHost, library: PathBuf) -> Self {
        Self::at(folder, host, library, SystemClock::shared())
    }

    /// At a time that the test decides.
    fn at(folder: TempDir, host: SharedHost, library: PathBuf, clock: SharedClock) -> Self {
        let options = EngineOptions { host, clock, library, executable: None };
        let mut engine = Engine::new(options).expect("an engine");
        let (me, events) = engine.subscribe();
        Self {
            folder,
            engine,
            me,
            events,
            states: BTreeMap::new(),
            jobs: Vec::new(),
            live: BTreeMap::new(),
            plan: None,
            answers: BTreeMap::new(),
            requests: 0,
        }
    }

    /// The same library, opened by another engine: as after the program was ended.
    fn reopen(self) -> Self {
        let Self { folder, engine, .. } = self;
        drop(engine);
        Self::on(folder)
    }

    fn submit(&mut self, command: Command, mode: Mode) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.engine.submit(self.me, Request { id, command, mode, expected_generation: None });
        id
    }

    /// Hears what was said.
    fn hear(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Machine(state) => {
                    self.states.insert(state.machine.id, state);
                }
                Event::Gone(id) => {
                    self.states.remove(&id);
                }
                Event::Job(state) => self.jobs.push(state),
                Event::Answer { request, answer } => {
                    self.answers.insert(request, answer);
                }
                Event::Live { machine, counters, .. } => {
                    self.live.insert(machine, counters);
                }
                Event::Plan(plan) => self.plan = Some(plan),
                Event::Library(_) => {}
            }
        }
    }

    fn wait(&mut self, id: RequestId) -> Result<Answer, Refusal> {
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            self.hear();
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            assert!(Instant::now() < until, "no answer");
            let idle = self.engine.tick();
            std::thread::sleep(idle.min(Duration::from_millis(2)));
        }
    }

    fn ask(&mut self, command: Command) -> Result<Answer, Refusal> {
        let id = self.submit(command, Mode::Do);
        self.wait(id)
    }

    fn done(&mut self, command: Command) -> Answer {
        let text = format!("{command:?}");
        self.ask(command).unwrap_or_else(|refusal| panic!("{text}: {refusal}"))
    }

    /// Lets the engine work until something is so.
    fn until(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let until = Instant::now() + Duration::from_secs(120);
        while !so(self) {
            assert!(Instant::now() < until, "{what}");
            let idle = self.engine.tick();
            self.hear();
            std::thread::sleep(idle.min(Duration::from_millis(2)));
        }
    }

    /// Lets the engine work for a while.
    fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let idle = self.engine.tick();
            self.hear();
            std::thread::sleep(idle.min(Duration::from_millis(2)));
        }
    }

    fn create(&mut self, name: &str, memory: ByteCount, disks: &[ByteCount], workload: WorkloadProfile) -> MachineId {
        let create = CreateMachine {
            name: name.into(),
            kind: MachineKind::Workload,
            memory,
            disks: disks.to_vec(),
            format: ImageFormat::Vhdx,
            hardware: None,
            workload,
        };
        match self.done(Command::Create(create)) {
            Answer::Created(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn take(&mut self, machine: MachineId, label: &str, memory: bool) -> SnapshotId {
        match self.done(Command::Take { machine, label: label.into(), note: String::new(), memory }) {
            Answer::Taken { snapshot, .. } => snapshot,
            other => panic!("{other:?}"),
        }
    }

    fn work(&mut self, machine: MachineId, milliseconds: u64) {
        self.done(Command::RunWorkload { machine, milliseconds, seed: None });
    }

    fn verify(&mut self, machine: MachineId, at: Option<SnapshotId>) -> super::VerifyReport {
        match self.done(Command::Verify { machine, at }) {
            Answer::Verified(report) => {
                assert_eq!(report.wrong, Vec::<String>::new());
                report
            }
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self, machine: MachineId) -> Arc<MachineState> {
        self.hear();
        self.states.get(&machine).expect("a known machine").clone()
    }

    /// The whole content of a node's disks, read from the files.
    fn content(&mut self, machine: MachineId, at: Option<SnapshotId>) -> BTreeMap<DiskId, Vec<u8>> {
        let state = self.state(machine);
        let images: &BTreeMap<DiskId, ImageId> = match at {
            None => &state.machine.now.images,
            Some(id) => &state.machine.snapshots[&id].images,
        };
        let gate = Gate::new([state.folder.clone()]);
        let read = |(disk, image): (&DiskId, &ImageId)| {
            let path = state.folder.join(&state.machine.images[image].file);
            let chain = Chain::open(&OsHost::shared(), &path, Access::Look, &gate).expect("a chain");
            let mut bytes = vec![0; chain.virtual_size().0 as usize];
            chain.read_at(&mut bytes, 0).expect("readable");
            (disk.clone(), bytes)
        };
        images.iter().map(read).collect()
    }
}

fn quick() -> WorkloadProfile {
    WorkloadProfile { seed: 5, page_writes_per_second: 500, disk_writes_per_second: 400, ..WorkloadProfile::default() }
}
