//! Tests of VHD images: what stands in the file, and strangers' bytes. What every format must pass is in `disk/tests`.

mod hostile;
mod layout;
