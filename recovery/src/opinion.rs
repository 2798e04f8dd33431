//! What a cell testifies in agreement: whom it found alive, what it saw, whom it accuses.
//!
//! # When a cell is found alive
//! All of these, seen by the testifying cell itself after the attempt began here:
//! - the cell's record shows that it joined the attempt (or a later one): its memory can be read,
//!   its kernel steps;
//! - each of its clock words moved: every CPU takes interrupts;
//! - its progress word moved: threads run, not only interrupt handlers;
//!
//! and none of these: fatal evidence by the monitor against its present life, nonsense in its clock
//! words, a strike for crying wolf, twice the time that it may take to reach a barrier.
//!
//! A cell judges itself by its own clocks, and by whether its own pulse is a hint. So one whose
//! threads do not run confesses; with two cells, nobody could otherwise tell which is right.
//!
//! In the later attempts of a run that found no majority, only the probe and fatal evidence count
//! ([`crate::agreement::CONTESTED_ATTEMPTS`]).
//!
//! Denied accesses that are not fatal (a refused store, a refused port) are hints and no more: a
//! cell that passes the probe stays. Its kernel took the bus error and went on, so it took it
//! inside a careful reference or reported it; a kernel that takes one anywhere else stops itself,
//! and then the evidence is fatal.

use cell::{CellId, CellSet};

use crate::hint::HintReason;

/// The alert with which a cell started, or would have started, a run of agreement.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Alert {
    /// Whom it accuses.
    pub suspect: CellId,
    /// Why.
    pub reason: HintReason,
}

/// One cell's testimony in one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Opinion {
    /// The cells that it found alive.
    pub alive: CellSet,
    /// The cells of which it lately saw something odd itself, whatever the probe showed. With
    /// itself in the set it says: I was away for a while.
    pub suspects: CellSet,
    /// Its own alert.
    pub alert: Option<Alert>,
}

/// Words of an opinion in a record.
pub(crate) const OPINION_WORDS: usize = 3;

const ALERT_PRESENT: u64 = 1 << 63;

impl Opinion {
    /// No testimony.
    pub(crate) const NONE: Self = Self {
        alive: CellSet::EMPTY,
        suspects: CellSet::EMPTY,
        alert: None,
    };

    /// As words of a record.
    pub(crate) fn to_words(self) -> [u64; OPINION_WORDS] {
        let alert = self.alert.map_or(0, |alert| {
            ALERT_PRESENT | (alert.suspect.index() as u64) << 8 | u64::from(alert.reason.code())
        });
        [self.alive.0, self.suspects.0, alert]
    }

    /// From words that another cell wrote; `None` if they are nonsense in a machine of `cells`
    /// cells.
    pub(crate) fn from_words(words: [u64; OPINION_WORDS], cells: usize) -> Option<Self> {
        let [alive, suspects, alert] = words;
        let (alive, suspects, all) = (CellSet(alive), CellSet(suspects), CellSet::first(cells));
        if !alive.is_subset_of(all) || !suspects.is_subset_of(all) {
            return None;
        }
        let alert = if alert == 0 {
            None
        } else {
            Some(alert_from_word(alert, cells)?)
        };
        Some(Self {
            alive,
            suspects,
            alert,
        })
    }
}

fn alert_from_word(word: u64, cells: usize) -> Option<Alert> {
    let suspect = usize::try_from((word & !ALERT_PRESENT) >> 8).ok()?;
    let known = word & ALERT_PRESENT != 0 && suspect < cells;
    let reason = HintReason::from_code(word as u8)?;
    let suspect = CellId::new(suspect)?;
    known.then_some(Alert { suspect, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_the_same_words(words: [u64; 3], code in 0u64..64) {
            let words = [words[0] & 0xf, words[1] & 0xf, (words[2] & 0x300) | code | 1 << 63];
            if let Some(opinion) = Opinion::from_words(words, 4) {
                prop_assert_eq!(opinion.to_words(), words);
            }
        }

        #[test]
        fn no_words_make_the_decoder_panic(words: [u64; 3]) {
            let _ = Opinion::from_words(words, 4);
        }
    }
}
