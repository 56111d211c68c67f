//! Tests of the room.

mod core_tests;
mod crash_image;
mod files_tests;
mod live_tests;
mod machine;
mod machine_tests;
mod plan_tests;
