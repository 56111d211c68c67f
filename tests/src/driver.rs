//! An engine in this process, driven by hand on a library of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::clock::SystemClock;
use snaptree_core::disk::ImageFormat;
use snaptree_core::engine::{
    Answer, Command, CreateMachine, Engine, EngineOptions, Event, JobState, LatencyReport, MachineState, Mode, Refusal, Request,
    RequestId, Screen, SubscriberId, VerifyReport, WorkloadCounters,
};
use snaptree_core::host_file::{Access, OsHost, SharedHost};
use snaptree_core::snapshot::{DiskId, MachineId, MachineKind, NodeRef, SnapshotId, Tree, WorkloadProfile};
use snaptree_core::units::ByteCount;
use tempfile::TempDir;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// An engine without a thread, and everything that it has said.
pub struct Driver {
    folder: TempDir,
    host: SharedHost,
    engine: Engine,
    me: SubscriberId,
    events: Receiver<Event>,
    states: BTreeMap<MachineId, Arc<MachineState>>,
    /// Every state of every job, in order.
    pub jobs: Vec<JobState>,
    /// What each running machine has done, as it was told last.
    pub counters: BTreeMap<MachineId, WorkloadCounters>,
    /// Every screen that was shown, in order.
    pub screens: Vec<(MachineId, Arc<Screen>)>,
    answers: BTreeMap<RequestId, Result<Answer, Refusal>>,
    requests: u64,
}

