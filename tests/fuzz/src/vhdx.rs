//! Damages VHDX files where it matters: fields of headers, regions, metadata, BAT, log and locator get values that a
//! stranger might choose, and checksums are made right again. What is known of the format here is written down anew.

use std::sync::Arc;

use snaptree_core::host_file::{Host, HostFile};
use snaptree_core::testing::{MemHost, Random};

const MIB: u64 = 1 << 20;
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const TABLES: [u64; 2] = [192 << 10, 256 << 10];
/// First bytes of the identifiers of BAT and metadata region.
const BAT: [u8; 4] = [0x66, 0x77, 0xc2, 0x2d];
const METADATA: [u8; 4] = [0x06, 0xa2, 0x7c, 0x8b];
/// And of items.
const FILE_PARAMETERS: [u8; 4] = [0x37, 0x67, 0xa1, 0xca];
const LOGICAL_SECTOR_SIZE: [u8; 4] = [0x1d, 0xbf, 0x41, 0x81];
const PARENT_LOCATOR: [u8; 4] = [0x2d, 0x5f, 0xd3, 0xa8];

/// A number that is at the edge of something.
pub fn edge(random: &mut Random) -> u64 {
    let at = [0, 1, 512, 4096, 64 << 10, MIB, 2 * MIB, 256 * MIB, 1 << 32, 64 << 40, 1 << 63, u64::MAX - MIB + 1, u64::MAX];
    match random.below(8) {
        0 => random.next_u64(),
        1 => 1 << random.below(64),
        2 => random.below(64) * MIB,
        _ => {
            let at = at[random.below(at.len() as u64) as usize];
            [at, at, at.wrapping_sub(1), at.wrapping_add(1)][random.below(4) as usize]
        }
    }
}

/// An image's bytes, changed in place.
pub struct Bytes(pub Arc<dyn HostFile>);

impl Bytes {
    pub fn get(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let there = self.0.len().unwrap_or(0).saturating_sub(offset).min(length as u64) as usize;
        let _ = self.0.read_exact_at(&mut bytes[..there], offset);
        bytes
    }

