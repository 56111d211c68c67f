//! What other processes do: machines that come and go, manifests that change, owners that appear and end.

use std::path::Path;
use std::time::Duration;

use super::entry::Entry;
use super::owner::{Connection, OwnerNews, START_LIMIT};
use super::worker::{Engine, NOBODY};
use super::{Answer, Command, Event, Place, Power, Refusal, wire};
use crate::cost::{MergeMode, MergeSample, VolumeState};
use crate::fresh;
use crate::host_file::{Host, read_file};
use crate::snapshot::{Machine, MachineId, MachineKind, TrashItem};
use crate::store::{HistoryRecord, MachineStore, TRIAL, open_folder};
use crate::units::ByteCount;
use crate::vm;

/// Longest manifest that is looked at, in bytes.
const MANIFEST_LIMIT: u64 = 64 << 20;
/// After so long what couldn't be read is tried again.
const SCAN_AGAIN: Duration = Duration::from_secs(10);
/// What is said of a machine whose owner went away while it ran.
const OWNER_ENDED: &str = "its owner process ended without stopping it. What was flushed is on its disks; start it to go on.";

/// What is said of a machine whose guest is there without an owner.
pub(super) const LEFT_ALONE: &str =
    "its owner process was killed, and its guest waits for its disks. Start it to take the guest over, or turn it off.";

impl Engine {
    /// Reads the library and the opened folders anew.
    pub(super) fn scan(&mut self) -> Result<(), Refusal> {
        self.last_scan = self.options.clock.elapsed();
        let scan = self.library.scan()?;
        self.problems = scan.problems;
        let mut seen: Vec<MachineId> = Vec::new();
        for found in scan.machines {
            if self.only.is_some_and(|only| only != found.machine.id) {
                continue;
            }
            seen.push(found.machine.id);
            self.take_in(&found.dir, Place::Library, found.machine);
        }
        self.folders = if self.only.is_some() { Vec::new() } else { self.library.opened_folders()? };
        for folder in self.folders.clone() {
            match open_folder(&self.options.host, &folder) {
                Ok(view) => {
                    for machine in view.machines {
                        seen.push(machine.id);
                        let id = machine.id;
                        self.take_in(&folder, Place::Folder(folder.clone()), machine);
                        if let Some(entry) = self.machines.get_mut(&id) {
                            entry.problems.clone_from(&view.problems);
                            entry.processors = view.processors.get(&id).copied();
                        }
                    }
                    self.problems.extend(view.problems);
                }
                Err(error) => self.problems.push(error.to_string()),
            }
        }
        let gone: Vec<_> =
            self.machines.iter().filter(|(id, entry)| !seen.contains(id) && entry.owned.is_none()).map(|(id, _)| *id).collect();
        for id in gone {
            self.forget(id);
        }
        self.library_changed = true;
        Ok(())
    }

    pub(super) fn forget(&mut self, id: MachineId) {
        if self.machines.remove(&id).is_some() {
            self.library_changed = true;
            self.outbox.publish(&Event::Gone(id));
        }
    }

    /// Knows a machine from now on, or takes over what changed of it.
    pub(super) fn take_in(&mut self, dir: &Path, place: Place, machine: Machine) {
        let id = machine.id;
        let seen = self.fingerprint(dir, &place);
        let entry = match self.machines.entry(id) {
            std::collections::btree_map::Entry::Occupied(known) => {
                let entry = known.into_mut();
                if entry.owned.is_none() && *entry.machine != machine {
                    entry.refresh(machine);
                }
                entry.seen = seen;
                entry
            }
            std::collections::btree_map::Entry::Vacant(new) => {
                let why = (place == Place::Library).then(|| MachineStore::why_ended(&self.options.host, dir)).flatten();
                let entry = new.insert(Entry::new(dir.into(), place, machine, seen));
                entry.failed = why;
                entry
            }
        };
        entry.dir = dir.into();
        self.look_at_volume(id);
    }

