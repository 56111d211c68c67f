//! The engine of Snaptree, bottom up. A room imports only rooms above it in
//! this list; `tests/tests/layering.rs` keeps it so.
//!
//! ```text
//! units, clock, fresh, locks, host_file   what everything stands on
//!   disk/      ONE image: where its data is, then I/O
//!   chain/     MANY images as one disk, found through an owner map
//!   snapshot/  the TREE of a machine, without I/O: nodes, rules, outcomes
//!   hyperv/    what Hyper-V wrote about its machines: configurations, read only
//!   store/     the machine's folder: manifest, journal, locks, recovery, trash
//!   diagnose/  what each image of a folder is to it, and what is wrong; reads only
//!   repair/    links put right as a plan, executed so that it can be undone
//!   memory/    saved memory: format, copy before write, restore
//!   cost/      pure: read cost, merge estimate, calibration, forecast, advice
//!   merge/     plan (pure), execute in bounded steps, recover
//!   window/    pure: maintenance windows and the plan of merges
//!   nbd/       serves a disk to others, over a unix socket
//!   vm/        what runs a machine; the built-in workload
//!   engine/    commands in, events out; jobs; the same over a socket
//! ```

pub mod chain;
pub mod clock;
pub mod cost;
pub mod diagnose;
pub mod disk;
pub mod engine;
pub mod fresh;
pub mod host_file;
pub mod hyperv;
pub mod locks;
pub mod memory;
pub mod merge;
#[cfg(unix)]
pub mod nbd;
pub mod repair;
pub mod snapshot;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod units;
pub mod vm;
pub mod window;
