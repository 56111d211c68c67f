//! What a node's disks hold, as one number: to show that merging changed where bytes lie, and not one byte.

use std::path::Path;

use anyhow::Result;
use sha2::{Digest, Sha256};
use snaptree_core::chain::{Chain, Gate};
use snaptree_core::engine::MachineState;
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::snapshot::ImageId;

const PAGE: usize = 4096;
const ZEROES: [u8; PAGE] = [0; PAGE];

/// SHA-256 over every page of a disk that isn't zero, each with its place; and how many bytes that are.
pub fn of_disk(folder: &Path, leaf: &Path) -> Result<(String, u64)> {
    let gate = Gate::new([folder.to_path_buf()]);
    let chain = Chain::open(&OsHost::shared(), &folder.join(leaf), Access::Look, &gate)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    let size = chain.virtual_size().0;
    let mut offset = 0;
    while offset < size {
        let length = (buffer.len() as u64).min(size - offset);
        let held = chain.stretches(offset, length)?.iter().any(|stretch| stretch.owner.is_some() && !stretch.zero);
        if held {
            let buffer = &mut buffer[..length as usize];
            chain.read_at(buffer, offset)?;
            for (index, page) in buffer.chunks(PAGE).enumerate() {
                if page != &ZEROES[..page.len()] {
                    hash.update((offset + (index * PAGE) as u64).to_le_bytes());
                    hash.update(page);
                    bytes += page.len() as u64;
                }
            }
        }
        offset += length;
    }
    Ok((hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), bytes))
}

/// A node's label, and one hash a disk.
pub type Node = (String, Vec<String>);

/// The same of every node of a machine, Now included, and how many bytes that are.
pub fn of_nodes(state: &MachineState) -> Result<(Vec<Node>, u64)> {
    let machine = &state.machine;
    let mut nodes = Vec::new();
    let mut total = 0;
    let now = ("Now".to_owned(), &machine.now.images);
    let snapshots = machine.snapshots.values().map(|snapshot| (snapshot.label.clone(), &snapshot.images));
    for (label, images) in snapshots.chain([now]) {
        let file = |image: &ImageId| machine.images.get(image).map(|record| record.file.clone());
        let mut hashes = Vec::new();
        for leaf in images.values().filter_map(file) {
            let (hash, bytes) = of_disk(&state.folder, &leaf)?;
            hashes.push(hash);
            total += bytes;
        }
        nodes.push((label, hashes));
    }
    nodes.sort();
    Ok((nodes, total))
}
