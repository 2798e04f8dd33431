//! The two ends of a ring, flow control, and what happens when indices make no sense.
//!
//! # Protocol
//! Positions count slots since the session began and wrap at 32 bits; a position modulo [`SLOTS`]
//! is its slot. The producer fills the slot, then stores its new position to the *produced* word of
//! its lane. The consumer sees the word move, copies and checks the slot, then stores its position
//! to the *consumed* word of *its own* lane for the producer. The producer reads that word only
//! when it knows of no free slot.
//!
//! Positions place messages; **sequence numbers**, inside the sealed messages, count them. So a
//! message that never reached a slot shows as a gap, and one that reached two slots as a duplicate.
//!
//! # Sessions
//! Every index word carries the incarnations of producer and consumer (`Session`). An end that
//! begins a session starts at position 0 and sequence number 0. It need not wait for the other end:
//! as long as the other's word carries another session, the consumer takes the ring for idle, and
//! the producer takes nothing for consumed.
//!
//! # Invariants
//! 1. The private positions are the truth; index words in the lane are copies for the peer, stored
//!    again at each use and at each tick (a flipped bit must not wedge a ring).
//! 2. A poll passes over exactly one slot, or catches up with an index that ran away,
//!    or does nothing; it always returns after a bounded number of loads.
//! 3. No message of a session is given out twice, unless sequence numbers made no sense in between.
//!
//! # Not guaranteed
//! Delivery. Nothing is sent again; the caller's deadline covers loss.

use cell::Incarnation;
use cell::careful::CarefulError;
use cell::membership::EPOCHS_MAX;

use crate::layout::{Lane, Queue, RemoteLane, SLOTS};
use crate::message::{Expectation, Life, Message, Refusal, Sealed};

/// Messages that may be missing before a sequence number is taken for nonsense instead.
pub const SEQUENCE_WINDOW: u32 = 1024;

/// Why a message was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// The peer is not admitted: it is dead, or not known yet. The caller's mistake, or its news.
    NotAdmitted,
    /// The request that is answered came from another life of the peer.
    Stale,
    /// The peer has not taken earlier messages yet. The peer's fault if it lasts.
    Full,
    /// The peer claims to have consumed what was never produced; its index. The peer's fault.
    Inconsistent(u32),
    /// The peer's index, or its word on whether it sleeps, could not be read. The peer's fault. In
    /// the second case the message did go out.
    Unreachable(CarefulError),
}

impl SendError {
    /// Whether the error is a hint about the peer.
    pub const fn blames_peer(&self) -> bool {
        match self {
            Self::NotAdmitted | Self::Stale | Self::Full => false,
            Self::Inconsistent(_) => true,
            Self::Unreachable(error) => error.blames_cell(),
        }
    }
}

/// The lives of producer and consumer, as an index word carries them: 16 bits each.
///
/// Two sessions of one pair of cells look alike only after 65,536 reboots of one of them, and
/// epochs end long before that; the messages themselves carry the whole incarnations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Session(u32);

impl Session {
    pub(crate) const fn new(producer: Incarnation, consumer: Incarnation) -> Self {
        Self((producer.0 & 0xffff) << 16 | consumer.0 & 0xffff)
    }

    /// The index word for a position.
    pub(crate) const fn index(self, position: u32) -> u64 {
        (self.0 as u64) << 32 | position as u64
    }

    /// The position in an index word, if that belongs to the session.
    pub(crate) const fn position(self, index: u64) -> Option<u32> {
        if (index >> 32) as u32 == self.0 {
            Some(index as u32)
        } else {
            None
        }
    }
}

const _: () = assert!(EPOCHS_MAX < 1 << 16, "each expulsion takes an epoch");

/// The sending end.
#[derive(Debug)]
pub(crate) struct Producer {
    queue: Queue,
    session: Session,
    position: u32,
    /// The newest believable word of the consumer.
    consumed: u32,
    sequence: u32,
}

impl Producer {
    pub(crate) const fn new(queue: Queue, own: Incarnation, peer: Incarnation) -> Self {
        let session = Session::new(own, peer);
        Self {
            queue,
            session,
            position: 0,
            consumed: 0,
            sequence: 0,
        }
    }

    /// Makes sure of a free slot.
    ///
    /// # Errors
    /// `Full`, `Inconsistent`, `Unreachable`.
    pub(crate) fn reserve(&mut self, remote: &impl RemoteLane) -> Result<(), SendError> {
        if self.used() < SLOTS {
            return Ok(());
        }
        let index = remote
            .consumed(self.queue)
            .map_err(SendError::Unreachable)?;
        if let Some(consumed) = self.session.position(index) {
            if self.position.wrapping_sub(consumed) > SLOTS {
                return Err(SendError::Inconsistent(consumed));
            }
            self.consumed = consumed;
        }
        if self.used() < SLOTS {
            Ok(())
        } else {
            Err(SendError::Full)
        }
    }

