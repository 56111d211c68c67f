//! store, to be written.
