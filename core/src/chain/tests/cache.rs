//! The owner map's memory is bounded, and it is asked instead of the images.

use super::*;

#[test]
fn memory_stays_within_its_bound() {
    const TIB: u64 = 1 << 40;
    let mut random = Random::new(3);
    let chain = Chain::with_map_limit(vec![base(TIB, ByteCount::mib(32))], ByteCount::kib(64)).unwrap();
    let mut content = ReferenceDisk::new(TIB, 512);
    let mut places = Vec::new();
    for level in 0..8 {
        if level > 0 {
            deepen(&chain, ByteCount::mib(2));
        }
        for _ in 0..300 {
            let offset = random.below(TIB / 512 - 8) * 512;
            let length = 512 * (1 + random.below(8)) as usize;
            let bytes = random.bytes(length);
            chain.write_at(&bytes, offset).unwrap();
            content.write(&bytes, offset);
            places.push(offset);
            assert!(chain.map_bytes() <= ByteCount::kib(64));
        }
    }
    for _ in 0..2 {
        for offset in &places {
            let mut buf = [0; 4096];
            chain.read_at(&mut buf, *offset).unwrap();
            assert!(buf[..] == content.read(*offset, 4096), "at {offset}");
            assert!(chain.map_bytes() <= ByteCount::kib(64));
        }
    }
    chain.invalidate();
    assert_eq!(chain.map_bytes(), ByteCount::ZERO);
}

#[test]
fn a_known_page_is_found_at_any_depth_without_asking_again() {
    let chain = Chain::from_images(vec![base(8 << 20, ByteCount::mib(1))]).unwrap();
    for level in 0..32 {
        deepen(&chain, ByteCount::mib(1));
        chain.write_at(&[level; 512], 512 * u64::from(level)).unwrap();
    }
    let mut buf = vec![0; 32 * 512];
    chain.read_at(&mut buf, 0).unwrap();
    // Behind the chain's back: what is known isn't asked for again ...
    let middle = chain.images()[7].clone();
    assert!(!middle.is_writable());
    let (mut pieces, links) = (Vec::new(), chain.map.links());
    chain.map.lookup(0, 32 * 512, &mut pieces).unwrap();
    assert_eq!(pieces.len(), 32);
    for (level, piece) in pieces.iter().enumerate() {
        assert!(matches!(piece.place, Place::Data { owner, .. } if usize::from(owner) == level + 1));
    }
    // ... and a new leaf's first page is laid over what is known.
    let before = chain.map_bytes();
    deepen(&chain, ByteCount::mib(1));
    assert_eq!(chain.map_bytes(), before);
    chain.write_zeroes(0, 1 << 20).unwrap();
    chain.read_at(&mut buf, 0).unwrap();
    assert!(buf.iter().all(|byte| *byte == 0));
    assert_eq!(chain.map.links().len(), links.len() + 1);
}
