//! Disk images of other programs, where they are there.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use snaptree_core::host_file::Host;
use snaptree_core::testing::MemHost;

/// Larger ones would make the cases slow.
const LARGEST: u64 = 32 << 20;

/// Puts the VHDX samples below `/samples` of a host; their paths.
pub fn load(host: &MemHost) -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/samples");
    let folder = std::env::var_os("SNAPTREE_SAMPLES").map_or(beside, PathBuf::from);
    let names = ["windows10/ntfs-dynamic.vhdx", "windows10/ntfs-parent.vhdx", "windows10/ntfs-differential.vhdx"];
    let more = ["windows-dirty-log/vhdx-log-replay.vhdx", "hyperv2019/differencing.avhdx", "disk2vhd/test-disk2vhd.vhdx"];
    let mut loaded = Vec::new();
    for name in names.into_iter().chain(more) {
        let Ok(file) = std::fs::File::open(folder.join(format!("{name}.gz"))) else { continue };
        let mut bytes = Vec::new();
        if GzDecoder::new(file).take(LARGEST + 1).read_to_end(&mut bytes).is_err() || bytes.len() as u64 > LARGEST {
            continue;
        }
        let path = Path::new("/samples").join(name);
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
