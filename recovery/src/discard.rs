//! Preemptive discard: which frames are dropped after a cell died, as a pure function.
//!
//! Hive dropped every page that the dead cell *could* write, because nobody knew which ones it did
//! (CACM 1996, "recovery"). Nested tables have dirty bits, so here the pages that were granted and
//! never written can be kept. Both set sizes are counted whatever the policy, so that the
//! difference can be reported.
//!
//! Frames that were lent to the dead, or borrowed from it, need no judgement: their contents were
//! the dead cell's own, or lay in its memory.
//!
//! # Not guaranteed
//! Where the firewall's back end keeps no dirty bits, every granted frame counts as written.

use cell::CellSet;
use cell::parameters::Discard;

/// What is known of an own frame with own data, which others may have been granted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameFacts {
    /// Who may write it.
    pub writers: CellSet,
    /// Who wrote it since it was granted, as far as the back end can tell.
    pub written_by: CellSet,
}

/// What to do with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// The dead had nothing to do with it, or did it no harm.
    Keep,
    /// Its contents are dropped.
    Discard,
}

/// The sizes of a discard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct DiscardCounts {
    /// Frames that the dead could write.
    pub writable: u32,
    /// Frames that the dead wrote.
    pub written: u32,
    /// Frames discarded.
    pub discarded: u32,
}

impl DiscardCounts {
    /// Judges a frame under `policy` and counts it.
    pub fn judge(&mut self, frame: FrameFacts, dead: CellSet, policy: Discard) -> Verdict {
        let writable = !frame.writers.intersection(dead).is_empty();
        let written = !frame.written_by.intersection(dead).is_empty();
        self.writable += u32::from(writable);
        self.written += u32::from(written);
        let is_lost = match policy {
            Discard::Writable => writable,
            Discard::Written => written,
        };
        if !is_lost {
            return Verdict::Keep;
        }
        self.discarded += 1;
        Verdict::Discard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEAD: CellSet = CellSet(0b0010);
    const ALIVE: CellSet = CellSet(0b0100);

    fn judge(writers: CellSet, written_by: CellSet, policy: Discard) -> Verdict {
        let frame = FrameFacts {
            writers,
            written_by,
        };
        DiscardCounts::default().judge(frame, DEAD, policy)
    }

    #[test]
    fn a_granted_frame_that_was_not_written_is_kept_under_one_policy() {
        let clean = CellSet::EMPTY;
        assert_eq!(judge(DEAD, clean, Discard::Written), Verdict::Keep);
        assert_eq!(judge(DEAD, clean, Discard::Writable), Verdict::Discard);
        assert_eq!(judge(DEAD, DEAD, Discard::Written), Verdict::Discard);
        assert_eq!(judge(ALIVE, ALIVE, Discard::Writable), Verdict::Keep);
    }

    proptest! {
        #[test]
        fn frames_of_the_living_are_kept_and_counts_are_ordered(
            frames in prop::collection::vec((0u64..16, 0u64..16), 0..50)
        ) {
            let [mut by_writable, mut by_written] = [DiscardCounts::default(); 2];
            for (writers, written) in frames {
                let writers = CellSet(writers);
                let written_by = CellSet(written).intersection(writers);
                let frame = FrameFacts { writers, written_by };
                let verdict = by_writable.judge(frame, DEAD, Discard::Writable);
                by_written.judge(frame, DEAD, Discard::Written);
                prop_assert_eq!(
                    verdict == Verdict::Keep,
                    writers.intersection(DEAD).is_empty()
                );
            }
            prop_assert_eq!(by_writable.discarded, by_writable.writable);
            prop_assert_eq!(by_written.discarded, by_writable.written);
            prop_assert!(by_writable.written <= by_writable.writable);
        }
    }
}
