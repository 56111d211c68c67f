use std::sync::Arc;

use super::*;
use crate::disk::CreateOptions;
use crate::testing::{RamImage, Random, ReferenceDisk};

mod cache;
mod convert;
mod full;
mod gate;
mod inspect;
mod lent;
mod parallel;
mod random;
mod rules;

fn base(size: u64, block: ByteCount) -> Arc<RamImage> {
    let options = CreateOptions { block_size: Some(block), ..CreateOptions::dynamic(ByteCount(size)) };
    RamImage::create("base", &options)
}

fn child(parent: &Arc<dyn Image>, block: ByteCount) -> Arc<dyn Image> {
    RamImage::create_child("child", &**parent, Some(block))
}

fn leaf(chain: &Chain) -> Arc<dyn Image> {
    chain.images().pop().expect("a leaf")
}

/// Freezes the leaf and puts a child on top.
fn deepen(chain: &Chain, block: ByteCount) {
    let old = leaf(chain);
    old.pin_data_write_id().unwrap();
    chain.push_leaf(child(&old, block)).unwrap();
    old.freeze().unwrap();
}

fn assert_same(chain: &Chain, content: &ReferenceDisk, what: &str) {
    assert_eq!(chain.virtual_size().0, content.size(), "{what}");
    content.assert_same(what, |buf, offset| chain.read_at(buf, offset).unwrap());
}

fn joined(pieces: &[Piece]) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match joined.last_mut() {
            Some(last) if last.place.advanced(last.length) == piece.place => last.length += piece.length,
            _ => joined.push(*piece),
        }
    }
    joined
}

/// What the map knows is what the images say.
fn assert_map_is_right(chain: &Chain, what: &str) {
    let (links, size) = (chain.map.links(), chain.virtual_size().0);
    let mut known = Vec::new();
    chain.map.lookup(0, size, &mut known).unwrap();
    let (known, right) = (joined(&known), joined(&resolve(&links, 0, size).unwrap()));
    if let Some((known, right)) = known.iter().zip(&right).find(|(known, right)| known != right) {
        panic!("{what}: the map says {known:?}, the images {right:?}");
    }
    assert_eq!(known.len(), right.len(), "{what}");
}
