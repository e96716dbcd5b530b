//! Chance that can be repeated.

use sha2::{Digest as _, Sha256};

/// Numbers that a seed and a name decide, and nothing else: neither what was thrown under other names, nor when.
#[derive(Clone, Debug)]
pub struct Dice {
    seed: u64,
    name: String,
    throws: u64,
}

impl Dice {
    /// The dice of this name.
    #[must_use]
    pub fn new(seed: u64, name: impl Into<String>) -> Self {
        Self { seed, name: name.into(), throws: 0 }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.throws += 1;
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(self.throws.to_be_bytes());
        hash.update(&self.name);
        hash.finalize().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let scaled = (u128::from(self.number()) * u128::from(end)) >> 64;
        u64::try_from(scaled).unwrap_or_default()
    }

    /// Whether something happens that happens so often, from 0 (never) to 1 (always).
    #[expect(clippy::cast_precision_loss, reason = "chances are no exact numbers")]
    pub fn happens(&mut self, rate: f64) -> bool {
        (self.number() as f64) < rate * (u64::MAX as f64)
    }

    /// One of these.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub fn one_of<'a, T>(&mut self, these: &'a [T]) -> &'a T {
        let place = self.below(these.len() as u64);
        &these[usize::try_from(place).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_name_decide() {
        let throws = |seed, name: &str| {
            let mut dice = Dice::new(seed, name);
            [dice.number(), dice.number(), dice.number()]
        };
        assert_eq!(throws(1, "a"), throws(1, "a"));
        assert_ne!(throws(1, "a"), throws(2, "a"));
        assert_ne!(throws(1, "a"), throws(1, "b"));
        assert_ne!(throws(1, "a")[0], throws(1, "a")[1]);
    }

    #[test]
    fn what_happens_so_often_does() {
        let mut dice = Dice::new(7, "often");
        let count = (0..10_000).filter(|_| dice.happens(0.2)).count();
        assert!((1_800..2_200).contains(&count), "{count}");
        assert!((0..100).all(|_| !dice.happens(0.0)));
        assert!((0..100).all(|_| dice.happens(1.0)));
        let mut seen = [0; 3];
        for _ in 0..300 {
            seen[usize::try_from(dice.below(3)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| *count > 60), "{seen:?}");
        assert_eq!(dice.below(0), 0);
    }
}