    /// Writes what lies inside the file.
    pub fn put(&self, offset: u64, bytes: &[u8]) {
        if offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.len()) {
            let _ = self.0.write_all_at(bytes, offset);
        }
    }

    pub fn len(&self) -> u64 {
        self.0.len().unwrap_or(0)
    }

    fn number(&self, offset: u64) -> u64 {
        u64::from_le_bytes(self.get(offset, 8).try_into().expect("8 bytes"))
    }

    fn set_number(&self, offset: u64, value: u64, width: usize) {
        self.put(offset, &value.to_le_bytes()[..width]);
    }

    /// Makes the checksum in bytes 4..8 right.
    fn seal(&self, offset: u64, length: usize) {
        let mut bytes = self.get(offset, length);
        bytes[4..8].fill(0);
        self.put(offset + 4, &crc32c::crc32c(&bytes).to_le_bytes());
    }

    /// Makes headers and region tables valid again.
    pub fn seal_all(&self) {
        HEADERS.iter().for_each(|at| self.seal(*at, 4096));
        TABLES.iter().for_each(|at| self.seal(*at, 64 << 10));
    }

    /// Where a region's entry stands in a table.
    fn region_entry(&self, table: u64, id: [u8; 4]) -> Option<u64> {
        (0..8).map(|n| table + 16 + n * 32).find(|at| self.get(*at, 4) == id)
    }

    /// Where a region begins, or anywhere where that was damaged.
    fn region(&self, id: [u8; 4]) -> u64 {
        let entry = TABLES.iter().find_map(|table| self.region_entry(*table, id));
        entry.map_or(2 * MIB, |at| self.number(at + 16) % (1 << 50))
    }

    fn log(&self) -> (u64, u64) {
        let number = |at: u64| (self.number(at + 72), self.number(at + 68) & 0xffff_ffff);
        let (offset, length) = number(HEADERS[0]);
        (offset % (1 << 50), length.min(8 * MIB))
    }

    pub fn set_header(&self, field: u64, value: &[u8]) {
        for at in HEADERS {
            self.put(at + field, value);
            self.seal(at, 4096);
        }
    }

    /// Where a metadata item's table entry stands, by the first bytes of its identifier.
    fn item_entry(&self, id: [u8; 4]) -> Option<u64> {
        let table = self.region(METADATA);
        (0..16).map(|n| table + 32 + n * 32).find(|at| self.get(*at, 4) == id)
    }

    fn item(&self, id: [u8; 4]) -> Option<u64> {
        let entry = self.item_entry(id)?;
        Some(self.region(METADATA) + (self.number(entry + 16) & 0xffff_ffff))
    }

    /// Which BAT entry is that of the first sector bitmap.
    fn chunk_ratio(&self) -> u64 {
        let number = |id| self.item(id).map_or(1, |at| self.number(at) & 0xffff_ffff).max(1);
        ((1 << 23) * number(LOGICAL_SECTOR_SIZE) / number(FILE_PARAMETERS)) & 0xffff
    }

    /// Replaces the parent locator's pairs; `false` where there is none.
    pub fn set_locator(&self, pairs: &[(String, String)]) -> bool {
        let (Some(entry), Some(at)) = (self.item_entry(PARENT_LOCATOR), self.item(PARENT_LOCATOR)) else { return false };
        let mut bytes = self.get(at, 18);
        bytes.extend((pairs.len() as u16).to_le_bytes());
        let mut texts: Vec<u8> = Vec::new();
        let start = 20 + pairs.len() * 12;
        for (key, value) in pairs {
            let [key, value] = [key, value].map(|text| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
            let place = start + texts.len();
            bytes.extend((place as u32).to_le_bytes());
            bytes.extend(((place + key.len()) as u32).to_le_bytes());
            bytes.extend((key.len() as u16).to_le_bytes());
            bytes.extend((value.len() as u16).to_le_bytes());
            texts.extend(key.into_iter().chain(value));
        }
        bytes.extend(texts);
        self.put(at, &bytes);
        self.set_number(entry + 20, bytes.len() as u64, 4);
        true
    }

    /// The data-write identifier, as the current header has it.
    pub fn data_write_id(&self) -> [u8; 16] {
        let newer = u64::from(self.number(HEADERS[1] + 8) > self.number(HEADERS[0] + 8)) as usize;
        self.get(HEADERS[newer] + 32, 16).try_into().expect("16 bytes")
    }
}

/// Damages an image in one to four places.
pub fn damage(bytes: &Bytes, random: &mut Random) {
    for _ in 0..=random.below(4) {
        match random.below(10) {
            0 => flip(bytes, random),
            1 => header(bytes, random),
            2 => regions(bytes, random),
            3 | 4 => metadata(bytes, random),
            5 | 6 => bat(bytes, random),
            7 => log(bytes, random),
            8 => length(bytes, random),
            _ => splice(bytes, random),
        }
    }
}

/// Somewhere in what isn't payload.
fn place(bytes: &Bytes, random: &mut Random) -> u64 {
    let metadata = bytes.region(METADATA);
    let (start, length) = match random.below(9) {
        0 => (0, 64),
        1 => (HEADERS[0], 80),
        2 => (HEADERS[1], 80),
        3 => (TABLES[random.below(2) as usize], 80),
        4 => (bytes.log().0, 8192),
        5 => (metadata, 256),
        6 => (metadata + (64 << 10), 700),
        7 => (bytes.region(BAT), 96),
        _ => (0, bytes.len()),
    };
    start.saturating_add(random.below(length))
}

fn flip(bytes: &Bytes, random: &mut Random) {
    let at = place(bytes, random);
    let old = bytes.get(at, 1)[0];
    bytes.put(at, &[old ^ 1 << random.below(8)]);
    if random.chance(3, 4) {
        bytes.seal_all();
    }
}

fn header(bytes: &Bytes, random: &mut Random) {
    let (field, width) = [(8, 8), (48, 8), (64, 2), (66, 2), (68, 4), (72, 8), (16, 8), (32, 8)][random.below(8) as usize];
    for at in HEADERS {
        if random.chance(2, 3) {
            bytes.set_number(at + field, edge(random), width);
            bytes.seal(at, 4096);
        }
    }
}

