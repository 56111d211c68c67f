//! Disk images of other programs, where they are there.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use snaptree_core::disk::ImageFormat;
use snaptree_core::host_file::Host;
use snaptree_core::testing::MemHost;

/// Larger ones would make the cases slow.
const LARGEST: u64 = 32 << 20;

/// Puts the samples of a format below `/samples` of a host; their paths.
pub fn load(host: &MemHost, format: ImageFormat) -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/samples");
    let folder = std::env::var_os("SNAPTREE_SAMPLES").map_or(beside, PathBuf::from);
    let windows = ["dynamic", "parent", "differential"].map(|name| format!("windows10/ntfs-{name}.{}", format.extension()));
    let more: &[&str] = match format {
        ImageFormat::Vhdx => {
            &["windows-dirty-log/vhdx-log-replay.vhdx", "hyperv2019/differencing.avhdx", "disk2vhd/test-disk2vhd.vhdx"]
        }
        ImageFormat::Vhd => {
            &["virtualpc/virtualpc-dynamic.vhd", "vhdutil-chain3/l0.vhd", "vhdutil-chain3/l1.vhd", "vhdutil-chain3/l2.vhd"]
        }
    };
    let mut loaded = Vec::new();
    for name in windows.into_iter().chain(more.iter().map(|name| (*name).to_owned())) {
        let Ok(file) = std::fs::File::open(folder.join(format!("{name}.gz"))) else { continue };
        let mut bytes = Vec::new();
        if GzDecoder::new(file).take(LARGEST + 1).read_to_end(&mut bytes).is_err() || bytes.len() as u64 > LARGEST {
            continue;
        }
        let path = Path::new("/samples").join(&name);
        host.create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let file = host.create_new(&path).expect("a file");
        for (index, piece) in bytes.chunks(4096).enumerate().filter(|(_, piece)| piece.iter().any(|byte| *byte != 0)) {
            file.write_all_at(piece, index as u64 * 4096).expect("a write");
        }
        file.set_len(bytes.len() as u64).expect("a length");
        file.flush().expect("a flush");
        loaded.push(path);
    }
    loaded
}
