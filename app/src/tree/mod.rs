//! The tree of a machine: a row per snapshot, lanes at the left.
//!
//! ```text
//! model::Tree (nodes in order, lanes) ─ rows: which rows there are ─ lanes: lines and dots ─ paint
//! ```

mod fate;
mod lanes;
mod paint;
mod row;
mod rows;
#[cfg(test)]
mod tests;

pub use paint::{played_by, show};
pub use rows::RowCache;
