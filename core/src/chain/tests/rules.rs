//! What a chain refuses, and what its flush covers.

use super::*;
use crate::disk::DiskErrorKind;

fn kind(error: DiskError) -> DiskErrorKind {
    *error.kind
}

#[test]
fn identifiers_are_checked() {
    let parent: Arc<dyn Image> = base(1 << 20, ByteCount::mib(1));
    let leaf = child(&parent, ByteCount::mib(1));
    let expected = parent.info().data_write_id;
    Chain::from_images(vec![parent.clone(), leaf.clone()]).unwrap();
    // A write of a new opening changes the identifier.
    parent.write_at(&[1; 512], 0).unwrap();
    let found = parent.info().data_write_id;
    match kind(Chain::from_images(vec![parent.clone(), leaf.clone()]).unwrap_err()) {
        DiskErrorKind::ParentChanged { expected: said, found: said_found, .. } => {
            assert_eq!((said, said_found), (expected, found))
        }
        other => panic!("{other}"),
    }
    // While identifiers change, the second one is accepted, but zero is none.
    leaf.set_linkage(expected, Some(found)).unwrap();
    Chain::from_images(vec![parent.clone(), leaf.clone()]).unwrap();
    parent.set_data_write_id(uuid::Uuid::nil()).unwrap();
    leaf.set_linkage(expected, Some(uuid::Uuid::nil())).unwrap();
    assert!(matches!(kind(Chain::from_images(vec![parent, leaf.clone()]).unwrap_err()), DiskErrorKind::ParentChanged { .. }));
    // A child alone.
    assert!(
        matches!(kind(Chain::from_images(vec![leaf]).unwrap_err()), DiskErrorKind::ParentMissing { linkage, .. } if linkage == expected)
    );
    assert!(Chain::from_images(Vec::new()).is_err());
}

#[test]
fn sector_sizes_must_agree() {
    let parent: Arc<dyn Image> = base(1 << 20, ByteCount::mib(1));
    let options = CreateOptions { logical_sector_size: 4096, ..CreateOptions::dynamic(ByteCount::mib(1)) };
    let other: Arc<dyn Image> = RamImage::create("other", &options);
    let leaf = child(&other, ByteCount::mib(1));
    leaf.set_linkage(parent.info().data_write_id, None).unwrap();
    assert!(matches!(kind(Chain::from_images(vec![parent, leaf]).unwrap_err()), DiskErrorKind::Unsupported(_)));
}

#[test]
fn only_a_child_is_put_on_top_and_not_too_many() {
    let chain = Chain::from_images(vec![base(1 << 20, ByteCount::mib(1))]).unwrap();
    assert!(chain.push_leaf(base(1 << 20, ByteCount::mib(1))).is_err());
    let other: Arc<dyn Image> = base(1 << 20, ByteCount::mib(1));
    assert!(chain.push_leaf(child(&other, ByteCount::mib(1))).is_err());
    assert_eq!(chain.images().len(), 1);
    for _ in 1..MAX_DEPTH {
        chain.push_leaf(child(&leaf(&chain), ByteCount::mib(1))).unwrap();
    }
    assert!(matches!(kind(chain.push_leaf(child(&leaf(&chain), ByteCount::mib(1))).unwrap_err()), DiskErrorKind::Refused(_)));
    chain.write_at(&[5; 512], 0).unwrap();
    let mut buf = [0; 1024];
    chain.read_at(&mut buf, 0).unwrap();
    assert_eq!((&buf[..512], &buf[512..]), (&[5; 512][..], &[0; 512][..]));
}

#[test]
fn ranges_are_checked() {
    let chain = Chain::from_images(vec![base(1 << 20, ByteCount::mib(1))]).unwrap();
    for (offset, length) in [(1, 512), (512, 100), (1 << 20, 512), (u64::MAX - 511, 512), ((1 << 20) - 512, 1024)] {
        assert!(chain.read_at(&mut vec![0; length], offset).is_err());
        assert!(chain.write_at(&vec![0; length], offset).is_err());
        assert!(chain.write_zeroes(offset, length as u64).is_err());
        assert!(chain.stretches(offset, length as u64).is_err());
    }
    chain.read_at(&mut [], 1 << 20).unwrap();
    assert_eq!(chain.stretches(0, 0).unwrap(), []);
}

