//! What is written to a unit of disk and to a data page: bytes that say where they belong, which write they are of,
//! and whether they are whole.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::UNIT;
use crate::memory::{PAGE_SIZE, Page};

/// Bytes of a sector, the smallest piece of disk that is written whole.
pub(super) const SECTOR: usize = 512;
/// Sectors of a unit.
pub(super) const SECTORS: usize = UNIT / SECTOR;
/// Bytes of a sector that follow the stamp.
pub(super) const SECTOR_PAYLOAD: usize = SECTOR - size_of::<SectorStamp>();
/// No unit.
pub(super) const NO_UNIT: u32 = u32::MAX;

const SECTOR_MAGIC: [u8; 8] = *b"SNAPSECT";
const PAGE_MAGIC: [u8; 8] = *b"SNAPPAGE";

/// A sequence of random numbers that is its state (splitmix64).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A sequence that follows from these numbers.
    pub(super) fn from_parts(parts: [u64; 3]) -> Self {
        parts.into_iter().fold(Self(0x5eed), |random, part| Self(Self(random.0 ^ part).next()))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which isn't 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// True in this share of cases.
    pub(super) fn chance(&mut self, share: f64) -> bool {
        ((self.next() >> 11) as f64) < share * (1u64 << 53) as f64
    }

    /// Fills a buffer whose length is a multiple of 8.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        buffer.as_chunks_mut().0.iter_mut().for_each(|chunk| *chunk = self.next().to_le_bytes());
    }
}

/// The first 64 bytes of a sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SectorStamp {
    magic: [u8; 8],
    /// The machine's seed.
    pub(super) seed: U64,
    /// Offset of this sector on its disk.
    pub(super) offset: U64,
    /// The worker's tick: for a tile of the gallery, the picture's generation.
    pub(super) tick: U64,
    /// Index of the disk.
    pub(super) disk: U32,
    /// How many times the machine had booted.
    pub(super) boot: U32,
    /// How many times this unit had been written.
    pub(super) sequence: U32,
    /// The unit that the same worker wrote before, or `NO_UNIT`, ...
    pub(super) previous_unit: U32,
    /// ... and that unit's sequence number.
    pub(super) previous_sequence: U32,
    worker: U32,
    reserved: U32,
    /// CRC-32C of the sector but for these four bytes.
    checksum: U32,
}

const _: () = assert!(size_of::<SectorStamp>() == 64);

/// What a write says about itself, the same in all sectors.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnitWrite {
    pub(super) seed: u64,
    pub(super) disk: usize,
    pub(super) offset: u64,
    pub(super) tick: u64,
    pub(super) boot: u32,
    pub(super) sequence: u32,
    pub(super) previous: (u32, u32),
    pub(super) worker: usize,
}

impl UnitWrite {
    /// The unit's bytes: random, but for what `draw` puts into each sector's payload.
    pub(super) fn render(&self, mut draw: impl FnMut(usize, &mut [u8])) -> Box<[u8; UNIT]> {
        let mut unit = Box::new([0; UNIT]);
        let mut random = Random::from_parts([self.seed, self.offset, u64::from(self.sequence)]);
        for (index, sector) in unit.chunks_exact_mut(SECTOR).enumerate() {
            let (head, payload) = sector.split_at_mut(size_of::<SectorStamp>());
            random.fill(payload);
            draw(index, payload);
            let mut stamp = SectorStamp {
                magic: SECTOR_MAGIC,
                seed: U64::new(self.seed),
                offset: U64::new(self.offset + (index * SECTOR) as u64),
                tick: U64::new(self.tick),
                disk: U32::new(self.disk as u32),
                boot: U32::new(self.boot),
                sequence: U32::new(self.sequence),
                previous_unit: U32::new(self.previous.0),
                previous_sequence: U32::new(self.previous.1),
                worker: U32::new(self.worker as u32),
                reserved: U32::ZERO,
                checksum: U32::ZERO,
            };
            stamp.checksum = U32::new(sector_checksum(&stamp, payload));
            head.copy_from_slice(stamp.as_bytes());
        }
        unit
    }
}

fn sector_checksum(stamp: &SectorStamp, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&stamp.as_bytes()[..60]), payload)
}

/// What a sector or a unit turned out to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Zeros.
    Zero,
    /// Something that the machine never wrote.
    Foreign,
    /// One whole write.
    Whole(SectorStamp),
    /// The first sectors are of one write, the others of what was there before, as a machine leaves it that is
    /// killed in the middle of a write.
    Torn(SectorStamp),
    /// Something that it wrote, but wrong, in words.
    Wrong(String),
}

