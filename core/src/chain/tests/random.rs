//! Random trees of images against plain models.

use super::*;

const BLOCKS: [u64; 4] = [1, 2, 32, 256];

fn block(random: &mut Random) -> ByteCount {
    ByteCount::mib(BLOCKS[random.below(4) as usize])
}

/// A short range near one of a few places, so that layers overlap, or now and then a long one.
fn range(random: &mut Random, size: u64) -> (u64, u64) {
    let sectors = size / 512;
    let first = match random.below(4) {
        0 => random.below(sectors),
        place => (place * (sectors / 4) + random.below(300)).min(sectors - 1),
    };
    let most = if random.chance(1, 10) { 8000 } else { 40 };
    (first * 512, (1 + random.below(most)).min(sectors - first) * 512)
}

fn change(chain: &Chain, content: &mut ReferenceDisk, random: &mut Random) {
    let (offset, length) = range(random, content.size());
    if random.chance(1, 3) {
        // Whole blocks too: these become zero without space.
        let whole = random.chance(1, 2) && content.size() > 4 << 20;
        let (offset, length) =
            if whole { (offset >> 20 << 20, (2 << 20).min(content.size() - (offset >> 20 << 20))) } else { (offset, length) };
        if random.chance(1, 3) {
            // What isn't whole sectors at its ends stays, and so does what lies beyond the disk's end.
            chain.trim(offset.saturating_sub(100), length + 200).unwrap();
        } else {
            chain.write_zeroes(offset, length).unwrap();
        }
        content.zero(offset, length);
    } else {
        let bytes = random.bytes(length as usize);
        chain.write_at(&bytes, offset).unwrap();
        content.write(&bytes, offset);
    }
    // Some of it is looked at, so that the map knows parts, and parts not.
    let (offset, length) = range(random, content.size());
    let mut buf = vec![0; length as usize];
    chain.read_at(&mut buf, offset).unwrap();
    assert!(buf == content.read(offset, length), "read of {length} at {offset}");
}

/// Other sizes: what lies beyond an image's end is a zero that it owns.
fn resize(chain: &Chain, content: &mut ReferenceDisk, random: &mut Random) {
    let size =
        if random.chance(1, 2) { content.size() + random.below(9000) * 512 } else { content.size() - random.below(3000) * 512 };
    let other = base(size, ByteCount::mib(1));
    leaf(chain).take_identity_of(&*other).unwrap();
    chain.invalidate();
    content.resize(size);
}

fn run(seed: u64, depth: u64, changes: u64) {
    let mut random = Random::new(seed);
    let what = format!("seed {seed}, depth {depth}");
    let size = (34 << 20) + random.below(2000) * 512;
    let first: Arc<dyn Image> = base(size, block(&mut random));
    let limit = if random.chance(1, 3) { ByteCount::kib(4) } else { ByteCount::mib(8) };
    let chain = Chain::with_map_limit(vec![first], limit).unwrap();
    let mut content = ReferenceDisk::new(size, 512);
    let mut kept: Vec<ReferenceDisk> = Vec::new();
    for level in 0..depth {
        if level > 0 {
            kept.push(content.clone());
            deepen(&chain, block(&mut random));
        }
        for _ in 0..changes {
            change(&chain, &mut content, &mut random);
        }
        if random.chance(1, 4) {
            resize(&chain, &mut content, &mut random);
        }
        if level % 8 == 7 {
            assert_same(&chain, &content, &what);
        }
        assert_map_is_right(&chain, &what);
    }
    assert_same(&chain, &content, &what);

    // A branch from the middle, beside the first one.
    let Some(middle) = (kept.len() as u64).checked_sub(1).map(|last| random.below(last + 1) as usize) else { return };
    let mut images = chain.images();
    images.truncate(middle + 1);
    let leaf = child(&images[middle], block(&mut random));
    images.push(leaf);
    let branch = Chain::from_images(images.clone()).unwrap();
    let mut branched = kept[middle].clone();
    assert_same(&branch, &branched, &what);
    for _ in 0..changes {
        change(&branch, &mut branched, &mut random);
    }
    assert_same(&branch, &branched, &what);
    assert_same(&chain, &content, &what);
    chain.swap(images).unwrap();
    assert_same(&chain, &branched, &what);
}

#[test]
fn short_chains_read_as_their_model() {
    for seed in 0..10 {
        run(seed, 1 + seed % 4, 30);
    }
}

#[test]
fn deep_chains_read_as_their_model() {
    for seed in 100..103 {
        run(seed, 32, 6);
    }
}

#[test]
fn stretches_name_the_owner_of_every_sector() {
    let mut random = Random::new(7);
    let (size, sectors) = (3 << 20, 6144);
    let chain = Chain::from_images(vec![base(size, ByteCount::mib(1))]).unwrap();
    let mut owners = vec![None; sectors];
    for level in 0..10_u16 {
        if level > 0 {
            deepen(&chain, ByteCount::mib(1));
        }
        for _ in 0..10 {
            let (offset, length) = range(&mut random, size);
            let zero = level > 0 && random.chance(1, 3);
            if zero {
                chain.write_zeroes(offset, length).unwrap();
            } else {
                chain.write_at(&random.bytes(length as usize), offset).unwrap();
            }
            owners[(offset / 512) as usize..((offset + length) / 512) as usize].fill(Some(level));
            if level == 0 {
                // Without a parent, whole blocks become present.
                let (first, last) = (offset >> 20, (offset + length - 1) >> 20);
                owners[first as usize * 2048..(last as usize + 1) * 2048].fill(Some(0));
            }
        }
        let stretches = chain.stretches(0, size).unwrap();
        let named = stretches.iter().flat_map(|stretch| vec![stretch.owner; (stretch.length / 512) as usize]);
        assert_eq!(named.collect::<Vec<_>>(), owners, "level {level}");
        assert!(stretches.windows(2).all(|pair| pair[0].offset + pair[0].length == pair[1].offset));
        assert!(stretches.windows(2).all(|pair| (pair[0].owner, pair[0].zero) != (pair[1].owner, pair[1].zero)));
    }
}
