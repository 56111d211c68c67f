//! Which sectors of a block are there: a bit each, the highest bit of a byte first ("Block Allocation Table and Data
//! Blocks").

/// Runs of equal bits from `first` on: (set, how many).
pub fn runs(bytes: &[u8], first: usize, count: usize) -> Vec<(bool, usize)> {
    let mut runs: Vec<(bool, usize)> = Vec::new();
    let (mut at, end) = (first, first + count);
    while at < end {
        let byte = bytes[at / 8];
        let (set, length) = match byte {
            0 | 0xFF => (byte == 0xFF, 8 - at % 8),
            _ => (byte & (0x80 >> (at % 8)) != 0, 1),
        };
        let length = length.min(end - at);
        match runs.last_mut() {
            Some(last) if last.0 == set => last.1 += length,
            _ => runs.push((set, length)),
        }
        at += length;
    }
    runs
}

/// Sets or clears bits.
pub fn fill(bytes: &mut [u8], first: usize, count: usize, set: bool) {
    let (mut at, end) = (first, first + count);
    while at < end {
        let whole = at.is_multiple_of(8) && end - at >= 8;
        let (mask, length) = if whole { (0xFF, 8) } else { (0x80 >> (at % 8), 1) };
        if set {
            bytes[at / 8] |= mask;
        } else {
            bytes[at / 8] &= !mask;
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_bit_is_the_first_sector() {
        let mut bytes = [0; 4];
        fill(&mut bytes, 1, 1, true);
        assert_eq!(bytes, [0x40, 0, 0, 0]);
        fill(&mut bytes, 6, 20, true);
        assert_eq!(bytes, [0x43, 0xFF, 0xFF, 0xC0]);
        assert_eq!(runs(&bytes, 0, 32), [(false, 1), (true, 1), (false, 4), (true, 20), (false, 6)]);
        assert_eq!(runs(&bytes, 8, 3), [(true, 3)]);
        fill(&mut bytes, 7, 10, false);
        assert_eq!(runs(&bytes, 6, 20), [(true, 1), (false, 10), (true, 9)]);
    }
}
