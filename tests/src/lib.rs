//! Tests of the whole, and what they share.

pub mod source;
pub mod witness;
