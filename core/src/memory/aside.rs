//! Where guest writes put the originals of pages that aren't saved yet: bounded, emptied by the saver first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::Page;
use crate::clock::SharedClock;
use crate::locks::lock;

/// Most originals that wait to be saved (32 MiB); a guest write that finds no room waits for the saver.
const ROOM_PAGES: usize = 8192;

#[derive(Debug, Default)]
struct Waiting {
    originals: VecDeque<(u64, Box<Page>)>,
    closed: bool,
}

/// Originals of one capture, and what putting them aside cost the guest.
#[derive(Debug)]
pub(super) struct Aside {
    clock: SharedClock,
    waiting: Mutex<Waiting>,
    room: Condvar,
    intercepted: AtomicU64,
    longest_stall_nanos: AtomicU64,
}

/// Measures one guest write's extra time, until it is dropped.
pub(super) struct Stall<'a> {
    aside: &'a Aside,
    started: Duration,
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        let took = self.aside.clock.elapsed().saturating_sub(self.started);
        self.aside.longest_stall_nanos.fetch_max(took.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Aside {
    pub(super) fn new(clock: SharedClock) -> Self {
        let (intercepted, longest_stall_nanos) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { clock, waiting: Mutex::default(), room: Condvar::new(), intercepted, longest_stall_nanos }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    /// Starts to measure a stall.
    pub(super) fn stall(&self) -> Stall<'_> {
        Stall { aside: self, started: self.clock.elapsed() }
    }

    /// Puts a page's original aside; `false` when there is no room. Once closed, nothing is kept.
    pub(super) fn put(&self, page: u64, content: &Page) -> bool {
        if self.lock().originals.len() >= ROOM_PAGES {
            return false;
        }
        let copy = Box::new(*content);
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.originals.push_back((page, copy));
            self.intercepted.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Returns when there is room, or when the capture has ended.
    pub(super) fn wait_for_room(&self) {
        let full = |waiting: &mut Waiting| !waiting.closed && waiting.originals.len() >= ROOM_PAGES;
        drop(self.room.wait_while(self.lock(), full));
    }

    /// Takes the oldest originals, at most so many.
    pub(super) fn take(&self, most: usize) -> Vec<(u64, Box<Page>)> {
        let mut waiting = self.lock();
        let count = waiting.originals.len().min(most);
        let taken = waiting.originals.drain(..count).collect();
        drop(waiting);
        self.room.notify_all();
        taken
    }

    /// Lets go of everything and of everybody who waits.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.originals = VecDeque::new();
        drop(waiting);
        self.room.notify_all();
    }

    /// Writes that found their page unsaved and put it aside.
    pub(super) fn intercepted(&self) -> u64 {
        self.intercepted.load(Ordering::Relaxed)
    }

    /// The longest stall so far.
    pub(super) fn longest_stall(&self) -> Duration {
        Duration::from_nanos(self.longest_stall_nanos.load(Ordering::Relaxed))
    }
}
