//! Space of an image's file that metadata doesn't name any longer and that wasn't given back to the volume yet.

use std::collections::BTreeMap;

use super::{Extent, Presence, Released, Result, joined};

/// Neighbouring space that is punched in one call, while reads wait.
const PUNCHED_AT_ONCE: u64 = 16 << 20;

/// Released space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Bytes in the file.
    pub length: u64,
    /// The offset on the disk that it held.
    pub disk_offset: u64,
    /// A whole block, with what of its metadata stands before it: its place can be used again.
    pub is_whole: bool,
}

/// What of released space is to be punched.
#[derive(Debug, Default)]
pub struct Gone {
    /// Offset and length of each hole, in order.
    pub holes: Vec<(u64, u64)>,
    /// Places that blocks had, and their length.
    pub places: Vec<(u64, u64)>,
}

/// All of one opening, by the offset in the file.
#[derive(Debug, Default)]
pub struct Parts(BTreeMap<u64, Part>);

impl Parts {
    /// Nothing of this range of the file is to be punched any more.
    pub fn forget(&mut self, offset: u64, length: u64) {
        let inside: Vec<u64> = self.0.range(offset..offset + length).map(|(&at, _)| at).collect();
        for at in inside {
            self.0.remove(&at);
        }
    }

    /// Adds a part, and says so in `released`.
    pub fn add(&mut self, released: &mut Released, offset: u64, part: Part) {
        self.forget(offset, part.length);
        self.0.insert(offset, part);
        released.host_ranges.push((offset, part.length));
    }

    /// Places of whole blocks, and their length.
    pub fn places(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().filter(|(_, part)| part.is_whole).map(|(&offset, part)| (offset, part.length))
    }

    /// Takes out what is to be punched now. `locate` says what the image holds on the disk: what was written again stays.
    pub fn take(&mut self, ranges: &[(u64, u64)], locate: impl Fn(u64, u64) -> Result<Vec<Extent>>) -> Result<Gone> {
        let mut gone = Gone::default();
        for &(offset, length) in ranges {
            // What isn't known any more went with its whole block.
            let Some(part) = self.0.get(&offset).copied().filter(|part| part.length == length) else { continue };
            self.0.remove(&offset);
            if part.is_whole {
                gone.places.push((offset, length));
                gone.holes.push((offset, length));
                continue;
            }
            let extents = locate(part.disk_offset, length)?;
            let unused = extents.iter().filter(|extent| !matches!(extent.presence, Presence::Data { .. }));
            gone.holes.extend(unused.map(|extent| (offset + extent.offset - part.disk_offset, extent.length)));
        }
        gone.holes = joined(&gone.holes);
        Ok(gone)
    }
}

impl Released {
    /// Neighbours in the file go together, as far as that doesn't keep others waiting.
    pub(super) fn groups(&self) -> impl Iterator<Item = &[(u64, u64)]> {
        let mut ranges = &self.host_ranges[..];
        std::iter::from_fn(move || {
            let &(first, length) = ranges.first()?;
            let mut end = first + length;
            let more = ranges[1..].iter().take_while(|(offset, length)| {
                let joins = *offset == end && offset + length - first <= PUNCHED_AT_ONCE;
                end = if joins { offset + length } else { end };
                joins
            });
            let (group, rest) = ranges.split_at(1 + more.count());
            ranges = rest;
            Some(group)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn part(length: u64, disk_offset: u64, is_whole: bool) -> Part {
        Part { length, disk_offset, is_whole }
    }

    fn released() -> Released {
        Released { host_ranges: Vec::new() }
    }

    #[test]
    fn neighbours_go_together_up_to_16_mib() {
        let mut released = released();
        assert_eq!(released.groups().count(), 0);
        released.host_ranges = vec![(0, 8 * MIB), (8 * MIB, 8 * MIB), (16 * MIB, MIB), (20 * MIB, 40 * MIB), (60 * MIB, MIB)];
        let groups: Vec<usize> = released.groups().map(<[_]>::len).collect();
        assert_eq!(groups, [2, 1, 1, 1]);
    }

    #[test]
    fn what_was_written_again_or_went_with_its_block_is_not_punched() {
        let (mut parts, mut released) = (Parts::default(), released());
        parts.add(&mut released, 10 * MIB, part(MIB, 0, false));
        // The rest of that block is given up as well.
        parts.add(&mut released, 10 * MIB, part(2 * MIB, 0, true));
        parts.add(&mut released, 30 * MIB, part(MIB, 4 * MIB, false));
        assert_eq!(parts.places().collect::<Vec<_>>(), [(10 * MIB, 2 * MIB)]);
        let half = MIB / 2;
        let locate = |offset, length| {
            assert_eq!((offset, length), (4 * MIB, MIB));
            let extent = |offset, presence| Extent { offset, length: half, presence };
            Ok(vec![extent(offset, Presence::Absent), extent(offset + half, Presence::Data { host_offset: 30 * MIB + half })])
        };
        let gone = parts.take(&released.host_ranges, locate).unwrap();
        assert_eq!(gone.places, [(10 * MIB, 2 * MIB)]);
        assert_eq!(gone.holes, [(10 * MIB, 2 * MIB), (30 * MIB, half)]);
        // Once only.
        assert!(parts.take(&released.host_ranges, |_, _| Ok(Vec::new())).unwrap().holes.is_empty());
    }

    #[test]
    fn a_place_that_is_used_again_is_not_punched() {
        let (mut parts, mut released) = (Parts::default(), released());
        parts.add(&mut released, 4 * MIB, part(2 * MIB, 0, true));
        parts.forget(4 * MIB, 2 * MIB);
        assert!(parts.take(&released.host_ranges, |_, _| Ok(Vec::new())).unwrap().holes.is_empty());
    }
}
