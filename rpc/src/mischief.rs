//! Messages dropped, sent twice, spoilt or held up on purpose.
//!
//! The host orders it (`rpc.drop`, `rpc.duplicate`, `rpc.corrupt`, `rpc.delay`, `rpc.reorder`), to
//! see whether the other cells notice: to which cells, for which operation, and which of those
//! messages ([`Attributes`]). It is done at the sending side, after the sequence number was drawn
//! and the message was sealed, so that the receivers meet exactly what a faulty sender or a faulty
//! memory would show them.
//!
//! # Invariants
//! 1. Each outgoing message is treated in one way only, the first of [`WAYS`] that strikes it.
//! 2. A message is held up at most until its instant; when [`HELD_MAX`] are held, others go out at
//!    once.

use core::time::Duration;

use cell::fault::{Attributes, InnerFault};
use cell::random::Random;
use cell::{CellId, CellSet, Incarnation, Instant};

use crate::layout::SLOT_WORDS;
use crate::message::Draft;
use crate::operation::Operation;

/// The ways in which messages are treated, in the order in which they are tried.
const WAYS: [InnerFault; 5] = [
    InnerFault::RpcDrop,
    InnerFault::RpcDuplicate,
    InnerFault::RpcCorrupt,
    InnerFault::RpcDelay,
    InnerFault::RpcReorder,
];

/// Messages that can be held up at the same time.
pub const HELD_MAX: usize = 16;

/// Bytes of a message in its slot.
const MESSAGE_BYTES: u64 = SLOT_WORDS as u64 * 8;

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

/// Which of the next messages are treated in one way.
#[derive(Clone, Copy, Debug)]
struct Way {
    attributes: Attributes,
    to: CellSet,
    operation: Option<Operation>,
}

impl Way {
    const NONE: Self = Self {
        attributes: Attributes::NONE,
        to: CellSet::EMPTY,
        operation: None,
    };

    /// Whether it is for such messages, and not over.
    fn concerns(&self, peer: CellId, draft: &Draft) -> bool {
        let operation = self.operation.is_none_or(|one| one == draft.operation);
        !self.attributes.is_over() && operation && (self.to.is_empty() || self.to.contains(peer))
    }
}

/// What is to be done to the next messages.
#[derive(Debug)]
pub(crate) struct Mischief {
    ways: [Way; WAYS.len()],
    /// For how long messages are held up.
    span: Duration,
    random: Random,
    held: [Option<Held>; HELD_MAX],
}

/// An order to treat messages badly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MischiefOrder {
    /// One of those that [`InnerFault::is_of_messages`]; others are ignored.
    pub fault: InnerFault,
    /// Which messages, of those that `to` and `operation` leave.
    pub attributes: Attributes,
    /// The cells that they go to; empty for all.
    pub to: CellSet,
    /// What they ask for, or answer; `None` for everything.
    pub operation: Option<Operation>,
    /// For how long `RpcDelay` holds a message up: half of the time that a call may take.
    pub span: Duration,
    /// Chooses the messages, and the bits that `RpcCorrupt` flips.
    pub seed: u64,
}

impl Mischief {
    pub(crate) const NONE: Self = Self {
        ways: [Way::NONE; WAYS.len()],
        span: Duration::ZERO,
        random: Random::new(0),
        held: [None; HELD_MAX],
    };

    pub(crate) fn order(&mut self, order: MischiefOrder) {
        let Some(way) = WAYS.iter().position(|&way| way == order.fault) else {
            return;
        };
        self.ways[way] = Way {
            attributes: order.attributes,
            to: order.to,
            operation: order.operation,
        };
        (self.span, self.random) = (order.span, Random::new(order.seed));
    }

    /// Whether nothing is left to do, now or later.
    pub(crate) fn is_over(&self) -> bool {
        self.ways.iter().all(|way| way.attributes.is_over())
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
        let Some(way) = self.way(peer, draft) else {
            return Treatment::Send;
        };
        let until = match way {
            InnerFault::RpcDrop => return Treatment::Drop,
            InnerFault::RpcDuplicate => return Treatment::SendTwice,
            InnerFault::RpcCorrupt => return Treatment::Flip(self.random.next()),
            InnerFault::RpcDelay => now + self.span,
            // Until the rings are tended next; whatever is sent meanwhile overtakes it.
            _ => now,
        };
        let Some(place) = self.held.iter_mut().find(|held| held.is_none()) else {
            return Treatment::Send;
        };
        *place = Some(Held {
            peer,
            incarnation,
            draft: *draft,
            until,
        });
        Treatment::Held
    }

    /// The first way that strikes a message.
    fn way(&mut self, peer: CellId, draft: &Draft) -> Option<InnerFault> {
        for (number, fault) in WAYS.into_iter().enumerate() {
            if self.ways[number].concerns(peer, draft) {
                let random = self.random.next();
                let attributes = &mut self.ways[number].attributes;
                if attributes.strikes(MESSAGE_BYTES, random) {
                    return Some(fault);
                }
            }
        }
        None
    }

    /// Gives back a message for `peer` whose time has come.
    pub(crate) fn release(&mut self, peer: CellId, now: Instant) -> Option<Held> {
        let due =
            |held: &Option<Held>| held.is_some_and(|one| one.peer == peer && one.until <= now);
        self.held.iter_mut().find(|held| due(held))?.take()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::call::CallNumber;
    use crate::layout::Queue;
    use crate::message::Payload;

    fn order(fault: InnerFault, count: u64) -> MischiefOrder {
        MischiefOrder {
            fault,
            attributes: Attributes::new(count),
            to: CellSet::EMPTY,
            operation: None,
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

    #[test]
    fn only_the_messages_that_are_meant_are_treated() {
        let mut mischief = Mischief::NONE;
        let drop = order(InnerFault::RpcDrop, 1);
        let other = CellSet::only(CellId::new(2).unwrap());
        mischief.order(MischiefOrder { to: other, ..drop });
        assert_eq!(treat(&mut mischief, 0), Treatment::Send, "to cell 1");
        let echo = Some(Operation::Echo);
        mischief.order(MischiefOrder {
            operation: echo,
            ..drop
        });
        assert_eq!(treat(&mut mischief, 0), Treatment::Send, "a null call");
        let null = Some(Operation::Null);
        mischief.order(MischiefOrder {
            operation: null,
            ..drop
        });
        assert_eq!(treat(&mut mischief, 0), Treatment::Drop);
    }

    #[test]
    fn an_overtaken_message_waits_for_the_next_round() {
        let mut mischief = Mischief::NONE;
        mischief.order(order(InnerFault::RpcReorder, 1));
        assert_eq!(treat(&mut mischief, 100), Treatment::Held);
        assert_eq!(treat(&mut mischief, 100), Treatment::Send);
        let peer = CellId::new(1).unwrap();
        assert!(mischief.release(peer, Instant(100)).is_some());
    }
}
