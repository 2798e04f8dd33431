//! All rings of one cell: send, poll, admit and forget cells.
//!
//! # Use
//! The kernel makes one [`Endpoint`] when it boots, admits each cell of the live set, and then:
//! sends; polls every admitted cell at each doorbell, at each timer tick and while it spins for a
//! reply; and calls [`Endpoint::tend`] for every admitted cell at each tick. When a cell is
//! expelled it is forgotten; when it rejoins it is admitted in its new incarnation, and the pair
//! starts afresh without any exchange (see the sessions of [`crate::ring`]).
//!
//! # Invariants
//! 1. All CPUs of the cell may call everything here at any time; each message is given out to one
//!    of them.
//! 2. A poll that finds nothing costs one remote load per ring and takes no lock.
//! 3. To or from a cell that is not admitted nothing is sent, and nothing is read.
//! 4. Locks: that of an outbox is held while that of the mischief is taken; no other two at once.

use cell::fault::InnerFault;
use cell::{CellId, Incarnation, Instant};

use crate::atomic::{AtomicU64, Ordering};
use crate::call::CallNumber;
use crate::doorbell::Doorbell;
use crate::layout::{Lane, Queue, RemoteLane};
use crate::lock::{Lock, Locking};
use crate::message::{Draft, Life, Message, Payload, Refusal, ReplyStatus, Request};
use crate::mischief::{Held, Mischief, MischiefOrder, Treatment};
use crate::operation::Operation;
use crate::ring::{Consumer, Producer, ReceiveStatistics, SendError, Session};

/// No index word of a session: incarnations start at 1.
const NOTHING: u64 = 0;

/// What goes to one peer.
#[derive(Debug)]
struct Outbox {
    peer: Incarnation,
    is_open: bool,
    producers: [Producer; 2],
    statistics: SendStatistics,
}

/// What comes from one peer.
#[derive(Debug)]
struct Inbox {
    peer: Incarnation,
    is_open: bool,
    /// `None` until the peer was first admitted.
    consumers: Option<[Consumer; 2]>,
    statistics: ReceiveStatistics,
}

/// What went into the rings for one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SendStatistics {
    /// Messages given to the rings, whatever mischief then did to them.
    pub sent: u64,
    /// Messages that found the ring full.
    pub full: u64,
}

/// Traffic with one peer, over all its lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkStatistics {
    /// To the peer.
    pub sent: SendStatistics,
    /// From the peer.
    pub received: ReceiveStatistics,
}

/// A cell's private state of its rings to and from one peer.
pub struct Link<L: Locking> {
    outbox: L::Lock<Outbox>,
    inbox: L::Lock<Inbox>,
    /// What the peer's produced words hold while there is nothing to read; [`NOTHING`] while it is
    /// not admitted.
    idle: [AtomicU64; 2],
}

impl<L: Locking> Link<L> {
    /// The state before the peer was ever admitted.
    pub fn new() -> Self {
        let peer = Incarnation(0);
        let producer = |queue| Producer::new(queue, peer, peer);
        Self {
            outbox: L::Lock::new(Outbox {
                peer,
                is_open: false,
                producers: [producer(Queue::Requests), producer(Queue::Replies)],
                statistics: SendStatistics::default(),
            }),
            inbox: L::Lock::new(Inbox {
                peer,
                is_open: false,
                consumers: None,
                statistics: ReceiveStatistics::default(),
            }),
            idle: [AtomicU64::new(NOTHING), AtomicU64::new(NOTHING)],
        }
    }

    /// What the peer's produced words hold while there is nothing to read; `None` while it is not
    /// admitted. While that changes, one word may be of before and one of after: the inbox, which
    /// is looked at next, knows better.
    fn idle(&self) -> Option<[u64; 2]> {
        let words = self
            .idle
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed));
        (!words.contains(&NOTHING)).then_some(words)
    }
}

impl<L: Locking> Default for Link<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Locking> core::fmt::Debug for Link<L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Link")
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// All rings of one cell.
pub struct Endpoint<'a, L: Locking> {
    own: Life,
    lanes: &'a [Lane],
    links: &'a [Link<L>],
    mischief: L::Lock<Mischief>,
    /// 0 while there is no mischief, so that the lock need not be taken for every message.
    mischief_ordered: AtomicU64,
}

