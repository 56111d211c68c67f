//! What a disk holds, kept by a test: the model that real disks are compared with, byte for byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use snaptree_core::chain::Chain;
use snaptree_core::disk;

/// Bytes that are kept together.
const PIECE: u64 = 64 << 10;

/// A disk's bytes; pieces that are all zero aren't kept. A clone is a snapshot of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    size: u64,
    pieces: BTreeMap<u64, Arc<Vec<u8>>>,
}

impl Content {
    /// A disk of zeros.
    pub fn zeros(size: u64) -> Self {
        Self { size, pieces: BTreeMap::new() }
    }

    /// What a chain shows.
    pub fn of(chain: &Chain) -> disk::Result<Self> {
        let mut content = Self::zeros(chain.virtual_size().0);
        let mut buffer = vec![0; PIECE as usize];
        for (index, length) in content.places() {
            let bytes = &mut buffer[..length as usize];
            chain.read_at(bytes, index * PIECE)?;
            if !is_zero(bytes) {
                let mut piece = bytes.to_vec();
                piece.resize(PIECE as usize, 0);
                content.pieces.insert(index, Arc::new(piece));
            }
        }
        Ok(content)
    }

    /// Number and length of every piece.
    fn places(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let size = self.size;
        (0..size.div_ceil(PIECE)).map(move |index| (index, PIECE.min(size - index * PIECE)))
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Changes the size; what is new is zero.
    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            self.put(size, self.size - size, None);
        }
        self.size = size;
    }

    /// Writes.
    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        self.put(offset, bytes.len() as u64, Some(bytes));
    }

    /// Zeroes.
    pub fn zero(&mut self, offset: u64, length: u64) {
        self.put(offset, length, None);
    }

    fn put(&mut self, offset: u64, length: u64, bytes: Option<&[u8]>) {
        assert!(offset + length <= self.size, "{length} bytes at {offset} on a disk of {}", self.size);
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let (index, start) = (at / PIECE, (at % PIECE) as usize);
            let count = (PIECE - start as u64).min(end - at) as usize;
            let piece = Arc::make_mut(self.pieces.entry(index).or_insert_with(|| Arc::new(vec![0; PIECE as usize])));
            match bytes {
                Some(bytes) => piece[start..start + count].copy_from_slice(&bytes[(at - offset) as usize..][..count]),
                None => piece[start..start + count].fill(0),
            }
            if is_zero(piece) {
                self.pieces.remove(&index);
            }
            at += count as u64;
        }
    }

    /// Bytes of a range.
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        let mut at = offset;
        while at < offset + length {
            let (index, start) = (at / PIECE, (at % PIECE) as usize);
            let count = (PIECE - start as u64).min(offset + length - at) as usize;
            if let Some(piece) = self.pieces.get(&index) {
                bytes[(at - offset) as usize..][..count].copy_from_slice(&piece[start..start + count]);
            }
            at += count as u64;
        }
        bytes
    }

    /// Reads all of a chain and compares: the first place that differs, in words.
    pub fn difference(&self, chain: &Chain) -> Option<String> {
        let size = chain.virtual_size().0;
        if size != self.size {
            return Some(format!("it has {size} bytes, not {}", self.size));
        }
        let (mut buffer, zeros) = (vec![0; PIECE as usize], vec![0; PIECE as usize]);
        for (index, length) in self.places() {
            let found = &mut buffer[..length as usize];
            if let Err(error) = chain.read_at(found, index * PIECE) {
                return Some(error.to_string());
            }
            let expected = &self.pieces.get(&index).map_or(&zeros, |piece| &**piece)[..length as usize];
            if found != expected {
                let at = found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(0);
                return Some(format!("byte {} differs", index * PIECE + at as u64));
            }
        }
        None
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; PIECE as usize] = [0; PIECE as usize];
    bytes == &ZEROS[..bytes.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_a_plain_vector_is() {
        let mut content = Content::zeros(3 * PIECE + 512);
        let mut plain = vec![0; 3 * PIECE as usize + 512];
        for (number, (offset, length)) in [(0, 512), (PIECE - 512, 1024), (3 * PIECE, 512), (100, 70_000)].into_iter().enumerate()
        {
            let bytes = vec![number as u8 + 1; length as usize];
            content.write(&bytes, offset);
            plain[offset as usize..][..length as usize].copy_from_slice(&bytes);
            assert_eq!(content.read(0, content.size()), plain);
        }
        content.zero(50, PIECE);
        plain[50..50 + PIECE as usize].fill(0);
        content.resize(PIECE + 600);
        plain.truncate(PIECE as usize + 600);
        content.resize(2 * PIECE + 512);
        plain.resize(2 * PIECE as usize + 512, 0);
        assert_eq!(content.read(0, content.size()), plain);
        content.zero(0, content.size());
        assert_eq!(content, Content::zeros(2 * PIECE + 512));
    }
}