    /// The next sequence number. It counts as used, whether or not a message with it is put into
    /// the ring.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        sequence
    }

    /// Puts a message into the free slot that [`Producer::reserve`] found.
    pub(crate) fn push(&mut self, lane: &Lane, message: &Sealed) {
        assert!(
            self.used() < SLOTS,
            "a slot that the consumer may be reading"
        );
        lane.fill(self.queue, slot(self.position), message.words());
        self.position = self.position.wrapping_add(1);
        lane.produce(self.queue, self.session.index(self.position));
    }

    /// Makes the public word say what it should.
    pub(crate) fn restore(&self, lane: &Lane) {
        lane.restore_produced(self.queue, self.session.index(self.position));
    }

    fn used(&self) -> u32 {
        self.position.wrapping_sub(self.consumed)
    }
}

/// What came through the rings from one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReceiveStatistics {
    /// Messages given out.
    pub received: u64,
    /// Sequence numbers that were passed over: messages that never came, or came damaged.
    pub lost: u64,
    /// Messages read before.
    pub duplicates: u64,
    /// Messages from or for another life.
    pub stale: u64,
    /// Messages refused for any other reason.
    pub refused: u64,
    /// Times that the peer's index ran away.
    pub ran_away: u64,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Consumer {
    expectation: Expectation,
    session: Session,
    position: u32,
    /// The sequence number to come.
    sequence: u32,
}

impl Consumer {
    pub(crate) const fn new(queue: Queue, own: Life, peer: Life) -> Self {
        Self {
            expectation: Expectation {
                queue,
                sender: peer,
                receiver: own,
            },
            session: Session::new(peer.incarnation, own.incarnation),
            position: 0,
            sequence: 0,
        }
    }

    /// What the peer's produced word holds when there is nothing to read.
    pub(crate) const fn idle_index(&self) -> u64 {
        self.session.index(self.position)
    }

    /// Takes the next message out of the ring. `own` is the own cell's lane for the peer.
    pub(crate) fn next(
        &mut self,
        own: &Lane,
        remote: &impl RemoteLane,
        statistics: &mut ReceiveStatistics,
    ) -> Option<Result<Message, Refusal>> {
        let queue = self.expectation.queue.index();
        let result = match remote.produced() {
            Ok(words) => self.take(self.session.position(words[queue])?, remote, statistics)?,
            Err(error) => Err(Refusal::Unreachable(error)),
        };
        own.consume(self.expectation.queue, self.idle_index());
        match result {
            Ok(_) => statistics.received += 1,
            Err(Refusal::Duplicate(_)) => statistics.duplicates += 1,
            Err(Refusal::Stale(..)) => statistics.stale += 1,
            Err(Refusal::RanAway(_)) => statistics.ran_away += 1,
            Err(_) => statistics.refused += 1,
        }
        Some(result)
    }

    /// Makes the public word say what it should.
    pub(crate) fn restore(&self, own: &Lane) {
        own.restore_consumed(self.expectation.queue, self.idle_index());
    }

    fn take(
        &mut self,
        produced: u32,
        remote: &impl RemoteLane,
        statistics: &mut ReceiveStatistics,
    ) -> Option<Result<Message, Refusal>> {
        let ahead = produced.wrapping_sub(self.position);
        if ahead == 0 {
            return None;
        }
        if ahead > SLOTS {
            // Where the peer says it is, is the one place from which both can go on.
            self.position = produced;
            return Some(Err(Refusal::RanAway(ahead)));
        }
        let (queue, slot) = (self.expectation.queue, slot(self.position));
        let mut copy = |first: usize, to: &mut [u64]| remote.copy_slot(queue, slot, first, to);
        let opened = self.expectation.open(&mut copy);
        self.position = self.position.wrapping_add(1);
        Some(opened.and_then(|(sequence, message)| {
            statistics.lost += u64::from(self.advance_to(sequence)?);
            Ok(message)
        }))
    }

    /// Accepts a sequence number; gives back how many were passed over.
    ///
    /// # Errors
    /// `Duplicate`, `OutOfSequence`; the latter makes the number the one to go on from.
    fn advance_to(&mut self, sequence: u32) -> Result<u32, Refusal> {
        let gap = sequence.wrapping_sub(self.sequence);
        if gap > SEQUENCE_WINDOW && gap.wrapping_neg() <= SEQUENCE_WINDOW {
            return Err(Refusal::Duplicate(sequence));
        }
        self.sequence = sequence.wrapping_add(1);
        if gap > SEQUENCE_WINDOW {
            Err(Refusal::OutOfSequence(sequence))
        } else {
            Ok(gap)
        }
    }
}

const fn slot(position: u32) -> usize {
    (position % SLOTS) as usize
}

#[cfg(all(test, not(loom)))]
mod tests;
