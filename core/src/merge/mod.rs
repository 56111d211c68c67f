//! Merging a run X1..Xk of images into one that plays the part of Xk, without losing a byte at any instant.
//!
//! ```text
//! Census + facts ── plan ──> MergePlan ── Execution::begin ──> Started (durable: undelete is refused)
//!                                                 │ step, step, ... pause, cancel, kill: nothing is lost
//!                            identifiers, sizes, what is shadowed is dropped
//!                            batches: copy -> flush target -> mark what shadows -> mark the owner -> punch
//!                                                 │ nothing is left
//!                            switch: journal -> final locator -> rename or relink -> manifest -> remove files
//! ```
//!
//! `RunMerge` is the core that knows nothing of machines: it works on open images. `Execution` puts a
//! machine's manifest and journal around it, `merge_files` a journal file beside plain image files.
//! The images themselves are the record of what was moved, so a merge continues from wherever it ended.

mod batch;
mod copy;
mod error;
mod execute;
mod files;
mod limit;
mod live;
mod plan;
mod recover;
mod rules;
mod shadowed;
mod survey;
mod switch;
mod together;
mod transfer;

#[cfg(test)]
mod tests;

pub use copy::{Progress, RunMerge};
pub use error::{MergeError, Result};
pub use execute::{Execution, Merged, StepOutcome};
pub use files::merge_files;
pub use limit::{Pace, RateLimit};
pub use plan::{Candidate, MergePlan, candidates, plan, plan_into};
pub use recover::complete_switch;
pub use rules::{Rule, Rules};
