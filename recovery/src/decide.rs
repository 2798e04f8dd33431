//! The pure function from opinions to a proposed live set.
//!
//! A cell is proposed if more than half of those who testified found it alive, and it testified
//! itself. Cells that hold the same opinions therefore propose the same set, and one accuser,
//! whatever it claims, is outvoted as soon as two others testify.

use cell::{CellId, CellSet};

use crate::opinion::Opinion;

/// The set to propose, given the opinions of `known`.
pub fn decide(known: CellSet, opinions: &[Opinion], live: CellSet) -> CellSet {
    let voters = known.intersection(live);
    let is_found_alive = |cell: &CellId| {
        let found = voters
            .iter()
            .filter(|voter| opinions[voter.index()].alive.contains(*cell));
        found.count() * 2 > voters.len()
    };
    voters.iter().filter(is_found_alive).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a broken assumption")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One line per case: who testified what, and what follows. `0:013` reads "cell 0 found 0, 1
    /// and 3 alive".
    const CASES: &str = "
        # live   testimony                           proposal
        # Everybody found everybody: a false alarm.
        0123     0:0123 1:0123 2:0123 3:0123         0123
        # Cell 2 is dead and says nothing.
        0123     0:013  1:013  3:013                 013
        # Cell 2 died after it testified; the others saw it die.
        0123     0:013  1:013  2:0123 3:013          013
        # Cell 2 died after it testified, and only cell 3 noticed in time: it stays for this epoch.
        0123     0:0123 1:0123 2:0123 3:013          0123
        # Cell 0 lies about cell 1: outvoted.
        0123     0:023  1:0123 2:0123 3:0123         0123
        # Cell 0 lies about everybody.
        0123     0:0    1:0123 2:0123 3:0123         0123
        # Exactly half is not enough to stay.
        0123     0:02   1:0123 2:0123 3:02           02
        # Everybody found cell 3 alive, but it never testified: it could not be told the outcome.
        0123     0:0123 1:0123 2:0123                012
        # Two cells that accuse each other: nobody is proposed; the monitor's witness decides.
        01       0:0    1:1                          -
        # Of two cells one is dead.
        01       0:0                                 0
        # Of two cells one lies: the accused is not in the proposal, and one vote is no majority.
        01       0:0    1:01                         0
        # One of the cells that testified was voted out meanwhile: it does not count.
        012      0:01   1:01   2:0123 3:0123         01
        # A crippled cell says so itself.
        012      0:01   1:01   2:01                  01
    ";

    fn set(digits: &str) -> CellSet {
        let digits = digits.bytes().filter(u8::is_ascii_digit);
        digits
            .map(|digit| CellId::new(usize::from(digit - b'0')).unwrap())
            .collect()
    }

    #[test]
    fn the_table_holds() {
        let lines = CASES.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            let (live, proposal) = (set(words[0]), set(words[words.len() - 1]));
            let mut opinions = [Opinion::NONE; 4];
            let mut known = CellSet::EMPTY;
            for testimony in &words[1..words.len() - 1] {
                let (voter, alive) = testimony.split_once(':').unwrap();
                let voter = set(voter).lowest().unwrap();
                opinions[voter.index()].alive = set(alive);
                known = known.with(voter);
            }
            assert_eq!(decide(known, &opinions, live), proposal, "{line}");
        }
    }

    proptest! {
        #[test]
        fn one_liar_cannot_expel_one_whom_all_others_found(
            lie in 0u64..16, live in Just(CellSet::first(4)), liar in 0usize..4
        ) {
            let mut opinions = [Opinion { alive: live, ..Opinion::NONE }; 4];
            opinions[liar].alive = CellSet(lie);
            prop_assert_eq!(decide(live, &opinions, live), live);
        }

        #[test]
        fn proposals_hold_only_live_cells_that_testified(
            alive: [u64; 4], known in 0u64..16, live in 0u64..16
        ) {
            let opinions = alive.map(|alive| Opinion { alive: CellSet(alive), ..Opinion::NONE });
            let proposal = decide(CellSet(known), &opinions, CellSet(live));
            prop_assert!(proposal.is_subset_of(CellSet(known & live)));
        }
    }
}
