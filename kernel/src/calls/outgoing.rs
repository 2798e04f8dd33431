//! Calling another cell, and the one outcome of each call.
//!
//! The caller polls for [`SPIN_MICROSECONDS`], which is enough for a peer that is awake, and then
//! sleeps until the reply, the deadline, or the death of the peer.
//!
//! # Invariants
//! 1. Every call ends by its deadline, give or take a tick.
//! 2. A call that the peer did not answer in time is a hint about it.

use core::time::Duration;

use cell::trace::Event;
use cell::{CellId, Instant};
use recovery::HintReason;
use rpc::call::{CallNumber, Completion, Ended, SPIN_MICROSECONDS, TableFull, Waiter};
use rpc::ring::SendError;
use rpc::{Call, CallTable, Operation, Outcome, Payload, Reply};

use crate::calls::rings::{self, Polling};
use crate::lock::Lock;
use crate::own::own;
use crate::thread::{self, ThreadId};
use crate::{clock, hints, pages, trace};

static CALLS: Lock<CallTable> = Lock::new(CallTable::new());

/// How long a caller waits before it tries again what found no room.
const RETRY: Duration = Duration::from_micros(500);

/// How long a call may take, by the boot parameters.
pub fn time_to_answer() -> Duration {
    Duration::from_millis(own().settings.call_milliseconds.into())
}

/// Calls `peer`, with the time that the boot parameters give a call.
pub fn call(peer: CellId, operation: Operation, payload: Payload) -> Outcome {
    call_until(peer, operation, payload, clock::now() + time_to_answer())
}

/// Calls `peer`; the outcome comes by `deadline`.
///
/// # Panics
/// At interrupt level, and on an idle thread: neither may wait.
pub fn call_until(
    peer: CellId,
    operation: Operation,
    payload: Payload,
    deadline: Instant,
) -> Outcome {
    let Some(call) = begin(peer, operation, deadline) else {
        return Outcome::Refused;
    };
    let number = call.number();
    if is_traced(number) {
        trace::record(Event::RpcSend, peer_and(peer, operation as u32), number.0);
    }
    let outcome = match send(peer, &call, (operation, payload), deadline) {
        Ok(polling) => wait(peer, call, deadline, polling),
        Err(error) => {
            CALLS.lock().abandon(call);
            rings::blame(peer, error);
            match error {
                SendError::NotAdmitted | SendError::Stale => Outcome::PeerGone,
                _ => Outcome::Refused,
            }
        }
    };
    if is_traced(number) {
        trace::record(Event::RpcDone, peer_and(peer, outcome.code()), number.0);
    }
    outcome
}

/// Whether a call appears in the trace, at both ends of it. One in some: the trace is to reach back
/// to what matters.
pub(super) fn is_traced(call: CallNumber) -> bool {
    const TRACED_ONE_IN: u64 = 32;
    (call.0 >> 32).is_multiple_of(TRACED_ONE_IN)
}

/// A peer and a number, as trace arguments carry them.
pub(super) const fn peer_and(peer: CellId, number: u32) -> u64 {
    (peer.index() as u64) << 32 | number as u64
}

/// Takes an entry for the call, when there is one before the deadline.
fn begin(peer: CellId, operation: Operation, deadline: Instant) -> Option<Call> {
    let thread = thread::current().expect("an idle thread calls nobody");
    let waiter = Waiter(thread.index() as u64);
    loop {
        let begun = CALLS.lock().begin(peer, operation, deadline, waiter);
        match begun {
            Ok(call) => return Some(call),
            Err(TableFull::Cell | TableFull::Peer) if clock::now() < deadline => {
                thread::sleep(RETRY);
            }
            Err(_) => return None,
        }
    }
}

/// Puts the request into the ring, when there is room before the deadline. The caller polls from
/// before the request goes out, so that a quick reply needs no doorbell.
///
/// # Errors
/// See [`SendError`]; nothing went out.
fn send(
    peer: CellId,
    call: &Call,
    request: (Operation, Payload),
    deadline: Instant,
) -> Result<Polling, SendError> {
    let endpoint = rings::endpoint().ok_or(SendError::NotAdmitted)?;
    loop {
        let now = clock::now();
        let polling = Polling::new();
        match endpoint.send_request(peer, call.number(), request, now, &rings::lane(peer)) {
            Ok(doorbell) => {
                rings::ring(peer, doorbell);
                return Ok(polling);
            }
            Err(SendError::Full) if now < deadline => {
                drop(polling);
                thread::sleep(RETRY);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits for the outcome: polls first, then sleeps.
fn wait(peer: CellId, call: Call, deadline: Instant, polling: Polling) -> Outcome {
    let mut call = match spin(peer, call) {
        Ok(outcome) => return outcome,
        Err(call) => call,
    };
    drop(polling);
    loop {
        let taken = CALLS.lock().take(call);
        match taken {
            Ok(outcome) => return outcome,
            Err(waiting) => call = waiting,
        }
        thread::block(Some(deadline));
        let now = clock::now();
        if now >= deadline {
            expire(now);
        }
    }
}

/// Polls for a short while; the caller holds the [`Polling`].
///
/// # Errors
/// Gives back a call that still waits.
fn spin(peer: CellId, mut call: Call) -> Result<Outcome, Call> {
    let end = clock::now() + Duration::from_micros(SPIN_MICROSECONDS);
    loop {
        rings::poll(peer);
        let taken = CALLS.lock().take(call);
        match taken {
            Err(waiting) if clock::now() < end => call = waiting,
            decided => return decided,
        }
        core::hint::spin_loop();
    }
}

/// Takes a reply that was polled.
pub(super) fn take(reply: &Reply) {
    let completion = CALLS.lock().complete(reply);
    match completion {
        Completion::Ended(waiter) => wake(waiter),
        Completion::Late => pages::reply_came_late(reply),
        Completion::Mismatched => hints::raise(reply.from, HintReason::MessageInvalid),
    }
}

fn wake(Waiter(thread): Waiter) {
    if let Some(thread) = ThreadId::new(thread as usize) {
        thread::wake(thread);
    }
}

/// Calls that one look at the table can end.
const ENDED_MAX: usize = rpc::call::CALLS_MAX;

/// Ends the calls whose deadline has passed. Interrupt level.
pub(super) fn expire(now: Instant) {
    let is_due = CALLS
        .lock()
        .next_deadline()
        .is_some_and(|deadline| deadline <= now);
    if is_due {
        end(
            |calls, report| calls.expire(now, report),
            |ended| {
                hints::raise(ended.peer, HintReason::RpcTimedOut);
            },
        );
    }
}

/// Ends the calls to a cell that was voted out.
pub(super) fn peer_gone(peer: CellId) {
    end(|calls, report| calls.peer_gone(peer, report), |_| {});
}

/// Ends calls, and wakes their threads when the table is open again.
fn end(ending: impl FnOnce(&mut CallTable, &mut dyn FnMut(Ended)), also: impl Fn(&Ended)) {
    let mut waiters = [None; ENDED_MAX];
    let mut places = waiters.iter_mut();
    ending(&mut CALLS.lock(), &mut |ended| {
        also(&ended);
        if let Some(place) = places.next() {
            *place = Some(ended.waiter);
        }
    });
    waiters.into_iter().flatten().for_each(wake);
}