    /// Checksum of a manifest's bytes.
    fn fingerprint(&self, dir: &Path, place: &Place) -> u32 {
        if *place != Place::Library {
            return 0;
        }
        read_file(&*self.options.host, &dir.join("machine.json"), MANIFEST_LIMIT).map_or(0, |bytes| crc32c::crc32c(&bytes))
    }

    /// The volume, and what merges on it have taught.
    pub(super) fn look_at_volume(&mut self, id: MachineId) {
        let host = self.options.host.clone();
        let Some(entry) = self.machines.get_mut(&id) else { return };
        let volume = VolumeState {
            id: host.volume(&entry.dir).unwrap_or_default(),
            free: host.free_bytes(&entry.dir).unwrap_or_default(),
            punches_holes: entry.volume.punches_holes,
        };
        let first = entry.volume.id != volume.id;
        entry.changed |= first || entry.volume.free.0.abs_diff(volume.free.0) > (64 << 20);
        entry.volume = volume;
        if first && entry.place == Place::Library {
            let punches = punches_holes(&*host, self.library.folder());
            if let Some(entry) = self.machines.get_mut(&id) {
                entry.volume.punches_holes = punches;
            }
            self.calibrate(id);
        }
    }

    /// Finished merges of every machine on the same volume.
    pub(super) fn calibrate(&mut self, id: MachineId) {
        let Some(volume) = self.machines.get(&id).map(|entry| entry.volume.id.clone()) else { return };
        let mut samples = Vec::new();
        for entry in self.machines.values().filter(|entry| entry.volume.id == volume && entry.place == Place::Library) {
            let history = crate::store::History::of(&self.options.host, &entry.dir);
            for record in history.read().unwrap_or_default() {
                if let HistoryRecord::Merge {
                    at, bytes, stretches, seconds, estimated_seconds, probe, live, guest_bytes, ..
                } = record
                {
                    let mode = if live { MergeMode::Live } else { MergeMode::Stopped };
                    let sample = MergeSample { bytes, stretches, seconds, estimated_seconds, probe, mode, guest_bytes };
                    samples.push((at, sample));
                }
            }
        }
        samples.sort_by_key(|(at, _)| *at);
        let mut calibration = crate::cost::Calibration::default();
        for (_, sample) in samples {
            calibration.record(sample);
        }
        for entry in self.machines.values_mut().filter(|entry| entry.volume.id == volume) {
            entry.changed |= entry.calibration != calibration;
            entry.calibration.clone_from(&calibration);
        }
    }

    /// Every second: owners that came up, manifests that others changed, machines that are new or gone.
    pub(super) fn look_around(&mut self) {
        self.watch_starting();
        self.watch_handed_over();
        self.empty_old_trash();
        let ids: Vec<_> = self.machines.keys().copied().collect();
        // What couldn't be read may be readable later.
        let again = !self.problems.is_empty() && self.options.clock.elapsed() >= self.last_scan + SCAN_AGAIN;
        let mut rescan = self.only.is_none() && (again || self.folder_changed());
        for id in ids {
            let Some(entry) = self.machines.get_mut(&id) else { continue };
            if let Some(child) = &mut entry.child
                && matches!(child.try_wait(), Ok(Some(_)) | Err(_))
            {
                entry.child = None;
            }
            if entry.place != Place::Library || entry.owned.is_some() || entry.connection.is_some() || entry.starting.is_some() {
                continue;
            }
            let (dir, place, seen) = (entry.dir.clone(), entry.place.clone(), entry.seen);
            if self.options.executable.is_some() {
                self.connect(id);
            }
            if let Some(entry) = self.machines.get(&id).filter(|entry| entry.connection.is_none()) {
                let why = self.is_left_alone(entry).then(|| LEFT_ALONE.to_owned());
                let was = entry.failed.as_deref() == Some(LEFT_ALONE);
                if let Some(entry) = self.machines.get_mut(&id).filter(|_| why.is_some() != was) {
                    entry.failed = why;
                    entry.changed = true;
                }
            }
            let now_seen = self.fingerprint(&dir, &place);
            if now_seen == 0 {
                rescan = true;
            } else if now_seen != seen
                && let Ok(machine) = MachineStore::look(&self.options.host, &dir)
            {
                self.take_in(&dir, place, machine);
            }
        }
        if rescan && let Err(refusal) = self.scan() {
            self.problems = vec![refusal.reason];
            self.library_changed = true;
        }
    }

