//! Configurations as they are, damaged and made up.

mod damage;
mod stores;
