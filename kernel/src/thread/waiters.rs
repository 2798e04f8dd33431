//! The threads that wait for one thing, as one word that every CPU may change.
//!
//! # Invariants
//! 1. A waiter is in the set before it checks its condition the last time before it blocks; so
//!    whoever changes the condition and then takes waiters out of the set misses none that blocks.
//! 2. Whoever takes a waiter out wakes it; nobody else does for the same change.
//! 3. A waiter that was taken out after its condition came true by itself says so
//!    ([`Ended::MetForAnother`]): the wake-up that it got was for a later change, which another
//!    waiter has to see.

use crate::atomic::{AtomicU64, Ordering};
use crate::thread::run_queue::{THREADS_MAX, ThreadId, Wakeup};

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended<T> {
    /// The condition gave a value.
    Met(T),
    /// The condition gave a value, and a wake-up came that belongs to somebody else.
    MetForAnother(T),
    /// It gave none in time.
    TimedOut,
}

/// The set.
#[derive(Debug, Default)]
pub struct Waiters {
    /// One bit per thread slot.
    bits: AtomicU64,
}

impl Waiters {
    /// Nobody waits.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            bits: AtomicU64::new(0),
        }
    }

    /// Waits as `thread`, with `block`, until `condition` gives a value or `block` says that it is
    /// too late.
    pub fn wait<T>(
        &self,
        thread: ThreadId,
        mut condition: impl FnMut() -> Option<T>,
        mut block: impl FnMut() -> Wakeup,
    ) -> Ended<T> {
        let bit = 1 << thread.index();
        loop {
            self.bits.fetch_or(bit, Ordering::SeqCst);
            if let Some(value) = condition() {
                let was_taken = self.bits.fetch_and(!bit, Ordering::SeqCst) & bit == 0;
                return if was_taken {
                    Ended::MetForAnother(value)
                } else {
                    Ended::Met(value)
                };
            }
            if block() == Wakeup::TimedOut {
                self.bits.fetch_and(!bit, Ordering::SeqCst);
                return condition().map_or(Ended::TimedOut, Ended::Met);
            }
        }
    }

    /// Takes every waiter out of the set. The caller wakes them.
    pub fn take_all(&self) -> impl Iterator<Item = ThreadId> + use<> {
        let waiters = self.bits.swap(0, Ordering::SeqCst);
        (0..THREADS_MAX)
            .filter_map(ThreadId::new)
            .filter(move |thread| waiters & 1 << thread.index() != 0)
    }

    /// Takes one waiter out of the set, if there is one. The caller wakes it.
    pub fn take_one(&self) -> Option<ThreadId> {
        // A change that changes nothing, not a load: a waiter that comes after it in the order of
        // this word also sees what was done before the call.
        let mut waiters = self.bits.fetch_or(0, Ordering::SeqCst);
        while waiters != 0 {
            let bit = waiters & waiters.wrapping_neg();
            let before = self.bits.fetch_and(!bit, Ordering::SeqCst);
            if before & bit != 0 {
                return ThreadId::new(bit.trailing_zeros() as usize);
            }
            waiters = before & !bit;
        }
        None
    }
}
