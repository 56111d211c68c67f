//! Guest memory: pages of 4 KiB that many threads share, allocated when first written.
//!
//! Each page has its own lock and knows in which epoch it was last *settled*: saved, put aside, or written
//! when nothing was being saved. A capture begins by counting the epoch up, so every page is unsettled at once.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::aside::Aside;
use crate::locks::lock;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// Most pages that a machine can have (1 TiB).
pub const MAX_PAGES: u64 = 1 << 28;

/// The content of one page.
pub type Page = [u8; PAGE_SIZE];

/// What a page that was never written holds.
pub(super) const ZERO_PAGE: Page = [0; PAGE_SIZE];

/// Pages that are allocated together (their locks, not their content).
const GROUP_PAGES: u64 = 512;

#[derive(Default)]
struct Slot {
    /// The epoch in which the page was last settled.
    epoch: u64,
    /// `None` is zeros.
    content: Option<Box<Page>>,
}

type Group = Box<[Mutex<Slot>]>;

/// A machine's memory. A page that was never written reads as zeros and takes no space.
pub struct GuestMemory {
    pages: u64,
    groups: Box<[OnceLock<Group>]>,
    epoch: AtomicU64,
    /// The capture of this epoch, while there is one.
    aside: Mutex<Option<Arc<Aside>>>,
}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestMemory").field("pages", &self.pages).finish_non_exhaustive()
    }
}

impl GuestMemory {
    /// Memory of so many pages, all zero. At once, whatever the size.
    ///
    /// # Panics
    /// With more than [`MAX_PAGES`].
    pub fn new(pages: u64) -> Self {
        assert!(pages <= MAX_PAGES, "{pages} pages of memory, at most {MAX_PAGES}");
        let groups = (0..pages.div_ceil(GROUP_PAGES)).map(|_| OnceLock::new()).collect();
        Self { pages, groups, epoch: AtomicU64::new(0), aside: Mutex::new(None) }
    }

    /// How many pages it has.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Lets `look` see a page; no write to this page happens meanwhile.
    ///
    /// # Panics
    /// Past the last page, as [`GuestMemory::write`] does.
    pub fn read<R>(&self, page: u64, look: impl FnOnce(&Page) -> R) -> R {
        match self.existing(page) {
            Some(slot) => look(lock(slot).content.as_deref().unwrap_or(&ZERO_PAGE)),
            None => look(&ZERO_PAGE),
        }
    }

    /// Lets `change` change a page. While memory is being saved, the original is put aside first.
    pub fn write<R>(&self, page: u64, change: impl FnOnce(&mut Page) -> R) -> R {
        let mutex = self.slot(page);
        let mut slot = lock(mutex);
        if slot.epoch != self.epoch.load(Ordering::Acquire) {
            slot = self.settle(page, mutex, slot);
        }
        change(slot.content.get_or_insert_with(|| Box::new(ZERO_PAGE)))
    }

    fn existing(&self, page: u64) -> Option<&Mutex<Slot>> {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        Some(&self.groups[(page / GROUP_PAGES) as usize].get()?[(page % GROUP_PAGES) as usize])
    }

    fn slot(&self, page: u64) -> &Mutex<Slot> {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        let group =
            self.groups[(page / GROUP_PAGES) as usize].get_or_init(|| (0..GROUP_PAGES).map(|_| Mutex::default()).collect());
        &group[(page % GROUP_PAGES) as usize]
    }

    /// The first write to a page in an epoch: puts the original aside if a capture wants it. Waits, with the page
    /// unlocked, while there is no room.
    fn settle<'a>(&'a self, page: u64, mutex: &'a Mutex<Slot>, mut slot: MutexGuard<'a, Slot>) -> MutexGuard<'a, Slot> {
        let aside = lock(&self.aside).clone();
        let epoch = self.epoch.load(Ordering::Acquire);
        let Some(aside) = aside else {
            slot.epoch = epoch;
            return slot;
        };
        let stall = aside.stall();
        while slot.epoch != epoch {
            if let Some(content) = &slot.content
                && !aside.put(page, content)
            {
                drop(slot);
                aside.wait_for_room();
                slot = lock(mutex);
                continue;
            }
            slot.epoch = epoch;
        }
        drop(stall);
        slot
    }

    /// Starts an epoch whose originals go to `aside`; `false` while another capture goes on.
    pub(super) fn begin_epoch(&self, aside: &Arc<Aside>) -> bool {
        let mut current = lock(&self.aside);
        if current.is_some() {
            return false;
        }
        *current = Some(aside.clone());
        self.epoch.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Ends the capture: nothing is put aside any longer, and nobody waits.
    pub(super) fn end_epoch(&self, aside: &Arc<Aside>) {
        let mut current = lock(&self.aside);
        if current.as_ref().is_some_and(|present| Arc::ptr_eq(present, aside)) {
            *current = None;
            aside.close();
        }
    }

    /// Settles the next unsettled pages from `*cursor` on, which moves: their originals are appended to `content` and
    /// their numbers to `numbers`, but for zero pages. Ends after `most` pages with content or `visits` pages in all.
    pub(super) fn sweep(&self, cursor: &mut u64, most: usize, visits: u64, numbers: &mut Vec<u64>, content: &mut Vec<u8>) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let end = self.pages.min(cursor.saturating_add(visits));
        while *cursor < end && numbers.len() < most {
            let Some(mutex) = self.existing(*cursor) else {
                *cursor = self.pages.min((*cursor / GROUP_PAGES + 1) * GROUP_PAGES);
                continue;
            };
            let mut slot = lock(mutex);
            if slot.epoch != epoch {
                if let Some(page) = slot.content.as_deref().filter(|page| **page != ZERO_PAGE) {
                    numbers.push(*cursor);
                    content.extend_from_slice(page);
                }
                slot.epoch = epoch;
            }
            *cursor += 1;
        }
    }

    /// Puts restored content into a page that has none yet; `false` if it has.
    pub(super) fn fill(&self, page: u64, content: &[u8]) -> bool {
        let mut slot = lock(self.slot(page));
        let fresh = slot.content.is_none();
        slot.content.get_or_insert_with(|| Box::new(ZERO_PAGE)).copy_from_slice(content);
        fresh
    }
}
