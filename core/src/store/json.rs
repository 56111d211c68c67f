//! Reading and publishing the folder's JSON files. What is read is hostile input.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Result, StoreError};
use crate::host_file::{self, Host};

/// The largest manifest or journal that is read.
const LIMIT: u64 = 64 << 20;

/// What every file of ours starts with.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

/// Reads a file of the given format and version 1.
pub(super) fn read<T: DeserializeOwned>(host: &dyn Host, path: &Path, format: &str) -> Result<T> {
    let bytes = host_file::read_file(host, path, LIMIT).map_err(|error| StoreError::io(path, "read it", error))?;
    let wrong = |error: serde_json::Error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        StoreError::invalid(path, place, error.to_string())
    };
    let head: Head = serde_json::from_slice(&bytes).map_err(wrong)?;
    if head.format != format {
        return Err(StoreError::invalid(path, "format", format!("is {:?}, must be {format:?}", head.format)));
    }
    if head.version != 1 {
        let problem = format!("is {}; this program knows version 1, a newer program wrote the file", head.version);
        return Err(StoreError::invalid(path, "version", problem));
    }
    serde_json::from_slice(&bytes).map_err(wrong)
}

/// Replaces a file: the old or the new content is there, whole, whatever happens.
pub(super) fn publish<T: Serialize>(host: &dyn Host, path: &Path, value: &T, operation: &'static str) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| StoreError::io(path, operation, error.into()))?;
    bytes.push(b'\n');
    host_file::publish_file(host, path, &bytes).map_err(|error| StoreError::io(path, operation, error))
}
