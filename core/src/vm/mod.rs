//! vm, to be written.
