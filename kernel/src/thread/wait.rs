//! Waiting for a condition, with a deadline.
//!
//! # Invariants
//! 1. A waiter is in the set before it checks its condition the last time before it blocks; so
//!    whoever changes the condition and then wakes the set is not missed.

use core::sync::atomic::{AtomicU64, Ordering};

use cell::Instant;

use crate::clock;
use crate::thread::run_queue::{THREADS_MAX, ThreadId, Wakeup};
use crate::thread::scheduler;

/// Nobody made the condition true in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedOut;

/// The threads that wait for one thing.
#[derive(Debug, Default)]
pub struct WaitQueue {
    /// One bit per thread slot.
    waiters: AtomicU64,
}

impl WaitQueue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self {
            waiters: AtomicU64::new(0),
        }
    }

    /// Waits until `condition` gives a value, or until `deadline`. The condition is checked at
    /// least once.
    ///
    /// # Errors
    /// [`TimedOut`] at the deadline.
    ///
    /// # Panics
    /// At interrupt level, and on an idle thread: neither may wait.
    pub fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<T, TimedOut> {
        let thread = scheduler::current().expect("an idle thread never waits");
        loop {
            self.waiters.fetch_or(1 << thread.index(), Ordering::SeqCst);
            if let Some(value) = condition() {
                self.waiters
                    .fetch_and(!(1 << thread.index()), Ordering::SeqCst);
                return Ok(value);
            }
            let is_over = deadline.is_some_and(|deadline| deadline <= clock::now());
            if is_over || scheduler::block(deadline) == Wakeup::TimedOut {
                self.waiters
                    .fetch_and(!(1 << thread.index()), Ordering::SeqCst);
                return condition().ok_or(TimedOut);
            }
        }
    }

    /// Wakes every waiter. Fit for interrupt level.
    pub fn wake_all(&self) {
        let waiters = self.waiters.swap(0, Ordering::SeqCst);
        for thread in (0..THREADS_MAX).filter_map(ThreadId::new) {
            if waiters & 1 << thread.index() != 0 {
                scheduler::wake(thread);
            }
        }
    }

    /// Wakes one waiter, if there is one. Fit for interrupt level.
    pub fn wake_one(&self) {
        let mut waiters = self.waiters.load(Ordering::SeqCst);
        while waiters != 0 {
            let bit = waiters & waiters.wrapping_neg();
            let before = self.waiters.fetch_and(!bit, Ordering::SeqCst);
            if before & bit != 0 {
                if let Some(thread) = ThreadId::new(bit.trailing_zeros() as usize) {
                    scheduler::wake(thread);
                }
                return;
            }
            waiters = before & !bit;
        }
    }
}
