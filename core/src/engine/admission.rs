//! Which request is carried out, by whom; and why another one isn't.

use super::around::LEFT_ALONE;
use super::entry::Active;
use super::jobs;
use super::owner::Starting;
use super::running::Owned;
use super::worker::{Engine, SubscriberId};
use super::{
    Answer, Command, JobAction, JobId, JobKind, JobPhase, JobState, Mode, Place, Plan, Power, Refusal, Request, RequestId, wire,
};
use crate::cost::{MachineFacts, MergeTotal, deletion_cost, merges_due};
use crate::merge::complete_switch;
use crate::snapshot::{MachineId, MachineKind, NodeRef, Tree, rules};
use crate::store::{MachineStore, NewMachine};
use crate::units::{ByteCount, ByteRate};

impl Engine {
    /// Carries a request out at once (the answer), starts a job for it or passes it on (`None`: the
    /// answer comes later), or refuses it.
    pub(super) fn admit(&mut self, from: SubscriberId, request: Request) -> Result<Option<Answer>, Refusal> {
        let Some(id) = request.command.machine() else {
            return self.admit_for_library(from, request);
        };
        if let Command::Job { action, .. } = request.command
            && let Some(job) = self.beside.iter_mut().find(|job| job.machine() == id)
        {
            return job.steer(action).map(Some);
        }
        let entry = self.machines.get_mut(&id).ok_or_else(|| Refusal::rule("there is no such machine"))?;
        if entry.connection.is_none() && entry.owned.is_none() && entry.starting.is_none() && self.options.executable.is_some() {
            self.connect(id);
        }
        let entry = self.machines.get_mut(&id).ok_or_else(|| Refusal::rule("there is no such machine"))?;
        if let Some(connection) = &mut entry.connection {
            if matches!(request.command, Command::Start(_)) {
                return Err(Refusal::rule("the machine runs already"));
            }
            let sent = connection.ask(from, request);
            return match sent {
                Ok(()) => Ok(None),
                Err(error) => Err(Refusal::failed(format!("the machine's owner process can't be reached: {error}"))),
            };
        }
        if let Command::Job { action, .. } = request.command {
            return self.steer(id, action).map(Some);
        }
        if let Some(expected) = request.expected_generation
            && expected != entry.machine.generation
        {
            return Err(Refusal::rule("the tree has changed since you looked; look again"));
        }
        let waits_for_shutdown = |job: &Active| job.state.kind == JobKind::Stop;
        if matches!(request.command, Command::TurnOff(_))
            && self.machines.get(&id).and_then(|entry| entry.job.as_ref()).is_some_and(waits_for_shutdown)
            && request.mode == Mode::Do
        {
            // Who turns it off has waited long enough.
            self.cancel_job(id);
        }
        self.check(id, &request.command)?;
        if request.mode == Mode::WhatIf {
            return self.plan(id, &request.command).map(|plan| Some(Answer::Plan(Box::new(plan))));
        }
        match request.command {
            Command::Remove { delete_files, .. } => {
                self.library.remove(id, delete_files)?;
                self.forget(id);
                Ok(Some(Answer::Done(if delete_files {
                    "its files are deleted".into()
                } else {
                    "it is forgotten; its files stay".into()
                })))
            }
            Command::Start(_) if self.options.executable.is_some() => {
                self.hand_over(id)?;
                self.start_owner(id, (from, request.id)).inspect_err(|_| self.take_back(id)).map(|()| None)
            }
            command => self.start_job(id, command, (from, request.id)).map(|()| None),
        }
    }

