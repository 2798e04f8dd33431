//! Membership under every interleaving: votes against votes, withdrawals and joins.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p cell --test membership_loom --release`.
//!
//! # What is explored
//! Two CPUs, each with one short program of calls; loom runs every order of their atomic operations
//! (up to [`PREEMPTIONS`] preemptions, which keeps a run under a minute).

#![cfg(loom)]
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may stop at a broken assumption"
)]

use cell::membership::{Membership, VoteError};
use cell::{CellId, CellSet, Epoch};
use loom::sync::Arc;
use loom::thread;

const PREEMPTIONS: usize = 3;
const NONE: CellSet = CellSet::EMPTY;
const ALL: CellSet = CellSet(0b111);
const FIRST: Epoch = Epoch(1);

type Vote = Result<Option<CellSet>, VoteError>;

fn cell(number: usize) -> CellId {
    CellId::new(number).unwrap()
}

/// Explores `programs` on a machine of three live cells, one CPU each, and checks the outcome of
/// each interleaving.
fn explore(
    programs: &'static [fn(&Membership) -> Vote],
    check: impl Fn(&Membership, &[Vote]) + Send + Sync + 'static,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(move || {
        let membership = Arc::new(Membership::new());
        membership.start(ALL);
        let others: Vec<_> = programs[1..]
            .iter()
            .map(|program| {
                let membership = Arc::clone(&membership);
                thread::spawn(move || program(&membership))
            })
            .collect();
        let mut votes = vec![programs[0](&membership)];
        votes.extend(others.into_iter().map(|other| other.join().unwrap()));
        check(&membership, &votes);
    });
}

/// The set that a vote says is sealed.
fn sealed_by(vote: &Vote) -> Option<CellSet> {
    match *vote {
        Ok(sealed) => sealed,
        Err(VoteError::Sealed(live)) => Some(live),
        Err(_) => None,
    }
}

fn assert_one_outcome(membership: &Membership, votes: &[Vote]) {
    for live in votes.iter().filter_map(sealed_by) {
        assert_eq!(membership.sealed(FIRST), Some(live));
    }
}

const WITHOUT_0: CellSet = CellSet(0b110);
const WITHOUT_1: CellSet = CellSet(0b101);
const WITHOUT_2: CellSet = CellSet(0b011);

#[test]
fn two_of_three_votes_always_seal_when_asked_again() {
    explore(
        &[
            |membership| membership.vote(cell(0), FIRST, WITHOUT_2, NONE),
            |membership| membership.vote(cell(1), FIRST, WITHOUT_2, NONE),
        ],
        |membership, votes| {
            assert_one_outcome(membership, votes);
            let again = membership.vote(cell(0), FIRST, WITHOUT_2, NONE);
            assert_eq!(sealed_by(&again), Some(WITHOUT_2));
            assert_eq!(membership.current(), (FIRST, WITHOUT_2));
        },
    );
}

#[test]
fn different_votes_never_seal() {
    explore(
        &[
            |membership| membership.vote(cell(0), FIRST, WITHOUT_2, NONE),
            |membership| membership.vote(cell(1), FIRST, WITHOUT_0, NONE),
        ],
        |membership, votes| {
            assert!(votes.iter().all(|vote| *vote == Ok(None)));
            assert_eq!(membership.sealed(FIRST), None);
        },
    );
}

#[test]
fn competing_seals_leave_one_live_set() {
    // Either accuser alone is a majority of what is left, as if the monitor held something against
    // the other.
    explore(
        &[
            |membership| membership.vote(cell(0), FIRST, WITHOUT_1, CellSet(0b110)),
            |membership| membership.vote(cell(1), FIRST, WITHOUT_0, CellSet(0b101)),
        ],
        |membership, votes| {
            assert_one_outcome(membership, votes);
            // Each may have seen the other's vote change under its eyes; a voter that asks again is
            // told.
            let again = membership.vote(cell(0), FIRST, WITHOUT_1, CellSet(0b110));
            let live = membership.sealed(FIRST);
            assert!(live == Some(WITHOUT_1) || live == Some(WITHOUT_0));
            assert_eq!(sealed_by(&again), live);
        },
    );
}