fn regions(bytes: &Bytes, random: &mut Random) {
    let (value, what) = (edge(random), random.below(5));
    for table in TABLES {
        let entry = table + 16 + random.below(3) * 32;
        match what {
            0 => bytes.set_number(table + 8, value, 4),
            1 => bytes.set_number(entry + 16, value, 8),
            2 => bytes.set_number(entry + 24, value, 4),
            3 => bytes.set_number(entry + 28, random.below(4), 4),
            _ => bytes.put(entry, &bytes.get(table + 16, 16)),
        }
        bytes.seal(table, 64 << 10);
    }
}

fn metadata(bytes: &Bytes, random: &mut Random) {
    let table = bytes.region(METADATA);
    let count = bytes.number(table + 8) >> 16 & 0xffff;
    let entry = table + 32 + random.below(count.clamp(1, 16)) * 32;
    match random.below(6) {
        0 => bytes.set_number(table + 10, edge(random), 2),
        1 => bytes.set_number(entry + 16 + random.below(3) * 4, edge(random), 4),
        2 => bytes.put(entry, &bytes.get(table + 32, 16)),
        _ => {
            // The item itself.
            let (at, length) = (table + (bytes.number(entry + 16) & 0xffff_ffff), bytes.number(entry + 20) & 0xffff_ffff);
            let width = [2, 4, 8][random.below(3) as usize];
            bytes.set_number(at + random.below(length.clamp(1, 600) / 2) * 2, edge(random), width);
        }
    }
}

fn bat(bytes: &Bytes, random: &mut Random) {
    let table = bytes.region(BAT);
    for _ in 0..=random.below(3) {
        let index = match random.below(6) {
            0 => random.below(4096),
            1 => bytes.chunk_ratio(),
            _ => random.below(12),
        };
        let entry = table + index * 8;
        let state = random.below(8);
        let value = match random.below(4) {
            0 => edge(random),
            1 => bytes.number(table + random.below(12) * 8) & !7 | state,
            2 => (edge(random) / MIB * MIB) | state,
            _ => (random.below(bytes.len() / MIB + 2) * MIB) | state,
        };
        bytes.set_number(entry, value, 8);
    }
}

/// A log of valid entries that say anything.
fn log(bytes: &Bytes, random: &mut Random) {
    let (offset, length) = bytes.log();
    let guid: Vec<u8> = random.bytes(16);
    let first = [1, 7, u64::MAX - 1][random.below(3) as usize];
    let places = [192 << 10, 256 << 10, bytes.region(BAT), bytes.region(METADATA), bytes.region(METADATA) + (64 << 10)];
    let mut at = random.below((length >> 12).max(1)) * 4096;
    let tail = at;
    for number in 0..=random.below(3) {
        let sequence = first.wrapping_add(number);
        let count = random.below(6);
        let mut entry = vec![0; 4096];
        let mut data = Vec::new();
        for index in 0..count as usize {
            let file_offset = match random.below(8) {
                0 => edge(random),
                1 => edge(random) / 4096 * 4096,
                _ => places[random.below(5) as usize],
            };
            let descriptor = &mut entry[64 + index * 32..][..32];
            descriptor[16..24].copy_from_slice(&file_offset.to_le_bytes());
            descriptor[24..].copy_from_slice(&sequence.to_le_bytes());
            if random.chance(1, 3) {
                descriptor[..4].copy_from_slice(b"zero");
                let long = if random.chance(1, 2) { edge(random) / 4096 * 4096 } else { 4096 };
                descriptor[8..16].copy_from_slice(&long.to_le_bytes());
                continue;
            }
            descriptor[..4].copy_from_slice(b"desc");
            // Mostly what stands there already, a little changed.
            let mut page = bytes.get(file_offset, 4096);
            if random.chance(1, 2) {
                page[random.below(4096) as usize] ^= 1 << random.below(8);
            }
            descriptor[8..16].copy_from_slice(&page[..8]);
            descriptor[4..8].copy_from_slice(&page[4092..]);
            page[..4].copy_from_slice(b"data");
            page[4..8].copy_from_slice(&((sequence >> 32) as u32).to_le_bytes());
            page[4092..].copy_from_slice(&(sequence as u32).to_le_bytes());
            data.extend(page);
        }
        entry.extend(data);
        let claimed = if random.chance(1, 10) { edge(random) as u32 } else { entry.len() as u32 };
        let claimed_tail = if random.chance(1, 10) { edge(random) as u32 } else { tail as u32 };
        let claimed_count = if random.chance(1, 10) { edge(random) as u32 } else { count as u32 };
        let (flushed, last) = match random.below(6) {
            0 => (edge(random), edge(random)),
            _ => (bytes.len(), bytes.len()),
        };
        entry[..4].copy_from_slice(b"loge");
        entry[8..12].copy_from_slice(&claimed.to_le_bytes());
        entry[12..16].copy_from_slice(&claimed_tail.to_le_bytes());
        entry[16..24].copy_from_slice(&sequence.to_le_bytes());
        entry[24..28].copy_from_slice(&claimed_count.to_le_bytes());
        entry[32..48].copy_from_slice(&guid);
        entry[48..56].copy_from_slice(&flushed.to_le_bytes());
        entry[56..64].copy_from_slice(&last.to_le_bytes());
        let crc = crc32c::crc32c(&entry);
        entry[4..8].copy_from_slice(&crc.to_le_bytes());
        for piece in entry.chunks(4096) {
            bytes.put(offset.saturating_add(at), piece);
            at = (at + 4096) % length.max(4096);
        }
    }
    bytes.set_header(48, &guid);
}

