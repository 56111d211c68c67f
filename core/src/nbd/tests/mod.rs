use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::chain::Chain;
use crate::disk::CreateOptions;
use crate::testing::{NbdClient, RamImage};
use crate::units::ByteCount;

mod handshake;
mod requests;
mod slow;
mod socket;

/// Size of the disks: not whole blocks.
const SIZE: u64 = (9 << 20) + 3 * 4096;

/// A chain of three images, in memory.
fn chain(sector: u32) -> Arc<Chain> {
    let block = Some(ByteCount::mib(1));
    let options = CreateOptions { block_size: block, logical_sector_size: sector, ..CreateOptions::dynamic(ByteCount(SIZE)) };
    let chain = Chain::from_images(vec![RamImage::create("base", &options)]).unwrap();
    for layer in 0..3_u8 {
        if layer > 0 {
            let old = chain.images().pop().unwrap();
            old.pin_data_write_id().unwrap();
            chain.push_leaf(RamImage::create_child("child", &*old, block)).unwrap();
            old.freeze().unwrap();
        }
        let place = u64::from(layer) << 20;
        chain.write_at(&vec![layer + 1; 3 << 19], place).unwrap();
        chain.write_zeroes(place + (4 << 20), 1 << 20).unwrap();
    }
    Arc::new(chain)
}

fn export(name: &str, device: Arc<dyn BlockDevice>) -> Export {
    Export { name: name.into(), description: format!("the disk {name}"), device, read_only: false }
}

/// A server of these in a folder of its own.
fn serve(exports: Vec<Export>) -> (TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("s"), exports).unwrap();
    (folder, server)
}

/// One disk and a client of it, answers structured.
fn served(device: Arc<dyn BlockDevice>) -> (TempDir, Server, NbdClient) {
    let (folder, server) = serve(vec![export("disk", device)]);
    let client = client(&server);
    (folder, server, client)
}

fn client(server: &Server) -> NbdClient {
    let mut client = NbdClient::connect(server.socket()).unwrap();
    client.structured().unwrap();
    client.go("disk").unwrap();
    client
}

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const WRITE_ZEROES: u16 = 6;
const BLOCK_STATUS: u16 = 7;

const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const DF: u16 = 4;
const REQ_ONE: u16 = 8;

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
