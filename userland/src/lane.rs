//! The part of a shared page that one worker writes, and how anybody checks it.
//!
//! A page of 4 KiB has 64 lanes of 64 bytes. Each worker of each cell has a lane of its own in each
//! bank of pages of every home, so that no two writers ever touch one lane, and anybody can compute
//! what may stand in it.
//!
//! ```text
//! word 0      end stamp: the last stamp that was written to the end
//! words 1-6   pattern of (seed, home, page, lane, stamp)
//! word 7      begin stamp: the last stamp that was begun
//! ```
//! # Protocol
//! The writer stores the begin stamp, then the pattern, then the end stamp. A reader loads the
//! words in ascending order, hence the end stamp first. If both stamps are equal, the words between
//! are of that stamp. If the begin stamp is the successor of the end stamp, each word between is of
//! one or the other. Everything else is either a writer that was faster than the reader, which a
//! second look settles, or damage.
//!
//! # Invariants
//! 1. Stamp 0 is the blank lane, all zeros: the content of a page that its home created anew.
//! 2. A stamp holds the life of the writer (high half) and a count from 1 (low half). So it only
//!    grows.
//!
//! # Not guaranteed
//! A lane that was replaced by an older, complete content of the same lane passes for others; its
//! writer finds it out.

use cell::{CellId, Incarnation};

use crate::pattern::{Pattern, Purpose, differing};

/// Words of a page.
pub const PAGE_WORDS: usize = 512;
/// Words of a lane.
pub const LANE_WORDS: usize = 8;
/// Lanes of a page.
pub const LANES: usize = PAGE_WORDS / LANE_WORDS;
/// Workers that a cell can have.
pub const WORKERS_MAX: usize = 16;
/// Cells whose workers share a page.
pub const CELLS_PER_PAGE: usize = LANES / WORKERS_MAX;
/// Pages in which each worker has a lane, per home.
pub const BANKS: usize = 4;
/// Words between the stamps.
const BODY_WORDS: usize = LANE_WORDS - 2;
/// The word of the begin stamp.
pub const BEGIN_WORD: usize = LANE_WORDS - 1;

/// The words of a lane.
pub type LaneWords = [u64; LANE_WORDS];

/// Pages that every cell must offer on a machine of `cells` cells, numbered from 0.
pub const fn pages_needed(cells: usize) -> usize {
    BANKS * cells.div_ceil(CELLS_PER_PAGE)
}

/// Which content a lane has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The content of a new page.
    pub const BLANK: Self = Self(0);

    /// The first content that a writer in its life `life` writes.
    pub const fn first(life: Incarnation) -> Self {
        Self((life.0 as u64) << 32 | 1)
    }

    /// The content that follows in the same life.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The life that wrote it; 0 for the blank lane.
    pub const fn life(self) -> Incarnation {
        Incarnation((self.0 >> 32) as u32)
    }

    const fn count(self) -> u32 {
        self.0 as u32
    }

    /// Whether there can be such a stamp.
    const fn is_possible(self) -> bool {
        self.0 == 0 || (self.life().0 != 0 && self.count() != 0)
    }

    /// Whether a writer can write `self` directly over `old`.
    pub fn follows(self, old: Self) -> bool {
        let same_life = self.life() == old.life() && self.0 == old.0.wrapping_add(1);
        let next_life = self.count() == 1 && self.life() > old.life();
        self.is_possible() && old.is_possible() && (same_life || next_life)
    }
}

/// The place of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The cell that owns the page.
    pub home: CellId,
    /// The page.
    pub page: u32,
    /// The lane's number in the page.
    pub lane: usize,
}

impl Place {
    /// The lane of `worker` of `writer` in `bank` of `home`.
    pub const fn new(home: CellId, bank: usize, writer: CellId, worker: usize) -> Self {
        let cell = writer.index();
        Self {
            home,
            page: (bank + BANKS * (cell / CELLS_PER_PAGE)) as u32,
            lane: cell % CELLS_PER_PAGE * WORKERS_MAX + worker,
        }
    }

    /// The lane of number `lane` in the same page.
    #[must_use]
    pub const fn beside(self, lane: usize) -> Self {
        Self { lane, ..self }
    }

    /// The number of the lane's first word in its page.
    pub const fn first_word(self) -> usize {
        self.lane * LANE_WORDS
    }

    /// What the lane holds at `stamp`.
    pub fn content(self, seed: u64, stamp: Stamp) -> LaneWords {
        if stamp == Stamp::BLANK {
            return [0; LANE_WORDS];
        }
        let place =
            (self.home.index() as u64) << 48 | u64::from(self.page) << 16 | self.lane as u64;
        let pattern = Pattern::new(seed, Purpose::Lane).of(place).of(stamp.0);
        let mut words = [stamp.0; LANE_WORDS];
        words[1..=BODY_WORDS].copy_from_slice(&pattern.words::<BODY_WORDS>(0));
        words
    }

