//! memory, to be written.
