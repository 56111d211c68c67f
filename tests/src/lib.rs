//! Tests of the whole, and what they share.

#[cfg(unix)]
pub mod boot_sector;
pub mod campaign;
pub mod content;
#[cfg(unix)]
pub mod desktop;
pub mod doors;
pub mod driver;
#[cfg(unix)]
pub mod guest;
pub mod kept;
pub mod lab;
#[cfg(unix)]
pub mod linux_machine;
pub mod measure;
pub mod peer;
#[cfg(unix)]
pub mod program;
pub mod source;
#[cfg(unix)]
pub mod storage_daemon;
pub mod witness;
