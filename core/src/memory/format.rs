//! The file `memory.stm`.
