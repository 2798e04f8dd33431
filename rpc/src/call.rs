//! Outstanding calls: exactly one outcome each.
//!
//! A thread that calls another cell begins a [`Call`], sends the request, and polls or sleeps until
//! the call has ended. Whatever ends it first decides the outcome: the reply, the deadline, or the
//! news that the peer is gone. What comes later is dropped and counted.
//!
//! The table has no lock of its own. The kernel holds one around it, with interrupts off, since the
//! calling thread, the doorbell handler, the timer tick and recovery all change it; everything here
//! takes time bounded by [`CALLS_MAX`].
//!
//! # Invariants
//! 1. Each [`Call`] has exactly one [`Outcome`]: it is given out against the `Call` itself, which
//!    cannot be copied.
//! 2. A call number names one call of one life of the cell: an entry that is used again has a new
//!    generation, and messages carry the incarnation of the caller.
//! 3. At most [`CALLS_PER_PEER_MAX`] calls wait for one peer, as many as its ring of replies has
//!    slots; so a peer that serves finds room for its replies, provided that the caller polls.
//!
//! # Not guaranteed
//! That an operation which timed out was not carried out. Callers take back what they asked for
//! (release, return).

use core::fmt;

use cell::{CELLS_MAX, CellId, Instant};

use crate::layout::SLOTS;
use crate::message::{Payload, Reply, ReplyStatus};
use crate::operation::Operation;

/// Calls that one cell can have outstanding.
pub const CALLS_MAX: usize = 64;

/// Calls that one cell can have outstanding with one peer.
pub const CALLS_PER_PEER_MAX: usize = SLOTS as usize;

/// For how long a caller spins before it sleeps, in microseconds; as in Hive.
pub const SPIN_MICROSECONDS: u64 = 50;

/// The caller's name for a call: entry in the low half, generation in the high half.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallNumber(pub u64);

impl CallNumber {
    const fn new(index: usize, generation: u32) -> Self {
        Self(index as u64 | (generation as u64) << 32)
    }

    const fn index(self) -> usize {
        self.0 as u32 as usize
    }

    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Debug for CallNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}.{}", self.index(), self.generation())
    }
}

/// Whom the kernel wakes when the call ends; a thread, in a form of the kernel's choice.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Waiter(pub u64);

/// The right to the outcome of one call.
#[must_use = "the entry stays in use until the outcome is taken"]
#[derive(PartialEq, Eq, Debug)]
pub struct Call(CallNumber);

impl Call {
    /// The name that goes into the request.
    pub const fn number(&self) -> CallNumber {
        self.0
    }
}

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The peer answered; the results are not yet decoded.
    Reply(ReplyStatus, Payload),
    /// No answer came before the deadline: a hint.
    TimedOut,
    /// The peer was declared dead.
    PeerGone,
    /// The request could not be sent before the deadline, because the peer did not make room: a
    /// hint.
    Refused,
}

impl Outcome {
    /// A number for traces.
    pub const fn code(&self) -> u32 {
        match self {
            Self::Reply(status, _) => *status as u32,
            Self::TimedOut => 100,
            Self::PeerGone => 101,
            Self::Refused => 102,
        }
    }
}

/// A call that ended by deadline or death of its peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Its number.
    pub call: CallNumber,
    /// Who was called: the one that a hint is about.
    pub peer: CellId,
    /// What was asked.
    pub operation: Operation,
    /// Whom to wake.
    pub waiter: Waiter,
    /// How it ended.
    pub outcome: Outcome,
}

/// What became of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// It ended a call; whom to wake.
    Ended(Waiter),
    /// The call had ended before. Dropped.
    Late,
    /// It answers a call that was never made, or was made to another cell, or for another
    /// operation. Dropped; a hint about the sender.
    Mismatched,
}

/// Why a call was not begun. The own cell's load, nobody's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableFull {
    /// [`CALLS_MAX`] are outstanding.
    Cell,
    /// [`CALLS_PER_PEER_MAX`] are outstanding with this peer.
    Peer,
}

/// Counts of what happened to calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CallStatistics {
    /// Calls begun.
    pub begun: u64,
    /// Calls that ended by a reply.
    pub replies: u64,
    /// Calls that ended at their deadline, sent or not.
    pub timed_out: u64,
    /// Calls that ended with their peer.
    pub peer_gone: u64,
    /// Replies that came too late, or twice.
    pub late: u64,
    /// Replies that fit no call.
    pub mismatched: u64,
}

#[derive(Debug)]
struct Waiting {
    peer: CellId,
    operation: Operation,
    deadline: Instant,
    waiter: Waiter,
}

#[derive(Debug)]
enum State {
    Free,
    Waiting(Waiting),
    Ended(Outcome),
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    state: State,
}

/// The outstanding calls of a cell.
#[derive(Debug)]
pub struct CallTable {
    entries: [Entry; CALLS_MAX],
    /// Calls that wait for each peer.
    waiting_for: [u8; CELLS_MAX],
    /// No entry below this one is free.
    first_free: usize,
    statistics: CallStatistics,
}

impl CallTable {
    /// No calls.
    pub const fn new() -> Self {
        Self {
            entries: [const {
                Entry {
                    generation: 0,
                    state: State::Free,
                }
            }; CALLS_MAX],
            waiting_for: [0; CELLS_MAX],
            first_free: 0,
            statistics: CallStatistics {
                begun: 0,
                replies: 0,
                timed_out: 0,
                peer_gone: 0,
                late: 0,
                mismatched: 0,
            },
        }
    }

