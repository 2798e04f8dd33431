//! Votes and seals: which cells are live in which epoch, decided once and for all.
//!
//! The cells flood their opinions until they propose the same live set (`recovery::agreement`); each then votes
//! for it through a hypercall. The monitor counts the votes and **seals** the epoch when a majority of the
//! electorate voted for one set. Flooding alone (Hive, CACM 1996) is safe only while no cell is slower than
//! the deadline of a round; a host that takes a virtual CPU away for 20 ms breaks that. With the seal, deadlines
//! decide only how soon an epoch ends, never whether two cells end it differently.
//!
//! # The rule
//! The electorate of epoch `e` is the live set of `e - 1` without the cells that the monitor itself holds something
//! against: fatal evidence, or clock words that stood still ever since a cell accused it ([`Membership::accuse`])
//! for at least [`WITNESS_SPAN`]. A proposal is sealed when more than half of the electorate voted for it. It must
//! be a subset of the live set, and every voter must be in its own proposal. So one lying cell can expel nobody; and of
//! two cells that accuse each other, the one whose clock the monitor saw standing still goes.
//!
//! # Invariants
//! 1. `live[e]` goes from 0 to a non-empty set once and never changes again (compare-and-exchange; no slot is
//!    reused). Two cells therefore never see different live sets for one epoch.
//! 2. A cell's vote in an epoch is cast once; a second one is refused.
//! 3. Nothing here waits; a CPU that stops anywhere leaves a state that the next caller completes.
//!
//! # Not guaranteed
//! Progress while more than half of the electorate neither votes nor is witnessed as standing still: the epoch then
//! stays open and the next one starts.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use crate::id::{CELLS_MAX, CellId, CellSet, Epoch};
use crate::time::Instant;

/// Epochs of one boot of the machine; no slot is used twice, so this bounds how often membership can change.
pub const EPOCHS_MAX: usize = 4096;

/// How long an accused cell's clock must stand still before the monitor testifies to it. Above the longest time for
/// which a busy host was seen to take a virtual CPU away (20 ms).
pub const WITNESS_SPAN: Duration = Duration::from_millis(25);

/// Why a vote was not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoteError {
    /// The epoch is sealed, with this live set.
    Sealed(CellSet),
    /// The epoch is not the next one.
    NotNext,
    /// The voter is not in the live set.
    NotLive,
    /// The proposal is empty, not a subset of the live set, or leaves out its voter.
    Impossible,
    /// The voter already voted otherwise in this epoch.
    AlreadyVoted,
    /// The machine ran out of epochs.
    Exhausted,
}

/// A cell's vote. Written by the voter's own monitor instance only.
#[repr(C)]
#[derive(Debug)]
struct Vote {
    /// The epoch voted in, plus one; 0 while the vote changes.
    epoch: AtomicU32,
    reserved: u32,
    proposal: AtomicU64,
}

/// When a cell was last accused, and what its clock words summed to then.
#[repr(C)]
#[derive(Debug)]
struct Accusation {
    /// In nanoseconds; 0 for none.
    since: AtomicU64,
    clock: AtomicU64,
}

/// The membership of the machine.
#[repr(C)]
#[derive(Debug)]
pub struct Membership {
    /// The newest sealed epoch.
    epoch: AtomicU32,
    reserved: u32,
    votes: [Vote; CELLS_MAX],
    accusations: [Accusation; CELLS_MAX],
    /// The live set of each epoch, 0 while it is not sealed.
    live: [AtomicU64; EPOCHS_MAX],
}

impl Membership {
    /// Offset of the newest sealed epoch (32 bits), for the runner.
    pub const EPOCH_OFFSET: usize = core::mem::offset_of!(Self, epoch);
    /// Offset of the live sets, one word per epoch, for the runner.
    pub const LIVE_OFFSET: usize = core::mem::offset_of!(Self, live);

    /// No epoch sealed yet, not even the first.
    pub const fn new() -> Self {
        Self {
            epoch: AtomicU32::new(0),
            reserved: 0,
            votes: [const {
                Vote {
                    epoch: AtomicU32::new(0),
                    reserved: 0,
                    proposal: AtomicU64::new(0),
                }
            }; CELLS_MAX],
            accusations: [const {
                Accusation {
                    since: AtomicU64::new(0),
                    clock: AtomicU64::new(0),
                }
            }; CELLS_MAX],
            live: [const { AtomicU64::new(0) }; EPOCHS_MAX],
        }
    }

    /// Seals epoch 0 with the cells that boot. Called once, before any cell runs.
    pub fn start(&self, live: CellSet) {
        self.live[0].store(live.0, Ordering::SeqCst);
    }

    /// The newest sealed epoch and its live set.
    pub fn current(&self) -> (Epoch, CellSet) {
        let epoch = Epoch(self.epoch.load(Ordering::SeqCst));
        (epoch, self.sealed(epoch).unwrap_or(CellSet::EMPTY))
    }