impl<L: Locking> core::fmt::Debug for Endpoint<'_, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Endpoint")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

impl<'a, L: Locking> Endpoint<'a, L> {
    /// The endpoint of a life of `cell` that just began. `lanes` are the cell's own ones, in its
    /// public area, and are cleared; `links` are new ones. Both are indexed by peer; cells beyond
    /// cannot be admitted.
    pub fn new(
        cell: CellId,
        incarnation: Incarnation,
        lanes: &'a [Lane],
        links: &'a [Link<L>],
    ) -> Self {
        lanes.iter().for_each(Lane::clear);
        Self {
            own: Life { cell, incarnation },
            lanes,
            links,
            mischief: L::Lock::new(Mischief::NONE),
            mischief_ordered: AtomicU64::new(0),
        }
    }

    /// Lets messages pass to and from `peer` in its life `incarnation`. The first time for a life,
    /// both directions start afresh; after [`Endpoint::forget`] of the same life they go on where
    /// they were. An older life than one known is ignored.
    ///
    /// # Panics
    /// If `peer` has no lane or no link.
    pub fn admit(&self, peer: CellId, incarnation: Incarnation) {
        let (lane, link) = self.pair(peer).expect("a lane and a link for every cell");
        let life = Life {
            cell: peer,
            incarnation,
        };
        link.inbox
            .with(|inbox| inbox.admit(self.own, life, lane, &link.idle));
        link.outbox
            .with(|outbox| outbox.admit(self.own, life, lane));
    }

    /// Stops messages to and from `peer`. Its outstanding calls are ended by
    /// [`crate::CallTable::peer_gone`].
    pub fn forget(&self, peer: CellId) {
        let Some((_, link)) = self.pair(peer) else {
            return;
        };
        link.outbox.with(|outbox| outbox.is_open = false);
        link.inbox.with(|inbox| inbox.forget(&link.idle));
    }

    /// Sends a request; the caller rings the doorbell if needed.
    ///
    /// # Errors
    /// See [`SendError`]; after `Full` the caller may try again until its deadline.
    pub fn send_request(
        &self,
        peer: CellId,
        call: CallNumber,
        (operation, payload): (Operation, Payload),
        now: Instant,
        remote: &impl RemoteLane,
    ) -> Result<Doorbell, SendError> {
        let draft = Draft {
            queue: Queue::Requests,
            call,
            operation,
            status: 0,
            payload,
        };
        self.send(peer, None, &draft, now, remote)
    }

    /// Answers a request; the caller rings the doorbell if needed.
    ///
    /// # Errors
    /// See [`SendError`]. `Full` means that the peer broke its promise to have no more calls
    /// outstanding than a ring holds, or does not read its replies: the reply may be given up.
    pub fn send_reply(
        &self,
        request: &Request,
        (status, payload): (ReplyStatus, Payload),
        now: Instant,
        remote: &impl RemoteLane,
    ) -> Result<Doorbell, SendError> {
        let Request {
            from,
            incarnation,
            call,
            operation,
            ..
        } = *request;
        let draft = Draft {
            queue: Queue::Replies,
            call,
            operation,
            status: status as u16,
            payload,
        };
        self.send(from, Some(incarnation), &draft, now, remote)
    }

    /// Takes the next message from `peer`, replies first. `Some(Err(_))` means that something was
    /// refused and that there may be more; a caller that polls until `None` sets itself a limit,
    /// for instance [`crate::layout::SLOTS`].
    pub fn poll(&self, peer: CellId, remote: &impl RemoteLane) -> Option<Result<Message, Refusal>> {
        let (lane, link) = self.pair(peer)?;
        let idle = link.idle()?;
        let produced = remote.produced();
        // An error is news as well: the inbox tells it.
        let has_news = |queue: &Queue| {
            let index = queue.index();
            !produced.is_ok_and(|words| words[index] == idle[index])
        };
        Queue::ALL.into_iter().filter(has_news).find_map(|queue| {
            link.inbox
                .with(|inbox| inbox.next(queue, lane, remote, &link.idle))
        })
    }