    /// Trash whose time is over is emptied, where nobody else has the machine.
    pub(super) fn empty_old_trash(&mut self) {
        let now = self.options.clock.now();
        let due = |entry: &&mut Entry| {
            let hours = chrono::Duration::hours(entry.machine.settings.trash_hours.into());
            let idle = entry.job.is_none() && entry.connection.is_none() && entry.starting.is_none();
            let old = |item: &TrashItem| item.removed.checked_add_signed(hours).is_some_and(|end| end < now);
            idle && entry.place == Place::Library && entry.machine.trash.iter().any(old)
        };
        let due: Vec<_> = self.machines.values_mut().filter(due).map(|entry| entry.machine.id).collect();
        for machine in due {
            // Somebody else may be just at it; then there is nothing to do here.
            let _ = self.start_job(machine, Command::EmptyTrash { machine, all: false }, NOBODY);
        }
    }

    fn folder_changed(&self) -> bool {
        let Ok(entries) = self.options.host.list(self.library.folder()) else { return false };
        let folder = self.library.folder();
        let known = |name: &str| self.machines.values().any(|entry| entry.dir == folder.join(name));
        entries.iter().any(|entry| {
            entry.is_dir && !known(&entry.name) && self.options.host.exists(&folder.join(&entry.name).join("machine.json"))
        }) && self.problems.is_empty()
    }

    /// Connects to the machine's owner, if there is one.
    pub(super) fn connect(&mut self, id: MachineId) -> bool {
        let Ok(socket) = wire::socket_path(self.library.folder(), id) else { return false };
        if !socket.exists() {
            return false;
        }
        let Ok(connection) = Connection::open(&socket, id, self.sender.clone()) else { return false };
        let Some(entry) = self.machines.get_mut(&id) else { return false };
        entry.connection = Some(connection);
        true
    }

    /// Owners that this process has started and that haven't answered yet.
    pub(super) fn watch_starting(&mut self) {
        let now = self.options.clock.elapsed();
        let ids: Vec<_> = self.machines.iter().filter(|(_, entry)| entry.starting.is_some()).map(|(id, _)| *id).collect();
        for id in ids {
            if self.connect(id) {
                let Some(entry) = self.machines.get_mut(&id) else { continue };
                let Some(starting) = entry.starting.take() else { continue };
                entry.failed = None;
                entry.changed = true;
                let from = starting.from;
                entry.child = Some(starting.into_child());
                self.waiting_for_state.push((id, from));
                continue;
            }
            let Some(entry) = self.machines.get_mut(&id) else { continue };
            let Some(starting) = &mut entry.starting else { continue };
            let why = match starting.ended() {
                Some(why) => why,
                None if now.saturating_sub(starting.since) > START_LIMIT => "its owner process does not answer".into(),
                None => continue,
            };
            let from = starting.from;
            entry.starting = None;
            entry.failed = Some(why.clone());
            entry.changed = true;
            self.publish_changes();
            self.outbox.answer(from, Err(Refusal::failed(why)));
            self.take_back(id);
        }
    }

    /// Whether an owner that was killed has left the machine's guest, and no other one has taken it over.
    pub(super) fn is_left_alone(&self, entry: &Entry) -> bool {
        let can_be = entry.machine.kind == MachineKind::Qemu && entry.place == Place::Library && entry.owned.is_none();
        can_be
            && wire::guest_folder(self.library.folder(), entry.machine.id).is_ok_and(|sockets| vm::is_left(&sockets))
            && !MachineStore::is_in_use(&self.options.host, &entry.dir)
    }

