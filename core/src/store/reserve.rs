//! A little space that a machine keeps for the day on which its volume is full to the last byte: without it, a deletion
//! could not even say in the journal and the manifest what it is about to give back.

use std::path::{Path, PathBuf};

use super::MachineStore;
use super::machine_store::MANIFEST;
use crate::host_file::Access;
use crate::units::ByteCount;

/// The file that takes it.
pub(super) const RESERVE: &str = ".reserve";
/// So much at least, and so many times the manifest: a journal and a manifest stand beside the old ones for a while.
const LEAST: u64 = 64 << 10;
const MANIFESTS: u64 = 4;
/// It is only taken from a volume that has so much more.
const SPARE: ByteCount = ByteCount::mib(64);

impl MachineStore {
    fn reserve(&self) -> PathBuf {
        self.dir.join(RESERVE)
    }

    /// Takes the space, where it isn't taken yet and the volume has enough. A machine is none the worse without.
    pub(super) fn keep_reserve(&self) {
        let (host, path) = (&*self.host, self.reserve());
        let length = |file: &Path| host.open(file, Access::Look).and_then(|file| file.len()).unwrap_or(0);
        let wanted = (MANIFESTS * length(&self.dir.join(MANIFEST))).max(LEAST);
        if length(&path) >= wanted || host.free_bytes(&self.dir).is_ok_and(|free| free < SPARE + ByteCount(wanted)) {
            return;
        }
        // A shorter one was cut short, or is of a smaller manifest.
        let _ = host.remove_file(&path);
        // Not of zeros, which take no space on some volumes.
        let bytes = vec![0x5a; wanted as usize];
        let taken = host.create_new(&path).and_then(|file| {
            file.write_all_at(&bytes, 0)?;
            file.flush()
        });
        if taken.is_err() {
            let _ = host.remove_file(&path);
        }
    }

    /// Gives the space to what finds the volume full; whether there was any.
    pub(super) fn give_reserve(&self) -> bool {
        let path = self.reserve();
        self.host.exists(&path) && self.host.remove_file(&path).is_ok()
    }
}