#[test]
fn a_frozen_leaf_is_not_written() {
    let chain = Chain::from_images(vec![base(1 << 20, ByteCount::mib(1))]).unwrap();
    leaf(&chain).freeze().unwrap();
    assert!(chain.write_at(&[1; 512], 0).is_err());
    assert!(chain.write_zeroes(0, 512).is_err());
    let mut buf = [1; 512];
    chain.read_at(&mut buf, 0).unwrap();
    assert_eq!(buf, [0; 512]);
}

#[test]
fn a_flush_covers_every_image_with_unflushed_changes_lowest_first() {
    let first = base(1 << 20, ByteCount::mib(1));
    let chain = Chain::from_images(vec![first.clone()]).unwrap();
    chain.write_at(&[1; 512], 0).unwrap();
    let second = RamImage::create_child("second", &*first, None);
    chain.push_leaf(second.clone()).unwrap();
    chain.write_at(&[2; 512], 512).unwrap();
    assert!(first.is_unflushed() && second.is_unflushed(), "nothing is flushed when a leaf is put on top");
    chain.flush().unwrap();
    assert!(!first.is_unflushed() && !second.is_unflushed());
    assert!(first.last_flush() < second.last_flush(), "lowest first");
    let flushed = first.last_flush();
    chain.write_zeroes(0, 512).unwrap();
    chain.flush().unwrap();
    assert!(!second.is_unflushed());
    assert_eq!(first.last_flush(), flushed, "nothing to flush there");
}

#[test]
fn trimming_gives_space_back_and_hides_what_lies_below() {
    let host = crate::testing::MemHost::new().shared();
    let options = CreateOptions { block_size: Some(ByteCount::mib(2)), ..CreateOptions::dynamic(ByteCount::mib(64)) };
    let format = crate::disk::ImageFormat::Vhdx;
    let base = crate::disk::create(&host, "/base.vhdx".as_ref(), format, &options).unwrap();
    let chain = Chain::from_images(vec![base.clone()]).unwrap();
    let data = Random::new(1).bytes(8 << 20);
    chain.write_at(&data, 0).unwrap();
    base.pin_data_write_id().unwrap();
    let leaf = crate::disk::create_child(&host, "/leaf.avhdx".as_ref(), &*base, None).unwrap();
    chain.push_leaf(leaf.clone()).unwrap();
    base.freeze().unwrap();
    // Where nothing is, nothing is done.
    let empty = leaf.held_bytes().unwrap();
    chain.trim(16 << 20, 32 << 20).unwrap();
    chain.flush().unwrap();
    assert_eq!(leaf.extents(0, 64 << 20).unwrap().len(), 1, "nothing is held");
    chain.write_at(&data, 0).unwrap();
    chain.flush().unwrap();
    let full = leaf.held_bytes().unwrap();
    assert!(full.0 - empty.0 >= 8 << 20);
    // Two whole blocks and a part of one, its ends in the middle of sectors.
    chain.trim((2 << 20) + 1, (5 << 20) - 2).unwrap();
    chain.flush().unwrap();
    let freed = full.0 - leaf.held_bytes().unwrap().0;
    // But for what the log takes to say so.
    assert!(freed >= (5 << 20) - (64 << 10), "{freed} bytes came back");
    let mut expected = data.clone();
    expected[(2 << 20) + 512..(7 << 20) - 512].fill(0);
    let read = |chain: &Chain| {
        let mut bytes = vec![0; 8 << 20];
        chain.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    assert!(read(&chain) == expected);
    assert!(read(&Chain::from_images(vec![base]).unwrap()) == data, "the kept parent is as it was");
}
