//! Damages VHD files where it matters: fields of footer, copy, header and locators, table and bitmaps get values that a
//! stranger might choose, and checksums are made right again. What is known of the format here is written down anew.

use snaptree_core::testing::Random;

use super::vhdx::{Bytes, edge};

/// Fields of a footer: offset and width.
const FOOTER: [(u64, usize); 10] = [(8, 4), (12, 4), (16, 8), (24, 4), (40, 8), (48, 8), (56, 4), (60, 4), (84, 1), (464, 8)];
/// And of a dynamic header, the first locator included.
const HEADER: [(u64, usize); 12] =
    [(8, 8), (16, 8), (24, 4), (28, 4), (32, 4), (56, 4), (576, 4), (580, 4), (584, 4), (592, 8), (616, 8), (600, 4)];
const FOOTER_LENGTH: u64 = 512;

fn number(bytes: &Bytes, at: u64, width: usize) -> u64 {
    bytes.get(at, width).iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

fn set(bytes: &Bytes, at: u64, value: u64, width: usize) {
    bytes.put(at, &value.to_be_bytes()[8 - width..]);
}

fn end(bytes: &Bytes) -> u64 {
    bytes.len().saturating_sub(FOOTER_LENGTH)
}

fn header(bytes: &Bytes) -> u64 {
    number(bytes, end(bytes) + 16, 8) % (1 << 50)
}

/// What keys a side file.
pub fn key(bytes: &Bytes) -> [u8; 16] {
    bytes.get(end(bytes) + 68, 16).try_into().expect("16 bytes")
}

/// Where the table stands.
pub fn table(bytes: &Bytes) -> u64 {
    number(bytes, header(bytes) + 16, 8) % (1 << 50)
}

fn seal(bytes: &Bytes, at: u64, length: usize, field: usize) {
    let mut part = bytes.get(at, length);
    part[field..field + 4].fill(0);
    let sum = part.iter().fold(0_u32, |sum, byte| sum.wrapping_add((*byte).into()));
    bytes.put(at + field as u64, &(!sum).to_be_bytes());
}

/// Damages an image in one to four places.
pub fn damage(bytes: &Bytes, random: &mut Random) {
    for _ in 0..=random.below(4) {
        match random.below(8) {
            0 => {
                let at = [random.below(4096), end(bytes) + random.below(512), random.below(bytes.len().max(1))];
                let at = at[random.below(3) as usize];
                bytes.put(at, &[random.below(256) as u8]);
            }
            1 | 2 => field(bytes, &FOOTER, &[0, end(bytes)], random),
            3 => field(bytes, &HEADER, &[header(bytes)], random),
            4 | 5 => entry(bytes, random),
            6 => length(bytes, random),
            _ => {
                // A sector from somewhere else.
                let from = random.below(bytes.len() / 512 + 1) * 512;
                bytes.put(random.below(bytes.len() / 512 + 1) * 512, &bytes.get(from, 512));
            }
        }
    }
    let header = header(bytes);
    if random.chance(7, 8) {
        seal(bytes, header, 1024, 36);
    }
    for at in [0, end(bytes)] {
        if random.chance(7, 8) && bytes.get(at, 8) == *b"conectix" {
            seal(bytes, at, 512, 64);
        }
    }
}

fn field(bytes: &Bytes, fields: &[(u64, usize)], places: &[u64], random: &mut Random) {
    let (at, width) = fields[random.below(fields.len() as u64) as usize];
    let place = places[random.below(places.len() as u64) as usize] + at;
    let old = number(bytes, place, width);
    let value = match random.below(4) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old ^ (1 << random.below(8 * width as u64)),
        _ => edge(random),
    };
    for place in places.iter().filter(|_| random.chance(7, 8)) {
        set(bytes, place + at, value, width);
    }
}

/// Entries of the table name each other's places, the table itself, the end, or anything.
fn entry(bytes: &Bytes, random: &mut Random) {
    let table = table(bytes);
    let value = match random.below(6) {
        0 => number(bytes, table + random.below(12) * 4, 4),
        1 => table / 512 + random.below(3),
        2 => end(bytes) / 512 - random.below(3).min(end(bytes) / 512),
        3 => random.below(bytes.len() / 512 + 2),
        4 => 0xFFFF_FFFF,
        _ => edge(random),
    };
    set(bytes, table + random.below(12) * 4, value, 4);
}

fn length(bytes: &Bytes, random: &mut Random) {
    let footer = bytes.get(end(bytes), FOOTER_LENGTH as usize);
    let new = match random.below(4) {
        0 => random.below(bytes.len().max(1)),
        1 => bytes.len().saturating_sub(1 + random.below(512)),
        2 => bytes.len() + 1 + random.below(4096),
        _ => bytes.len() + (1 << (20 + random.below(20))),
    };
    let _ = bytes.0.set_len(new);
    if random.chance(2, 3) {
        bytes.put(end(bytes), &footer);
    }
}
