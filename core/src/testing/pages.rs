//! Sparse bytes: only pages that were written take memory; clones share them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub(super) const PAGE: u64 = 4096;

/// Pages that clones share as one: a clone copies a pointer for each.
const GROUP: u64 = 256;

type Page = [u8; PAGE as usize];
type Group = BTreeMap<u64, Arc<Page>>;

/// A long array of bytes, mostly zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    /// By the number of their first page, divided by [`GROUP`]; none is empty.
    groups: BTreeMap<u64, Arc<Group>>,
    len: u64,
}

/// Splits a byte range at page borders: page number, range inside the page.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, Range<usize>)> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let (page, start) = (at / PAGE, at % PAGE);
            let stop = PAGE.min(start + (end - at));
            at += stop - start;
            (page, start as usize..stop as usize)
        })
    })
}

impl Pages {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Pages that take memory.
    pub(super) fn held_pages(&self) -> u64 {
        self.groups.values().map(|group| group.len() as u64).sum()
    }

    /// Pages that a write to the range would add.
    pub(super) fn missing_pages(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let (first, last) = (offset / PAGE, (offset + len - 1) / PAGE);
        let groups = self.groups.range(first / GROUP..=last / GROUP);
        let there: usize = groups.map(|(_, group)| group.range(first..=last).count()).sum();
        (last - first + 1) - there as u64
    }

    fn page(&self, page: u64) -> Option<&Page> {
        Some(&**self.groups.get(&(page / GROUP))?.get(&page)?)
    }

    /// Reads; what lies past the end is zero.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        let mut done = 0;
        for (page, range) in pieces(offset, buf.len() as u64) {
            let part = &mut buf[done..done + range.len()];
            done += range.len();
            match self.page(page) {
                Some(bytes) => part.copy_from_slice(&bytes[range]),
                None => part.fill(0),
            }
        }
    }

    /// Writes, and grows where it must.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        for (page, range) in pieces(offset, bytes.len() as u64) {
            let group = Arc::make_mut(self.groups.entry(page / GROUP).or_default());
            let target = group.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            let len = range.len();
            Arc::make_mut(target)[range].copy_from_slice(&bytes[done..done + len]);
            done += len;
        }
        if !bytes.is_empty() {
            self.len = self.len.max(offset + bytes.len() as u64);
        }
    }

    /// Makes the range zero; whole pages are given back. The length stays.
    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let (whole_first, whole_end) = (offset.div_ceil(PAGE), end / PAGE);
        if whole_first < whole_end {
            self.give_back(whole_first, whole_end);
        }
        let edges = if whole_first <= whole_end {
            [(offset, whole_first * PAGE), (whole_end * PAGE, end)]
        } else {
            [(offset, end), (end, end)]
        };
        for (from, to) in edges {
            for (page, range) in pieces(from, to.saturating_sub(from)) {
                if self.page(page).is_some()
                    && let Some(group) = self.groups.get_mut(&(page / GROUP))
                    && let Some(bytes) = Arc::make_mut(group).get_mut(&page)
                {
                    Arc::make_mut(bytes)[range].fill(0);
                }
            }
        }
    }

    /// Forgets the pages from `first` up to the one before `end`.
    fn give_back(&mut self, first: u64, end: u64) {
        let mut tail = self.groups.split_off(&(first / GROUP));
        let mut rest = tail.split_off(&end.div_ceil(GROUP));
        for (number, mut group) in tail {
            if group.range(first..end).next().is_some() {
                Arc::make_mut(&mut group).retain(|page, _| *page < first || *page >= end);
            }
            if !group.is_empty() {
                self.groups.insert(number, group);
            }
        }
        self.groups.append(&mut rest);
    }

    /// Cuts or grows; new space is zero.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let cut = self.len.next_multiple_of(PAGE);
            self.punch(len, cut - len);
        }
        self.len = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn pages_behave_as_a_plain_vector() {
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let (mut pages, mut plain) = (Pages::default(), Vec::new());
            // Within a group, and over the end of one.
            let first = if seed % 4 == 0 { GROUP * PAGE - 15_000 } else { 0 };
            for _ in 0..200 {
                let (offset, len) = (first + random.below(30_000), random.below(10_000));
                match random.below(4) {
                    0 => {
                        pages.set_len(offset);
                        plain.resize(offset as usize, 0);
                    }
                    1 => {
                        pages.punch(offset, len);
                        let size = plain.len() as u64;
                        plain[offset.min(size) as usize..(offset + len).min(size) as usize].fill(0);
                    }
                    _ => {
                        let bytes = random.bytes(len as usize);
                        pages.write(&bytes, offset);
                        if !bytes.is_empty() {
                            let end = (offset + len) as usize;
                            plain.resize(plain.len().max(end), 0);
                            plain[offset as usize..end].copy_from_slice(&bytes);
                        }
                    }
                }
                let mut all = vec![1; plain.len()];
                pages.read(&mut all, 0);
                assert_eq!(pages.len(), plain.len() as u64, "seed {seed}");
                assert!(all == plain, "seed {seed}");
            }
        }
    }
}
