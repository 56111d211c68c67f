//! Tests of the room.

use crate::testing::Random;

mod census;
mod estimate;
mod forecast;
mod tree;

/// From 0 to 1.
fn unit(rng: &mut Random) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// About normal, mean 0 and standard deviation 1.
fn normal(rng: &mut Random) -> f64 {
    (0..12).map(|_| unit(rng)).sum::<f64>() - 6.0
}
