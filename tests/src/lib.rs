//! Tests of the whole, and what they share.

#[cfg(unix)]
pub mod desktop;
#[cfg(unix)]
pub mod program;
pub mod source;
pub mod witness;
