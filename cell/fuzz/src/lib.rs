//! Valid inputs, spoilt: for the tests of every parser of foreign bytes.
//!
//! Random bytes fail a parser's first check and say little of the others. These start from inputs
//! that are right and change a few things: bits, numbers to the extremes, lengths, order. The cases
//! are the same in every run; one that fails is printed.
//!
//! # Not guaranteed
//! Nothing measures what the cases reach. A test that wants a check behind a checksum passed mends
//! the checksum itself.

use std::fmt::Write;
use std::thread;

/// Cases of one [`cases`].
pub const CASES: usize = 50_000;

const CHANGES_MAX: u64 = 4;
/// An input grows by at most so many bytes per change.
const GROWTH_MAX: u64 = 32;

/// Gives `parse` the valid inputs and then [`CASES`] spoilt ones.
///
/// # Panics
/// If there is no valid input.
pub fn cases(valid: &[&[u8]], mut parse: impl FnMut(&[u8])) {
    let mut draw = Draw::new();
    for &input in valid {
        Shown(input).while_it_lasts(&mut parse);
    }
    for _ in 0..CASES {
        let input = draw.spoilt(valid);
        Shown(&input).while_it_lasts(&mut parse);
    }
}

/// Prints an input whose parser panics.
struct Shown<'a>(&'a [u8]);

impl Shown<'_> {
    fn while_it_lasts(self, parse: &mut impl FnMut(&[u8])) {
        parse(self.0);
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut hex = String::new();
            for byte in self.0 {
                let _ = write!(hex, "{byte:02x}");
            }
            eprintln!("the input: {hex}\nas text: {}", self.0.escape_ascii());
        }
    }
}

/// A sequence of numbers, the same in every run (xorshift64*).
#[derive(Debug)]
pub struct Draw(u64);

impl Draw {
    /// From the start.
    pub const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Any number.
    pub const fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`; 0 if that is 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        let number = self.number() >> 8;
        if limit == 0 { 0 } else { number % limit }
    }

    /// A number where mistakes are made: small, a power of two, the largest, or next to one.
    pub const fn extreme(&mut self) -> u64 {
        let power = 1 << self.below(64);
        match self.below(6) {
            0 => self.below(4),
            1 => power,
            2 => power - 1,
            3 => power + 1,
            4 => u64::MAX - self.below(4),
            _ => self.number(),
        }
    }

    /// One of `valid` with up to four changes.
    fn spoilt(&mut self, valid: &[&[u8]]) -> Vec<u8> {
        let mut bytes = self.one_of(valid).to_vec();
        for _ in 0..=self.below(CHANGES_MAX) {
            self.change(&mut bytes, valid);
        }
        bytes
    }

    fn one_of<'a>(&mut self, valid: &[&'a [u8]]) -> &'a [u8] {
        valid[self.below(valid.len() as u64) as usize]
    }

    fn change(&mut self, bytes: &mut Vec<u8>, valid: &[&[u8]]) {
        let length = bytes.len() as u64;
        let at = self.below(length) as usize;
        match self.below(8) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            2 if at < bytes.len() => bytes[at] = self.number() as u8,
            3 | 4 => self.put_number(bytes),
            5 => bytes.truncate(self.below(length + 1) as usize),
            6 => {
                let count = self.below(GROWTH_MAX);
                let grown: Vec<u8> = (0..count).map(|_| self.number() as u8).collect();
                bytes.splice(at..at, grown);
            }
            _ => {
                // A piece of a valid input, over what is here or between.
                let from = self.one_of(valid);
                let start = self.below(from.len() as u64 + 1) as usize;
                let count = self.below(GROWTH_MAX) as usize;
                let piece = &from[start..from.len().min(start + count)];
                let replaced = if self.below(2) == 0 { 0 } else { piece.len() };
                let end = bytes.len().min(at + replaced);
                bytes.splice(at..end, piece.iter().copied());
            }
        }
    }

    /// Writes an extreme number over one, two, four or eight bytes, mostly where one may lie.
    fn put_number(&mut self, bytes: &mut [u8]) {
        let width = 1 << self.below(4);
        let Some(last) = bytes.len().checked_sub(width) else {
            return;
        };
        let mut at = self.below(last as u64 + 1) as usize;
        if self.below(4) > 0 {
            at -= at % width;
        }
        let number = self.extreme().to_le_bytes();
        bytes[at..at + width].copy_from_slice(&number[..width]);
    }
}

impl Default for Draw {
    fn default() -> Self {
        Self::new()
    }
}

/// The bytes as little-endian words; the last one filled up with zeros.
pub fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    bytes.chunks(8).map(word).collect()
}

/// The bytes of words.
pub fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn most_cases_differ_and_few_are_long() {
        let valid: &[u8] = b"cells=4 firewall=npt";
        let mut seen = HashSet::new();
        cases(&[valid], |input| {
            assert!(input.len() <= valid.len() + 4 * GROWTH_MAX as usize);
            seen.insert(input.to_vec());
        });
        assert!(seen.len() > CASES / 2, "{}", seen.len());
    }

    #[test]
    fn words_and_bytes_are_each_others_inverse() {
        assert_eq!(words(&bytes(&[1, u64::MAX])), [1, u64::MAX]);
        assert_eq!(words(&[1, 2]), [0x201]);
    }
}
