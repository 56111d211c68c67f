//! Configurations as they are, damaged and made up.

mod config;
mod damage;
mod stores;
mod xml;
