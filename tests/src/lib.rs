//! Tests of the whole, and what they share.

pub mod driver;
#[cfg(unix)]
pub mod desktop;
pub mod kept;
#[cfg(unix)]
pub mod program;
pub mod source;
pub mod witness;
