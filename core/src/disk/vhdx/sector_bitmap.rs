//! Sector bitmaps (2.5.2): one bit a sector, the lowest bit of a byte first, set where the sector stands in this file.

/// Bits that one byte slice holds from `first` on, as runs: (is set, number of bits).
pub fn runs(bytes: &[u8], first: usize, count: usize) -> Vec<(bool, usize)> {
    let mut runs: Vec<(bool, usize)> = Vec::new();
    let mut bit = first;
    let end = first + count;
    while bit < end {
        let set = bytes[bit / 8] >> (bit % 8) & 1 == 1;
        let whole = if set { 0xff } else { 0 };
        let start = bit;
        while bit < end {
            if bit.is_multiple_of(8) && bit + 8 <= end && bytes[bit / 8] == whole {
                bit += 8;
            } else if (bytes[bit / 8] >> (bit % 8) & 1 == 1) == set {
                bit += 1;
            } else {
                break;
            }
        }
        runs.push((set, bit - start));
    }
    runs
}

/// Sets or clears bits.
pub fn fill(bytes: &mut [u8], first: usize, count: usize, set: bool) {
    let mut bit = first;
    let end = first + count;
    while bit < end {
        if bit.is_multiple_of(8) && bit + 8 <= end {
            bytes[bit / 8] = if set { 0xff } else { 0 };
            bit += 8;
            continue;
        }
        let mask = 1 << (bit % 8);
        if set {
            bytes[bit / 8] |= mask
        } else {
            bytes[bit / 8] &= !mask
        }
        bit += 1;
    }
}
