//! Room on the volume for what a running machine writes: it is paused before the volume is full, and goes on by itself.
//!
//! ```text
//! runs ── free < pause_free ──> the trash is emptied, where that is enough; otherwise it stands still
//!  │  └── a write or a flush finds the volume full ──> it stands still by itself; the same is done again later
//!  └<──── free >= go_on_free, unless a person has paused it meanwhile
//! ```
//!
//! A merge goes on meanwhile: it is what gives space back.

use std::time::Duration;

use super::entry::Entry;
use super::worker::{Engine, NOBODY};
use super::{Command, JobKind, Refusal};
use crate::cost::{MachineFacts, VolumeState, freeable};
use crate::snapshot::{MachineId, Settings};
use crate::units::ByteCount;

/// So fast space may disappear from one look to the next, in bytes a second, whatever was seen before.
const BURST: u64 = 1 << 30;
/// How soon and how late is looked again: what stays free below the limit is written in no shorter time.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// After a write that found the volume full although space is shown as free, or a trash that could not be emptied.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Changes of the free space that are told; the smaller one while a machine waits for it.
const TELL: (ByteCount, ByteCount) = (ByteCount::mib(64), ByteCount::mib(1));

/// What was seen of the volume of a running machine.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The machine stands still for want of room.
    pub short: bool,
    next_look: Duration,
    /// When was looked last, and what was free.
    seen: Option<(Duration, ByteCount)>,
    /// What was told last.
    told: ByteCount,
    /// It doesn't go on, and the trash isn't emptied, before these.
    go_on_after: Duration,
    empty_after: Duration,
}

impl Room {
    /// Takes note of what is free; returns when to look again: in half the time in which the limit could be reached.
    fn note(&mut self, now: Duration, free: ByteCount, settings: &Settings) -> Duration {
        let lost = self.seen.map_or(0.0, |(then, before)| {
            before.saturating_sub(free).0 as f64 / now.saturating_sub(then).as_secs_f64().max(1e-3)
        });
        self.seen = Some((now, free));
        let left = free.saturating_sub(settings.pause_free).0 as f64;
        Duration::from_secs_f64((left / lost.max(BURST as f64) / 2.0).min(LOOKS.1.as_secs_f64())).max(LOOKS.0)
    }

    /// Whether what is free now is worth telling.
    fn is_news(&mut self, free: ByteCount) -> bool {
        let least = if self.short { TELL.1 } else { TELL.0 };
        let news = self.told.0.abs_diff(free.0) >= least.0;
        if news {
            self.told = free;
        }
        news
    }
}

impl Engine {
    /// Looks at the volumes of the machines that run here; returns how long until the next look.
    pub(super) fn step_room(&mut self) -> Duration {
        let now = self.options.clock.elapsed();
        let runs = |entry: &Entry| entry.owned.as_ref().is_some_and(|owned| owned.running.is_some());
        let ids: Vec<_> = self.machines.iter().filter(|(_, entry)| runs(entry)).map(|(id, _)| *id).collect();
        ids.into_iter().map(|id| self.look_at_room(id, now)).min().unwrap_or(LOOKS.1)
    }

