//! A disk as a plain list of sectors: what every real disk is compared with.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The plainest model of a disk. A clone is a snapshot of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceDisk {
    sector_size: u64,
    size: u64,
    /// Sectors that aren't zero.
    sectors: BTreeMap<u64, Arc<[u8]>>,
}

impl ReferenceDisk {
    /// A disk of zeros; `size` bytes, a multiple of `sector_size`.
    pub fn new(size: u64, sector_size: u32) -> Self {
        assert_eq!(size % u64::from(sector_size), 0, "whole sectors");
        Self { sector_size: sector_size.into(), size, sectors: BTreeMap::new() }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes whole sectors.
    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        assert!(offset.is_multiple_of(self.sector_size) && offset + bytes.len() as u64 <= self.size);
        for (index, sector) in (offset / self.sector_size..).zip(bytes.chunks(self.sector_size as usize)) {
            if sector.iter().all(|byte| *byte == 0) {
                self.sectors.remove(&index);
            } else {
                self.sectors.insert(index, sector.into());
            }
        }
    }

    /// Zeroes whole sectors.
    pub fn zero(&mut self, offset: u64, length: u64) {
        let (first, end) = (offset / self.sector_size, (offset + length) / self.sector_size);
        let gone: Vec<u64> = self.sectors.range(first..end).map(|(index, _)| *index).collect();
        for index in gone {
            self.sectors.remove(&index);
        }
    }

    /// Reads whole sectors.
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        let (first, end) = (offset / self.sector_size, (offset + length) / self.sector_size);
        for (index, sector) in self.sectors.range(first..end) {
            let at = ((index - first) * self.sector_size) as usize;
            bytes[at..at + sector.len()].copy_from_slice(sector);
        }
        bytes
    }

    /// Changes the size; new sectors are zero.
    pub fn resize(&mut self, size: u64) {
        assert_eq!(size % self.sector_size, 0, "whole sectors");
        self.sectors.split_off(&(size / self.sector_size));
        self.size = size;
    }

    /// Reads everything through `read` (buffer, offset) and panics, naming the first differing
    /// sector and `what`, where it isn't the same.
    pub fn assert_same(&self, what: &str, mut read: impl FnMut(&mut [u8], u64)) {
        let step = (1 << 20) / self.sector_size * self.sector_size;
        let mut offset = 0;
        while offset < self.size {
            let length = step.min(self.size - offset);
            let mut bytes = vec![0xa5; length as usize];
            read(&mut bytes, offset);
            let expected = self.read(offset, length);
            if bytes != expected {
                let at = bytes.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(0) as u64;
                let sector = (offset + at) / self.sector_size;
                panic!("{what}: sector {sector} (byte {}) differs", offset + at);
            }
            offset += length;
        }
    }
}
