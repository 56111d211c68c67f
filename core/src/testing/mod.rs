//! What tests stand on: nothing here is part of the product.
//!
//! ```text
//! MemHost         files and folders in memory; fails, fills up, crashes at any step
//!   EveryStep              runs an operation once per step of it, crashing there, and counts the points
//!   for_each_crash_point   the same, small; for_some_crash_points takes a sample
//! RamImage        the simplest image that keeps every rule of disk::Image
//!   image_conformance      what every kind of image must pass
//! ReferenceDisk   a disk as a plain list of sectors
//! FakeClock       time that moves when the test says so
//! SimulatedVolume a volume that fills, and on which merges take their time, with habits nobody is told
//! NbdClient       a client of NBD that says what it is told to, right or wrong
//! vmcx            a configuration of Hyper-V, written
//! Random          small, seeded, the same everywhere
//! ```

mod conformance;
mod crash_points;
mod fake_clock;
mod mem_host;
#[cfg(unix)]
mod nbd_client;
mod pages;
mod ram_image;
mod random;
mod reference_disk;
mod vmcx;
mod volume;

pub use conformance::{ImageMaker, RamImageMaker, image_conformance};
pub use crash_points::{CrashPoint, EveryStep, for_each_crash_point, for_some_crash_points};
pub use fake_clock::FakeClock;
pub use mem_host::{CrashMode, Door, Fault, MemHost};
#[cfg(unix)]
pub use nbd_client::{NbdAnswer, NbdClient, NbdFacts, OptionReply};
pub use ram_image::RamImage;
pub use random::Random;
pub use reference_disk::ReferenceDisk;
pub use vmcx::vmcx;
pub use volume::{SimulatedMerge, SimulatedVolume};
