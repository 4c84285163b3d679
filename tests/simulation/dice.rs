//! Chance, by seed: everything random in a world comes from one generator.

use std::time::Duration;

use socketshark::random::Random;

/// The one generator of a world.
pub struct Dice(Random);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        let mut random = Random::seeded(seed);
        // Neighbouring seeds begin with unlike numbers.
        Dice(Random::seeded(random.number() ^ seed))
    }

    /// The chances of one of a seed's parts, whatever happened before.
    pub fn of_part(seed: u64, part: usize) -> Dice {
        Dice::new(Dice::new(seed).number() ^ (part as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn number(&mut self) -> u64 {
        self.0.number()
    }

    /// A number in `0..most`; 0 where that is empty.
    pub fn below(&mut self, most: usize) -> usize {
        if most == 0 { 0 } else { (self.0.number() % most as u64) as usize }
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most + 1 - least)
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A time from `least` to `most` milliseconds, to the microsecond.
    pub fn millis(&mut self, least: usize, most: usize) -> Duration {
        Duration::from_micros(self.between(least * 1_000, most * 1_000) as u64)
    }
}
