//! Space inside the file: what is free is found by one walk over the BAT, before the first change.

use std::collections::{BTreeMap, HashMap};

use super::format::{MIB, round_up};

/// Free space and the file's end, in bytes; everything is a multiple of 1 MiB.
#[derive(Debug)]
pub struct Space {
    free: BTreeMap<u64, u64>,
    end: u64,
    /// Places that zeroed blocks had. They are kept for the same block, so that whoever still reads an
    /// old place never sees another block's data.
    kept: HashMap<u64, u64>,
}

/// A place for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Offset in the file.
    pub offset: u64,
    /// Never used before: the file must be extended, and reads as zeros there. Otherwise it must be zeroed.
    pub is_fresh: bool,
}

impl Space {
    /// The space between what is taken (start, length), in a file of this length; the error is the
    /// offset of something that overlaps.
    pub fn new(mut taken: Vec<(u64, u64)>, file_length: u64) -> Result<Self, u64> {
        taken.sort_unstable();
        let mut space = Self { free: BTreeMap::new(), end: 0, kept: HashMap::new() };
        for (start, length) in taken {
            if start < space.end {
                return Err(start);
            }
            space.free(space.end, start - space.end);
            space.end = round_up(start + length, MIB);
        }
        let file_end = round_up(file_length, MIB);
        if file_end > space.end {
            space.free(space.end, file_end - space.end);
            space.end = file_end;
        }
        Ok(space)
    }

    /// A place for so many bytes.
    pub fn allocate(&mut self, length: u64) -> Place {
        let length = round_up(length, MIB);
        if let Some((&start, &have)) = self.free.iter().find(|(_, have)| **have >= length) {
            self.free.remove(&start);
            self.free(start + length, have - length);
            return Place { offset: start, is_fresh: false };
        }
        let offset = self.end;
        self.end += length;
        Place { offset, is_fresh: true }
    }

    /// Gives a place back; neighbours are joined.
    pub fn free(&mut self, offset: u64, length: u64) {
        if length == 0 {
            return;
        }
        let (mut start, mut end) = (offset, offset + length);
        if let Some((&before, &have)) = self.free.range(..offset).next_back()
            && before + have == offset
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(have) = self.free.remove(&end) {
            end += have;
        }
        self.free.insert(start, end - start);
    }

    /// Keeps the place of a block that is zero now.
    pub fn keep(&mut self, block: u64, offset: u64) {
        self.kept.insert(block, offset);
    }

    /// The place that was kept for a block; it must be zeroed.
    pub fn take_kept(&mut self, block: u64) -> Option<Place> {
        self.kept.remove(&block).map(|offset| Place { offset, is_fresh: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_found_used_and_joined() {
        let m = MIB;
        let mut space = Space::new(vec![(0, m), (4 * m, 2 * m), (m, m)], 9 * m + 5).unwrap();
        assert_eq!(space.allocate(2 * m), Place { offset: 2 * m, is_fresh: false });
        assert_eq!(space.allocate(3 * m), Place { offset: 6 * m, is_fresh: false });
        assert_eq!(space.allocate(2 * m), Place { offset: 10 * m, is_fresh: true });
        space.free(4 * m, m);
        space.free(6 * m, m);
        space.free(5 * m, m);
        assert_eq!(space.allocate(3 * m), Place { offset: 4 * m, is_fresh: false });
        assert_eq!(Space::new(vec![(0, 2 * m), (m, m)], 0).unwrap_err(), m);
    }
}
