//! The endpoint over the own public area: who is admitted, polling, doorbells.
//!
//! # Invariants
//! 1. The endpoint is made once, by the boot CPU, before the cell joins the live set.
//! 2. Outstanding calls to a cell are ended when it is forgotten, so that no thread waits for the
//!    dead.
//! 3. One poll of one cell takes at most [`MESSAGES_PER_POLL`] messages: a cell that talks without
//!    end takes its turn.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use cell::public::RINGS_OFFSET;
use cell::trace::Event;
use cell::{CELLS_MAX, CellId, CellSet, Incarnation, Instant};
use recovery::HintReason;
use rpc::doorbell::{Pollers, Recheck};
use rpc::lock::Locking;
use rpc::mischief::MischiefOrder;
use rpc::operation::Operation;
use rpc::peer::PeerLane;
use rpc::ring::SendError;
use rpc::{Doorbell, Endpoint, Link, Message, Refusal, RingArea};
use spin::Once;

use crate::calls::outgoing::peer_and;
use crate::calls::{incoming, outgoing};
use crate::faults::Injection;
use crate::lock::Lock;
use crate::memory::careful::{self, WindowMemory};
use crate::memory::window;
use crate::own::own;
use crate::{clock, hints, hypercall, trace};

/// Messages that one poll takes from one cell.
const MESSAGES_PER_POLL: usize = 64;

/// This kernel's locks, for the `rpc` crate.
#[derive(Debug)]
pub struct KernelLocks;

impl Locking for KernelLocks {
    type Lock<T> = Lock<T>;
}

impl<T> rpc::lock::Lock<T> for Lock<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.lock())
    }
}

static ENDPOINT: Once<Endpoint<'static, KernelLocks>> = Once::new();
static POLLERS: Pollers = Pollers::new();

/// Makes the endpoint and admits the cells that are live now (invariant 1).
pub fn set_up() {
    let own = own();
    // SAFETY: the rings are a part of the own public area, mapped for as long as the cell lives,
    // and made of atomics that any bit pattern fits.
    let lanes = unsafe { &*window::pointer::<RingArea>(own.public(RINGS_OFFSET)) };
    let links: Vec<Link<KernelLocks>> = (0..CELLS_MAX).map(|_| Link::new()).collect();
    let links = Box::leak(links.into_boxed_slice());
    ENDPOINT.call_once(|| Endpoint::new(own.cell, own.incarnation, lanes, links));
    for peer in peers().iter() {
        admit(peer, own.machine.cell(peer).incarnation());
    }
}

/// The endpoint, once it is set up.
pub(super) fn endpoint() -> Option<&'static Endpoint<'static, KernelLocks>> {
    ENDPOINT.get()
}

/// What another cell says to this one, by careful reference.
pub(super) fn lane(peer: CellId) -> PeerLane<'static, WindowMemory> {
    PeerLane::new(careful::reader_of_current(peer), own().cell)
}

fn peers() -> CellSet {
    own().machine.membership.current().1.without(own().cell)
}

/// Lets messages pass to and from a cell in this life of it.
pub fn admit(peer: CellId, incarnation: Incarnation) {
    // A neighbour that is still being loaded for the first time has no life yet; its messages will
    // say 1.
    let incarnation = incarnation.max(Incarnation(1));
    if let Some(endpoint) = endpoint() {
        endpoint.admit(peer, incarnation);
    }
}

/// Stops messages to and from a cell, and ends all calls to it (invariant 2).
pub fn forget(peer: CellId) {
    if let Some(endpoint) = endpoint() {
        endpoint.forget(peer);
    }
    incoming::discard(peer);
    outgoing::peer_gone(peer);
}

/// Treats the next messages badly, as the fault says.
pub fn order_mischief(injection: Injection) {
    if let Some(endpoint) = endpoint() {
        endpoint.order_mischief(MischiefOrder {
            fault: injection.fault,
            attributes: injection.attributes,
            to: injection.to,
            operation: Operation::from_raw(injection.operation as u16),
            span: outgoing::time_to_answer() / 2,
            seed: injection.seed,
        });
    }
}

/// Rings the doorbell if that is needed.
pub(super) fn ring(peer: CellId, doorbell: Doorbell) {
    if doorbell == Doorbell::Needed {
        // A refusal means that the peer is not live, or that this cell rang too often: the peer's
        // next tick will do.
        let _ = hypercall::doorbell(peer);
    }
}

/// Does at a tick what time alone brings about, and polls.
pub fn at_tick() {
    let now = clock::now();
    outgoing::expire(now);
    tend_next(now);
    poll_all();
}

/// Tends the rings of one peer; each in its turn, one per tick, so that more cells do not make a
/// tick longer.
fn tend_next(now: Instant) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let (Some(endpoint), peers) = (endpoint(), peers()) else {
        return;
    };
    let turn = TURN.fetch_add(1, Ordering::Relaxed) % peers.len().max(1);
    let Some(peer) = peers.iter().nth(turn) else {
        return;
    };
    match endpoint.tend(peer, now, &lane(peer)) {
        Ok(doorbell) => ring(peer, doorbell),
        Err(error) => blame(peer, error),
    }
}

/// Polls every live cell.
pub fn poll_all() {
    for peer in peers().iter() {
        poll(peer);
    }
}

/// Takes the messages that one cell sent.
pub(super) fn poll(peer: CellId) {
    let Some(endpoint) = endpoint() else { return };
    let lane = lane(peer);
    for _ in 0..MESSAGES_PER_POLL {
        match endpoint.poll(peer, &lane) {
            None => return,
            Some(Ok(Message::Reply(reply))) => outgoing::take(&reply),
            Some(Ok(Message::Request(request))) => incoming::take(&request),
            Some(Err(refusal)) => refuse(peer, refusal),
        }
    }
}

fn refuse(peer: CellId, refusal: Refusal) {
    trace::record(Event::RpcRefused, peer_and(peer, refusal.code()), 0);
    match refusal {
        Refusal::Unreachable(error) => hints::raise_about(&error),
        refusal if refusal.blames_peer() => hints::raise(peer, HintReason::MessageInvalid),
        _ => {}
    }
}

/// Raises the hint that a failed send is, if it speaks against the peer.
pub(super) fn blame(peer: CellId, error: SendError) {
    match error {
        SendError::Unreachable(error) => hints::raise_about(&error),
        SendError::Full => hints::raise(peer, HintReason::RpcTimedOut),
        SendError::Inconsistent(_) => hints::raise(peer, HintReason::CarefulCheck),
        _ => {}
    }
}

/// Somebody in this cell polls its rings for as long as this lives; senders need not ring.
#[derive(Debug)]
pub(super) struct Polling(());

impl Polling {
    /// Begins to poll.
    pub(super) fn new() -> Self {
        POLLERS.enter(&own().header().asleep);
        Self(())
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        if POLLERS.leave(&own().header().asleep) == Recheck::Needed {
            poll_all();
        }
    }
}
