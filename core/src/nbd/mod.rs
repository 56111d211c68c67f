//! Serves disks over NBD (Network Block Device, its `doc/proto.md`) on a unix socket that only its owner may use.
//!
//! ```text
//! Server ── accept, check the user ──> negotiate (fixed newstyle) ──> Session, one per connection
//!   Session: receive ─┬─ quick, or nothing else to do ──> at once, answers sent together
//!                     └─ slow (flush, zeroes, disk) ────> its few threads
//! ```
//!
//! What was acknowledged is in the kernel, data and metadata: that is what [`crate::disk::Image`] promises. A flush covers
//! what all connections were told is written, so a client may use several.

use std::sync::Arc;

use crate::chain::BlockDevice;

mod flushes;
mod negotiate;
mod protocol;
mod receive;
mod server;
mod session;
#[cfg(test)]
mod tests;

pub use server::Server;

/// A disk that is served under a name.
#[derive(Debug, Clone)]
pub struct Export {
    /// Its name. The first export answers to the empty name as well.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// The disk.
    pub device: Arc<dyn BlockDevice>,
    /// Whether changes are refused.
    pub read_only: bool,
}