    fn admit_for_library(&mut self, from: SubscriberId, request: Request) -> Result<Option<Answer>, Refusal> {
        let what_if = request.mode == Mode::WhatIf;
        match request.command {
            Command::Rescan => {
                self.scan()?;
                for entry in self.machines.values_mut().filter(|entry| entry.remote.is_none()) {
                    entry.sight.look_again(&entry.machine);
                    entry.changed = true;
                }
                Ok(Some(Answer::Done("looked again".into())))
            }
            Command::OpenFolder(path) => {
                let view = crate::store::open_folder(&self.options.host, &path)?;
                if view.machines.is_empty() {
                    let why = view.problems.first().map_or_else(String::new, |problem| format!(": {problem}"));
                    return Err(Refusal::rule(format!("no disk image was found in {}{why}", path.display())));
                }
                self.library.add_folder(&path)?;
                self.scan()?;
                Ok(Some(Answer::Done(format!("{} is shown, in place and read-only", path.display()))))
            }
            Command::CloseFolder(path) => {
                self.library.drop_folder(&path)?;
                self.scan()?;
                Ok(Some(Answer::Done(format!("{} is closed; nothing in it was changed", path.display()))))
            }
            Command::Create(create) => {
                self.library.check_name(&create.name)?;
                if what_if {
                    return Ok(Some(Answer::Plan(Box::new(Plan::Other))));
                }
                let store = self.library.create(&NewMachine {
                    name: create.name,
                    kind: create.kind,
                    memory: create.memory,
                    disks: create.disks,
                    format: create.format,
                    workload: create.workload,
                    hardware: create.hardware,
                })?;
                let (dir, machine) = (store.dir().to_path_buf(), store.machine().clone());
                drop(store);
                let id = machine.id;
                self.take_in(&dir, Place::Library, machine);
                self.library_changed = true;
                Ok(Some(Answer::Created(id)))
            }
            Command::Import(import) => {
                self.library.check_name(&import.name)?;
                let options = &self.options;
                let job = (import, request.mode);
                self.beside.push(jobs::import((&options.host, &self.library), job, (from, request.id), &options.clock)?);
                Ok(None)
            }
            Command::Convert(convert) => {
                let options = &self.options;
                self.beside.push(jobs::convert(&options.host, convert, request.mode, (from, request.id), &options.clock)?);
                Ok(None)
            }
            Command::Inspect { image, folders } => {
                let options = &self.options;
                self.beside.push(jobs::inspect(&options.host, (image, folders), (from, request.id), &options.clock)?);
                Ok(None)
            }
            Command::Diagnose(folder) => {
                let options = &self.options;
                self.beside.push(jobs::diagnose(&options.host, folder, (from, request.id), &options.clock)?);
                Ok(None)
            }
            Command::Repair(repair) => {
                let options = &self.options;
                self.beside.push(jobs::repair(&options.host, repair, request.mode, (from, request.id), &options.clock)?);
                Ok(None)
            }
            Command::UndoRepair(_) | Command::ForgetRepairs(_) if what_if => Ok(Some(Answer::Plan(Box::new(Plan::Other)))),
            Command::ForgetRepairs(folder) => {
                let options = &self.options;
                self.beside.push(jobs::forget_repairs(&options.host, folder, (from, request.id), &options.clock)?);
                Ok(None)
            }
            Command::UndoRepair(folder) => {
                let options = &self.options;
                self.beside.push(jobs::undo_repair(&options.host, folder, (from, request.id), &options.clock)?);
                Ok(None)
            }
            Command::SetWindow(window) => {
                window.check().map_err(|problem| Refusal::rule(problem.to_string()))?;
                if what_if { Ok(Some(Answer::Plan(Box::new(Plan::Other)))) } else { self.set_window(window).map(Some) }
            }
            Command::RemoveWindow(_) | Command::PinMerge { .. } | Command::ForgetMissed if what_if => {
                Ok(Some(Answer::Plan(Box::new(Plan::Other))))
            }
            Command::RemoveWindow(id) => self.remove_window(id).map(Some),
            Command::PinMerge { machine, disk, occurrence } => self.pin_merge(machine, disk, occurrence).map(Some),
            Command::MakePlan => {
                self.make_plan();
                Ok(Some(Answer::Done("planned".into())))
            }
            Command::ForgetMissed => self.forget_missed().map(Some),
            other => Err(Refusal::failed(format!("{other:?} is about a machine"))),
        }
    }

