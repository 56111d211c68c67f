//! One machine, as the worker sees it.

use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use super::jobs::Job;
use super::owner::{Connection, Starting};
use super::probe::Probe;
use super::running::Owned;
use super::sight::{OpenImages, Sight};
use super::worker::SubscriberId;
use super::{Command, JobKind, JobPhase, JobState, LatencyReport, MachineState, Place, Power, RequestId};
use crate::cost::{Calibration, VolumeState};
use crate::snapshot::{self, Machine, PowerState};
use crate::units::ByteRate;
use crate::vm::Outside;

/// A machine of the library, or one that a looked-at folder shows.
pub(super) struct Entry {
    pub dir: PathBuf,
    pub place: Place,
    pub machine: Arc<Machine>,
    pub sight: Sight,
    pub volume: VolumeState,
    pub calibration: Calibration,
    pub problems: Vec<String>,
    /// How many processors it has, where a configuration of Hyper-V's says so.
    pub processors: Option<u32>,
    /// Held while this process owns the machine.
    pub owned: Option<Owned>,
    pub job: Option<Active>,
    /// A job that waits for the one that came in between.
    pub waiting: Option<Active>,
    /// A merge that has let go of the machine for a process that is coming up, and since when.
    pub handed_over: Option<(Active, Duration)>,
    /// To the process that owns it.
    pub connection: Option<Connection>,
    /// What that process says.
    pub remote: Option<Arc<MachineState>>,
    /// The probe of its volume, while it is made.
    pub probe: Option<Probe>,
    pub starting: Option<Starting>,
    /// An owner that this process started, to be reaped.
    pub child: Option<Child>,
    /// Why it stopped by itself.
    pub failed: Option<String>,
    /// Whether its state is to be published.
    pub changed: bool,
    /// Checksum of the manifest's bytes, to see when another process has changed it.
    pub seen: u32,
    pub last_live: Duration,
    pub last_count: Duration,
}

impl Entry {
    pub fn new(dir: PathBuf, place: Place, machine: Machine, seen: u32) -> Self {
        let mut sight = Sight::default();
        sight.look_again(&machine);
        Self {
            dir,
            place,
            machine: Arc::new(machine),
            sight,
            volume: VolumeState::default(),
            calibration: Calibration::default(),
            problems: Vec::new(),
            processors: None,
            owned: None,
            job: None,
            waiting: None,
            handed_over: None,
            connection: None,
            remote: None,
            probe: None,
            starting: None,
            child: None,
            failed: None,
            changed: true,
            seen,
            last_live: Duration::ZERO,
            last_count: Duration::ZERO,
        }
    }

    pub fn power(&self) -> Power {
        // An owner that is there but hasn't said yet how things are counts as coming up.
        if self.starting.is_some() || (self.connection.is_some() && self.remote.is_none()) {
            return Power::Starting;
        }
        if let Some(running) = self.owned.as_ref().and_then(|owned| owned.running.as_ref()) {
            return match (running.paused, running.room.short) {
                (true, _) => Power::Paused,
                (false, true) => Power::NoRoom,
                (false, false) => Power::Running,
            };
        }
        match (&self.failed, &self.machine.now.memory) {
            (Some(why), _) => Power::Failed(why.clone()),
            (None, Some(_)) => Power::Saved,
            (None, None) => Power::Off,
        }
    }

    /// What the rules are told.
    pub fn context(&self) -> snapshot::Context {
        snapshot::Context {
            power: if self.power().is_up() { PowerState::Running } else { PowerState::Off },
            job_under_way: self.job.is_some(),
            read_only: self.place != Place::Library,
        }
    }

    /// Whether the job under way waits for a command: a merge does, for all but another merge. For a start it lets go of
    /// the machine altogether, and goes on in the process that owns it then.
    pub fn makes_way_for(&self, command: &Command) -> bool {
        let merges = self.job.as_ref().is_some_and(|active| active.state.kind == JobKind::Merge);
        merges && !matches!(command, Command::Merge { .. } | Command::Remove { .. })
    }

    /// Takes over a manifest that was published.
    pub fn refresh(&mut self, machine: Machine) {
        if *self.machine != machine {
            self.machine = Arc::new(machine);
        }
        self.sight.look_again(&self.machine);
        self.changed = true;
    }

    /// What its guest writes in a second, where it runs here.
    pub fn guest_rate(&self) -> Option<ByteRate> {
        self.owned.as_ref()?.running.as_ref()?.rate
    }

    /// What is known of it where it runs here, as a process of its own.
    pub fn outside(&self) -> Option<Outside> {
        self.owned.as_ref()?.running.as_ref()?.guest.outside()
    }

    /// The images that this process has open.
    pub fn open_images(&self) -> OpenImages {
        self.owned.as_ref().map(Owned::images).unwrap_or_default()
    }

    pub fn state(&self) -> Arc<MachineState> {
        if let Some(remote) = &self.remote {
            return remote.clone();
        }
        Arc::new(MachineState {
            machine: self.machine.clone(),
            folder: self.dir.clone(),
            place: self.place.clone(),
            power: self.power(),
            files: self.sight.files.clone(),
            census: self.sight.census.clone(),
            calibration: self.calibration.clone(),
            volume: self.volume.clone(),
            guest: self.guest_rate(),
            outside: self.outside(),
            probing: self.probe.is_some(),
            processors: self.processors,
            problems: self.problems.clone(),
        })
    }
}

/// A job under way.
pub(super) struct Active {
    pub job: Box<dyn Job>,
    pub state: JobState,
    pub from: (SubscriberId, RequestId),
    /// Time worked, pauses not counted.
    meter: Meter,
    /// Not before this (the clock's `elapsed`).
    pub not_before: Duration,
    /// When its progress was last told.
    pub told: Duration,
}

impl Active {
    pub fn new(job: Box<dyn Job>, state: JobState, from: (SubscriberId, RequestId), now: Duration) -> Self {
        Self {
            job,
            state,
            from,
            meter: Meter { last: now, rate: 0.0, done: 0 },
            not_before: Duration::ZERO,
            told: Duration::ZERO,
        }
    }

    pub fn is_paused(&self) -> bool {
        self.state.phase == JobPhase::Paused
    }

    /// What the job did since the last call, in figures.
    pub fn measure(&mut self, now: Duration, latency: Option<LatencyReport>) {
        let state = &mut self.state;
        let passed = now.saturating_sub(self.meter.last);
        self.meter.last = now;
        state.elapsed += passed;
        state.latency = latency.or(state.latency);
        let moved = state.done.0.saturating_sub(self.meter.done);
        self.meter.done = state.done.0;
        // A mean that forgets over about two seconds: steady enough to read, quick enough to tell.
        let seconds = passed.as_secs_f64();
        if seconds > 0.0 {
            let weight = 1.0 - (-seconds / 2.0).exp();
            let sample = moved as f64 / seconds;
            self.meter.rate = if self.meter.rate == 0.0 { sample } else { self.meter.rate + weight * (sample - self.meter.rate) };
        }
        state.rate = ByteRate(self.meter.rate);
        let left = state.total.saturating_sub(state.done).0 as f64;
        state.left =
            (self.meter.rate > 1.0 && state.total.0 > 0).then(|| Duration::from_secs_f64((left / self.meter.rate).min(1e9)));
    }

    /// Time that passed in a pause doesn't count.
    pub fn skip_to(&mut self, now: Duration) {
        self.meter.last = now;
    }
}

struct Meter {
    last: Duration,
    rate: f64,
    done: u64,
}
