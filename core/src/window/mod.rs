//! Pure: when merging is allowed, and which merge is done when. No I/O, no clock.
//!
//! ```text
//! MaintenanceWindow + time zone ─> Occurrence
//!                                      │
//! due merges (options from cost), ─────┼─> plan ─> PlannedMerge: pieces, verdict, deadline, reason
//! volumes (free, growth, rates)        │      └──> VolumeOutlook: free space over time, with and without
//! what somebody has put somewhere ─────┘      └──> PlanFinding: what somebody should look at
//! ```
//!
//! Rules: one merge on a volume at a time; nothing begins that doesn't fit into what is practically always free then;
//! earliest deadline first, fewest bytes first among equals, unless another order lets more end in time; a merge that a
//! window is too short for pauses in time and goes on in the next, with the same target. All times are planned so that they
//! hold in 9 of 10 cases: what is quicker leaves room.

mod advice;
mod input;
mod outlook;
mod plan;
mod schedule;
mod search;
mod verdict;
mod volume;

#[cfg(test)]
mod tests;

pub use advice::{PlanAction, PlanFinding, PlanFindingKind, PlanThresholds, plan_findings};
pub use input::{DueMerge, MergeOption, PlanInput, PlanParameters, PlanVolume};
pub use outlook::{FreePoint, VolumeOutlook};
pub use plan::{MergePlan, OrderReason, PlannedMerge, PlannedPiece, plan};
pub use schedule::{MaintenanceWindow, Occurrence, OccurrenceKey, Scope, When, WindowId, WindowProblem, occurrences};
pub use verdict::Verdict;
