//! Tells a reader whether places were given up while it was reading.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts changes after which what a reader has looked up may be wrong.
#[derive(Debug, Default)]
pub(super) struct Changes {
    generation: AtomicU64,
    active: AtomicU64,
}

/// A change under way, until it is dropped.
pub(super) struct Change<'a>(&'a Changes);

impl Changes {
    pub(super) fn begin(&self) -> Change<'_> {
        self.active.fetch_add(1, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
        Change(self)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The generation, unless a change is under way.
    pub(super) fn quiet(&self) -> Option<u64> {
        let generation = self.generation();
        (self.active.load(Ordering::SeqCst) == 0).then_some(generation)
    }

    /// Whether no change has begun or ended since.
    pub(super) fn none_since(&self, generation: u64) -> bool {
        self.generation() == generation
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.generation.fetch_add(1, Ordering::SeqCst);
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}
