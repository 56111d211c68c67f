//! Snaptree.
fn main() {}
