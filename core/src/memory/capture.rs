//! Saves memory as it was at one instant while the guest goes on writing: copy before write.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::GuestMemory;
use crate::clock::SharedClock;
use crate::disk::Result;
use crate::host_file::HostFile;
use crate::units::{ByteCount, ByteRate};

/// How far saving has come.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SaveProgress {
    /// Bytes of memory that are saved (zero pages count, though they take no space). Only grows.
    pub done: ByteCount,
    /// Bytes of memory in all.
    pub total: ByteCount,
    /// Bytes of memory saved per second so far.
    pub rate: ByteRate,
    /// Whether the file is complete and durable.
    pub finished: bool,
}

/// What saving cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SaveReport {
    /// Bytes of memory.
    pub memory: ByteCount,
    /// Bytes of the file.
    pub file: ByteCount,
    /// Time from the begin of the capture to the durable file.
    pub elapsed: Duration,
    /// Guest writes that had to put a page's original aside first.
    pub intercepted_writes: u64,
    /// The longest that a guest write took because of it.
    pub longest_stall: Duration,
}

/// Memory being saved. It must be driven by [`Capture::step`] until it is finished, or dropped: when the
/// place for originals is full, guest writes wait for it. Dropping it ends the capture and wakes them.
#[derive(Debug)]
pub struct Capture {
    _todo: (),
}

#[expect(unused_variables, reason = "to be written")]
impl Capture {
    /// Starts an epoch: what memory holds now is what will be saved. The guest must stand still during this
    /// call (well under a millisecond whatever the size) and may run afterwards. `file` is new and empty.
    /// One capture at a time: a second one is refused.
    pub fn begin(memory: &Arc<GuestMemory>, file: Arc<dyn HostFile>, id: Uuid, clock: SharedClock) -> Result<Self> {
        todo!()
    }

    /// Saves about `budget` bytes more: first what guest writes have put aside, then the rest. The last step
    /// flushes the file; its folder's entry is the caller's to flush.
    pub fn step(&mut self, budget: ByteCount) -> Result<SaveProgress> {
        todo!()
    }

    /// How far it has come.
    pub fn progress(&self) -> SaveProgress {
        todo!()
    }

    /// What it has cost so far.
    pub fn report(&self) -> SaveReport {
        todo!()
    }
}

/// Saves the memory of a machine that stands still.
pub fn save(memory: &Arc<GuestMemory>, file: Arc<dyn HostFile>, id: Uuid, clock: SharedClock) -> Result<SaveReport> {
    let mut capture = Capture::begin(memory, file, id, clock)?;
    while !capture.step(ByteCount::mib(64))?.finished {}
    Ok(capture.report())
}
