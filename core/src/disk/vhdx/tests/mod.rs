//! Tests of VHDX images: strangers' bytes; what stands in the file. What every format must pass is in `disk/tests`.

mod hostile;
mod layout;
mod made_up;

use crate::disk::CreateOptions;
use crate::units::ByteCount;

fn options(block_mib: u64, sector: u32, size: u64) -> CreateOptions {
    CreateOptions {
        block_size: Some(ByteCount::mib(block_mib)),
        logical_sector_size: sector,
        ..CreateOptions::dynamic(ByteCount(size))
    }
}
