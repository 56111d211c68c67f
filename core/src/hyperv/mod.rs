//! What Hyper-V wrote down about its machines, read and never written.
//!
//! ```text
//! .vmcx, .VMRS (2016 on) ── store ──┐
//! .xml (2008 to 2012 R2) ── xml ────┴─> Value, a tree of names and values ── Config
//!                                                                              │
//! a folder's configurations and images ── read ──> machines, their snapshots, their files
//! ```
//!
//! Both forms are pure over bytes: a stranger's file ends in a tree or in an error that says where and which field, and takes
//! no more memory and time than a small multiple of its length.
//!
//! # Sources
//! Microsoft doesn't publish the binary form in a specification of its own. What is written down here was read off real
//! files (every checksum of theirs fits), and compared with two descriptions: dissect.hypervisor's reader, and the
//! "HyperV Storage File Format" of Microsoft's OpenVMM. The XML holds the same tree in text.

mod config;
mod error;
mod folder;
pub(crate) mod format;
mod powershell;
mod store;
mod value;
mod xml;

#[cfg(test)]
mod tests;

use std::path::Path;

use crate::host_file::{Host, read_file};

pub use config::{Config, Drive, Role, Slot};
pub use error::{Flaw, HyperVError, Result};
pub use folder::{Attached, HyperVFolder, HyperVMachine, HyperVNode, read};
pub use powershell::{pattern, quoted};
pub use store::parse_store;
pub use value::Value;
pub use xml::parse_xml;

/// The longest configuration that is read; real ones have some hundred KiB.
const LENGTH_MAX: u64 = 16 << 20;

/// Reads a configuration's file, whatever its form.
///
/// # Errors
/// Where the file can't be read, is longer than 16 MiB, or isn't a configuration.
pub fn load(host: &dyn Host, path: &Path) -> Result<Value> {
    let wrong = |source| HyperVError::Io { path: path.into(), operation: "read the configuration", source };
    let bytes = read_file(host, path, LENGTH_MAX).map_err(wrong)?;
    let is_xml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xml"));
    let parsed = if is_xml { parse_xml(&bytes) } else { parse_store(&bytes) };
    parsed.map_err(|flaw| HyperVError::of(path, flaw))
}
