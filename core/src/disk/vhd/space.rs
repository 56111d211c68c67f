//! Space inside the file. Structures that nobody here knows may stand anywhere between the known ones, so only what
//! this opening gave up itself is used again; everything else goes to where the footer stands.

use std::collections::BTreeSet;

use super::format::{SECTOR, round_up};
use super::geometry::Blocks;

/// The footer is moved ahead by at most so many bytes at once.
const AHEAD_MAX: u64 = 128 << 20;

/// Where new things go.
#[derive(Debug)]
pub struct Space {
    /// Places of blocks that were given up, durably.
    free: BTreeSet<u64>,
    /// Behind everything that is used.
    end: u64,
    /// So many bytes more than needed are asked for when the footer must go.
    ahead: u64,
}

/// A place for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Offset in the file.
    pub offset: u64,
    /// Never used before: it reads as zeros once the footer is behind it. Otherwise it must be zeroed.
    pub is_fresh: bool,
}

impl Space {
    /// The space of a file whose footer stands at `footer`: in a stranger's, not always where a sector begins.
    pub fn new(footer: u64) -> Self {
        Self { free: BTreeSet::new(), end: round_up(footer, SECTOR), ahead: 0 }
    }

    /// Behind everything that is used.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// A place for a block, and where the footer must be before it is used, if it must go there. Nothing is taken
    /// before [`Space::take`].
    pub fn find_block(&self, blocks: &Blocks, footer: u64) -> (Place, Option<u64>) {
        if let Some(&offset) = self.free.first() {
            return (Place { offset, is_fresh: false }, None);
        }
        let fits = blocks.aligned(self.end);
        if fits + blocks.length() <= footer {
            return (Place { offset: fits, is_fresh: true }, None);
        }
        // Never with the old footer in the middle of its data: that must be zeros.
        let offset = blocks.aligned(footer);
        let mut end = offset + blocks.length();
        while end - offset - blocks.length() < self.ahead {
            end = blocks.aligned(end) + blocks.length();
        }
        (Place { offset, is_fresh: true }, Some(end))
    }

    /// The same for so many bytes of metadata, which the caller writes over wholly.
    pub fn find(&self, length: u64, footer: u64) -> (Place, Option<u64>) {
        let is_fresh = true;
        match self.end + length <= footer {
            true => (Place { offset: self.end, is_fresh }, None),
            false => {
                let offset = round_up(footer, SECTOR);
                (Place { offset, is_fresh }, Some(offset + length))
            }
        }
    }

    /// Takes what was found.
    pub fn take(&mut self, place: Place, length: u64, moves_footer: bool) {
        if !place.is_fresh {
            self.free.remove(&place.offset);
            return;
        }
        self.end = place.offset + length;
        if moves_footer {
            self.ahead = (self.ahead * 2).clamp(length, AHEAD_MAX.max(length));
        }
    }

    /// A block's place that nothing durable names any longer.
    pub fn free(&mut self, offset: u64) {
        self.free.insert(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_footer_goes_ahead_by_more_and_more() {
        let blocks = Blocks { size: 2 << 20, table: 1536, entries: 100 };
        let mut space = Space::new(2048);
        let (place, footer) = space.find_block(&blocks, 2048);
        assert_eq!((place, footer), (Place { offset: 3584, is_fresh: true }, Some(4096 + (2 << 20))));
        space.take(place, blocks.length(), true);
        let at = 4096 + (2 << 20);
        let (place, footer) = space.find_block(&blocks, at);
        assert_eq!(place.offset, at + 3584);
        assert_eq!(footer, Some(at + 2 * (4096 + (2 << 20))), "one more than needed");
        space.take(place, blocks.length(), true);
        let (next, moves) = space.find_block(&blocks, footer.unwrap());
        assert_eq!((next.offset, moves), (at + 4096 + (2 << 20) + 3584, None));
        // Metadata in between: what is left of it is too short for a block, and isn't used.
        let (table, moves) = space.find(4096, footer.unwrap());
        assert_eq!((table.offset, moves), (at + 4096 + (2 << 20), None));
        space.take(table, 4096, false);
        let (place, moves) = space.find_block(&blocks, footer.unwrap());
        assert_eq!(place.offset, footer.unwrap() + 3584);
        assert!(moves.is_some());
        space.free(3584);
        assert_eq!(space.find_block(&blocks, footer.unwrap()), (Place { offset: 3584, is_fresh: false }, None));
    }
}
