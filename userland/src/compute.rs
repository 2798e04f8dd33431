//! The operation that needs no other cell: a private buffer, checked and rewritten each round.
//!
//! It goes on whatever happens elsewhere, so its progress shows whether a cell itself was held up,
//! and its buffer is where a stray store into a healthy cell's private memory would show.

use crate::pattern::{Pattern, differing};

/// Words of the buffer: one page.
const BUFFER_WORDS: usize = 512;
/// Words that one operation checks and rewrites.
const STEP_WORDS: usize = 128;

/// The private memory of a worker.
#[derive(Debug)]
pub(crate) struct Buffer {
    words: [u64; BUFFER_WORDS],
    pattern: Pattern,
    /// The round that the words from `cursor` on are still of.
    round: u64,
    cursor: usize,
}

impl Buffer {
    /// A buffer filled with round 0 of `pattern`.
    pub(crate) fn new(pattern: Pattern) -> Self {
        Self {
            words: pattern.of(0).words(0),
            pattern,
            round: 0,
            cursor: 0,
        }
    }

    /// Checks the next words and writes the next round over them; returns how many bytes were not
    /// as expected.
    pub(crate) fn step(&mut self) -> u64 {
        let (old, new) = (self.pattern.of(self.round), self.pattern.of(self.round + 1));
        let part = &mut self.words[self.cursor..self.cursor + STEP_WORDS];
        let mut bytes = 0;
        for (offset, word) in part.iter_mut().enumerate() {
            bytes += differing(&[*word], &[old.word(self.cursor + offset)]);
            *word = new.word(self.cursor + offset);
        }
        self.cursor += STEP_WORDS;
        if self.cursor == BUFFER_WORDS {
            self.cursor = 0;
            self.round += 1;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Purpose;

    #[test]
    fn a_stray_store_is_seen_within_one_round() {
        let mut buffer = Buffer::new(Pattern::new(3, Purpose::Private));
        assert_eq!((0..100).map(|_| buffer.step()).sum::<u64>(), 0);
        buffer.words[300] ^= 0xff00;
        let steps = BUFFER_WORDS / STEP_WORDS;
        assert_eq!((0..steps).map(|_| buffer.step()).sum::<u64>(), 1);
        assert_eq!((0..100).map(|_| buffer.step()).sum::<u64>(), 0, "repaired");
    }
}