    /// The live set of `epoch`, once sealed.
    pub fn sealed(&self, epoch: Epoch) -> Option<CellSet> {
        let live = self.live.get(epoch.0 as usize)?.load(Ordering::SeqCst);
        (live != 0).then_some(CellSet(live))
    }

    /// Records that somebody accused `suspect`, whose clock words sum to `clock`. The span of an accusation runs
    /// from the first call with the same clock.
    pub fn accuse(&self, suspect: CellId, clock: u64, now: Instant) {
        let accusation = &self.accusations[suspect.index()];
        let unchanged = accusation.clock.load(Ordering::SeqCst) == clock
            && accusation.since.load(Ordering::SeqCst) != 0;
        if !unchanged {
            accusation.since.store(0, Ordering::SeqCst);
            accusation.clock.store(clock, Ordering::SeqCst);
            accusation.since.store(now.0.max(1), Ordering::SeqCst);
        }
    }

    /// Whether `suspect` was accused at least [`WITNESS_SPAN`] ago and its clock, which now sums to `clock`, has stood
    /// still since.
    pub fn stands_still(&self, suspect: CellId, clock: u64, now: Instant) -> bool {
        let accusation = &self.accusations[suspect.index()];
        let since = accusation.since.load(Ordering::SeqCst);
        since != 0
            && accusation.clock.load(Ordering::SeqCst) == clock
            && now.since(Instant(since)) >= WITNESS_SPAN
    }

    /// Casts `voter`'s vote and seals the epoch if that completes a majority of the electorate.
    ///
    /// `discredited` are the cells that the monitor holds something against. Returns the live set if the epoch is sealed now, `None` if
    /// votes are missing. Calling again with the same vote counts again, with what is known by then.
    ///
    /// # Errors
    /// See [`VoteError`]; `Sealed` is how a late voter learns the outcome.
    pub fn vote(
        &self,
        voter: CellId,
        epoch: Epoch,
        proposal: CellSet,
        discredited: CellSet,
    ) -> Result<Option<CellSet>, VoteError> {
        if epoch.0 as usize >= EPOCHS_MAX {
            return Err(VoteError::Exhausted);
        }
        if let Some(live) = self.sealed(epoch) {
            self.advance(epoch);
            return Err(VoteError::Sealed(live));
        }
        let (current, live) = self.current();
        if epoch != current.next() {
            return Err(VoteError::NotNext);
        }
        if !live.contains(voter) {
            return Err(VoteError::NotLive);
        }
        if !proposal.contains(voter) || !proposal.is_subset_of(live) {
            return Err(VoteError::Impossible);
        }
        self.cast(voter, epoch, proposal)?;
        let votes = self.votes_of(epoch, live);
        if !has_majority(live, discredited, proposal, &votes) {
            return Ok(None);
        }
        Ok(Some(self.seal(epoch, proposal)))
    }

    /// Adds a rebooted cell to the live set, as an epoch of its own.
    ///
    /// Returns the new epoch and live set, or `None` if another seal came first (call again) or epochs ran out.
    pub fn join(&self, cell: CellId) -> Option<(Epoch, CellSet)> {
        let (current, live) = self.current();
        let next = current.next();
        if next.0 as usize >= EPOCHS_MAX {
            return None;
        }
        let joined = live.with(cell);
        (self.seal(next, joined) == joined).then_some((next, joined))
    }

    /// Forgets the accusation against a cell that starts a new life.
    pub fn absolve(&self, cell: CellId) {
        self.accusations[cell.index()]
            .since
            .store(0, Ordering::SeqCst);
    }

    fn cast(&self, voter: CellId, epoch: Epoch, proposal: CellSet) -> Result<(), VoteError> {
        let vote = &self.votes[voter.index()];
        if vote.epoch.load(Ordering::SeqCst) == epoch.0 + 1 {
            let same = vote.proposal.load(Ordering::SeqCst) == proposal.0;
            return if same {
                Ok(())
            } else {
                Err(VoteError::AlreadyVoted)
            };
        }
        vote.epoch.store(0, Ordering::SeqCst);
        vote.proposal.store(proposal.0, Ordering::SeqCst);
        vote.epoch.store(epoch.0 + 1, Ordering::SeqCst);
        Ok(())
    }

    fn votes_of(&self, epoch: Epoch, live: CellSet) -> [Option<CellSet>; CELLS_MAX] {
        let mut votes = [None; CELLS_MAX];
        for cell in live.iter() {
            let vote = &self.votes[cell.index()];
            let before = vote.epoch.load(Ordering::SeqCst);
            let proposal = CellSet(vote.proposal.load(Ordering::SeqCst));
            if before == epoch.0 + 1 && vote.epoch.load(Ordering::SeqCst) == before {
                votes[cell.index()] = Some(proposal);
            }
        }
        votes
    }