    /// Judges the words of the lane.
    pub fn judge(self, seed: u64, words: &LaneWords) -> Look {
        let (end, begin) = (Stamp(words[0]), Stamp(words[BEGIN_WORD]));
        let old = self.content(seed, end);
        if end == begin {
            let sound = end.is_possible() && *words == old;
            return if sound {
                Look::Settled(end)
            } else {
                Look::Damaged(differing(words, &old))
            };
        }
        if !begin.follows(end) {
            return Look::Unclear;
        }
        let new = self.content(seed, begin);
        let body = words.iter().zip(old).zip(new).skip(1).take(BODY_WORDS);
        let strange = body.filter(|((word, old), new)| *word != old && *word != new);
        match strange
            .map(|((word, old), _)| differing(&[*word], &[old]))
            .sum()
        {
            0 => Look::Changing {
                old: end,
                new: begin,
            },
            // Much may have happened between two lives; a second look tells.
            _ if end.life() != begin.life() => Look::Unclear,
            bytes => Look::Damaged(bytes),
        }
    }
}

/// What the words of a lane tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// They are all of this content.
    Settled(Stamp),
    /// The writer is at it, or stopped on the way.
    Changing {
        /// The content before.
        old: Stamp,
        /// The content to be.
        new: Stamp,
    },
    /// The writer was faster than the reader, or the stamps are damaged.
    Unclear,
    /// So many bytes are of no content that there can be.
    Damaged(u64),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: u64 = 1995;

    fn place() -> Place {
        let cell = |number| CellId::new(number).expect("below the limit");
        Place::new(cell(3), 2, cell(5), 7)
    }

    /// The stores of a writer that goes through `stamps`, in order.
    fn stores(stamps: &[Stamp]) -> Vec<(usize, u64)> {
        let order = [BEGIN_WORD, 1, 2, 3, 4, 5, 6, 0];
        let content = |stamp: &Stamp| place().content(SEED, *stamp);
        let lanes = stamps.iter().map(content);
        lanes
            .flat_map(|words| order.map(|word| (word, words[word])))
            .collect()
    }

    #[test]
    fn lanes_of_different_writers_are_different() {
        let mut seen = std::collections::HashSet::new();
        let home = CellId::new(0).expect("below the limit");
        for writer in 0..cell::CELLS_MAX {
            for worker in 0..WORKERS_MAX {
                for bank in 0..BANKS {
                    let writer = CellId::new(writer).expect("below the limit");
                    let place = Place::new(home, bank, writer, worker);
                    assert!((place.page as usize) < pages_needed(cell::CELLS_MAX));
                    assert!(place.lane < LANES);
                    assert!(seen.insert((place.page, place.lane)));
                }
            }
        }
        assert_eq!(pages_needed(4), BANKS);
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let stamp = Stamp::first(Incarnation(3)).next();
        for bit in 0..64 * LANE_WORDS {
            let mut words = place().content(SEED, stamp);
            words[bit / 64] ^= 1 << (bit % 64);
            let look = place().judge(SEED, &words);
            assert_ne!(look, Look::Settled(stamp));
            assert!(!matches!(look, Look::Settled(_)), "bit {bit}");
            // A stamp that looks like its neighbour's is told by the words between.
            assert!(matches!(look, Look::Unclear | Look::Damaged(_)) || !(64..448).contains(&bit));
        }
    }

    #[test]
    fn content_of_another_place_is_damage() {
        let stamp = Stamp::first(Incarnation(1));
        let words = place().beside(0).content(SEED, stamp);
        assert!(matches!(place().judge(SEED, &words), Look::Damaged(_)));
    }

    #[test]
    fn a_new_life_writes_over_what_the_old_one_left() {
        let old = Stamp(Stamp::first(Incarnation(1)).0 + 700);
        assert!(Stamp::first(Incarnation(2)).follows(old));
        assert!(Stamp::first(Incarnation(4)).follows(Stamp::BLANK));
        assert!(!Stamp::first(Incarnation(1)).follows(old));
        assert!(!old.follows(old));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Whatever the interleaving of one writer's stores and one reader's loads, the reader sees
        /// no damage.
        #[test]
        fn a_reader_never_takes_a_writer_for_damage(
            turns in prop::collection::vec(0usize..20, LANE_WORDS),
            stopped in 0usize..33,
        ) {
            let one = Stamp::first(Incarnation(1));
            let mut memory = place().content(SEED, Stamp::BLANK);
            let stamps = [one, one.next(), one.next().next(), Stamp::first(Incarnation(2))];
            let mut stores = stores(&stamps);
            stores.truncate(stopped);
            let mut stores = stores.into_iter();
            let mut seen = [0; LANE_WORDS];
            for (word, turns) in turns.into_iter().enumerate() {
                for (at, value) in stores.by_ref().take(turns) {
                    memory[at] = value;
                }
                seen[word] = memory[word];
            }
            let look = place().judge(SEED, &seen);
            prop_assert!(!matches!(look, Look::Damaged(_)), "{:?}", look);
        }
    }
}