    /// What the rules say.
    fn check(&self, id: MachineId, command: &Command) -> Result<(), Refusal> {
        let Some(entry) = self.machines.get(&id) else { return Err(Refusal::rule("there is no such machine")) };
        let (machine, mut context) = (&*entry.machine, entry.context());
        context.job_under_way &= !entry.makes_way_for(command);
        let power = entry.power();
        let running = power.is_up();
        if !running && self.is_left_alone(entry) && !matches!(command, Command::Start(_) | Command::TurnOff(_)) {
            return Err(Refusal::rule(LEFT_ALONE));
        }
        let verdict = match command {
            Command::Take { label, .. } => rules::take(machine, &context, Some(label)),
            Command::Apply { snapshot, safety, .. } => rules::apply(machine, &context, *snapshot)
                .and_then(|()| safety.as_ref().map_or(Ok(()), |label| rules::take(machine, &context, Some(label)))),
            Command::UndoApply(_) => rules::undo_apply(machine, &context),
            Command::Delete { snapshots, subtree, .. } => rules::delete(machine, &context, snapshots, *subtree),
            Command::Undelete { snapshot, .. } => rules::undelete(machine, &context, *snapshot),
            Command::Rename { snapshot, label, .. } => rules::rename(machine, &context, *snapshot, Some(label)),
            Command::SetNote { snapshot, .. } | Command::Protect { snapshot, .. } => rules::edit(machine, &context, *snapshot),
            Command::Resize { disk, size, .. } => rules::resize(machine, &context, disk, *size),
            Command::Merge { disk, .. } => rules::merge(machine, &context, disk.as_ref()),
            Command::EmptyTrash { .. } => rules::empty_trash(machine, &context),
            Command::SetSettings { .. } => rules::settings(&context),
            Command::SetHardware { .. } => rules::hardware(machine, &context),
            Command::Remove { delete_files, .. } => rules::remove(machine, &context, *delete_files),
            _ if context.read_only => {
                return Err(Refusal::rule("this folder is only looked at; adopt it to change anything"));
            }
            _ if context.job_under_way => return Err(Refusal::rule("the machine is busy; wait for its job, or cancel it")),
            Command::RunWorkload { .. } | Command::Verify { .. } | Command::BadUpdate(_) if rules::workload(machine).is_err() => {
                rules::workload(machine)
            }
            Command::Start(_) if rules::run(machine).is_err() => rules::run(machine),
            Command::Start(_) if running => return Err(Refusal::rule("the machine runs already")),
            Command::RunWorkload { .. } if running => return Err(Refusal::rule("the machine runs already; stop it first")),
            Command::Start(_) | Command::RunWorkload { .. } => return self.check_room(entry),
            Command::Resume(_) if power == Power::NoRoom => return Err(Self::waits_for_room(entry)),
            Command::Stop(_) if power != Power::Running && running && machine.kind == MachineKind::Qemu => {
                return Err(Refusal::rule("it stands still, and can't hear its power button; let it go on, or turn it off"));
            }
            Command::TurnOff(_) if !running && self.is_left_alone(entry) => Ok(()),
            Command::Stop(_) | Command::TurnOff(_) | Command::Pause(_) | Command::Resume(_) | Command::BadUpdate(_)
                if !running =>
            {
                return Err(Refusal::rule("the machine doesn't run; start it first"));
            }
            _ => Ok(()),
        };
        Ok(verdict?)
    }

    /// What would be done, in figures.
    fn plan(&self, id: MachineId, command: &Command) -> Result<Plan, Refusal> {
        let Some(entry) = self.machines.get(&id) else { return Err(Refusal::rule("there is no such machine")) };
        let facts = MachineFacts {
            machine: &entry.machine,
            files: &entry.sight.files,
            census: &entry.sight.census,
            calibration: &entry.calibration,
            volume: &entry.volume,
            running: entry.power().is_up(),
            guest: entry.guest_rate(),
        };
        let (machine, running) = (facts.machine, facts.running);
        let outside = entry.outside();
        Ok(match command {
            Command::Take { memory, .. } => Plan::Take {
                images: machine.configuration.disks.len() as u32,
                depth: Tree::of(machine).chain_depth(NodeRef::Now) as u32 + 1,
                memory: if *memory && running { machine.configuration.memory } else { ByteCount::ZERO },
                free: entry.volume.free,
                pause: outside
                    .as_ref()
                    .filter(|_| *memory)
                    .and_then(|outside| outside.pause_to_save(machine.configuration.memory)),
                remedy: outside.filter(|_| *memory).and_then(|outside| outside.remedy),
            },
            Command::Apply { snapshot, safety, .. } => Plan::Apply {
                to_trash: if safety.is_some() {
                    ByteCount::ZERO
                } else {
                    machine.now.images.values().map(|image| facts.held(*image)).sum()
                },
                memory: machine.snapshots.get(snapshot).is_some_and(|snapshot| snapshot.memory.is_some()),
            },
            Command::Delete { snapshots, subtree, .. } => {
                let cost = deletion_cost(&facts, snapshots, *subtree);
                Plan::Delete(cost.ok_or_else(|| Refusal::rule("there is no such snapshot"))?)
            }
            Command::Merge { disk, .. } => {
                let mut merges = merges_due(&facts);
                merges.retain(|merge| disk.as_ref().is_none_or(|disk| merge.disk == *disk));
                let total = MergeTotal::of(&facts, &merges);
                Plan::Merge { merges, total }
            }
            Command::EmptyTrash { .. } => {
                Plan::EmptyTrash { files: machine.trash.len() as u32, held: machine.trash.iter().map(|item| item.held).sum() }
            }
            Command::Remove { delete_files, .. } => Plan::Remove {
                folder: delete_files.then(|| entry.dir.clone()),
                held: if *delete_files { entry.sight.files.values().map(|file| file.held).sum() } else { ByteCount::ZERO },
            },
            _ => Plan::Other,
        })
    }