    fn seal(&self, epoch: Epoch, proposal: CellSet) -> CellSet {
        let slot = &self.live[epoch.0 as usize];
        let sealed = match slot.compare_exchange(0, proposal.0, Ordering::SeqCst, Ordering::SeqCst)
        {
            Ok(_) => proposal,
            Err(other) => CellSet(other),
        };
        self.advance(epoch);
        sealed
    }

    fn advance(&self, epoch: Epoch) {
        self.epoch.fetch_max(epoch.0, Ordering::SeqCst);
    }
}

impl Default for Membership {
    fn default() -> Self {
        Self::new()
    }
}

/// The rule of the module header: more than half of `live` without `discredited` voted for `proposal`.
pub fn has_majority(
    live: CellSet,
    discredited: CellSet,
    proposal: CellSet,
    votes: &[Option<CellSet>; CELLS_MAX],
) -> bool {
    let electorate = live.minus(discredited);
    let agreeing = electorate
        .iter()
        .filter(|cell| votes[cell.index()] == Some(proposal))
        .count();
    agreeing * 2 > electorate.len()
}

const _: () = {
    assert!(size_of::<Vote>() == 16);
    assert!(size_of::<Accusation>() == 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(number: usize) -> CellId {
        CellId::new(number).unwrap()
    }

    fn started(cells: usize) -> Membership {
        let membership = Membership::new();
        membership.start(CellSet::first(cells));
        membership
    }

    #[test]
    fn three_of_four_expel_one() {
        let membership = started(4);
        let proposal = CellSet::first(4).without(cell(2));
        let none = CellSet::EMPTY;
        assert_eq!(membership.vote(cell(0), Epoch(1), proposal, none), Ok(None));
        assert_eq!(membership.vote(cell(1), Epoch(1), proposal, none), Ok(None));
        assert_eq!(
            membership.vote(cell(3), Epoch(1), proposal, none),
            Ok(Some(proposal))
        );
        assert_eq!(membership.current(), (Epoch(1), proposal));
        assert_eq!(
            membership.vote(cell(2), Epoch(1), CellSet::first(4), none),
            Err(VoteError::Sealed(proposal))
        );
    }

    #[test]
    fn one_liar_expels_nobody() {
        let membership = started(2);
        let alone = CellSet::only(cell(0));
        assert_eq!(
            membership.vote(cell(0), Epoch(1), alone, CellSet::EMPTY),
            Ok(None)
        );
        assert_eq!(membership.current(), (Epoch(0), CellSet::first(2)));
    }

    #[test]
    fn of_two_cells_the_one_that_stands_still_goes() {
        let membership = started(2);
        let alone = CellSet::only(cell(0));
        membership.accuse(cell(1), 77, Instant(1));
        let later = Instant(1) + WITNESS_SPAN;
        assert!(!membership.stands_still(cell(1), 78, later), "it moved");
        assert!(
            !membership.stands_still(cell(0), 77, later),
            "nobody accused it"
        );
        assert!(membership.stands_still(cell(1), 77, later));
        assert_eq!(
            membership.vote(cell(0), Epoch(1), alone, CellSet::only(cell(1))),
            Ok(Some(alone))
        );
    }

    #[test]
    fn a_repeated_accusation_does_not_restart_its_span() {
        let membership = started(2);
        membership.accuse(cell(1), 5, Instant(1));
        membership.accuse(cell(1), 5, Instant(1) + WITNESS_SPAN);
        assert!(membership.stands_still(cell(1), 5, Instant(1) + WITNESS_SPAN));
    }

    #[test]
    fn impossible_votes_are_refused() {
        let membership = started(2);
        let none = CellSet::EMPTY;
        let vote = |voter, epoch, bits| membership.vote(cell(voter), epoch, CellSet(bits), none);
        assert_eq!(vote(0, Epoch(2), 0b01), Err(VoteError::NotNext));
        assert_eq!(vote(2, Epoch(1), 0b100), Err(VoteError::NotLive));
        assert_eq!(vote(0, Epoch(1), 0b10), Err(VoteError::Impossible));
        assert_eq!(vote(0, Epoch(1), 0b101), Err(VoteError::Impossible));
        assert_eq!(
            vote(0, Epoch(EPOCHS_MAX as u32), 1),
            Err(VoteError::Exhausted)
        );
        assert_eq!(vote(0, Epoch(1), 0b01), Ok(None));
        assert_eq!(vote(0, Epoch(1), 0b11), Err(VoteError::AlreadyVoted));
    }

    #[test]
    fn a_rebooted_cell_joins_in_an_epoch_of_its_own() {
        let membership = started(3);
        let without = CellSet::first(3).without(cell(1));
        membership
            .vote(cell(0), Epoch(1), without, CellSet::EMPTY)
            .unwrap();
        membership
            .vote(cell(2), Epoch(1), without, CellSet::EMPTY)
            .unwrap();
        assert_eq!(
            membership.join(cell(1)),
            Some((Epoch(2), CellSet::first(3)))
        );
        assert_eq!(membership.current(), (Epoch(2), CellSet::first(3)));
    }
}
