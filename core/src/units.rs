//! Units are types: what a number counts stands in its type, not in a comment.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

use humansize::{BINARY, FormatSizeOptions, format_size};
use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The difference, or nothing where `other` is more.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// "41 GiB", "2.1 GiB", "512 B": three figures at most.
impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = self.0;
        while unit >= 1024 {
            unit /= 1024;
        }
        let places = usize::from(self.0 >= 1024 && unit < 100);
        let options = FormatSizeOptions::from(BINARY).decimal_places(places).decimal_zeroes(places);
        f.pad(&format_size(self.0, options))
    }
}

/// Counts may be a stranger's: a sum stays at the most that can be said.
impl Add for ByteCount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for ByteCount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for ByteCount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Sum for ByteCount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

/// Bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteRate(pub f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_with_three_figures_at_most() {
        let said = [0, 512, 1536, 2_254_857_830, 44_023_414_784, 123 << 20].map(|n| ByteCount(n).to_string());
        assert_eq!(said, ["0 B", "512 B", "1.5 KiB", "2.1 GiB", "41.0 GiB", "123 MiB"]);
    }
}
