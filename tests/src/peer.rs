//! The peer that measuring programs run beside ours: QEMU's own tools, on equal chains of qcow2.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use snaptree_core::chain::Chain;
use snaptree_core::disk::{self, CreateOptions, ImageFormat};
use snaptree_core::host_file::OsHost;
use snaptree_core::units::ByteCount;

use crate::witness::{sha256_of, sha256_of_chain};

/// Offset, length and the byte that is written.
pub type Write = (u64, u64, u8);

/// Runs it to its end; what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// An image of our chain.
pub fn our_layer(folder: &Path, layer: usize) -> PathBuf {
    folder.join(format!("layer{layer}.vhdx"))
}

/// An image of QEMU's chain.
pub fn their_layer(folder: &Path, layer: usize) -> PathBuf {
    folder.join(format!("layer{layer}.qcow2"))
}

/// A chain of frozen images, each with its writes; `None` is the format's usual block.
pub fn our_chain(folder: &Path, size: u64, block: Option<ByteCount>, layers: &[Vec<Write>]) -> Result<()> {
    let host = OsHost::shared();
    let options = CreateOptions { block_size: block, ..CreateOptions::dynamic(ByteCount(size)) };
    let base = disk::create(&host, &our_layer(folder, 0), ImageFormat::Vhdx, &options)?;
    let chain = Chain::from_images(vec![base])?;
    for (layer, writes) in layers.iter().enumerate() {
        if layer > 0 {
            let old = chain.images().pop().context("a leaf")?;
            old.pin_data_write_id()?;
            chain.push_leaf(disk::create_child(&host, &our_layer(folder, layer), &*old, block)?)?;
            old.freeze()?;
        }
        for (offset, length, byte) in writes {
            chain.write_at(&vec![*byte; *length as usize], *offset)?;
        }
    }
    Ok(chain.images().pop().context("a leaf")?.freeze()?)
}

/// The same as qcow2, with its usual clusters.
pub fn their_chain(folder: &Path, size: u64, layers: &[Vec<Write>]) -> Result<()> {
    for (layer, writes) in layers.iter().enumerate() {
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2"]);
        if layer > 0 {
            // By its name alone: the chain can be copied.
            create.args(["-F", "qcow2", "-b"]).arg(their_layer(Path::new(""), layer - 1));
        }
        run(create.arg(their_layer(folder, layer)).arg(size.to_string()))?;
        let mut write = Command::new("qemu-io");
        write.args(["-f", "qcow2"]);
        for (offset, length, byte) in writes {
            write.arg("-c").arg(format!("write -q -P {byte} {offset} {length}"));
        }
        run(write.arg(their_layer(folder, layer)))?;
    }
    Ok(())
}

/// Whether our chain shows the same disk as a qcow2 image; everything of both is in the page cache afterwards.
pub fn same_content(ours: &Chain, theirs: &Path) -> Result<bool> {
    let raw = theirs.with_extension("raw");
    run(Command::new("qemu-img").args(["convert", "-f", "qcow2", "-O", "raw"]).args([theirs, &raw]))?;
    let same = sha256_of_chain(ours)? == sha256_of(File::open(&raw)?)?;
    fs::remove_file(&raw)?;
    Ok(same)
}
