//! Strangers' bytes: cut anywhere, changed anywhere. An error or a value, never a panic.

use super::super::format::sealed;
use super::stores::sample;
use crate::hyperv::parse_store;
use crate::testing::{Random, vmcx};

#[test]
fn every_truncation_is_an_error() {
    let whole = vmcx(&sample());
    // The last page is a key table; without any of it the table goes past the end.
    for length in 0..whole.len() {
        let flaw = parse_store(&whole[..length]).unwrap_err();
        assert!(flaw.offset <= length as u64, "{length}: {flaw:?}");
    }
}

/// Places of structures with a checksum: offset, length, field.
fn structures(bytes: &[u8]) -> Vec<(usize, usize, usize)> {
    let mut found = vec![(0, 46, 4), (4096, 46, 4), (3 * 4096, 34, 4)];
    found.extend((0..8).map(|n| (8192 + 8 + n * 18, 18, 1)));
    found.extend((4..bytes.len() / 4096).map(|page| (page * 4096, 10, 6)));
    found
}

#[test]
fn ten_thousand_mutations_end_in_an_error_or_a_value() {
    let whole = vmcx(&sample());
    let structures = structures(&whole);
    let (mut errors, mut values) = (0, 0);
    for seed in 0..10_000 {
        let mut random = Random::new(seed);
        let mut bytes = whole.clone();
        for _ in 0..=random.below(3) {
            let (start, length, _) = structures[random.below(structures.len() as u64) as usize];
            let near = start + random.below(2 * length as u64) as usize;
            let anywhere = random.below(bytes.len() as u64) as usize;
            let at = if random.chance(2, 3) { near } else { anywhere };
            match random.below(3) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.next_u64() as u8,
                _ => {
                    let end = (at + random.below(9) as usize).min(bytes.len());
                    random.fill(&mut bytes[at..end]);
                }
            }
        }
        // Most damage is hidden behind a checksum that fits again.
        if random.chance(3, 4) {
            for (start, length, field) in &structures {
                let sum = sealed(&bytes[*start..start + length], *field);
                bytes[start + field..start + field + 4].copy_from_slice(&sum.to_le_bytes());
            }
        }
        match parse_store(&bytes) {
            Ok(_) => values += 1,
            Err(flaw) => {
                assert!(flaw.offset <= bytes.len() as u64, "{seed}: {flaw:?}");
                errors += 1;
            }
        }
    }
    assert!(errors > 5000 && values > 500, "{errors} errors, {values} values");
}

/// A key's bytes in the first key table: where it begins, by its name.
fn key(bytes: &[u8], name: &str) -> usize {
    let name = [name.as_bytes(), &[0]].concat();
    bytes.windows(name.len()).position(|part| part == name).unwrap() - 21
}

fn seal_key(bytes: &mut [u8], at: usize, length: usize) {
    let sum = sealed(&bytes[at..at + length], 12);
    bytes[at + 12..at + 16].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn keys_that_cant_be_are_named() {
    let whole = vmcx(&sample());
    let flaw_of = |bytes: &[u8]| {
        let flaw = parse_store(bytes).unwrap_err();
        (flaw.field, flaw.problem)
    };
    let mut bytes = whole.clone();
    let at = key(&bytes, "int");
    bytes[at + 25] ^= 1;
    assert_eq!(flaw_of(&bytes).0, "int");
    assert!(flaw_of(&bytes).1.contains("checksum"));
    // A parent that isn't there, and one that is itself.
    for (offset, wanted) in [(5000, "isn't there"), (0, "circle")] {
        let mut bytes = whole.clone();
        let at = key(&bytes, "nothing");
        let table = at / 4096 * 4096;
        let offset = if offset == 0 { (at - table) as u32 } else { offset };
        let index = bytes[table + 2];
        bytes[at + 6] = index;
        bytes[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
        seal_key(&mut bytes, at, 21 + 8 + 12);
        assert_eq!(flaw_of(&bytes).0, "nothing");
        assert!(flaw_of(&bytes).1.contains(wanted), "{:?}", flaw_of(&bytes));
    }
    // Many keys that all have the same large value.
    let mut bytes = whole;
    let (large, other) = (key(&bytes, "long bytes"), key(&bytes, "long text"));
    let pointer = bytes[large + 21 + 11 + 4..large + 21 + 11 + 12].to_vec();
    bytes[other + 21 + 10 + 4..other + 21 + 10 + 12].copy_from_slice(&pointer);
    bytes[other] = 7;
    bytes[other + 21 + 10..other + 21 + 14].copy_from_slice(&9000u32.to_le_bytes());
    seal_key(&mut bytes, other, 21 + 10 + 12);
    assert!(flaw_of(&bytes).1.contains("longer than the object"));
}