#[test]
fn votes_that_never_stood_together_do_not_seal() {
    // Of four cells, cell 0 takes its vote back before cell 1 votes for the same set: at no instant
    // three votes stood, whatever cell 2 reads while it counts.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(|| {
        let membership = Arc::new(Membership::new());
        membership.start(CellSet(0b1111));
        let counting = Arc::clone(&membership);
        let counter = thread::spawn(move || counting.vote(cell(2), FIRST, ALL, NONE));
        assert_eq!(membership.vote(cell(0), FIRST, ALL, NONE), Ok(None));
        assert_eq!(membership.vote(cell(0), FIRST, NONE, NONE), Ok(None));
        assert_eq!(membership.vote(cell(1), FIRST, ALL, NONE), Ok(None));
        assert_eq!(counter.join().unwrap(), Ok(None));
        assert_eq!(membership.sealed(FIRST), None);
    });
}

#[test]
fn a_vote_that_changes_is_not_counted_beside_its_former_self() {
    // Cell 1 leaves {0,1} for {1,2}, and only then cell 2 joins it. Whoever counts {0,1} needs
    // cells 0 and 1 at one instant.
    explore(
        &[
            |membership| membership.vote(cell(0), FIRST, WITHOUT_2, NONE),
            |membership| {
                let first = membership.vote(cell(1), FIRST, WITHOUT_2, NONE);
                if first != Ok(None) {
                    return first;
                }
                membership.vote(cell(1), FIRST, WITHOUT_0, NONE)
            },
        ],
        |membership, votes| {
            assert_one_outcome(membership, votes);
            let again = membership.vote(cell(2), FIRST, WITHOUT_0, NONE);
            let live = membership.sealed(FIRST);
            assert!(sealed_by(&again).is_some() && live == sealed_by(&again));
            assert!(live == Some(WITHOUT_2) || live == Some(WITHOUT_0));
        },
    );
}

#[test]
fn a_withdrawn_vote_is_gone() {
    explore(
        &[
            |membership| {
                membership.vote(cell(0), FIRST, WITHOUT_2, NONE)?;
                membership.vote(cell(0), FIRST, NONE, NONE)
            },
            |membership| membership.vote(cell(1), FIRST, WITHOUT_2, NONE),
        ],
        |membership, votes| {
            assert_one_outcome(membership, votes);
            if membership.sealed(FIRST).is_none() {
                let again = membership.vote(cell(1), FIRST, WITHOUT_2, NONE);
                assert_eq!(again, Ok(None), "one vote of three stands");
            }
        },
    );
}

#[test]
fn a_join_and_a_seal_take_different_epochs() {
    // Cell 2 was expelled; it joins while the others vote cell 1 out.
    let program: &'static [fn(&Membership) -> Vote] = &[
        |membership| membership.vote(cell(0), Epoch(2), CellSet(0b001), CellSet(0b010)),
        |membership| Ok(membership.join(cell(2)).map(|(_, live)| live)),
    ];
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(move || {
        let membership = Arc::new(Membership::new());
        membership.start(ALL);
        membership
            .vote(cell(0), FIRST, WITHOUT_2, WITHOUT_0)
            .unwrap();
        assert_eq!(membership.current(), (FIRST, WITHOUT_2));
        let joining = Arc::clone(&membership);
        let join = thread::spawn(move || program[1](&joining));
        let vote = program[0](&membership);
        let joined = join.join().unwrap().unwrap();
        let (epoch, live) = membership.current();
        match (vote, joined) {
            // The vote came first; the join either saw that, or has to be asked again.
            (Ok(Some(CellSet(0b001))), Some(joined)) => {
                assert_eq!(
                    (epoch, live, joined),
                    (Epoch(3), CellSet(0b101), CellSet(0b101))
                );
            }
            (Ok(Some(CellSet(0b001))), None) => {
                assert_eq!((epoch, live), (Epoch(2), CellSet(0b001)));
            }
            // The join came first; the vote is told.
            (Ok(Some(ALL)) | Err(VoteError::Sealed(ALL) | VoteError::NotNext), Some(joined)) => {
                assert_eq!((epoch, live, joined), (Epoch(2), ALL, ALL));
            }
            outcome => panic!("impossible outcome {outcome:?}"),
        }
    });
}
