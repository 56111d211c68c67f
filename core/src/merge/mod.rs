//! merge, to be written.
