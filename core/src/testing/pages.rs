//! Sparse bytes: only pages that were written take memory; clones share them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub(super) const PAGE: u64 = 4096;

type Page = [u8; PAGE as usize];

/// A long array of bytes, mostly zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    pages: BTreeMap<u64, Arc<Page>>,
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
        self.pages.len() as u64
    }

    /// Pages that a write to the range would add.
    pub(super) fn missing_pages(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let (first, last) = (offset / PAGE, (offset + len - 1) / PAGE);
        (last - first + 1) - self.pages.range(first..=last).count() as u64
    }

    /// Reads; what lies past the end is zero.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        let mut done = 0;
        for (page, range) in pieces(offset, buf.len() as u64) {
            let part = &mut buf[done..done + range.len()];
            done += range.len();
            match self.pages.get(&page) {
                Some(bytes) => part.copy_from_slice(&bytes[range]),
                None => part.fill(0),
            }
        }
    }

    /// Writes, growing the array if it must.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        for (page, range) in pieces(offset, bytes.len() as u64) {
            let target = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
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
            let mut tail = self.pages.split_off(&whole_first);
            let mut rest = tail.split_off(&whole_end);
            self.pages.append(&mut rest);
        }
        let edges = if whole_first <= whole_end {
            [(offset, whole_first * PAGE), (whole_end * PAGE, end)]
        } else {
            [(offset, end), (end, end)]
        };
        for (from, to) in edges {
            for (page, range) in pieces(from, to.saturating_sub(from)) {
                if let Some(bytes) = self.pages.get_mut(&page) {
                    Arc::make_mut(bytes)[range].fill(0);
                }
            }
        }
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
            for _ in 0..200 {
                let (offset, len) = (random.below(30_000), random.below(10_000));
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
