//! Chance that a seed repeats: a xorshift sequence.

use std::ops::Range;
use std::time::Duration;

/// See the module.
pub struct Dice(u64);

impl Dice {
    /// Of this seed.
    pub fn new(seed: u64) -> Self {
        Dice(seed.max(1))
    }

    /// The next number, whatever it is.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bytes that do not pack.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count.next_multiple_of(8));
        while bytes.len() < count {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    /// One of `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or_default()
    }

    /// One in so many.
    pub fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }

    /// A span of time.
    pub fn moment(&mut self, milliseconds: Range<u64>) -> Duration {
        let span = milliseconds.end - milliseconds.start;
        Duration::from_millis(milliseconds.start + self.next() % span)
    }
}
