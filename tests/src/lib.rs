//! Tests of the whole, and what they share.

#[cfg(unix)]
pub mod desktop;
pub mod driver;
pub mod kept;
pub mod measure;
#[cfg(unix)]
pub mod program;
pub mod source;
pub mod witness;
