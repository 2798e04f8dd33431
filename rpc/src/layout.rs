//! Where the rings lie, and how the rings of another cell are read.
//!
//! One [`Lane`] for every other cell, in the public area of the cell that sends:
//!
//! ```text
//! offset   size   part of the lane of cell S for cell R             written   read
//! 0x0000   16     how many requests, replies S produced for R       S         R
//! 0x0040   16     how many requests, replies of R's S has consumed  S         R
//! 0x0080   4096   32 slots of requests from S to R                  S         R
//! 0x1080   4096   32 slots of replies from S to R                   S         R
//! 0x2080          end
//! ```
//! Produced and consumed words lie on different cache lines, since different directions of traffic
//! change them.
//!
//! # Invariants
//! 1. Only the cell that a lane lies in stores to it.
//! 2. Requests and replies share neither slots nor index words, so that a cell which cannot take
//!    more requests can still be answered (and so that no two cells wait for each other's requests
//!    to be served).
//!
//! # Not guaranteed
//! Anything about the content of a lane in another cell's memory.

use cell::CELLS_MAX;
use cell::careful::CarefulError;

use crate::atomic::{AtomicU64, Ordering};

/// Slots of one ring.
pub const SLOTS: u32 = if cfg!(loom) { 2 } else { 32 };

/// Words of one slot: 128 bytes, the size of a SIPS message (Hive, SOSP'95, section 6).
pub const SLOT_WORDS: usize = 16;

/// The two rings of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queue {
    /// What the sender asks.
    Requests = 0,
    /// What the sender answers.
    Replies = 1,
}

impl Queue {
    /// Both. Replies first: they end calls and make room.
    pub const ALL: [Self; 2] = [Self::Replies, Self::Requests];

    /// The number, for indexing tables of two entries.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// One message's place.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Slot {
    words: [AtomicU64; SLOT_WORDS],
}

/// All that one cell tells one other.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Lane {
    produced: [AtomicU64; 2],
    reserved_produced: [u64; 6],
    consumed: [AtomicU64; 2],
    reserved_consumed: [u64; 6],
    rings: [[Slot; SLOTS as usize]; 2],
}

/// The lanes of one cell, by destination. A kernel makes it from its public area at
/// [`cell::public::RINGS_OFFSET`]; any content is valid before [`crate::Endpoint::new`] clears it.
pub type RingArea = [Lane; CELLS_MAX];

impl Lane {
    /// A lane in which nothing was ever said.
    pub fn new() -> Self {
        let ring = || core::array::from_fn(|_| Slot { words: words() });
        Self {
            produced: words(),
            reserved_produced: [0; 6],
            consumed: words(),
            reserved_consumed: [0; 6],
            rings: [ring(), ring()],
        }
    }

    /// Takes back whatever an earlier life said here. Its index words suffice: no slot is read
    /// without them.
    pub(crate) fn clear(&self) {
        for word in self.produced.iter().chain(&self.consumed) {
            word.store(0, Ordering::SeqCst);
        }
    }

    /// Fills a slot. The caller publishes it by [`Lane::produce`].
    pub(crate) fn fill(&self, queue: Queue, slot: usize, words: &[u64]) {
        for (place, &word) in self.rings[queue.index()][slot].words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }

    /// Says how much was produced; whoever sees that sees the slots filled before.
    pub(crate) fn produce(&self, queue: Queue, index: u64) {
        self.produced[queue.index()].store(index, Ordering::Release);
    }

    /// Says how much was consumed; whoever sees that may reuse slots that were read before.
    pub(crate) fn consume(&self, queue: Queue, index: u64) {
        self.consumed[queue.index()].store(index, Ordering::Release);
    }

    /// Says again how much was produced, if the word does not: memory can go wrong without its
    /// cell.
    pub(crate) fn restore_produced(&self, queue: Queue, index: u64) {
        if self.load_produced(queue) != index {
            self.produce(queue, index);
        }
    }

    /// Says again how much was consumed, if the word does not.
    pub(crate) fn restore_consumed(&self, queue: Queue, index: u64) {
        if self.load_consumed(queue) != index {
            self.consume(queue, index);
        }
    }

    /// Loads what was produced; for readers in the same address space.
    pub fn load_produced(&self, queue: Queue) -> u64 {
        self.produced[queue.index()].load(Ordering::Acquire)
    }

    /// Loads what was consumed; for readers in the same address space.
    pub fn load_consumed(&self, queue: Queue) -> u64 {
        self.consumed[queue.index()].load(Ordering::Acquire)
    }

    /// Copies words of a slot; for readers in the same address space.
    pub fn copy_slot(&self, queue: Queue, slot: usize, first_word: usize, to: &mut [u64]) {
        let words = &self.rings[queue.index()][slot].words[first_word..];
        for (copy, word) in to.iter_mut().zip(words) {
            *copy = word.load(Ordering::Relaxed);
        }
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self::new()
    }
}

fn words<const N: usize>() -> [AtomicU64; N] {
    core::array::from_fn(|_| AtomicU64::new(0))
}

/// The lane of another cell for the reader's own cell, which may be unreachable or nonsense.
///
/// Loads are ordered as on x86: none takes effect before an earlier one.
pub trait RemoteLane {
    /// How much the other cell says it produced, by queue: one look serves both.
    ///
    /// # Errors
    /// The words cannot be read.
    fn produced(&self) -> Result<[u64; 2], CarefulError>;

    /// How much the other cell says it consumed.
    ///
    /// # Errors
    /// The word cannot be read.
    fn consumed(&self, queue: Queue) -> Result<u64, CarefulError>;

    /// Copies words of a slot. `slot` is below [`SLOTS`], and `first_word + to.len()` at most
    /// [`SLOT_WORDS`].
    ///
    /// # Errors
    /// A word cannot be read.
    fn copy_slot(
        &self,
        queue: Queue,
        slot: usize,
        first_word: usize,
        to: &mut [u64],
    ) -> Result<(), CarefulError>;

    /// Whether the other cell says that nobody in it polls its rings.
    ///
    /// # Errors
    /// The word cannot be read.
    fn is_asleep(&self) -> Result<bool, CarefulError>;
}

/// Offset in a lane of the word that tells how much was produced.
pub(crate) const fn produced_offset(queue: Queue) -> u64 {
    core::mem::offset_of!(Lane, produced) as u64 + queue.index() as u64 * 8
}

/// Offset in a lane of the word that tells how much was consumed.
pub(crate) const fn consumed_offset(queue: Queue) -> u64 {
    core::mem::offset_of!(Lane, consumed) as u64 + queue.index() as u64 * 8
}

/// Offset in a lane of a slot.
pub(crate) const fn slot_offset(queue: Queue, slot: usize) -> u64 {
    let ring =
        core::mem::offset_of!(Lane, rings) + queue.index() * size_of::<[Slot; SLOTS as usize]>();
    (ring + slot * size_of::<Slot>()) as u64
}

// Every cell reads the lanes of every other.
#[cfg(not(loom))]
const _: () = {
    assert!(
        SLOTS.is_power_of_two(),
        "positions wrap at 32 bits without leaving a gap"
    );
    assert!(size_of::<Slot>() == 128 && SLOT_WORDS * 8 == 128);
    assert!(produced_offset(Queue::Replies) == 8);
    assert!(consumed_offset(Queue::Requests) == 0x40);
    assert!(slot_offset(Queue::Requests, 0) == 0x80);
    assert!(slot_offset(Queue::Replies, 1) == 0x1100);
    assert!(size_of::<Lane>() == 0x2080);
    assert!(size_of::<RingArea>() as u64 <= cell::public::RINGS_SIZE);
};