impl Driver {
    /// On a new library in a temporary folder, which goes with it.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("snaptree-").tempdir().expect("a temporary folder");
        Self::on(folder, OsHost::shared())
    }

    /// On the library in this folder of a file system.
    pub fn on(folder: TempDir, host: SharedHost) -> Self {
        let options = EngineOptions {
            host: host.clone(),
            clock: SystemClock::shared(),
            library: folder.path().join("library"),
            executable: None,
        };
        let mut engine = Engine::new(options).expect("an engine");
        let (me, events) = engine.subscribe();
        Self {
            folder,
            host,
            engine,
            me,
            events,
            states: BTreeMap::new(),
            jobs: Vec::new(),
            counters: BTreeMap::new(),
            screens: Vec::new(),
            answers: BTreeMap::new(),
            requests: 0,
        }
    }

    /// The same library, opened by another engine: as after the program was ended.
    #[must_use]
    pub fn reopen(self) -> Self {
        let Self { folder, host, engine, .. } = self;
        drop(engine);
        Self::on(folder, host)
    }

    /// Ends the engine; the folder with the library stays as long as it is held.
    pub fn end(self) -> TempDir {
        self.folder
    }

    /// The file system that the library is on.
    pub fn host(&self) -> &SharedHost {
        &self.host
    }

    /// The temporary folder in which the library lies; what else is put there goes with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks, and doesn't wait.
    pub fn submit(&mut self, command: Command) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.engine.submit(self.me, Request { id, command, mode: Mode::Do, expected_generation: None });
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
                Event::Live { machine, screen, counters } => {
                    self.screens.push((machine, screen));
                    self.counters.insert(machine, counters);
                }
                Event::Library(_) | Event::Plan(_) => {}
            }
        }
    }

    fn tick(&mut self) {
        let idle = self.engine.tick();
        self.hear();
        thread::sleep(idle.min(Duration::from_millis(2)));
    }

    /// Works until an answer is there.
    pub fn wait(&mut self, id: RequestId) -> Result<Answer, Refusal> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.hear();
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            assert!(Instant::now() < until, "no answer");
            self.tick();
        }
    }

    /// Asks and waits.
    pub fn ask(&mut self, command: Command) -> Result<Answer, Refusal> {
        let id = self.submit(command);
        self.wait(id)
    }

    /// Asks and waits; it must be done.
    pub fn done(&mut self, command: Command) -> Answer {
        let text = format!("{command:?}");
        self.ask(command).unwrap_or_else(|refusal| panic!("{text}: {refusal}"))
    }

    /// Lets the engine work for a while.
    pub fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.tick();
        }
    }

    /// Works until it is so.
    pub fn pass_until(&mut self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < until, "waited in vain: {what}");
            self.tick();
        }
    }

    /// Creates a machine.
    pub fn create(&mut self, name: &str, memory: ByteCount, disks: &[ByteCount], workload: WorkloadProfile) -> MachineId {
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

    /// Takes a snapshot.
    pub fn take(&mut self, machine: MachineId, label: &str, memory: bool) -> (SnapshotId, Option<LatencyReport>) {
        match self.done(Command::Take { machine, label: label.into(), note: String::new(), memory }) {
            Answer::Taken { snapshot, latency } => (snapshot, latency),
            other => panic!("{other:?}"),
        }
    }

    /// Deletes snapshots; what nothing reads through goes to the trash.
    pub fn delete(&mut self, machine: MachineId, snapshots: &[SnapshotId]) {
        self.done(Command::Delete { machine, snapshots: snapshots.to_vec(), subtree: false, free_now: false });
    }

    /// Carries out all merges that are due.
    pub fn merge(&mut self, machine: MachineId) {
        self.done(Command::Merge { machine, disk: None, limit: None, until: None });
    }

    /// Has every byte of a node read and verified by the machine itself; nothing may be wrong.
    pub fn verify(&mut self, machine: MachineId, at: Option<SnapshotId>) -> VerifyReport {
        match self.done(Command::Verify { machine, at }) {
            Answer::Verified(report) => {
                assert_eq!(report.wrong, Vec::<String>::new());
                report
            }
            other => panic!("{other:?}"),
        }
    }

    /// A machine's last state.
    pub fn state(&mut self, machine: MachineId) -> Arc<MachineState> {
        self.hear();
        self.states.get(&machine).expect("a known machine").clone()
    }

    /// The same, as far as it was heard.
    pub fn known(&self, machine: MachineId) -> Option<&MachineState> {
        self.states.get(&machine).map(|state| &**state)
    }

    /// The snapshot with a label.
    pub fn labelled(&mut self, machine: MachineId, label: &str) -> SnapshotId {
        let state = self.state(machine);
        let found = state.machine.snapshots.iter().find(|(_, snapshot)| snapshot.label == label);
        *found.unwrap_or_else(|| panic!("no snapshot is called {label}")).0
    }

    /// The kept nodes: all snapshots, and Now.
    pub fn nodes(&mut self, machine: MachineId) -> Vec<Option<SnapshotId>> {
        let state = self.state(machine);
        state.machine.snapshots.keys().copied().map(Some).chain([None]).collect()
    }

    /// A node's files per disk, from the leaf to the base.
    pub fn files(&mut self, machine: MachineId, at: Option<SnapshotId>) -> BTreeMap<DiskId, Vec<PathBuf>> {
        let state = self.state(machine);
        let tree = Tree::of(&state.machine);
        let images = tree.images_of(at.map_or(NodeRef::Now, NodeRef::Snapshot)).expect("a node");
        let path = |image| state.folder.join(&state.machine.images[&image].file);
        images
            .iter()
            .map(|(disk, leaf)| {
                // From the leaf down, as the manifest says.
                let mut chain = tree.chain(*leaf);
                if chain.first() != Some(leaf) {
                    chain.reverse();
                }
                (disk.clone(), chain.into_iter().map(path).collect())
            })
            .collect()
    }

    /// A node's disks, opened from their files.
    pub fn chains(&mut self, machine: MachineId, at: Option<SnapshotId>, access: Access) -> BTreeMap<DiskId, Chain> {
        let (gate, host) = (Gate::new([self.state(machine).folder.clone()]), self.host.clone());
        let open = |(disk, files): (DiskId, Vec<PathBuf>)| {
            let chain = Chain::open(&host, &files[0], access, &gate).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(chain.images().len(), files.len(), "the files say another chain than the manifest");
            (disk, chain)
        };
        self.files(machine, at).into_iter().map(open).collect()
    }
}

impl Default for Driver {
    fn default() -> Self {
        Self::new()
    }
}
