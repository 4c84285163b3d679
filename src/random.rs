//! The one generator of the core: seeded by whoever runs it, so that a run can be repeated.
//!
//! It spreads load (jitter, back-off); nothing secret hangs on it.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
pub struct Random(u64);

impl Random {
    pub fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `[0, 1)`.
    pub fn fraction(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A duration in `[0, most)`: full jitter.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_in_range() {
        let (mut a, mut b) = (Random::seeded(7), Random::seeded(7));
        for _ in 0..1000 {
            let fraction = a.fraction();
            assert_eq!(fraction, b.fraction());
            assert!((0.0..1.0).contains(&fraction));
        }
    }
}
