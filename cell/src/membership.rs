//! Votes and seals: which cells are live in which epoch, decided once and for all.
//!
//! The cells flood their opinions until they propose the same live set (`recovery::agreement`);
//! each then votes for it through a hypercall. The monitor counts the votes and **seals** the epoch
//! when a majority of the electorate votes for one set. Flooding alone (Hive, CACM 1996) is safe
//! only while no cell is slower than the deadline of a round; a host that takes a virtual CPU away
//! for 20 ms breaks that. With the seal, deadlines decide only how soon an epoch ends, never
//! whether two cells end it differently.
//!
//! # The rule
//! The electorate of epoch `e` is the live set of `e - 1` without the cells that the monitor itself
//! holds something against (`discredited`): they stopped, or stood still ever since a cell accused
//! them, for at least [`WITNESS_SPAN`]. A proposal is sealed when more than half of the electorate
//! votes for it, all at one instant. It must be a subset of the live set, and its voter must be in
//! it. So one lying cell can expel nobody; and of two cells that accuse each other, the one whose
//! clock the monitor saw standing still goes.
//!
//! # Votes that split
//! A read that came late, or a death between two votes, can leave the votes split with no majority
//! for any set. The cells then take their votes back, probe afresh and vote again in the same
//! epoch. So a vote is what its voter thinks *now*: it may be changed and withdrawn until the epoch
//! is sealed. A counter that read one vote before such a change and another after it could add up a
//! majority that never was; therefore it reads all votes twice and counts only if none was touched
//! in between. Then all of them stood at the instant between the two readings.
//!
//! # Invariants
//! 1. `live[e]` goes from 0 to a non-empty set once and never changes again (compare-and-exchange;
//!    no slot is reused). Two cells therefore never see different live sets for one epoch.
//! 2. A shrinking seal had a majority of the electorate behind it at one instant after the sealing
//!    voter's own vote.
//! 3. Nothing here waits; a CPU that stops anywhere leaves a state that the next caller completes.
//!    A voter that stops in the middle of a vote has none.
//!
//! # Not guaranteed
//! - Progress while more than half of the electorate neither votes nor is discredited: the epoch
//!   then stays open.
//! - Anything about the *vote* of a cell that votes on two of its CPUs at once: it may come out as
//!   either. The seal holds whatever it is, because a caller only ever seals its own proposal,
//!   checked against the newest live set.

use core::time::Duration;

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::id::{CELLS_MAX, CellId, CellSet, Epoch};

/// Epochs of one boot of the machine; no slot is used twice, so this bounds how often membership
/// can change.
pub const EPOCHS_MAX: usize = if cfg!(loom) { 4 } else { 4096 };

/// How long an accused cell's clock must stand still before the monitor testifies to it. Above the
/// longest time for which a busy host was seen to take a virtual CPU away (20 ms).
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
    /// The proposal is not a subset of the live set, or leaves out its voter.
    Impossible,
    /// The machine ran out of epochs.
    Exhausted,
}

/// A cell's vote. Written by the voter's own monitor instances only.
#[repr(C)]
#[derive(Debug)]
struct Vote {
    /// The epoch voted in, plus one; 0 while there is no vote.
    epoch: AtomicU32,
    /// Raised whenever the vote changes.
    version: AtomicU32,
    proposal: AtomicU64,
}

impl Vote {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            epoch: AtomicU32::new(0),
            version: AtomicU32::new(0),
            proposal: AtomicU64::new(0),
        }
    }
}

/// All votes in one epoch, as read once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reading {
    votes: [Option<CellSet>; CELLS_MAX],
    versions: [u32; CELLS_MAX],
}

/// The membership of the machine.
#[repr(C)]
#[derive(Debug)]
pub struct Membership {
    /// The newest sealed epoch.
    epoch: AtomicU32,
    reserved: u32,
    votes: [Vote; VOTERS],
    /// The live set of each epoch, 0 while it is not sealed.
    live: [AtomicU64; EPOCHS_MAX],
}

/// Cells that can vote. The model checker's machine is small.
const VOTERS: usize = if cfg!(loom) { 4 } else { CELLS_MAX };

impl Membership {
    /// Offset of the newest sealed epoch (32 bits), for the runner.
    pub const EPOCH_OFFSET: usize = core::mem::offset_of!(Self, epoch);
    /// Offset of the live sets, one word per epoch, for the runner.
    pub const LIVE_OFFSET: usize = core::mem::offset_of!(Self, live);

