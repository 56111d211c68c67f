//! Before anything is copied: what a newer image of the run hides is dropped. The space comes back at once.

use std::ops::ControlFlow;

use super::batch::join;
use super::survey::{Images, sweep};
use super::{Result, Rules};
use crate::disk::{ImageType, Presence};

/// How much of the disk one step looks at.
const SPAN: u64 = 16 << 30;

/// A block of one image, while the walk is inside it.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    index: u64,
    held: bool,
    /// Whether something in it is hidden by nothing.
    seen: bool,
}

/// The walk that finds whole blocks of which nothing is visible through the top. The topmost holder of a
/// place is never dropped, so the order of the images doesn't matter; all were flushed before.
#[derive(Debug)]
pub(super) struct Shadowed {
    size: u64,
    at: u64,
    /// Per image of the run: its block size, its own size, and where the walk is. `None` for those that are left alone: the
    /// target (its places are written again), the top (nothing hides it), and fixed images (they can't drop anything).
    blocks: Vec<Option<(u64, u64, Block)>>,
}

impl Shadowed {
    pub(super) fn new(images: &Images, target: usize, size: u64) -> Self {
        let blocks = images.iter().enumerate().map(|(place, image)| {
            let info = image.info();
            let left_alone = place == target || place + 1 == images.len() || info.kind == ImageType::Fixed;
            (!left_alone).then_some((info.block_size.0.max(1), info.virtual_size.0, Block::default()))
        });
        Self { size, at: 0, blocks: blocks.collect() }
    }

    pub(super) fn ended(&self) -> bool {
        self.at >= self.size || self.blocks.iter().all(Option::is_none)
    }

    /// Looks at the next part of the disk: per image, the whole blocks in it that are hidden.
    pub(super) fn step(&mut self, images: &Images, rules: Rules) -> Result<Vec<Vec<(u64, u64)>>> {
        let mut hidden: Vec<Vec<(u64, u64)>> = vec![Vec::new(); images.len()];
        if self.ended() {
            return Ok(hidden);
        }
        let end = self.size.min(self.at.saturating_add(SPAN));
        sweep(images, self.at, end, rules, |piece| {
            let owner = piece.owner();
            for (place, entry) in self.blocks.iter_mut().enumerate() {
                let Some((block_size, own_size, block)) = entry else { continue };
                let mut at = piece.offset;
                let piece_end = (piece.offset + piece.length).min(*own_size);
                if piece.held[place] == Presence::Absent {
                    // Nothing to note; the block is closed when something else of the image is met.
                    continue;
                }
                while at < piece_end {
                    let index = at / *block_size;
                    if index != block.index {
                        close(block, *block_size, *own_size, &mut hidden[place]);
                        *block = Block { index, held: false, seen: false };
                    }
                    block.held = true;
                    block.seen |= owner == Some(place);
                    at = (index + 1).saturating_mul(*block_size).min(piece_end);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.at = end;
        if end == self.size {
            for (entry, hidden) in self.blocks.iter_mut().zip(&mut hidden) {
                if let Some((block_size, own_size, block)) = entry {
                    close(block, *block_size, *own_size, hidden);
                }
            }
        }
        Ok(hidden)
    }
}

fn close(block: &mut Block, block_size: u64, own_size: u64, hidden: &mut Vec<(u64, u64)>) {
    if block.held && !block.seen {
        let start = block.index * block_size;
        join(hidden, start, block_size.min(own_size - start));
    }
    *block = Block { index: block.index, held: false, seen: false };
}
