//! What calls between cells cost, beside a bare word that bounces between the same two cells.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use rpc::operation::encode_word;
use rpc::{Operation, Outcome, Payload, ReplyStatus};

use super::neighbour;
use crate::bench::Recorder;
use crate::calls::partner::{Bouncer, PATIENCE};
use crate::calls::{call, call_until};
use crate::{clock, thread};

/// Rounds of one sample.
const ROUNDS: u64 = 64;
/// For how long the neighbour stays awake for a sample of calls, in milliseconds.
const AWAKE_MILLISECONDS: u64 = 100;
/// Calls of one sample.
const CALLS: usize = 15;
/// After this long without calls the neighbour surely sleeps.
const UNTIL_ASLEEP: Duration = Duration::from_millis(5);

/// Makes a request in a thread of its own; the flag says when it ended.
fn ask_beside(peer: cell::CellId, operation: Operation, argument: u64) -> Option<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&ended);
    let body = move || {
        let _ = call_until(
            peer,
            operation,
            encode_word(argument),
            clock::now() + PATIENCE,
        );
        theirs.store(true, Ordering::Release);
    };
    thread::spawn("partner", thread::Priority::Worker, body).ok()?;
    Some(ended)
}

fn wait_for(ended: &AtomicBool) {
    let deadline = clock::now() + PATIENCE;
    while !ended.load(Ordering::Acquire) && clock::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The median: a tick of either end, or a host that takes a CPU away, is no part of what a round
/// costs.
fn median(rounds: &mut [u64]) -> u64 {
    rounds.sort_unstable();
    rounds[rounds.len() / 2]
}

/// A word bounced through two cache lines: the least that a message between two CPUs costs.
pub(super) fn ping_pong(recorder: &mut Recorder) {
    let Some(peer) = neighbour() else { return };
    recorder.sample("ping-pong", || {
        let end = Bouncer::new(peer);
        let ended = ask_beside(peer, Operation::Bounce, ROUNDS)?;
        // The first round waits for the partner to begin, and is not counted.
        end.store(1);
        let mut whole = end.wait_for(2);
        let mut rounds = [0; ROUNDS as usize - 1];
        for (cycles, round) in rounds.iter_mut().zip(1..) {
            let start = clock::cycles();
            end.store(2 * round + 1);
            whole = whole && end.wait_for(2 * round + 2);
            *cycles = clock::cycles().wrapping_sub(start);
        }
        wait_for(&ended);
        whole.then(|| median(&mut rounds))
    });
}

fn null_call(peer: cell::CellId) -> bool {
    let outcome = call(peer, Operation::Null, Payload::EMPTY);
    matches!(outcome, Outcome::Reply(ReplyStatus::Done, _))
}

/// Null calls to a neighbour that polls, and to one that sleeps.
pub(super) fn null_calls(recorder: &mut Recorder) {
    let Some(peer) = neighbour() else { return };
    recorder.sample("null RPC, receiver awake", || {
        let ended = ask_beside(peer, Operation::Attend, AWAKE_MILLISECONDS)?;
        // The neighbour is awake once it answers within a call's spin, so a first call is made to
        // find out.
        let mut whole = null_call(peer);
        let mut calls = [0; CALLS];
        for cycles in &mut calls {
            let start = clock::cycles();
            whole = whole && null_call(peer);
            *cycles = clock::cycles().wrapping_sub(start);
        }
        wait_for(&ended);
        whole.then(|| median(&mut calls))
    });
    recorder.sample("null RPC, receiver asleep", || {
        thread::sleep(UNTIL_ASLEEP);
        let start = clock::cycles();
        null_call(peer).then(|| clock::cycles().wrapping_sub(start))
    });
}
