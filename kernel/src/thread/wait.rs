//! Waiting for a condition, with a deadline.
//!
//! Who waits is kept by [`Waiters`]; here it meets clock and scheduler.

use cell::Instant;

use crate::clock;
use crate::thread::run_queue::Wakeup;
use crate::thread::scheduler;
use crate::thread::waiters::{Ended, Waiters};

/// Nobody made the condition true in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedOut;

/// The threads that wait for one thing.
#[derive(Debug, Default)]
pub struct WaitQueue {
    waiters: Waiters,
}

impl WaitQueue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self {
            waiters: Waiters::new(),
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
        condition: impl FnMut() -> Option<T>,
    ) -> Result<T, TimedOut> {
        let thread = scheduler::current().expect("an idle thread never waits");
        let block = || {
            let is_over = deadline.is_some_and(|deadline| deadline <= clock::now());
            if is_over {
                Wakeup::TimedOut
            } else {
                scheduler::block(deadline)
            }
        };
        match self.waiters.wait(thread, condition, block) {
            Ended::Met(value) => Ok(value),
            Ended::MetForAnother(value) => {
                self.wake_one();
                Ok(value)
            }
            Ended::TimedOut => Err(TimedOut),
        }
    }

    /// Wakes every waiter. Fit for interrupt level.
    pub fn wake_all(&self) {
        self.waiters.take_all().for_each(scheduler::wake);
    }

    /// Wakes one waiter, if there is one. Fit for interrupt level.
    pub fn wake_one(&self) {
        if let Some(thread) = self.waiters.take_one() {
            scheduler::wake(thread);
        }
    }
}
