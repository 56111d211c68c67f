//! What each image of a folder is to it, and what is wrong with its link to its parent. Nothing is written.
//!
//! ```text
//! diagnose ── machine.json?   the machine's manifest says which images it needs
//!          └─ *.vmcx, *.xml?  Hyper-V's configurations say which images are attached
//!          └─ otherwise       the parents alone tell
//! ```
//!
//! Three things are independent of each other: whose an image is ([`Role`]), whether somebody has it open
//! ([`Finding::in_use`]), and what is wrong with it ([`Defect`]).

mod finding;
mod folder;
mod link;
mod roles;

#[cfg(test)]
pub(crate) mod tests;

pub use finding::{Defect, Diagnosis, Finding, FolderKind, NodeName, Role, Standing};
pub use folder::{ASIDE, DiagnoseError, KEPT, diagnose};
