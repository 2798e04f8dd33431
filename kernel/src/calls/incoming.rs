//! Serving other cells: at interrupt level what need not wait, by server threads the rest.
//!
//! # Invariants
//! 1. Nothing on the interrupt-level path blocks or waits.
//! 2. Every request gets at most one reply.

use rpc::call::CallNumber;
use rpc::operation::{self, Compute};
use rpc::service::{Attempt, DeferredRequests};
use rpc::{Operation, Payload, ReplyStatus, Request};

use cell::CellId;
use cell::trace::Event;

use crate::calls::outgoing::{self, peer_and};
use crate::calls::partner;
use crate::calls::rings;
use crate::lock::Lock;
use crate::thread::wait::WaitQueue;
use crate::thread::{self, Priority, SpawnError};
use crate::{clock, console, pages, trace, work};

/// Requests that can wait for a server thread; more are answered `Busy`.
const DEFERRED_MAX: usize = 64;
/// Server threads of a cell.
const SERVERS: usize = 2;

static DEFERRED: Lock<DeferredRequests<DEFERRED_MAX>> = Lock::new(DeferredRequests::new());
static WORK: WaitQueue = WaitQueue::new();

/// Starts the server threads.
///
/// # Errors
/// As for [`thread::spawn`].
pub fn start() -> Result<(), SpawnError> {
    for _ in 0..SERVERS {
        thread::spawn("server", Priority::Server, || run())?;
    }
    Ok(())
}

/// Takes a request that was polled. Fit for interrupt level.
pub(super) fn take(request: &Request) {
    let Request {
        from,
        operation,
        call: CallNumber(number),
        ..
    } = *request;
    if outgoing::is_traced(request.call) {
        trace::record(Event::RpcReceive, peer_and(from, operation as u32), number);
    }
    let defer = |request| {
        DEFERRED.lock().push(request)?;
        WORK.wake_one();
        Ok(())
    };
    if let Some(answer) = rpc::service::serve(request, attempt, defer) {
        reply(request, answer);
    }
}

/// Drops what a cell that was voted out asked for.
pub(super) fn discard(peer: CellId) {
    DEFERRED.lock().discard(peer);
}

/// Tries a request where nothing may wait.
fn attempt(request: &Request) -> Attempt {
    let bad = Attempt::Reply(ReplyStatus::BadArgument, Payload::EMPTY);
    let done = |payload| Attempt::Reply(ReplyStatus::Done, payload);
    let payload = request.payload;
    match request.operation {
        Operation::Null => done(Payload::EMPTY),
        Operation::Echo => done(payload),
        Operation::Ping => {
            operation::decode_word(payload).map_or(bad, |word| done(operation::encode_word(word)))
        }
        Operation::Compute => Compute::decode(payload).map_or(bad, |compute| {
            done(operation::encode_word(compute.result()))
        }),
        Operation::Work => {
            let (status, payload) = work::answer(request);
            Attempt::Reply(status, payload)
        }
        Operation::ImportPage | Operation::BorrowFrames => {
            let (status, payload) = pages::serve(request);
            Attempt::Reply(status, payload)
        }
        Operation::ReleasePage
        | Operation::ReturnFrames
        | Operation::ConsoleWrite
        | Operation::Bounce
        | Operation::Attend => Attempt::MustBlock,
    }
}

/// A server thread.
fn run() -> ! {
    loop {
        let next = WORK.wait(None, || DEFERRED.lock().pop());
        if let Ok(request) = next {
            reply(&request, carry_out(&request));
        }
    }
}

/// Carries out a request that may wait.
fn carry_out(request: &Request) -> (ReplyStatus, Payload) {
    match request.operation {
        Operation::ConsoleWrite => {
            let bytes = request.payload.to_bytes();
            if !console::output::is_owner() {
                return (ReplyStatus::Gone, Payload::EMPTY);
            }
            let message = &bytes[..request.payload.len()];
            console::remote::show(request.from, request.incarnation, message);
            (ReplyStatus::Done, Payload::EMPTY)
        }
        Operation::Bounce | Operation::Attend => partner::serve(request),
        _ => pages::serve(request),
    }
}

fn reply(request: &Request, answer: (ReplyStatus, Payload)) {
    let Some(endpoint) = rings::endpoint() else {
        return;
    };
    let peer = request.from;
    let status = answer.0 as u32;
    match endpoint.send_reply(request, answer, clock::now(), &rings::lane(peer)) {
        Ok(doorbell) => {
            if outgoing::is_traced(request.call) {
                trace::record(Event::RpcReply, peer_and(peer, status), request.call.0);
            }
            rings::ring(peer, doorbell);
        }
        // The caller's deadline ends the call; whether the error speaks against the caller is for
        // the hint.
        Err(error) => rings::blame(peer, error),
    }
}
