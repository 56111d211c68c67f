//! Before the first merge on a volume has taught anything, a short probe of it: a guess is better than nothing, and says
//! that it is one. It is made in small steps, between which everybody is answered; a job of its machine ends it. It needs no lock: where another process opens the machine, it takes the
//! probe's file away, which only makes it nameless.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Place;
use super::worker::Engine;
use crate::clock::Clock;
use crate::cost::{MergeMode, MergeSample};
use crate::fresh;
use crate::host_file::{Host, HostFile};
use crate::snapshot::{MachineId, Tree};
use crate::store::{HistoryRecord, TRIAL};
use crate::units::ByteCount;

/// Bytes of a probe.
const LENGTH: u64 = 32 << 20;
/// Bytes of a step.
const STEP: u64 = 4 << 20;

/// Copies bytes as a merge does: written, flushed, read.
pub(super) struct Probe {
    file: Arc<dyn HostFile>,
    path: PathBuf,
    buffer: Vec<u8>,
    /// Bytes written and read.
    done: u64,
    /// Time spent at it.
    took: Duration,
}

impl Probe {
    fn begin(host: &dyn Host, folder: &Path) -> Option<Self> {
        let path = folder.join(format!("{TRIAL}{}", fresh::uuid().simple()));
        let file = host.create_new(&path).ok()?;
        let buffer = (0..STEP as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        Some(Self { file, path, buffer, done: 0, took: Duration::ZERO })
    }

    /// Whether more is to be done; an error where it can't be made.
    fn step(&mut self, clock: &dyn Clock) -> std::io::Result<bool> {
        let began = clock.elapsed();
        match self.done.checked_sub(LENGTH) {
            None => self.file.write_all_at(&self.buffer, self.done)?,
            Some(read) => self.file.read_exact_at(&mut self.buffer, read)?,
        }
        self.done += STEP;
        if self.done == LENGTH {
            self.file.flush()?;
        }
        self.took += clock.elapsed() - began;
        Ok(self.done < 2 * LENGTH)
    }
}

impl Engine {
    /// Begins a probe where one is wanted.
    pub(super) fn probe_volume(&mut self, id: MachineId) {
        let Some(entry) = self.machines.get_mut(&id) else { return };
        let wanted = entry.place == Place::Library
            && self.options.host.flushes()
            && entry.calibration.samples.is_empty()
            // The probe itself must not be what fills the volume.
            && entry.volume.free > entry.machine.settings.go_on_free() + ByteCount(4 * LENGTH)
            && entry.job.is_none()
            && !self.probed.contains(&entry.volume.id)
            && !Tree::of(&entry.machine).runs().is_empty();
        if wanted {
            self.probed.insert(entry.volume.id.clone());
            entry.probe = Probe::begin(&*self.options.host, &entry.dir);
        }
    }

    /// Ends what was begun: it says nothing any more.
    pub(super) fn drop_probe(&mut self, id: MachineId) {
        let Some(entry) = self.machines.get_mut(&id) else { return };
        if let Some(probe) = entry.probe.take() {
            let _ = self.options.host.remove_file(&probe.path);
            self.probed.remove(&entry.volume.id);
            entry.changed = true;
        }
    }

    /// Goes on with the probes. Whether something is left.
    pub(super) fn step_probes(&mut self) -> bool {
        let ids: Vec<_> = self.machines.iter().filter(|(_, entry)| entry.probe.is_some()).map(|(id, _)| *id).collect();
        let mut busy = false;
        for id in ids {
            busy |= self.step_probe(id);
        }
        busy
    }

    fn step_probe(&mut self, id: MachineId) -> bool {
        let Some(entry) = self.machines.get_mut(&id) else { return false };
        // What is measured beside a job is the job.
        if entry.job.is_some() {
            self.drop_probe(id);
            return false;
        }
        let Some(probe) = &mut entry.probe else { return false };
        let stepped = probe.step(&*self.options.clock);
        if matches!(stepped, Ok(true)) {
            return true;
        }
        let took = probe.took;
        let _ = self.options.host.remove_file(&probe.path);
        entry.probe = None;
        entry.changed = true;
        if stepped.is_ok() {
            self.note_probe(id, took);
        }
        false
    }

    /// What a probe took is noted like a merge of its size.
    fn note_probe(&mut self, id: MachineId, took: Duration) {
        let Some(entry) = self.machines.get(&id) else { return };
        let (had, volume) = (entry.owned.is_some(), entry.volume.id.clone());
        let disk = entry.machine.configuration.disks.first().map(|disk| disk.id.clone());
        let Some(disk) = disk.filter(|_| !took.is_zero()) else { return };
        let (bytes, stretches, seconds) = (LENGTH, 1, took.as_secs_f64());
        let (estimated_seconds, probe, guest_bytes) = (None, true, None);
        if self.own(id).is_err() {
            // Somebody else has the machine just now: it is known here, and isn't written down.
            let sample =
                MergeSample { bytes, stretches, seconds, estimated_seconds, probe, mode: MergeMode::Stopped, guest_bytes };
            for entry in self.machines.values_mut().filter(|entry| entry.volume.id == volume) {
                entry.calibration.record(sample.clone());
                entry.changed = true;
            }
            return;
        }
        let at = self.options.clock.now();
        let sample =
            HistoryRecord::Merge { at, disk, bytes, stretches, seconds, estimated_seconds, probe, live: false, guest_bytes };
        let Some(entry) = self.machines.get_mut(&id) else { return };
        let Some(owned) = &entry.owned else { return };
        if let Err(error) = owned.store.history().append(&sample) {
            entry.problems = vec![error.to_string()];
        }
        if !had {
            entry.owned = None;
        }
        self.calibrate(id);
    }
}