    /// Whether `peer` has said something that was not read yet: the last look before sleep. Takes
    /// no lock.
    pub fn has_message(&self, peer: CellId, remote: &impl RemoteLane) -> bool {
        let Some((_, link)) = self.pair(peer) else {
            return false;
        };
        let Some(idle) = link.idle() else {
            return false;
        };
        let is_news = |(index, idle): (u64, u64)| index != idle && index >> 32 == idle >> 32;
        remote
            .produced()
            .is_ok_and(|words| words.into_iter().zip(idle).any(is_news))
    }

    /// Does what is due for `peer` at a tick: puts index words right that went wrong, and sends
    /// messages that were held up long enough.
    ///
    /// # Errors
    /// Those of sending; what was held up is then lost.
    pub fn tend(
        &self,
        peer: CellId,
        now: Instant,
        remote: &impl RemoteLane,
    ) -> Result<Doorbell, SendError> {
        let Some((lane, link)) = self.pair(peer) else {
            return Err(SendError::NotAdmitted);
        };
        link.outbox.with(|outbox| outbox.restore(lane));
        link.inbox.with(|inbox| inbox.restore(lane));
        let mut doorbell = Doorbell::NotNeeded;
        while let Some(held) = self.release(peer, now) {
            let rung = self.send_held(&held, remote)?;
            if rung == Doorbell::Needed {
                doorbell = rung;
            }
        }
        Ok(doorbell)
    }

    /// Treats the next messages as ordered, for fault injection.
    pub fn order_mischief(&self, order: MischiefOrder) {
        self.mischief.with(|mischief| {
            mischief.order(order);
            self.note_mischief(mischief);
        });
    }

    /// The mischief that was done since this was asked last: the last of it. The caller asks at
    /// each tick.
    pub fn take_mischief(&self) -> Option<InnerFault> {
        if self.mischief_ordered.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.mischief.with(|mischief| {
            let struck = mischief.take_struck();
            self.note_mischief(mischief);
            struck
        })
    }

    /// The traffic with `peer` so far.
    pub fn statistics(&self, peer: CellId) -> LinkStatistics {
        self.pair(peer)
            .map_or(LinkStatistics::default(), |(_, link)| LinkStatistics {
                sent: link.outbox.with(|outbox| outbox.statistics),
                received: link.inbox.with(|inbox| inbox.statistics),
            })
    }

    fn pair(&self, peer: CellId) -> Option<(&Lane, &Link<L>)> {
        Some((self.lanes.get(peer.index())?, self.links.get(peer.index())?))
    }

    /// # Errors
    /// See [`SendError`].
    fn send(
        &self,
        peer: CellId,
        life: Option<Incarnation>,
        draft: &Draft,
        now: Instant,
        remote: &impl RemoteLane,
    ) -> Result<Doorbell, SendError> {
        let (lane, link) = self.pair(peer).ok_or(SendError::NotAdmitted)?;
        link.outbox.with(|outbox| {
            outbox.reserve(life, draft.queue, remote)?;
            let treatment = self.treat(
                Life {
                    cell: peer,
                    incarnation: outbox.peer,
                },
                draft,
                now,
            );
            outbox.push(self.own, peer, draft, treatment, lane, remote);
            Ok(())
        })?;
        Doorbell::after_publishing(remote).map_err(SendError::Unreachable)
    }

    /// # Errors
    /// See [`SendError`].
    fn send_held(&self, held: &Held, remote: &impl RemoteLane) -> Result<Doorbell, SendError> {
        let (lane, link) = self.pair(held.peer).ok_or(SendError::NotAdmitted)?;
        link.outbox.with(|outbox| {
            outbox.reserve(Some(held.incarnation), held.draft.queue, remote)?;
            outbox.push(
                self.own,
                held.peer,
                &held.draft,
                Treatment::Send,
                lane,
                remote,
            );
            Ok(())
        })?;
        Doorbell::after_publishing(remote).map_err(SendError::Unreachable)
    }

    fn treat(&self, peer: Life, draft: &Draft, now: Instant) -> Treatment {
        if self.mischief_ordered.load(Ordering::Relaxed) == 0 {
            return Treatment::Send;
        }
        self.mischief.with(|mischief| {
            let treatment = mischief.treat(peer.cell, peer.incarnation, draft, now);
            self.note_mischief(mischief);
            treatment
        })
    }

