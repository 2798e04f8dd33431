//! The two service classes, and the queue of requests that may block.
//!
//! A request is looked at where it was polled: in the doorbell interrupt, in the tick, or in a
//! thread that spins for a reply of its own. There nothing may wait. An operation of class
//! [`ServiceClass::Interrupt`] is tried there at once; if the attempt finds that it would have to
//! wait, or if the class is [`ServiceClass::Queued`], the request goes to the queue of the server
//! threads. If that is full, the caller is told to try again later.
//!
//! # Invariants
//! 1. Every request gets at most one reply: from [`serve`], or from the server thread that popped
//!    it, never both.
//! 2. The queue never holds more than its size, and of one cell no more than its share: a cell that
//!    floods another fills neither its memory nor the room that the others have there.

use cell::CellId;

use crate::message::{Payload, ReplyStatus, Request};
use crate::operation::ServiceClass;

/// What an attempt at interrupt level comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// The answer.
    Reply(ReplyStatus, Payload),
    /// It would have to wait; nothing was done yet.
    MustBlock,
}

/// Which part of the queue one cell may fill: one in so many requests.
pub const SHARE: usize = 2;

/// The queue of the server threads has no room, or no more of it for this cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueFull;

/// Serves a request where nothing may wait. `attempt` tries it, `defer` hands it to the server
/// threads. Gives back the reply to send now, if any.
pub fn serve(
    request: &Request,
    attempt: impl FnOnce(&Request) -> Attempt,
    defer: impl FnOnce(Request) -> Result<(), QueueFull>,
) -> Option<(ReplyStatus, Payload)> {
    if request.operation.class() == ServiceClass::Interrupt
        && let Attempt::Reply(status, payload) = attempt(request)
    {
        return Some((status, payload));
    }
    match defer(*request) {
        Ok(()) => None,
        Err(QueueFull) => Some((ReplyStatus::Busy, Payload::EMPTY)),
    }
}

/// Requests for the server threads, first in, first out. The kernel holds a lock around it, with
/// interrupts off.
#[derive(Debug)]
pub struct DeferredRequests<const N: usize> {
    requests: [Option<Request>; N],
    first: usize,
    count: usize,
}

impl<const N: usize> DeferredRequests<N> {
    /// No requests.
    pub const fn new() -> Self {
        Self {
            requests: [None; N],
            first: 0,
            count: 0,
        }
    }

    /// Adds a request behind the others.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn push(&mut self, request: Request) -> Result<(), QueueFull> {
        let is_theirs = |waiting: &&Request| waiting.from == request.from;
        let theirs = self.requests.iter().flatten().filter(is_theirs).count();
        if self.count == N || theirs >= N.div_ceil(SHARE) {
            return Err(QueueFull);
        }
        self.requests[(self.first + self.count) % N] = Some(request);
        self.count += 1;
        Ok(())
    }

    /// Takes the request that waits longest.
    pub fn pop(&mut self) -> Option<Request> {
        while self.count > 0 {
            let request = self.requests[self.first].take();
            self.first = (self.first + 1) % N;
            self.count -= 1;
            if request.is_some() {
                return request;
            }
        }
        None
    }

    /// Removes the requests of a cell that was declared dead.
    pub fn discard(&mut self, peer: CellId) {
        for place in &mut self.requests {
            if place.is_some_and(|request| request.from == peer) {
                *place = None;
            }
        }
    }

    /// Whether a server thread would find nothing to do, apart from discarded requests.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<const N: usize> Default for DeferredRequests<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::call::CallNumber;
    use crate::operation::Operation;
    use cell::Incarnation;

    fn request(from: usize, call: u64, operation: Operation) -> Request {
        Request {
            from: CellId::new(from).unwrap(),
            incarnation: Incarnation(1),
            call: CallNumber(call),
            operation,
            payload: Payload::EMPTY,
        }
    }

    fn popped<const N: usize>(queue: &mut DeferredRequests<N>) -> Vec<u64> {
        core::iter::from_fn(|| queue.pop())
            .map(|request| request.call.0)
            .collect()
    }

    #[test]
    fn what_need_not_block_is_answered_at_once() {
        let done = (ReplyStatus::Done, Payload::EMPTY);
        let null = request(1, 1, Operation::Null);
        let reply = serve(
            &null,
            |_| Attempt::Reply(done.0, done.1),
            |_| unreachable!(),
        );
        assert_eq!(reply, Some(done));
    }

    #[test]
    fn what_must_block_is_queued_and_refused_when_the_queue_is_full() {
        let mut queue = DeferredRequests::<4>::new();
        let import = |call| request(1, call, Operation::ImportPage);
        let mut replies = vec![];
        for call in 0..3 {
            replies.push(serve(
                &import(call),
                |_| Attempt::MustBlock,
                |one| queue.push(one),
            ));
        }
        assert_eq!(
            replies,
            [None, None, Some((ReplyStatus::Busy, Payload::EMPTY))]
        );
        assert_eq!(popped(&mut queue), [0, 1]);
    }

    #[test]
    fn queued_operations_are_not_tried_at_interrupt_level() {
        let mut queue = DeferredRequests::<1>::new();
        let release = request(1, 7, Operation::ReleasePage);
        assert_eq!(
            serve(&release, |_| unreachable!(), |one| queue.push(one)),
            None
        );
        assert_eq!(popped(&mut queue), [7]);
    }

    #[test]
    fn a_cell_that_floods_leaves_room_for_the_others() {
        let mut queue = DeferredRequests::<4>::new();
        for call in 0..2 {
            queue.push(request(1, call, Operation::Attend)).unwrap();
        }
        let one_more = request(1, 2, Operation::Attend);
        assert_eq!(queue.push(one_more), Err(QueueFull));
        queue.push(request(2, 3, Operation::ReturnFrames)).unwrap();
        assert_eq!(queue.pop().map(|it| it.call.0), Some(0));
        queue.push(one_more).unwrap();
        assert_eq!(popped(&mut queue), [1, 3, 2]);
    }

    #[test]
    fn requests_of_the_dead_are_discarded_and_order_is_kept() {
        let mut queue = DeferredRequests::<4>::new();
        queue.push(request(1, 0, Operation::Null)).unwrap();
        assert_eq!(popped(&mut queue), [0]);
        for (from, call) in [(2, 1), (1, 2), (2, 3), (3, 4)] {
            queue.push(request(from, call, Operation::Null)).unwrap();
        }
        queue.discard(CellId::new(2).unwrap());
        assert_eq!(queue.push(request(3, 5, Operation::Null)), Err(QueueFull));
        assert_eq!(popped(&mut queue), [2, 4]);
        assert!(queue.is_empty());
    }
}
