//! Finds the owners of a range: each image, from the leaf downwards, is asked for what is still open.

use super::owner_map::Link;
use crate::disk::{Presence, Result};
use std::sync::Arc;

/// Where the newest data of a stretch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nobody was asked yet.
    Unknown,
    /// No image holds it: zeros.
    Nobody,
    /// The owner says zeros.
    Zero { owner: u16 },
    /// The owner has the bytes at this offset of its file.
    Data { owner: u16, host: u64 },
}

impl Place {
    /// The place of what stands `by` bytes further.
    pub(super) fn advanced(self, by: u64) -> Self {
        match self {
            Self::Data { owner, host } => Self::Data { owner, host: host + by },
            other => other,
        }
    }

    /// What an image's answer means, unless it holds nothing.
    pub(super) fn of(presence: Presence, owner: u16) -> Option<Self> {
        match presence {
            Presence::Data { host_offset } => Some(Self::Data { owner, host: host_offset }),
            Presence::Zero => Some(Self::Zero { owner }),
            Presence::Absent => None,
        }
    }
}

/// A stretch of the disk and where its data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) place: Place,
}

impl Piece {
    pub(super) fn end(&self) -> u64 {
        self.offset + self.length
    }

    /// The part inside `start..end`, if any.
    pub(super) fn clipped(&self, start: u64, end: u64) -> Option<Self> {
        let (from, to) = (self.offset.max(start), self.end().min(end));
        (from < to).then(|| Self { offset: from, length: to - from, place: self.place.advanced(from - self.offset) })
    }
}

/// The owners of a range, in order, without gaps; nothing is `Unknown`.
pub(super) fn resolve(links: &[Arc<Link>], offset: u64, length: u64) -> Result<Vec<Piece>> {
    let mut found = Vec::new();
    let mut open = if length == 0 { Vec::new() } else { vec![(offset, offset + length)] };
    for (owner, link) in links.iter().enumerate().rev() {
        let (Some((start, _)), Some((_, end))) = (open.first().copied(), open.last().copied()) else { break };
        let extents = link.image.extents(start, end - start)?;
        let mut still = Vec::new();
        let mut stretches = open.into_iter();
        let mut stretch = stretches.next();
        for extent in extents {
            let extent_end = extent.offset + extent.length;
            while let Some((from, to)) = stretch.filter(|(from, _)| *from < extent_end) {
                let part_end = to.min(extent_end);
                match Place::of(extent.presence, owner as u16) {
                    Some(place) => {
                        let place = place.advanced(from.saturating_sub(extent.offset));
                        found.push(Piece { offset: from, length: part_end - from, place });
                    }
                    None => push_open(&mut still, from, part_end),
                }
                stretch = if part_end < to { Some((part_end, to)) } else { stretches.next() };
            }
        }
        // An image that answers for less than it was asked for leaves the rest to its parent.
        for (from, to) in stretch.into_iter().chain(stretches) {
            push_open(&mut still, from, to);
        }
        open = still;
    }
    found.extend(open.into_iter().map(|(from, to)| Piece { offset: from, length: to - from, place: Place::Nobody }));
    found.sort_unstable_by_key(|piece| piece.offset);
    Ok(found)
}

fn push_open(open: &mut Vec<(u64, u64)>, from: u64, to: u64) {
    match open.last_mut() {
        Some(last) if last.1 == from => last.1 = to,
        _ => open.push((from, to)),
    }
}