    /// Starts the process that owns the machine while it runs.
    fn start_owner(&mut self, id: MachineId, from: (SubscriberId, RequestId)) -> Result<(), Refusal> {
        let Some(executable) = self.options.executable.clone() else {
            return Err(Refusal::failed("there is no program to start"));
        };
        let library = self.library.folder().to_path_buf();
        let since = self.options.clock.elapsed();
        let started = wire::socket_path(&library, id)
            .and_then(|socket| Starting::spawn(&executable, &library, id, &socket, from, since))
            .map_err(|error| Refusal::failed(format!("{} could not be started: {error}", executable.display())))?;
        if let Some(entry) = self.machines.get_mut(&id) {
            entry.starting = Some(started);
            entry.failed = None;
            entry.changed = true;
        }
        self.publish_changes();
        Ok(())
    }

    /// Takes the machine's lock and begins a job.
    pub(super) fn start_job(&mut self, id: MachineId, command: Command, from: (SubscriberId, RequestId)) -> Result<(), Refusal> {
        let (kind, job) = jobs::for_command(&command).ok_or_else(|| Refusal::failed("this isn't a job"))?;
        self.suspend_job(id)?;
        self.own(id)?;
        let now = self.options.clock.elapsed();
        if let Some(entry) = self.machines.get_mut(&id) {
            let state = job_state(id, kind, job.is_pausable());
            entry.job = Some(Active::new(job, state, from, now));
            entry.changed = true;
        }
        Ok(())
    }

    /// Holds the machine's lock from now on; an operation that was cut short is completed or undone first.
    pub(super) fn own(&mut self, id: MachineId) -> Result<(), Refusal> {
        let Some(entry) = self.machines.get_mut(&id) else { return Err(Refusal::rule("there is no such machine")) };
        if entry.owned.is_some() {
            return Ok(());
        }
        let mut store = MachineStore::open(&self.options.host, &self.options.clock, &entry.dir)?;
        complete_switch(&mut store)?;
        if *entry.machine != *store.machine() {
            entry.refresh(store.machine().clone());
        }
        let library = self.library.folder().to_path_buf();
        entry.owned = Some(Owned { store, library, running: None });
        Ok(())
    }

    /// Starts a machine in this process, as its owner.
    pub(super) fn start_owned(&mut self, id: MachineId) -> Result<(), Refusal> {
        self.only = Some(id);
        self.scan()?;
        self.own(id)?;
        let options = self.options.clone();
        if let Some(entry) = self.machines.get(&id) {
            self.check_room(entry)?;
        }
        let Some(entry) = self.machines.get_mut(&id) else { return Err(Refusal::rule("there is no such machine")) };
        let Some(owned) = &mut entry.owned else { return Err(Refusal::failed("the machine's lock was lost")) };
        owned.start(&options)?;
        let machine = owned.store.machine().clone();
        entry.refresh(machine);
        Ok(())
    }

    /// Pauses, resumes or cancels a machine's job.
    fn steer(&mut self, id: MachineId, action: JobAction) -> Result<Answer, Refusal> {
        let now = self.options.clock.elapsed();
        let Some(entry) = self.machines.get_mut(&id) else { return Err(Refusal::rule("there is no such machine")) };
        let Some(active) = &mut entry.job else { return Err(Refusal::rule("the machine has no job under way")) };
        let text = match action {
            JobAction::Pause if !active.state.pausable => {
                return Err(Refusal::rule("this job can't be paused; it ends by itself"));
            }
            JobAction::Pause => {
                active.state.phase = JobPhase::Paused;
                active.state.left = None;
                "it waits"
            }
            JobAction::Resume => {
                active.skip_to(now);
                active.state.phase = JobPhase::Running;
                "it goes on"
            }
            JobAction::Cancel => {
                self.cancel_job(id);
                return Ok(Answer::Done("it was cancelled".into()));
            }
        };
        let event = super::Event::Job(active.state.clone());
        self.outbox.publish(&event);
        Ok(Answer::Done(text.into()))
    }
}

pub(super) fn job_state(machine: MachineId, kind: JobKind, pausable: bool) -> JobState {
    JobState {
        id: JobId(crate::fresh::uuid()),
        machine,
        kind,
        title: String::new(),
        phase: JobPhase::Running,
        done: ByteCount::ZERO,
        total: ByteCount::ZERO,
        rate: ByteRate(0.0),
        elapsed: Default::default(),
        left: None,
        pausable,
        latency: None,
    }
}
