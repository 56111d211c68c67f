//! Guest memory: pages of 4 KiB that many threads share, allocated when first written.

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// Most pages that a machine can have (1 TiB).
pub const MAX_PAGES: u64 = 1 << 28;

/// The content of one page.
pub type Page = [u8; PAGE_SIZE];

/// A machine's memory. A page that was never written reads as zeros and takes no space.
#[derive(Debug)]
pub struct GuestMemory {
    pages: u64,
}

impl GuestMemory {
    /// Memory of so many pages, all zero. At once, whatever the size.
    ///
    /// # Panics
    /// With more than [`MAX_PAGES`].
    pub fn new(pages: u64) -> Self {
        assert!(pages <= MAX_PAGES, "{pages} pages of memory, at most {MAX_PAGES}");
        Self { pages }
    }

    /// How many pages it has.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Lets `look` see a page; no write to this page happens meanwhile.
    pub fn read<R>(&self, page: u64, look: impl FnOnce(&Page) -> R) -> R {
        let _ = (page, look);
        todo!()
    }

    /// Lets `change` change a page. While memory is being saved, the original is put aside first.
    pub fn write<R>(&self, page: u64, change: impl FnOnce(&mut Page) -> R) -> R {
        let _ = (page, change);
        todo!()
    }
}
