//! Another header, in one instant: it is written where nobody looks, and one sector, the footer, names it. Then the same
//! is done again to bring it back to where headers are expected.
//!
//! ```text
//! header at a spare place ── flush ──> footer names it (the instant) ──> its copy
//! header at its own place ── flush ──> footer names that ──> its copy
//! ```

use std::sync::Arc;

use uuid::Uuid;

use super::format::{DIFFERENCING, DYNAMIC, DynamicHeader, Footer, HEADER_SIZE};
use super::geometry::Geometry;
use super::header;
use super::image::VhdImage;
use super::parent_locator;
use super::write::{Content, Writer};
use crate::disk::parent_paths::ParentPaths;
use crate::disk::{ParentLink, ParentTarget, Result};
use crate::locks::{lock, lock_alone};

impl VhdImage {
    /// Footer and header say something else from now on; durable when it returns. What they newly name must have been
    /// written before, and needn't be durable.
    pub(super) fn switch_header(
        &self,
        w: &mut Writer,
        header: DynamicHeader,
        footer: Footer,
        link: Option<ParentLink>,
    ) -> Result<()> {
        self.commit(w)?;
        let home = w.footers.current.data_offset.get();
        let spare = match w.spare_header.take() {
            Some(spare) => spare,
            None => self.allocate(w, HEADER_SIZE as u64)?,
        };
        let bytes = header::encode(&header);
        self.raw.write(&bytes, spare, "write the dynamic header")?;
        w.failed = true;
        self.raw.flush()?;
        w.footers.replace(&self.raw, Footer { data_offset: spare.into(), ..footer })?;
        {
            let mut geometry = lock_alone(&self.geometry);
            *geometry = Arc::new(Geometry::new(&w.footers.current, Some(&header)));
        }
        self.raw.write(&bytes, home, "write the dynamic header")?;
        self.raw.flush()?;
        w.footers.replace(&self.raw, Footer { data_offset: home.into(), ..footer })?;
        w.failed = false;
        (w.header, w.spare_header) = (Some(header), Some(spare));
        self.refresh_info(w, link);
        Ok(())
    }

    pub(super) fn replace_id(&self, id: Uuid) -> Result<()> {
        use std::sync::atomic::Ordering;
        let mut w = self.settled();
        self.begin(&mut w, false)?;
        let mut footer = w.footers.current;
        if footer.id() != id {
            footer.set_note(Some(footer.id()), footer.old_footer());
            footer.unique_id = id.into_bytes();
            self.put_footer(&mut w, footer)?;
        }
        self.id_settled.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn forget_former(&self) -> Result<()> {
        let mut w = self.settled();
        if w.footers.current.former_id().is_none() {
            return Ok(());
        }
        self.begin(&mut w, false)?;
        let mut footer = w.footers.current;
        footer.set_note(None, footer.old_footer());
        self.put_footer(&mut w, footer)
    }

    fn link(&self) -> Result<ParentLink> {
        use crate::disk::Image;
        self.info().parent.ok_or_else(|| self.refused("it has no parent"))
    }

    /// There is room for one identifier only: of two that are to be accepted the one that it has stays, and the parent
    /// remembers it when its own changes.
    pub(super) fn replace_linkage(&self, linkage: Uuid, linkage2: Option<Uuid>) -> Result<()> {
        let mut w = self.settled();
        let link = self.link()?;
        if link.linkage == linkage || linkage2 == Some(link.linkage) {
            return Ok(());
        }
        self.begin(&mut w, false)?;
        let Some(header) = w.header else { return Ok(()) };
        let header = DynamicHeader { parent_unique_id: linkage.into_bytes(), ..header };
        let footer = w.footers.current;
        self.switch_header(&mut w, header, footer, Some(ParentLink { linkage, ..link }))
    }

    pub(super) fn replace_parent(&self, parent: &ParentTarget) -> Result<()> {
        let mut w = self.settled();
        self.link()?;
        self.begin(&mut w, false)?;
        let Some(mut header) = w.header else { return Ok(()) };
        let paths = ParentPaths::new(&self.host, self.raw.path(), &parent.path);
        // The length doesn't depend on the place.
        let length = parent_locator::encode(&mut header, &parent.path, &paths, 0).len();
        let place = self.allocate(&mut w, length as u64)?;
        let data = parent_locator::encode(&mut header, &parent.path, &paths, place);
        self.raw.write(&data, place, "write the parent locator")?;
        header.parent_unique_id = parent.data_write_id.into_bytes();
        header.parent_time_stamp = 0.into();
        let link = parent_locator::read(&self.raw, &header);
        let footer = w.footers.current;
        self.switch_header(&mut w, header, footer, Some(link))
    }

    pub(super) fn drop_parent(&self) -> Result<()> {
        let mut w = self.settled();
        let g = self.geometry();
        self.begin(&mut w, false)?;
        let (Some(blocks), Some(header), true) = (&g.blocks, w.header, g.has_parent) else { return Ok(()) };
        // Nothing stands below any longer, so zeros in place of what is absent show nothing new.
        for block in 0..blocks.count(g.virtual_size) {
            let Some(place) = self.place(&g, blocks, block)? else { continue };
            let runs = self.sector_runs(blocks, place, block * blocks.size, blocks.size)?;
            if runs.iter().all(|run| run.0) {
                continue;
            }
            for (_, at, length) in runs.into_iter().filter(|run| !run.0) {
                let zeros = Content::Zeros { punched: 0 };
                self.put_content(place + blocks.bitmap_length() + at % blocks.size, length, zeros, true)?;
            }
            let patch = self.bits_patch(place, 0, blocks.size, true)?;
            self.apply(&mut w, vec![patch], true)?;
            self.commit_if_due(&mut w)?;
        }
        let header = DynamicHeader {
            parent_unique_id: [0; 16],
            parent_time_stamp: 0.into(),
            parent_unicode_name: [0; 512],
            locators: [super::format::LocatorEntry::NONE; 8],
            ..header
        };
        debug_assert_eq!(w.footers.current.disk_type.get(), DIFFERENCING);
        let footer = Footer { disk_type: DYNAMIC.into(), ..w.footers.current };
        self.switch_header(&mut w, header, footer, None)
    }

    /// What a writable opening puts right at once: footers that differ, and a growth that was cut short.
    pub(super) fn put_right(&self) -> Result<()> {
        let mut w = self.settled();
        w.footers.repair(&self.raw)?;
        self.finish_growth(&mut w)?;
        self.shorten_table(&mut w)?;
        debug_assert!(lock(&self.pages).dirty_count() == 0);
        Ok(())
    }
}
