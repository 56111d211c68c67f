//! testing, to be written.
