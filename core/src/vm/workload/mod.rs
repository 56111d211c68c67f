//! The built-in machine: no operating system, but memory, disks and a screen whose every byte can be verified.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{BlockDevice, Frame, Guest, MemorySave, Result, Setup, VerifyReport, WorkloadCounters};
use crate::host_file::HostFile;
use crate::memory::GuestMemory;
use crate::units::ByteCount;

/// The machine as a value, without threads: for a run on a stopped machine, and what [`Running`] drives.
#[derive(Debug)]
pub struct Workload {
    _todo: (),
}

#[expect(unused_variables, reason = "to be written")]
impl Workload {
    /// Boots (rebuilding its tables from what the disks hold), or continues from saved memory.
    pub fn new(setup: &Setup) -> Result<Self> {
        todo!()
    }

    /// Does, on this thread and at full speed, what the running machine would do in `time` at its profile's rates
    /// (where a rate is 0: for that long). To be called again and again with small slices.
    pub fn run_for(&self, time: Duration) -> Result<()> {
        todo!()
    }

    /// Its memory, to be saved when the run ends.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        todo!()
    }

    /// What its screen shows.
    pub fn frame(&self) -> Frame {
        todo!()
    }

    /// What it has done since `new`.
    pub fn counters(&self) -> WorkloadCounters {
        todo!()
    }

    /// What it read and found wrong, in words (the first few).
    pub fn wrong(&self) -> Vec<String> {
        todo!()
    }

    /// Scrambles the picture and a part of the gallery.
    pub fn bad_update(&self) -> Result<()> {
        todo!()
    }
}

/// The machine running on its own threads.
#[derive(Debug)]
pub struct Running {
    _todo: (),
}

#[expect(unused_variables, reason = "to be written")]
impl Running {
    /// Starts it.
    pub fn start(setup: Setup) -> Result<Self> {
        todo!()
    }
}

#[expect(unused_variables, reason = "to be written")]
impl Guest for Running {
    fn pause(&self) {
        todo!()
    }
    fn resume(&self) {
        todo!()
    }
    fn stop(&self) -> Result<()> {
        todo!()
    }
    fn begin_capture(&self, file: Arc<dyn HostFile>, id: Uuid) -> Result<Box<dyn MemorySave>> {
        todo!()
    }
    fn frame(&self) -> Frame {
        todo!()
    }
    fn counters(&self) -> WorkloadCounters {
        todo!()
    }
    fn problem(&self) -> Option<String> {
        todo!()
    }
    fn bad_update(&self) -> Result<()> {
        todo!()
    }
}

/// Reads and verifies everything that the machine wrote.
#[derive(Debug)]
pub struct Verifier {
    _todo: (),
}

#[expect(unused_variables, reason = "to be written")]
impl Verifier {
    /// Of these disks (in the configuration's order), and of memory of the same instant if there is any.
    pub fn new(disks: Vec<Arc<dyn BlockDevice>>, memory: Option<Arc<GuestMemory>>) -> Result<Self> {
        todo!()
    }

    /// Reads about `budget` bytes more; bytes done and to do.
    pub fn step(&mut self, budget: ByteCount) -> Result<(ByteCount, ByteCount)> {
        todo!()
    }

    /// What was found, when done equals to do.
    pub fn report(&self) -> VerifyReport {
        todo!()
    }
}
