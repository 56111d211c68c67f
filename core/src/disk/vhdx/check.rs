//! What is wrong with the structure of a file, all of it, without changing anything.

use super::bat::{BlockState, Geometry};
use super::format::{BITMAP_BLOCK_SIZE, HEADER_OFFSETS, PAGE_SIZE, REGION_TABLE_OFFSETS, TABLE_SIZE};
use super::image::VhdxImage;
use super::{header, region};
use crate::disk::{Problems, Result};

impl VhdxImage {
    pub(super) fn check_structure(&self) -> Result<Vec<String>> {
        let mut problems = Problems::default();
        self.check_copies(&mut problems)?;
        self.check_blocks(&self.geometry(), &mut problems)?;
        Ok(problems.listed())
    }

    fn check_copies(&self, problems: &mut Problems) -> Result<()> {
        for offset in HEADER_OFFSETS {
            let mut bytes = [0; PAGE_SIZE];
            self.raw.read(&mut bytes, offset, "read the header")?;
            if header::parse(&bytes).is_none() {
                problems.push(format!("the header at byte {offset} is damaged"));
            }
        }
        let mut first: Option<Vec<u8>> = None;
        for offset in REGION_TABLE_OFFSETS {
            let mut bytes = vec![0; TABLE_SIZE];
            self.raw.read(&mut bytes, offset, "read the region table")?;
            if region::parse(&bytes).is_none() {
                problems.push(format!("the region table at byte {offset} is damaged"));
            } else if first.as_ref().is_some_and(|first| *first != bytes) {
                problems.push(format!("the region table at byte {offset} says something else than its copy"));
            } else {
                first = Some(bytes);
            }
        }
        Ok(())
    }

    fn check_blocks(&self, g: &Geometry, problems: &mut Problems) -> Result<()> {
        let mut taken: Vec<(u64, u64)> = Vec::new();
        let mut partial_chunks: Vec<u64> = Vec::new();
        self.each_entry(g, |_, block, entry| {
            let Some(block) = block.filter(|_| !problems.are_enough()) else { return Ok(()) };
            match self.checked_entry(g, block, entry) {
                Err(error) => problems.push(error.to_string()),
                Ok((_, state)) => {
                    if entry.is_placed() {
                        taken.push((entry.offset(), g.block_size));
                    }
                    let chunk = block / g.chunk_ratio;
                    if state == BlockState::PartiallyPresent && partial_chunks.last() != Some(&chunk) {
                        partial_chunks.push(chunk);
                    }
                }
            }
            Ok(())
        })?;
        for chunk in 0..g.block_count().div_ceil(g.chunk_ratio) {
            // The last chunk's entry is missing where there is no parent.
            if !g.has_parent && (chunk + 1) * g.chunk_ratio >= g.block_count() {
                break;
            }
            if problems.are_enough() {
                break;
            }
            let block = chunk * g.chunk_ratio;
            match self.bitmap_place(g, block) {
                Err(error) => problems.push(error.to_string()),
                Ok(Some(bitmap)) => taken.push((bitmap, BITMAP_BLOCK_SIZE)),
                Ok(None) if partial_chunks.binary_search(&chunk).is_ok() => {
                    problems.push(format!("the sector bitmap of block {block} and its neighbours is missing"));
                }
                Ok(None) => {}
            }
        }
        taken.sort_unstable();
        for pair in taken.windows(2).filter(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
            problems.push(format!("two blocks overlap at byte {}", pair[1].0));
        }
        Ok(())
    }
}