/// Tells what a sector holds that was read from this place.
pub(super) fn look_at_sector(sector: &[u8], disk: usize, offset: u64) -> Found {
    let Ok((stamp, payload)) = SectorStamp::read_from_prefix(sector) else { return Found::Foreign };
    if stamp.magic != SECTOR_MAGIC {
        return if sector.iter().all(|byte| *byte == 0) { Found::Zero } else { Found::Foreign };
    }
    if stamp.checksum.get() != sector_checksum(&stamp, payload) {
        return Found::Wrong(format!("disk {disk}, byte {offset}: the sector's checksum doesn't match its content"));
    }
    if stamp.disk.get() as usize != disk || stamp.offset.get() != offset {
        let (of_disk, of_offset) = (stamp.disk, stamp.offset);
        return Found::Wrong(format!("disk {disk}, byte {offset}: holds the sector of disk {of_disk}, byte {of_offset}"));
    }
    Found::Whole(stamp)
}

/// Tells what a unit holds that was read from this place.
pub(super) fn look_at_unit(unit: &[u8], disk: usize, offset: u64) -> Found {
    let looks = unit.chunks_exact(SECTOR).zip((offset..).step_by(SECTOR));
    let mut sectors: Vec<Found> = looks.map(|(sector, at)| without_offset(look_at_sector(sector, disk, at), offset)).collect();
    if let Some(wrong) = sectors.iter().find(|found| matches!(found, Found::Wrong(_))) {
        return wrong.clone();
    }
    sectors.dedup();
    let mixed = || Found::Wrong(format!("disk {disk}, byte {offset}: sectors of different writes stand in one unit"));
    match (sectors.pop(), sectors.pop(), sectors.pop()) {
        (Some(only), None, None) => only,
        (Some(Found::Whole(old)), Some(Found::Whole(new)), None) => match new.sequence.get().checked_sub(old.sequence.get()) {
            Some(1) => Found::Torn(new),
            _ => mixed(),
        },
        (Some(Found::Zero), Some(Found::Whole(stamp)), None) | (Some(Found::Whole(stamp)), Some(Found::Zero), None) => {
            Found::Torn(stamp)
        }
        // What others wrote may start or end with zeros.
        (..) if unit.chunks_exact(SECTOR).all(|sector| !sector.starts_with(&SECTOR_MAGIC)) => Found::Foreign,
        _ => mixed(),
    }
}

/// The same stamp for all sectors of a unit, so that they can be compared.
fn without_offset(found: Found, unit_offset: u64) -> Found {
    match found {
        Found::Whole(stamp) => Found::Whole(SectorStamp { offset: U64::new(unit_offset), checksum: U32::ZERO, ..stamp }),
        other => other,
    }
}

/// The first 32 bytes of a data page; random bytes follow.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PageStamp {
    magic: [u8; 8],
    /// The machine's seed.
    seed: U64,
    /// Number of the page.
    page: U64,
    /// How many times it had been written.
    sequence: U32,
    /// CRC-32C of the page but for these four bytes.
    checksum: U32,
}

const PAGE_STAMP: usize = size_of::<PageStamp>();

fn page_checksum(page: &Page) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&page[..PAGE_STAMP - 4]), &page[PAGE_STAMP..])
}

/// Writes a data page; its checksum.
pub(super) fn write_page(page: &mut Page, seed: u64, number: u64, sequence: u32) -> u32 {
    let stamp = PageStamp {
        magic: PAGE_MAGIC,
        seed: U64::new(seed),
        page: U64::new(number),
        sequence: U32::new(sequence),
        checksum: U32::ZERO,
    };
    page[..PAGE_STAMP].copy_from_slice(stamp.as_bytes());
    Random::from_parts([seed, number, u64::from(sequence)]).fill(&mut page[PAGE_STAMP..]);
    let checksum = page_checksum(page);
    page[PAGE_STAMP - 4..PAGE_STAMP].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// Whether a data page is what the table expects; if not, what is wrong.
pub(super) fn check_page(page: &Page, number: u64, sequence: u32, checksum: u32) -> Result<(), String> {
    if sequence == 0 {
        return if *page == [0; PAGE_SIZE] { Ok(()) } else { Err(format!("page {number} was never written, but isn't zero")) };
    }
    let Ok((stamp, _)) = PageStamp::read_from_prefix(page) else { return Err(format!("page {number} has no stamp")) };
    if stamp.magic != PAGE_MAGIC || stamp.page.get() != number {
        return Err(format!("page {number} holds something else than what was written there"));
    }
    if stamp.sequence.get() != sequence {
        return Err(format!("page {number} is of write {}, expected is write {sequence}", stamp.sequence));
    }
    if stamp.checksum.get() != checksum || page_checksum(page) != checksum {
        return Err(format!("page {number}: its checksum doesn't match its content"));
    }
    Ok(())
}
