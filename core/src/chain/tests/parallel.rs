//! Readers beside a writer that writes, zeroes, and puts new leaves on top.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;

const SECTORS: u64 = 6 * 2048;

/// Per sector, the version that was begun last, and the one that was acknowledged last.
/// Even versions are zeros, odd ones are stamped.
struct Versions {
    begun: Vec<AtomicU64>,
    done: Vec<AtomicU64>,
}

impl Versions {
    fn begin(&self, sectors: std::ops::Range<u64>, zero: bool) {
        for sector in sectors {
            let last = self.begun[sector as usize].load(Ordering::SeqCst);
            let next = last + if last.is_multiple_of(2) == zero { 2 } else { 1 };
            self.begun[sector as usize].store(next, Ordering::SeqCst);
        }
    }

    fn stamped(&self, sectors: std::ops::Range<u64>) -> Vec<u8> {
        let stamp = |sector: u64| [sector, self.begun[sector as usize].load(Ordering::SeqCst)];
        let words = sectors.flat_map(|sector| stamp(sector).into_iter().chain(std::iter::repeat_n(sector, 62)));
        words.flat_map(u64::to_le_bytes).collect()
    }

    fn end(&self, sectors: std::ops::Range<u64>) {
        for sector in sectors {
            self.done[sector as usize].store(self.begun[sector as usize].load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }
}

fn check_sector(sector: u64, bytes: &[u8], done_before: u64, begun_after: u64) {
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    if words.iter().all(|word| *word == 0) {
        assert!(
            begun_after > done_before || done_before.is_multiple_of(2),
            "sector {sector}: zeros, but {done_before} was written"
        );
        return;
    }
    assert!(
        words[0] == sector && words[2..].iter().all(|word| *word == sector),
        "sector {sector}: another one's: {:?}",
        &words[..4]
    );
    assert!(
        (done_before..=begun_after).contains(&words[1]),
        "sector {sector}: version {} of {done_before}..{begun_after}",
        words[1]
    );
}

#[test]
fn readers_see_what_was_acknowledged_before_they_began() {
    let zeros = || (0..SECTORS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let versions = Versions { begun: zeros(), done: zeros() };
    let chain = Chain::with_map_limit(vec![base(SECTORS * 512, ByteCount::mib(1))], ByteCount::kib(512)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (chain, versions, stop) = (&chain, &versions, &stop);
        let readers: Vec<_> = (0..3)
            .map(|seed| {
                scope.spawn(move || {
                    let (mut random, mut reads) = (Random::new(seed), 0_u64);
                    while !stop.load(Ordering::SeqCst) {
                        let first = random.below(SECTORS - 64);
                        let count = 1 + random.below(64);
                        let before: Vec<u64> =
                            (first..first + count).map(|sector| versions.done[sector as usize].load(Ordering::SeqCst)).collect();
                        let mut buf = vec![0; count as usize * 512];
                        chain.read_at(&mut buf, first * 512).unwrap();
                        for (index, bytes) in buf.chunks(512).enumerate() {
                            let sector = first + index as u64;
                            check_sector(sector, bytes, before[index], versions.begun[sector as usize].load(Ordering::SeqCst));
                        }
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        let writer = scope.spawn(move || {
            let mut random = Random::new(99);
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until {
                let zero = random.chance(1, 4);
                let sectors = if zero && random.chance(3, 4) {
                    let block = random.below(SECTORS / 2048);
                    block * 2048..(block + 1) * 2048
                } else {
                    let first = random.below(SECTORS - 32);
                    first..first + 1 + random.below(32)
                };
                let (offset, length) = (sectors.start * 512, (sectors.end - sectors.start) * 512);
                versions.begin(sectors.clone(), zero);
                if zero && random.chance(1, 2) {
                    chain.trim(offset, length).unwrap();
                } else if zero {
                    chain.write_zeroes(offset, length).unwrap();
                } else {
                    chain.write_at(&versions.stamped(sectors.clone()), offset).unwrap();
                }
                versions.end(sectors);
                if chain.images().len() < 40 && random.chance(1, 200) {
                    deepen(chain, ByteCount::mib(1));
                }
                if random.chance(1, 100) {
                    chain.invalidate();
                }
                if random.chance(1, 100) {
                    chain.flush().unwrap();
                }
            }
        });
        // A failed writer must not leave the readers running.
        let written = writer.join();
        stop.store(true, Ordering::SeqCst);
        let reads: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        written.unwrap();
        assert!(reads > 100, "{reads} reads");
    });
    assert_map_is_right(&chain, "at the end");
}

#[test]
fn writers_side_by_side_leave_the_map_right() {
    let size = 4 << 20;
    let chain = Chain::from_images(vec![base(size, ByteCount::mib(1))]).unwrap();
    deepen(&chain, ByteCount::mib(1));
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let chain = &chain;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                for _ in 0..1500 {
                    let offset = random.below(size / 512 - 8) * 512;
                    match random.below(8) {
                        0 => chain.write_zeroes(offset >> 20 << 20, 1 << 20).unwrap(),
                        1 => chain.write_zeroes(offset, 4096).unwrap(),
                        2 => chain.read_at(&mut [0; 4096], offset).unwrap(),
                        _ => chain.write_at(&random.bytes(4096), offset).unwrap(),
                    }
                }
            });
        }
    });
    assert_map_is_right(&chain, "after four writers");
}
