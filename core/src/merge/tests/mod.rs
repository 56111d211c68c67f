//! Tests of the room.

mod core_tests;
mod crash_image;
