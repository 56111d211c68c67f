//! One flush for all who ask for one at the same time.

use std::sync::{Condvar, Mutex};

use crate::chain::BlockDevice;
use crate::disk;
use crate::locks::{lock, wait};

/// The flushes of one disk: who asks while one is under way waits for the next, together with all others.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    /// How many have begun.
    begun: u64,
    /// The last one that did its work, as a number of those.
    done: u64,
}

impl Flushes {
    /// What was acknowledged before this call is durable when it returns.
    pub fn flush(&self, device: &dyn BlockDevice) -> disk::Result<()> {
        let mut state = lock(&self.state);
        // One that is under way may have passed by what this call is to cover.
        let wanted = state.begun + 1;
        while state.running && state.done < wanted {
            state = wait(&self.ended, state);
        }
        if state.done >= wanted {
            return Ok(());
        }
        state.running = true;
        state.begun += 1;
        let number = state.begun;
        drop(state);
        let result = device.flush();
        let mut state = lock(&self.state);
        state.running = false;
        // One that failed covers nothing: each who waits for it does its own, and hears of its own failure.
        if result.is_ok() {
            state.done = number;
        }
        self.ended.notify_all();
        result
    }
}
