//! The memory of a guest that has stood still since it was saved, once more.
//!
//! QEMU saves no memory again before the guest has run in between (its state is `postmigrate`), and one that somebody has
//! paused must not run. But nothing of it has changed: what was saved is what would be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::save::Saved;
use crate::disk::{self, DiskError};
use crate::host_file::HostFile;
use crate::memory::{SaveProgress, SaveReport};
use crate::units::{ByteCount, ByteRate};
use crate::vm::MemorySave;

/// Copied at a time.
const PART: usize = 1 << 20;

/// A copy under way.
pub(super) struct Again {
    from: Arc<Saved>,
    to: Arc<dyn HostFile>,
    memory: ByteCount,
    length: u64,
    done: u64,
    began: Instant,
    ended: Option<Duration>,
}

impl Again {
    /// From a file that has all of it into a new one.
    pub fn begin(from: Arc<Saved>, to: Arc<dyn HostFile>, memory: ByteCount) -> disk::Result<Self> {
        let length = from.file.len().map_err(|error| DiskError::io(from.file.path(), "read the saved memory", error))?;
        Ok(Self { from, to, memory, length, done: 0, began: Instant::now(), ended: None })
    }

    fn copy(&mut self, buf: &mut [u8]) -> disk::Result<()> {
        let read = self.from.file.read_exact_at(buf, self.done);
        read.map_err(|error| DiskError::io(self.from.file.path(), "read the saved memory", error))?;
        let written = self.to.write_all_at(buf, self.done);
        written.map_err(|error| DiskError::io(self.to.path(), "write the saved memory", error))?;
        self.done += buf.len() as u64;
        Ok(())
    }
}

impl MemorySave for Again {
    fn step(&mut self, budget: ByteCount) -> disk::Result<SaveProgress> {
        let until = self.length.min(self.done + budget.0.max(PART as u64));
        let mut buf = vec![0; PART];
        while self.done < until {
            let part = (self.length - self.done).min(PART as u64) as usize;
            self.copy(&mut buf[..part])?;
        }
        if self.done == self.length && self.ended.is_none() {
            // What was read is what was written only if that didn't fail meanwhile.
            self.from.flush()?;
            self.to.flush().map_err(|error| DiskError::io(self.to.path(), "flush the saved memory", error))?;
            self.ended = Some(self.began.elapsed());
        }
        let elapsed = self.ended.unwrap_or_else(|| self.began.elapsed());
        let done = ByteCount((self.memory.0 as f64 * (self.done as f64 / self.length.max(1) as f64)) as u64);
        let rate = ByteRate(self.done as f64 / elapsed.as_secs_f64().max(1e-9));
        Ok(SaveProgress { done, total: self.memory, rate, finished: self.ended.is_some() })
    }

    fn report(&self) -> SaveReport {
        let elapsed = self.ended.unwrap_or_else(|| self.began.elapsed());
        SaveReport { memory: self.memory, file: ByteCount(self.done), elapsed, ..SaveReport::default() }
    }
}
