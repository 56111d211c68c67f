//! Pure: what a branch costs, what a merge would take, what to advise. No I/O.
//!
//! ```text
//! extents of each image ─> Layout ─┐
//!                                  ├─> Census ─> MergeBytes, ReadCost, MergeOrders   (exact)
//! tree of images ──────────────────┘      │
//! finished merges ─> Calibration ─> Estimate (P10, P50, P90)
//! sizes over time ─> Growth ──────> Estimate at a later date, UsedUp (when the volume is full)
//!                                         │
//! MachineFacts ───────────────────────────┴─> NodeCost, MergeCost, DeletionCost, Finding
//! ```
//!
//! The census says, for each image, how many bytes of the disk it holds and which image above it
//! hides how many of them first. Any run is a stretch of a path of the tree, so the bytes of any
//! merge into any target, in any order, follow from it exactly.

mod advice;
mod census;
mod deletion;
mod estimate;
mod facts;
mod fit;
mod forecast;
mod merges;
mod node;
mod orders;
mod reads;

#[cfg(test)]
mod tests;

pub use advice::{Action, Finding, FindingKind, Freeable, Severity, advise, freeable, no_room};
pub use census::{Census, CensusImage, Cover, HeldAs, Holding, Layout, census_of};
pub use deletion::{DeletionCost, DiskDeletion, RetainedImage, SafeDeletion, deletion_cost, safe_to_delete};
pub use estimate::{Basis, Calibration, Estimate, Learnt, MergeLoad, MergeMode, MergeSample, MergeWork, PastError};
pub use facts::{FileFacts, MachineFacts, VolumeState};
pub use forecast::{Band, Growth, GrowthRate, Line, SizeSample, UsedUp};
pub use merges::{BATCH, BATCHES, MergeBytes, MergeCost, MergeTotal, Scratch, merge_cost, merge_costs, merges_due, scratch};
pub use node::{NodeCost, node_cost};
pub use orders::{MergeOrders, merge_orders};
pub use reads::ReadCost;
