//! A merge of a stopped machine that gives way to a start: it lets go of the machine, the owner process comes up, and
//! the merge goes on there, live. Whoever waits for it gets the owner's answer.
//!
//! ```text
//! start in the process that merges: hand_over ─> owner comes up ─> go_on_there
//! start in another process: its owner finds the machine in use, leaves word (wait_for_machine) ─> watch_handed_over
//! the owner doesn't come up: take_back
//! ```

use std::io::ErrorKind;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::worker::{Engine, NOBODY};
use super::{Command, Event, JobAction, JobPhase, Mode, Refusal, Request, wire};
use crate::snapshot::MachineId;
use crate::store::MachineStore;

/// How long an owner waits for a machine that another process has.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often it tries.
const AGAIN: Duration = Duration::from_millis(20);
/// After so long without an owner the merge goes on where it was.
const COME_UP: Duration = Duration::from_secs(10);

impl Engine {
    /// A merge under way lets go of the machine; any other job is a reason to refuse.
    pub(super) fn hand_over(&mut self, id: MachineId) -> Result<(), Refusal> {
        self.suspend_job(id)?;
        let now = self.options.clock.elapsed();
        if let Some(entry) = self.machines.get_mut(&id)
            && let Some(active) = entry.waiting.take()
        {
            entry.handed_over = Some((active, now));
            if let Some(owned) = entry.owned.take() {
                entry.refresh(owned.store.machine().clone());
            }
        }
        Ok(())
    }

    /// The owner is up: the merge goes on there.
    pub(super) fn go_on_there(&mut self, machine: MachineId) {
        let Some(entry) = self.machines.get_mut(&machine) else { return };
        let Some((mut active, _)) = entry.handed_over.take() else { return };
        let (Some(command), Some(connection)) = (active.job.command(machine), &mut entry.connection) else { return };
        let ask = |id, command| Request { id, command, mode: Mode::Do, expected_generation: None };
        let mut asked = connection.ask(active.from.0, ask(active.from.1, command));
        if active.is_paused() {
            let pause = Command::Job { machine, action: JobAction::Pause };
            asked = asked.and_then(|()| connection.ask(NOBODY.0, ask(NOBODY.1, pause)));
        }
        active.state.phase = JobPhase::Done("it goes on while the machine runs".into());
        active.state.left = None;
        self.outbox.publish(&Event::Job(active.state));
        if let Err(error) = asked {
            let refusal = Refusal::failed(format!("the machine's owner process can't be reached: {error}"));
            self.outbox.answer(active.from, Err(refusal));
        }
    }

    /// No owner has come up: the merge goes on here.
    pub(super) fn take_back(&mut self, id: MachineId) {
        let Some(entry) = self.machines.get_mut(&id) else { return };
        if let Some((active, _)) = entry.handed_over.take() {
            entry.waiting = Some(active);
            self.resume_job(id);
        }
    }

    /// Other processes' owners that wait for a machine that is merged here; and merges whose owner didn't come.
    pub(super) fn watch_handed_over(&mut self) {
        let now = self.options.clock.elapsed();
        let ids: Vec<_> = self.machines.keys().copied().collect();
        for id in ids {
            let Some(word) = self.word(id) else { continue };
            let Some(entry) = self.machines.get(&id) else { continue };
            match &entry.handed_over {
                None => {
                    let merges = entry.job.is_some() && entry.makes_way_for(&Command::Start(id));
                    let stopped = entry.owned.as_ref().is_some_and(|owned| owned.running.is_none());
                    if merges && stopped && word.exists() && self.hand_over(id).is_ok() {
                        self.publish_changes();
                    }
                }
                Some((_, since)) if entry.starting.is_none() && entry.connection.is_none() && now > *since + COME_UP => {
                    // Who has left it isn't there any more.
                    let _ = std::fs::remove_file(word);
                    self.take_back(id);
                }
                Some(_) => {}
            }
        }
    }

    /// An owner that comes up leaves word that it wants the machine, and waits for whoever has it.
    pub(super) fn wait_for_machine(&self, id: MachineId) {
        let (Some(entry), Some(word)) = (self.machines.get(&id), self.word(id)) else { return };
        let clock = &self.options.clock;
        let began = clock.elapsed();
        let in_use = || MachineStore::is_in_use(&self.options.host, &entry.dir);
        while in_use() && clock.elapsed() < began + PATIENCE {
            if !word.exists()
                && let Err(error) = std::fs::write(&word, b"")
                && error.kind() != ErrorKind::AlreadyExists
            {
                tracing::warn!("{}: {error}", word.display());
                break;
            }
            thread::sleep(AGAIN);
        }
        let _ = std::fs::remove_file(word);
    }

    /// The file that says that an owner waits for the machine.
    fn word(&self, id: MachineId) -> Option<PathBuf> {
        Some(wire::socket_path(self.library.folder(), id).ok()?.with_extension("wanted"))
    }
}
