//! The seeded generator, and the bytes that everything is checked against.
//!
//! # Invariants
//! 1. Equal origins give equal words in every cell and every life: nothing here has a state that is
//!    not an argument.
//!
//! # Not guaranteed
//! Unpredictability. The patterns find damage, not lies.

/// The odd number closest to 2^64 divided by the golden ratio: successive multiples differ in many
/// bits.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Maps a word to a word that looks unrelated; a bijection, so that a change of the input always
/// changes the output.
pub const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let word = (word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    word ^ word >> 32
}

/// What a pattern is for. Patterns of two purposes have nothing in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Private memory of a worker.
    Private = 1,
    /// The request of a call.
    Request = 2,
    /// The reply to a call.
    Reply = 3,
    /// A lane of a shared page.
    Lane = 4,
    /// A borrowed frame.
    Frame = 5,
    /// The choices of a worker.
    Choice = 6,
}

/// An endless row of words that is computed from where it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pattern {
    base: u64,
}

impl Pattern {
    /// The pattern of `purpose` in a run of this `seed`.
    pub const fn new(seed: u64, purpose: Purpose) -> Self {
        Self {
            base: mix(seed ^ mix(purpose as u64)),
        }
    }

    /// The pattern that differs from this one for each `value`.
    #[must_use]
    pub const fn of(self, value: u64) -> Self {
        Self {
            base: mix(self.base.wrapping_add(mix(value ^ STRIDE))),
        }
    }

    /// The word of number `index`.
    pub const fn word(self, index: usize) -> u64 {
        mix(self
            .base
            .wrapping_add((index as u64 + 1).wrapping_mul(STRIDE)))
    }

    /// The words from number `first` on.
    pub fn words<const N: usize>(self, first: usize) -> [u64; N] {
        core::array::from_fn(|index| self.word(first + index))
    }
}

/// A seeded generator of choices.
#[derive(Debug)]
pub struct Generator {
    pattern: Pattern,
    drawn: usize,
}

impl Generator {
    /// A generator whose choices are the words of `pattern`.
    pub const fn new(pattern: Pattern) -> Self {
        Self { pattern, drawn: 0 }
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: usize) -> usize {
        self.drawn = self.drawn.wrapping_add(1);
        (self.pattern.word(self.drawn) % bound as u64) as usize
    }
}

/// How many bytes of `found` are not as `expected`.
pub fn differing(found: &[u64], expected: &[u64]) -> u64 {
    let bytes = |(found, expected): (&u64, &u64)| {
        (found ^ expected)
            .to_le_bytes()
            .iter()
            .filter(|byte| **byte != 0)
            .count() as u64
    };
    found.iter().zip(expected).map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_that_differ_give_patterns_that_differ() {
        let pattern = Pattern::new(1, Purpose::Lane);
        let mut words: Vec<u64> = (0..1000).map(|value| pattern.of(value).word(0)).collect();
        words.extend((0..1000).map(|index| pattern.word(index)));
        words.push(Pattern::new(1, Purpose::Frame).word(0));
        words.push(Pattern::new(2, Purpose::Lane).word(0));
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }

    #[test]
    fn differing_bytes_are_counted() {
        assert_eq!(differing(&[1, 2], &[1, 2]), 0);
        assert_eq!(differing(&[0x0100, 2], &[0x0001, 2]), 2);
    }

    #[test]
    fn choices_reach_every_value() {
        let mut generator = Generator::new(Pattern::new(7, Purpose::Choice));
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[generator.below(5)] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