    fn look_at_room(&mut self, id: MachineId, now: Duration) -> Duration {
        let Some(entry) = self.machines.get_mut(&id) else { return LOOKS.1 };
        let Entry { owned: Some(owned), dir, volume, job, changed, .. } = entry else { return LOOKS.1 };
        let Some(running) = &mut owned.running else { return LOOKS.1 };
        let met_full = running.guest.met_full();
        let room = &mut running.room;
        if now < room.next_look && (room.short || !met_full) {
            return room.next_look - now;
        }
        let machine = owned.store.machine();
        let settings = &machine.settings;
        let Ok(free) = self.options.host.free_bytes(dir) else {
            room.next_look = now + LOOKS.1;
            return LOOKS.1;
        };
        let wait = room.note(now, free, settings);
        room.next_look = now + wait;
        volume.free = free;
        *changed |= room.is_news(free);
        let busy = |kinds: &[JobKind]| job.as_ref().is_some_and(|active| kinds.contains(&active.state.kind));
        let enough = free >= settings.go_on_free();
        if room.short && enough {
            // What holds the machine still itself, such as verifying it, ends first.
            if now >= room.go_on_after && (job.is_none() || busy(&[JobKind::Merge, JobKind::EmptyTrash])) {
                room.short = false;
                *changed = true;
                if !running.paused {
                    running.guest.resume();
                }
            }
            return wait;
        }
        if !room.short && !met_full && free >= settings.pause_free {
            return wait;
        }
        let trash: ByteCount = machine.trash.iter().map(|item| item.held).sum();
        let helps = trash > ByteCount::ZERO && free + trash >= settings.go_on_free();
        let mut emptying = busy(&[JobKind::EmptyTrash]);
        if helps && !emptying && (job.is_none() || busy(&[JobKind::Merge])) && now >= room.empty_after {
            room.empty_after = now + AGAIN_AFTER.1;
            emptying = self.start_job(id, Command::EmptyTrash { machine: id, all: true }, NOBODY).is_ok();
        }
        let Some(entry) = self.machines.get_mut(&id) else { return wait };
        let Some(running) = entry.owned.as_mut().and_then(|owned| owned.running.as_mut()) else { return wait };
        if !running.room.short && (met_full || !emptying) {
            running.guest.pause();
            running.room.short = true;
            running.room.told = free;
            running.room.go_on_after = if met_full { now + AGAIN_AFTER.0 } else { now };
            entry.changed = true;
        }
        wait
    }

    /// Whether a machine may begin to write: not where it would be paused at once.
    pub(super) fn check_room(&self, entry: &Entry) -> Result<(), Refusal> {
        let settings = &entry.machine.settings;
        match self.options.host.free_bytes(&entry.dir) {
            Ok(free) if free < settings.pause_free => {
                let limit = settings.pause_free;
                let freed = what_can_be_freed(entry, free);
                Err(Refusal::rule(format!("{free} are free on its volume, and below {limit} it would be paused. {freed}")))
            }
            _ => Ok(()),
        }
    }

    /// Why a machine that stands still for want of room can't be let go on.
    pub(super) fn waits_for_room(entry: &Entry) -> Refusal {
        let (free, limit) = (entry.volume.free, entry.machine.settings.go_on_free());
        let freed = what_can_be_freed(entry, free);
        Refusal::rule(format!("{free} are free on its volume; it goes on by itself when {limit} are. {freed}"))
    }
}

/// A sentence.
fn what_can_be_freed(entry: &Entry, free: ByteCount) -> String {
    let volume = VolumeState { free, ..entry.volume.clone() };
    let facts = MachineFacts {
        machine: &entry.machine,
        files: &entry.sight.files,
        census: &entry.sight.census,
        calibration: &entry.calibration,
        volume: &volume,
        running: entry.power().is_up(),
        guest: entry.guest_rate(),
    };
    let can = freeable(&facts);
    let mut parts = Vec::new();
    if can.trash > ByteCount::ZERO {
        parts.push(format!("{} in the trash", can.trash));
    }
    if can.merges.comes_back > ByteCount::ZERO {
        parts.push(format!("{} by the merges that are due", can.merges.comes_back));
    }
    if can.deletable > ByteCount::ZERO {
        parts.push(format!("{} by deleting snapshots that nothing stands on", can.deletable));
    }
    match parts.is_empty() {
        true => "Nothing of this machine can be freed at once: remove other files from the volume.".into(),
        false => format!("What can be freed now: {}.", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_comes_before_the_limit_can_be_reached() {
        let settings = Settings { pause_free: ByteCount::mib(200), ..Settings::default() };
        let mut room = Room::default();
        let mut look = |ms, mib| room.note(Duration::from_millis(ms), ByteCount::mib(mib), &settings);
        assert_eq!(look(0, 100 << 10), LOOKS.1, "much is free");
        assert_eq!(look(1000, 712), LOOKS.0, "99 GiB in a second");
        assert_eq!(look(2000, 712), Duration::from_millis(250), "at rest, as if a burst were to come");
        assert_eq!(look(2250, 210), LOOKS.0);
        assert_eq!(look(2300, 90), LOOKS.0);
        assert_eq!(look(2350, 4096 + 200), LOOKS.1);
    }
}
