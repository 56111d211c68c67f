//! Tests of the built-in machine.