    /// No epoch sealed yet, not even the first.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            epoch: AtomicU32::new(0),
            reserved: 0,
            votes: [const { Vote::new() }; VOTERS],
            live: [const { AtomicU64::new(0) }; EPOCHS_MAX],
        }
    }

    /// No epoch sealed yet; loom's atomics cannot be made by a `const fn`.
    #[cfg(loom)]
    pub fn new() -> Self {
        let vote = |_| Vote {
            epoch: AtomicU32::new(0),
            version: AtomicU32::new(0),
            proposal: AtomicU64::new(0),
        };
        Self {
            epoch: AtomicU32::new(0),
            reserved: 0,
            votes: core::array::from_fn(vote),
            live: core::array::from_fn(|_| AtomicU64::new(0)),
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

    /// Casts `voter`'s vote, in place of an earlier one, and seals the epoch if that completes a
    /// majority of the electorate. An empty proposal takes the vote back.
    ///
    /// `discredited` are the cells that the monitor holds something against. Returns the live set
    /// if the epoch is sealed now, `None` if votes are missing or another voter changed its vote
    /// meanwhile. Calling again with the same vote counts again, with what is known by then.
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
        check_vote(voter, epoch, proposal, current, live)?;
        self.cast(voter, epoch, proposal);
        if proposal.is_empty() {
            return Ok(None);
        }
        let reading = self.read_votes(epoch, live);
        let majority = has_majority(live, discredited, proposal, &reading.votes);
        // Read again: nobody touched a vote in between, so all of them stood at one instant.
        if !majority || self.read_votes(epoch, live) != reading {
            return Ok(None);
        }
        Ok(Some(self.seal(epoch, proposal)))
    }

    /// Adds a rebooted cell to the live set, as an epoch of its own.
    ///
    /// Returns the new epoch and live set, or `None` if another seal came first (call again) or
    /// epochs ran out.
    pub fn join(&self, cell: CellId) -> Option<(Epoch, CellSet)> {
        let (current, live) = self.current();
        let next = current.next();
        if next.0 as usize >= EPOCHS_MAX {
            return None;
        }
        let joined = live.with(cell);
        (self.seal(next, joined) == joined).then_some((next, joined))
    }

    fn cast(&self, voter: CellId, epoch: Epoch, proposal: CellSet) {
        let vote = &self.votes[voter.index()];
        let stands = vote.epoch.load(Ordering::SeqCst) == epoch.0 + 1
            && vote.proposal.load(Ordering::SeqCst) == proposal.0;
        if stands {
            return;
        }
        vote.epoch.store(0, Ordering::SeqCst);
        vote.version.fetch_add(1, Ordering::SeqCst);
        vote.proposal.store(proposal.0, Ordering::SeqCst);
        if !proposal.is_empty() {
            vote.epoch.store(epoch.0 + 1, Ordering::SeqCst);
        }
    }

    fn read_votes(&self, epoch: Epoch, live: CellSet) -> Reading {
        let mut reading = Reading {
            votes: [None; CELLS_MAX],
            versions: [0; CELLS_MAX],
        };
        for cell in live.iter() {
            let vote = &self.votes[cell.index()];
            reading.versions[cell.index()] = vote.version.load(Ordering::SeqCst);
            let before = vote.epoch.load(Ordering::SeqCst);
            let proposal = CellSet(vote.proposal.load(Ordering::SeqCst));
            if before == epoch.0 + 1 && vote.epoch.load(Ordering::SeqCst) == before {
                reading.votes[cell.index()] = Some(proposal);
            }
        }
        reading
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

/// Whether a vote may be cast at all, when `live` of the epoch `current` is the newest sealed set.
///
/// # Errors
/// `NotNext`, `NotLive`, `Impossible`.
pub fn check_vote(
    voter: CellId,
    epoch: Epoch,
    proposal: CellSet,
    current: Epoch,
    live: CellSet,
) -> Result<(), VoteError> {
    if epoch != current.next() {
        return Err(VoteError::NotNext);
    }
    if !live.contains(voter) {
        return Err(VoteError::NotLive);
    }
    let holds_voter = proposal.is_empty() || proposal.contains(voter);
    if !holds_voter || !proposal.is_subset_of(live) {
        return Err(VoteError::Impossible);
    }
    Ok(())
}

/// The rule of the module header: more than half of `live` without `discredited` voted for
/// `proposal`.
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

#[cfg(not(loom))]
const _: () = assert!(size_of::<Vote>() == 16);

#[cfg(test)]
#[cfg(not(loom))]
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
    fn of_two_cells_the_discredited_one_goes() {
        let membership = started(2);
        let alone = CellSet::only(cell(0));
        let sealed = membership.vote(cell(0), Epoch(1), alone, CellSet::only(cell(1)));
        assert_eq!(sealed, Ok(Some(alone)));
    }

    #[test]
    fn split_votes_are_taken_back_and_cast_again() {
        let membership = started(4);
        let none = CellSet::EMPTY;
        let (without_2, without_3) = (CellSet(0b1011), CellSet(0b0111));
        let vote = |voter, proposal| membership.vote(cell(voter), Epoch(1), proposal, none);
        assert_eq!(vote(0, without_2), Ok(None));
        assert_eq!(vote(1, without_3), Ok(None));
        assert_eq!(vote(2, without_3), Ok(None));
        assert_eq!(vote(1, CellSet::EMPTY), Ok(None), "taken back");
        assert_eq!(vote(0, without_3), Ok(None), "two of four");
        assert_eq!(vote(1, without_3), Ok(Some(without_3)));
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
        assert_eq!(
            vote(1, Epoch(0), 0b10),
            Err(VoteError::Sealed(CellSet(0b11)))
        );
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
