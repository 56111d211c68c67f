//! Names that are safe as folder names.
