//! What is wrong with the structure of a file, all of it, without changing anything.

use super::footer;
use super::format::{FIXED, HEADER_SIZE, SECTOR};
use super::image::VhdImage;
use crate::disk::{Problems, Result};

impl VhdImage {
    pub(super) fn check_structure(&self) -> Result<Vec<String>> {
        let mut problems = Problems::default();
        let w = self.settled();
        let (current, place) = (w.footers.current, w.footers.place);
        drop(w);
        match footer::at_the_end(&self.raw)? {
            None => problems.push("the footer at the file's end is missing or damaged"),
            Some((end, at)) if end != current || at != place => problems.push("the footer at the file's end was changed"),
            Some(_) => {}
        }
        if current.disk_type.get() != FIXED && footer::at_the_head(&self.raw)?.is_none() {
            // One that says something else is of an earlier state: what a crash leaves, and the next change puts right.
            problems.push("the footer's copy at the file's head is damaged");
        }
        let g = self.geometry();
        let Some(blocks) = &g.blocks else { return Ok(problems.listed()) };
        let header = current.data_offset.get();
        let mut taken = vec![(0, SECTOR), (header, header + HEADER_SIZE as u64), (blocks.table, blocks.table_end())];
        let count = blocks.count(g.virtual_size);
        self.each_entry(blocks, |block, entry| {
            if problems.are_enough() {
                return Ok(());
            }
            match self.checked_place(&g, blocks, block, entry) {
                Err(error) => problems.push(error.to_string()),
                Ok(Some(at)) => {
                    let end = at + blocks.bitmap_length() + g.shown_length(blocks, block);
                    if block < count && end > place {
                        problems.push(format!("block {block} lies over the footer, at byte {at}"));
                    }
                    taken.push((at, end));
                }
                Ok(None) => {}
            }
            Ok(())
        })?;
        taken.sort_unstable();
        for pair in taken.windows(2).filter(|pair| pair[0].1 > pair[1].0) {
            problems.push(format!("two blocks, or a block and the metadata, overlap at byte {}", pair[1].0));
        }
        Ok(problems.listed())
    }
}
