//! QEMU as what runs a machine: a process of its own, asked over QMP, on disks that this process serves over NBD.
//!
//! ```text
//! Qemu::find ── installed, new enough, KVM or not ──> Running::start(setup, qemu, places)
//!    disks ── nbd::Server ── folder/disks ──┐
//!    memory ── file:, write tracking ───────┴─ QEMU ── folder/monitor ── Qmp
//! take:   pause (stop) ─> Chain::push_leaf ─> begin_capture: migrate, until writes are tracked ─> resume ─> step until done
//! revert: a process afresh with -incoming defer, from the saved memory
//! this process killed: QEMU and its guest stay; the next one adopts them
//! ```

mod adopt;
mod again;
mod arguments;
mod find;
mod image;
mod permission;
mod picture;
mod process;
pub mod qmp;
mod running;
mod save;

pub use adopt::{end_left, is_left};
pub use find::{Acceleration, Qemu};
pub use image::{OtherFormat, OtherImage};
pub use running::Running;