    /// Begins a call.
    ///
    /// # Errors
    /// [`TableFull`]: the caller tries again when another call has ended.
    pub fn begin(
        &mut self,
        peer: CellId,
        operation: Operation,
        deadline: Instant,
        waiter: Waiter,
    ) -> Result<Call, TableFull> {
        if usize::from(self.waiting_for[peer.index()]) >= CALLS_PER_PEER_MAX {
            return Err(TableFull::Peer);
        }
        let is_free = |&index: &usize| matches!(self.entries[index].state, State::Free);
        let free = (self.first_free..CALLS_MAX).find(is_free);
        self.first_free = free.map_or(CALLS_MAX, |index| index + 1);
        let index = free.ok_or(TableFull::Cell)?;
        self.waiting_for[peer.index()] += 1;
        let entry = &mut self.entries[index];
        entry.generation = entry.generation.wrapping_add(1);
        entry.state = State::Waiting(Waiting {
            peer,
            operation,
            deadline,
            waiter,
        });
        self.statistics.begun += 1;
        Ok(Call(CallNumber::new(index, entry.generation)))
    }

    /// Ends the call that `reply` answers.
    pub fn complete(&mut self, reply: &Reply) -> Completion {
        let completion = self.match_reply(reply);
        match completion {
            Completion::Ended(_) => self.statistics.replies += 1,
            Completion::Late => self.statistics.late += 1,
            Completion::Mismatched => self.statistics.mismatched += 1,
        }
        completion
    }

    /// Ends every call whose deadline has passed, and shows it to `report`.
    pub fn expire(&mut self, now: Instant, report: impl FnMut(Ended)) {
        let is_due = |waiting: &Waiting| waiting.deadline <= now;
        let ended = self.end_where(is_due, Outcome::TimedOut, report);
        self.statistics.timed_out += ended;
    }

    /// Ends every call to a cell that was declared dead, and shows it to `report`.
    pub fn peer_gone(&mut self, peer: CellId, report: impl FnMut(Ended)) {
        let is_theirs = |waiting: &Waiting| waiting.peer == peer;
        let ended = self.end_where(is_theirs, Outcome::PeerGone, report);
        self.statistics.peer_gone += ended;
    }

    /// The earliest deadline of a call that waits.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting().map(|waiting| waiting.deadline).min()
    }

    /// Gives out the outcome of a call that has ended.
    ///
    /// # Errors
    /// Gives back a call that still waits.
    pub fn take(&mut self, call: Call) -> Result<Outcome, Call> {
        let entry = self.entry(&call);
        let State::Ended(outcome) = entry.state else {
            return Err(call);
        };
        self.free(&call);
        Ok(outcome)
    }

    /// Gives up a call whose thread ends; its reply will be late.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the call is used up, so that it has no outcome"
    )]
    pub fn abandon(&mut self, call: Call) {
        if let State::Waiting(waiting) = &self.entry(&call).state {
            let peer = waiting.peer;
            self.waiting_for[peer.index()] -= 1;
        }
        self.free(&call);
    }

    /// What happened to calls so far.
    pub const fn statistics(&self) -> CallStatistics {
        self.statistics
    }

    fn match_reply(&mut self, reply: &Reply) -> Completion {
        let Some(entry) = self.entries.get_mut(reply.call.index()) else {
            return Completion::Mismatched;
        };
        if entry.generation != reply.call.generation() {
            return Completion::Late;
        }
        let State::Waiting(waiting) = &entry.state else {
            return Completion::Late;
        };
        if waiting.peer != reply.from || waiting.operation != reply.operation {
            return Completion::Mismatched;
        }
        let waiter = waiting.waiter;
        self.waiting_for[waiting.peer.index()] -= 1;
        entry.state = State::Ended(Outcome::Reply(reply.status, reply.payload));
        Completion::Ended(waiter)
    }

    fn end_where(
        &mut self,
        ends: impl Fn(&Waiting) -> bool,
        outcome: Outcome,
        mut report: impl FnMut(Ended),
    ) -> u64 {
        let mut count = 0;
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let State::Waiting(waiting) = &entry.state else {
                continue;
            };
            if !ends(waiting) {
                continue;
            }
            let &Waiting {
                peer,
                operation,
                waiter,
                ..
            } = waiting;
            let call = CallNumber::new(index, entry.generation);
            entry.state = State::Ended(outcome);
            self.waiting_for[peer.index()] -= 1;
            count += 1;
            report(Ended {
                call,
                peer,
                operation,
                waiter,
                outcome,
            });
        }
        count
    }

    fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.entries.iter().filter_map(|entry| match &entry.state {
            State::Waiting(waiting) => Some(waiting),
            _ => None,
        })
    }

    fn free(&mut self, call: &Call) {
        self.entry(call).state = State::Free;
        self.first_free = self.first_free.min(call.0.index());
    }

    /// The entry of a call. A `Call` exists only while its entry is in use for it.
    fn entry(&mut self, call: &Call) -> &mut Entry {
        let entry = &mut self.entries[call.0.index()];
        assert!(
            entry.generation == call.0.generation(),
            "a call of another table"
        );
        entry
    }
}

impl Default for CallTable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