    /// What a machine's owner says.
    pub(super) fn hear_owner(&mut self, id: MachineId, news: OwnerNews) {
        let Some(entry) = self.machines.get_mut(&id) else { return };
        match news {
            OwnerNews::Event(event) => match *event {
                Event::Machine(state) if state.machine.id == id => {
                    let first = entry.remote.is_none();
                    entry.machine = state.machine.clone();
                    entry.remote = Some(state.clone());
                    entry.changed = false;
                    self.outbox.publish(&Event::Machine(state));
                    let waiting = std::mem::take(&mut self.waiting_for_state);
                    let (here, others) = waiting.into_iter().partition(|(waiting, _)| *waiting == id);
                    self.waiting_for_state = others;
                    for (_, from) in here {
                        self.outbox.answer(from, Ok(Answer::Done("it runs".into())));
                    }
                    if first {
                        self.go_on_there(id);
                    }
                }
                Event::Answer { request, answer } => {
                    if let Some(asked) = entry.connection.as_mut().and_then(|connection| connection.answered(request)) {
                        self.outbox.answer(asked, answer);
                    }
                }
                event @ (Event::Job(_) | Event::Live { .. }) => self.outbox.publish(&event),
                Event::Machine(_) | Event::Library(_) | Event::Gone(_) | Event::Plan(_) => {}
            },
            OwnerNews::Closed => self.owner_gone(id),
        }
    }

    /// The owner has ended: the machine is off. What waited for an answer gets one.
    fn owner_gone(&mut self, id: MachineId) {
        let Some(entry) = self.machines.get_mut(&id) else { return };
        let unanswered = entry.connection.as_mut().map(Connection::unanswered).unwrap_or_default();
        let was = entry.remote.take().map(|state| state.power.clone());
        entry.connection = None;
        entry.changed = true;
        let (dir, place) = (entry.dir.clone(), entry.place.clone());
        match MachineStore::look(&self.options.host, &dir) {
            Ok(machine) => {
                self.take_in(&dir, place, machine);
                if let Some(entry) = self.machines.get_mut(&id) {
                    entry.sight.forget_layouts();
                    let machine = (*entry.machine).clone();
                    entry.refresh(machine);
                }
            }
            Err(error) => {
                if let Some(entry) = self.machines.get_mut(&id) {
                    entry.problems = vec![error.to_string()];
                }
            }
        }
        let left_alone = self.machines.get(&id).is_some_and(|entry| self.is_left_alone(entry));
        if let Some(entry) = self.machines.get_mut(&id) {
            let unexpected = was.as_ref().is_some_and(Power::is_up);
            entry.failed = match &was {
                Some(Power::Failed(why)) => Some(why.clone()),
                _ if left_alone => Some(LEFT_ALONE.to_owned()),
                _ => unexpected.then(|| OWNER_ENDED.to_owned()),
            };
        }
        self.publish_changes();
        let stopping = was == Some(Power::Off) || was == Some(Power::Saved);
        for asked in unanswered {
            let answer = if stopping {
                Ok(Answer::Done("it is off".into()))
            } else {
                Err(Refusal::failed(match &was {
                    Some(Power::Failed(why)) => format!("{why}; the machine is off"),
                    _ if left_alone => LEFT_ALONE.to_owned(),
                    _ => "the machine's owner process ended before it answered; the machine is off".to_owned(),
                }))
            };
            self.outbox.answer(asked, answer);
        }
    }

    /// How long until an owner that is coming up should be asked again.
    pub(super) fn starting_wait(&self) -> Option<Duration> {
        self.machines.values().any(|entry| entry.starting.is_some()).then(|| Duration::from_millis(20))
    }
}

/// Tries whether space inside a file can be given back on this volume.
fn punches_holes(host: &dyn Host, folder: &Path) -> bool {
    const LENGTH: u64 = 1 << 20;
    let path = folder.join(format!("{TRIAL}{}", fresh::uuid().simple()));
    let tried = host.create_new(&path).and_then(|file| {
        file.write_all_at(&vec![1; LENGTH as usize], 0)?;
        let before = file.held_bytes()?;
        Ok(file.punch_hole(0, LENGTH)? && (file.held_bytes()? < before || before == ByteCount::ZERO))
    });
    let _ = host.remove_file(&path);
    tried.unwrap_or(false)
}
