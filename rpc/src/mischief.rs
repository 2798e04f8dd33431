//! Messages dropped, sent twice, spoilt or held up on purpose.
//!
//! The host orders it (`rpc.drop`, `rpc.duplicate`, `rpc.corrupt`, `rpc.delay`), to see whether the
//! other cells notice. It is done at the sending side, after the sequence number was drawn and the
//! message was sealed, so that the receivers meet exactly what a faulty sender or a faulty memory
//! would show them.
//!
//! # Invariants
//! 1. Each outgoing message is treated in one way only, in the order of
//!    the fields of `Mischief`.
//! 2. A message is held up at most until its instant; when [`HELD_MAX`] are held, others go out at
//!    once.

use core::time::Duration;

use cell::fault::InnerFault;
use cell::{CellId, Incarnation, Instant};

use crate::message::Draft;

/// Messages that can be held up at the same time.
pub const HELD_MAX: usize = 16;

/// What happens to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Treatment {
    /// It goes out as it is.
    Send,
    /// It only uses up its sequence number.
    Drop,
    /// It goes out twice.
    SendTwice,
    /// It goes out with this bit flipped, counted modulo its length.
    Flip(u64),
    /// It was put aside.
    Held,
}

/// A message that goes out later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) peer: CellId,
    /// The life of the peer that it was meant for.
    pub(crate) incarnation: Incarnation,
    pub(crate) draft: Draft,
    until: Instant,
}

/// How many of the next messages are to be treated in which way.
#[derive(Debug)]
pub(crate) struct Mischief {
    drop: u64,
    duplicate: u64,
    corrupt: u64,
    delay: u64,
    /// For how long messages are held up.
    span: Duration,
    random: u64,
    held: [Option<Held>; HELD_MAX],
}

/// An order to treat messages badly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MischiefOrder {
    /// One of `RpcDrop`, `RpcDuplicate`, `RpcCorrupt`, `RpcDelay`; others are ignored.
    pub fault: InnerFault,
    /// How many messages.
    pub count: u64,
    /// For how long `RpcDelay` holds a message up: half of the time that a call may take.
    pub span: Duration,
    /// Chooses the bits that `RpcCorrupt` flips.
    pub seed: u64,
}

impl Mischief {
    pub(crate) const NONE: Self = Self {
        drop: 0,
        duplicate: 0,
        corrupt: 0,
        delay: 0,
        span: Duration::ZERO,
        random: 0,
        held: [None; HELD_MAX],
    };

    pub(crate) fn order(&mut self, order: MischiefOrder) {
        let MischiefOrder {
            fault,
            count,
            span,
            seed,
        } = order;
        match fault {
            InnerFault::RpcDrop => self.drop = count,
            InnerFault::RpcDuplicate => self.duplicate = count,
            InnerFault::RpcCorrupt => (self.corrupt, self.random) = (count, seed),
            InnerFault::RpcDelay => (self.delay, self.span) = (count, span),
            _ => {}
        }
    }

    /// Whether nothing is left to do, now or later.
    pub(crate) fn is_over(&self) -> bool {
        self.drop == 0
            && self.duplicate == 0
            && self.corrupt == 0
            && self.delay == 0
            && self.held.iter().all(Option::is_none)
    }

    /// Decides on a message that would go out now.
    pub(crate) fn treat(
        &mut self,
        peer: CellId,
        incarnation: Incarnation,
        draft: &Draft,
        now: Instant,
    ) -> Treatment {
        if count_down(&mut self.drop) {
            return Treatment::Drop;
        }
        if count_down(&mut self.duplicate) {
            return Treatment::SendTwice;
        }
        if count_down(&mut self.corrupt) {
            return Treatment::Flip(self.next_random());
        }
        let free = self.held.iter_mut().find(|held| held.is_none());
        match free {
            Some(place) if count_down(&mut self.delay) => {
                let until = now + self.span;
                *place = Some(Held {
                    peer,
                    incarnation,
                    draft: *draft,
                    until,
                });
                Treatment::Held
            }
            _ => Treatment::Send,
        }
    }

    /// Gives back a message for `peer` whose time has come.
    pub(crate) fn release(&mut self, peer: CellId, now: Instant) -> Option<Held> {
        let due =
            |held: &Option<Held>| held.is_some_and(|one| one.peer == peer && one.until <= now);
        self.held.iter_mut().find(|held| due(held))?.take()
    }

    /// `SplitMix64`.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// Whether something was left to count down.
fn count_down(count: &mut u64) -> bool {
    let left = *count > 0;
    *count = count.saturating_sub(1);
    left
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::call::CallNumber;
    use crate::layout::Queue;
    use crate::message::Payload;
    use crate::operation::Operation;

    fn order(fault: InnerFault, count: u64) -> MischiefOrder {
        MischiefOrder {
            fault,
            count,
            span: Duration::from_nanos(10),
            seed: 3,
        }
    }

    fn treat(mischief: &mut Mischief, now: u64) -> Treatment {
        let draft = Draft {
            queue: Queue::Requests,
            call: CallNumber(0),
            operation: Operation::Null,
            status: 0,
            payload: Payload::EMPTY,
        };
        let peer = CellId::new(1).unwrap();
        mischief.treat(peer, Incarnation(1), &draft, Instant(now))
    }

    #[test]
    fn counts_are_kept_and_ways_do_not_mix() {
        let mut mischief = Mischief::NONE;
        mischief.order(order(InnerFault::RpcDuplicate, 1));
        mischief.order(order(InnerFault::RpcDrop, 2));
        mischief.order(order(InnerFault::RpcCorrupt, 1));
        mischief.order(order(InnerFault::Panic, 9));
        let treatments = [(); 5].map(|()| treat(&mut mischief, 0));
        assert_eq!(
            treatments[..3],
            [Treatment::Drop, Treatment::Drop, Treatment::SendTwice]
        );
        assert!(matches!(treatments[3], Treatment::Flip(_)));
        assert_eq!(treatments[4], Treatment::Send);
        assert!(mischief.is_over());
    }

    #[test]
    fn a_held_message_is_released_once_when_its_time_comes() {
        let mut mischief = Mischief::NONE;
        mischief.order(order(InnerFault::RpcDelay, 1));
        assert_eq!(treat(&mut mischief, 100), Treatment::Held);
        assert!(!mischief.is_over());
        let (peer, other) = (CellId::new(1).unwrap(), CellId::new(2).unwrap());
        assert_eq!(mischief.release(peer, Instant(109)), None);
        assert_eq!(mischief.release(other, Instant(110)), None);
        assert!(mischief.release(peer, Instant(110)).is_some());
        assert_eq!(mischief.release(peer, Instant(110)), None);
        assert!(mischief.is_over());
    }

    #[test]
    fn when_too_many_are_held_the_others_go_out() {
        let mut mischief = Mischief::NONE;
        mischief.order(order(InnerFault::RpcDelay, HELD_MAX as u64 + 5));
        let held = (0..HELD_MAX + 5)
            .filter(|_| treat(&mut mischief, 0) == Treatment::Held)
            .count();
        assert_eq!(held, HELD_MAX);
    }
}