fn length(bytes: &Bytes, random: &mut Random) {
    let length = bytes.len();
    let new = match random.below(4) {
        0 => random.below(length),
        1 => random.below(length >> 20) << 20,
        2 => length + random.below(MIB),
        _ => length + (1 << (20 + random.below(23))),
    };
    let _ = bytes.0.set_len(new);
}

fn splice(bytes: &Bytes, random: &mut Random) {
    let from = place(bytes, random) / 512 * 512;
    let piece = bytes.get(from, 512 << random.below(4));
    bytes.put(place(bytes, random) / 512 * 512, &piece);
    if random.chance(3, 4) {
        bytes.seal_all();
    }
}

/// What keys a side file.
pub fn key(bytes: &Bytes) -> [u8; 16] {
    let newer = u64::from(bytes.number(HEADERS[1] + 8) > bytes.number(HEADERS[0] + 8)) as usize;
    bytes.get(HEADERS[newer] + 16, 16).try_into().expect("16 bytes")
}

/// Where the table stands.
pub fn table(bytes: &Bytes) -> u64 {
    bytes.region(BAT)
}

/// A side file of this boot with changes of anything, mostly of the table.
pub fn pending(host: &MemHost, image: &std::path::Path, (key, table): ([u8; 16], u64), random: &mut Random) {
    let mut name = image.as_os_str().to_owned();
    name.push(".pending");
    let boot = host.boot_id();
    let mut side = b"snappend\x02\0\0\0".to_vec();
    side.extend(key);
    side.extend((boot.len() as u16).to_le_bytes());
    side.extend(boot.as_bytes());
    side.extend(crc32c::crc32c(&side).to_le_bytes());
    // Where the first change stands.
    let first = if random.chance(1, 10) { edge(random) } else { side.len() as u64 + 12 };
    side.extend(first.to_le_bytes());
    side.extend(crc32c::crc32c(&first.to_le_bytes()).to_le_bytes());
    for _ in 0..=random.below(3) {
        let at = if random.chance(2, 3) { table + random.below(12) * 8 } else { edge(random) };
        let count = random.below(40);
        let content = random.bytes(count as usize);
        let mut body = at.to_le_bytes().to_vec();
        body.extend((content.len() as u32).to_le_bytes());
        body.extend(content);
        side.extend((body.len() as u32).to_le_bytes());
        side.extend(crc32c::crc32c(&body).to_le_bytes());
        side.extend(body);
    }
    if let Ok(file) = host.create_new(name.as_ref()) {
        let _ = file.write_all_at(&side, 0);
    }
}
