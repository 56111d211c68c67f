//! Where identifiers that nobody had before come from, so that a test can have the same ones again.

use uuid::Uuid;

/// A new random identifier.
pub fn uuid() -> Uuid {
    #[cfg(any(test, feature = "testing"))]
    if let Some(id) = seeded::next() {
        return id;
    }
    Uuid::new_v4()
}

#[cfg(any(test, feature = "testing"))]
pub use seeded::follow_seed;

#[cfg(any(test, feature = "testing"))]
mod seeded {
    use std::cell::Cell;

    use uuid::Uuid;

    thread_local! {
        /// The seed, and how many identifiers it has given.
        static SEED: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
    }

    /// From now on this thread's identifiers follow from the seed; `None`: they are random again.
    pub fn follow_seed(seed: Option<u64>) {
        SEED.set(seed.map(|seed| (seed, 0)));
    }

    pub(super) fn next() -> Option<Uuid> {
        let (seed, count) = SEED.get()?;
        SEED.set(Some((seed, count + 1)));
        // Spread, so that their order says nothing.
        let spread = (count + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes = [spread.to_be_bytes(), (seed << 24 ^ count).to_be_bytes()].concat();
        Some(uuid::Builder::from_random_bytes(bytes.try_into().ok()?).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_identifiers() {
        let three = |seed| {
            follow_seed(seed);
            [(); 3].map(|()| uuid())
        };
        assert_eq!(three(Some(1)), three(Some(1)));
        assert_ne!(three(Some(1)), three(Some(2)));
        assert_ne!(three(None), three(None));
    }
}