    fn release(&self, peer: CellId, now: Instant) -> Option<Held> {
        if self.mischief_ordered.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.mischief.with(|mischief| {
            let held = mischief.release(peer, now);
            self.note_mischief(mischief);
            held
        })
    }

    fn note_mischief(&self, mischief: &Mischief) {
        self.mischief_ordered
            .store(u64::from(!mischief.is_over()), Ordering::Relaxed);
    }
}

impl Outbox {
    fn admit(&mut self, own: Life, peer: Life, lane: &Lane) {
        if peer.incarnation < self.peer {
            return;
        }
        if peer.incarnation > self.peer {
            self.peer = peer.incarnation;
            let producer = |queue| Producer::new(queue, own.incarnation, peer.incarnation);
            self.producers = [producer(Queue::Requests), producer(Queue::Replies)];
            self.restore(lane);
        }
        self.is_open = true;
    }

    fn restore(&self, lane: &Lane) {
        if self.peer != Incarnation(0) {
            self.producers
                .iter()
                .for_each(|producer| producer.restore(lane));
        }
    }

    /// # Errors
    /// `NotAdmitted`, `Stale`, and those of [`Producer::reserve`].
    fn reserve(
        &mut self,
        life: Option<Incarnation>,
        queue: Queue,
        remote: &impl RemoteLane,
    ) -> Result<(), SendError> {
        if life.is_some_and(|incarnation| incarnation != self.peer) {
            return Err(SendError::Stale);
        }
        if !self.is_open {
            return Err(SendError::NotAdmitted);
        }
        let reserved = self.producers[queue.index()].reserve(remote);
        self.statistics.full += u64::from(reserved == Err(SendError::Full));
        reserved
    }

    fn push(
        &mut self,
        own: Life,
        peer: CellId,
        draft: &Draft,
        treatment: Treatment,
        lane: &Lane,
        remote: &impl RemoteLane,
    ) {
        if treatment == Treatment::Held {
            return;
        }
        let producer = &mut self.producers[draft.queue.index()];
        let peer = Life {
            cell: peer,
            incarnation: self.peer,
        };
        let mut message = draft.seal(producer.next_sequence(), own, peer);
        self.statistics.sent += 1;
        if let Treatment::Flip(bit) = treatment {
            message.flip(bit);
        }
        if treatment != Treatment::Drop {
            producer.push(lane, &message);
        }
        if treatment == Treatment::SendTwice && producer.reserve(remote).is_ok() {
            producer.push(lane, &message);
        }
    }
}

impl Inbox {
    fn admit(&mut self, own: Life, peer: Life, lane: &Lane, idle: &[AtomicU64; 2]) {
        if peer.incarnation < self.peer {
            return;
        }
        if peer.incarnation > self.peer {
            self.peer = peer.incarnation;
            let consumer = |queue| Consumer::new(queue, own, peer);
            self.consumers = Some([consumer(Queue::Requests), consumer(Queue::Replies)]);
            self.restore(lane);
        }
        self.is_open = true;
        self.note_idle(idle);
    }

    fn forget(&mut self, idle: &[AtomicU64; 2]) {
        self.is_open = false;
        for word in idle {
            word.store(NOTHING, Ordering::Relaxed);
        }
    }

    fn next(
        &mut self,
        queue: Queue,
        lane: &Lane,
        remote: &impl RemoteLane,
        idle: &[AtomicU64; 2],
    ) -> Option<Result<Message, Refusal>> {
        if !self.is_open {
            return None;
        }
        let consumer = &mut self.consumers.as_mut()?[queue.index()];
        let result = consumer.next(lane, remote, &mut self.statistics)?;
        self.note_idle(idle);
        Some(result)
    }

    fn restore(&self, lane: &Lane) {
        self.consumers
            .iter()
            .flatten()
            .for_each(|consumer| consumer.restore(lane));
    }

    fn note_idle(&self, idle: &[AtomicU64; 2]) {
        for (word, consumer) in idle.iter().zip(self.consumers.iter().flatten()) {
            word.store(consumer.idle_index(), Ordering::Relaxed);
        }
    }
}

const _: () = assert!(Session::new(Incarnation(1), Incarnation(1)).index(0) != NOTHING);

#[cfg(all(test, not(loom)))]
mod tests;
