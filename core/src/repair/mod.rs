//! Puts the links of a folder's images right, so that it can be undone.
//!
//! ```text
//! diagnose ─> plan (what is changed, what is refused) ─> execute ─> undo
//!                                                         └ every byte that is overwritten and every name that is
//!                                                           changed is kept first, durably ([`KEPT`])
//! ```
//!
//! Undo and recovery are one thing: what was kept is put back, the last first. A repair that was cut short is undone, one
//! that was completed stays until somebody undoes it.

mod error;
mod execute;
mod exposed;
mod keep;
mod kept;
mod left_over;
mod merge;
mod plan;
mod powershell;

#[cfg(test)]
mod tests;

pub use crate::diagnose::{ASIDE, KEPT};
pub use error::{RepairError, Result};
pub use execute::{Done, Past, execute, forget, kept_bytes, past, recover, undo};
pub use exposed::{Exposed, Range};
pub use plan::{Change, Choices, Plan, Refused, Step, plan};
pub use powershell::powershell;
