//! A machine's memory, and saving it while the machine runs.
//!
//! ```text
//! pause ─> Capture::begin (an epoch starts; no loop over memory) ─> resume
//!              │
//!              ├─ a guest write to a page that isn't saved yet first puts its original aside  (copy before write)
//!              └─ step(), step(), ... : what was put aside first, then the rest ─> memory.stm, flushed, complete
//! restore(memory.stm) ─> GuestMemory, every byte verified
//! ```

mod aside;
mod capture;
mod format;
mod guest;
mod restore;
#[cfg(test)]
mod tests;

pub use capture::{Capture, SaveProgress, SaveReport, save};
pub use guest::{GuestMemory, MAX_PAGES, PAGE_SIZE, Page};
pub use restore::{SavedInfo, inspect, restore};
