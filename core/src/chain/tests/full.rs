//! A volume that is full while a run is merged under the machine: what goes to both sides finds room on one of them only.

use super::*;
use crate::disk::{ImageFormat, create, create_child};
use crate::testing::MemHost;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 2 * MIB;

/// The base, which is the target; an image that says zeros of a whole block; and a leaf that has a place for that block,
/// and data in its second half only. The block is copied, so writes to it go to both sides until it is marked.
fn copied(host: &MemHost) -> (Arc<Chain>, LiveRun) {
    let shared = host.shared();
    let base = create(&shared, "/base.vhdx".as_ref(), ImageFormat::Vhdx, &CreateOptions::dynamic(ByteCount(4 * BLOCK))).unwrap();
    base.write_at(&[1; 8192], 3 * BLOCK).unwrap();
    let middle = create_child(&shared, "/middle.avhdx".as_ref(), &*base, None).unwrap();
    middle.write_zeroes(0, BLOCK).unwrap();
    let leaf = create_child(&shared, "/leaf.avhdx".as_ref(), &*middle, None).unwrap();
    leaf.write_at(&[2; 4096], BLOCK / 2).unwrap();
    let chain = Arc::new(Chain::from_images(vec![base, middle, leaf]).unwrap());
    let mut run = LiveRun::begin(&chain, 0..3, 0, false).unwrap();
    run.route();
    run.images()[0].write_zeroes(0, BLOCK / 2).unwrap();
    run.moved(0, BLOCK / 2);
    run.mirror(0, BLOCK / 2);
    (chain, run)
}

fn read(chain: &Chain, offset: u64) -> Vec<u8> {
    let mut bytes = vec![0xff; 4096];
    chain.read_at(&mut bytes, offset).unwrap();
    bytes
}

#[test]
fn a_write_to_both_sides_that_finds_no_room_for_one_is_done_again() {
    let host = MemHost::new();
    let (chain, run) = copied(&host);
    host.set_capacity(Some(host.used()));
    let error = chain.write_at(&[7; 4096], 65536).expect_err("the target has no room for a block");
    assert!(error.is_full(), "{error}");
    // It was not acknowledged: old or new may be there, and nothing else anywhere.
    assert!([0, 7].contains(&read(&chain, 65536)[0]));
    assert_eq!(read(&chain, 0), [0; 4096]);
    assert_eq!(read(&chain, BLOCK / 2), [2; 4096]);
    assert_eq!(read(&chain, 3 * BLOCK), [1; 4096]);

    host.set_capacity(None);
    chain.write_at(&[7; 4096], 65536).expect("there is room again");
    assert_eq!(read(&chain, 65536), [7; 4096]);
    assert_eq!(run.written_twice(), ByteCount(2 * 4096));
    // The mark: from now on the target's copy counts.
    let images = run.images();
    for place in [1, 2] {
        let released = images[place].release(&[(0, BLOCK / 2)]).unwrap();
        images[place].punch(released).unwrap();
    }
    run.moved(0, BLOCK);
    assert_eq!(read(&chain, 65536), [7; 4096], "the target has it too");
    assert_eq!(read(&chain, 0), [0; 4096]);
    assert_eq!(read(&chain, BLOCK / 2), [2; 4096]);
    run.end().unwrap();
}
