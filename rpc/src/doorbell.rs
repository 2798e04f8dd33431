//! When the receiver must be woken, without losing a wake-up.
//!
//! A doorbell costs a hypercall and an interrupt, so it is rung only while nobody in the receiving
//! cell polls its rings. The receiver says so in the `asleep` word of its public header.
//!
//! # Protocol
//! ```text
//! sender                                  last CPU of the receiver to stop polling
//! store the produced word                 store asleep = 1
//! fence                                   fence
//! load asleep; if 1, ring                 poll all rings once more; if one has something, poll on
//! ```
//! Whatever the order of the two fences, the sender sees `asleep`, or the receiver sees the
//! message, or both.
//!
//! # Invariants
//! 1. While no CPU of the cell is between [`Pollers::enter`] and [`Pollers::leave`], `asleep` is 1
//!    (apart from a CPU that is just about to store it). An `asleep` of 1 while somebody polls is
//!    possible and costs a needless interrupt.
//! 2. The doorbell interrupt stays pending while the receiver has interrupts off, so one that is
//!    rung between the last poll and the `hlt` ends that `hlt` at once (`sti; hlt` lets no
//!    interrupt in between).
//!
//! # Not guaranteed
//! That a sick receiver sets the word. A message to it then waits for its next timer tick, or for
//! the sender's deadline.

use cell::careful::CarefulError;

use crate::atomic::{AtomicU32, Ordering, fence};
use crate::layout::RemoteLane;

/// What a sender has to do after it published a message.
#[must_use = "a sleeping receiver notices the message only when its doorbell rings"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doorbell {
    /// Ring it.
    Needed,
    /// Somebody polls.
    NotNeeded,
}

impl Doorbell {
    /// Asks whether the receiver sleeps. Called after the produced word was stored.
    ///
    /// # Errors
    /// The receiver's header cannot be read.
    pub(crate) fn after_publishing(remote: &impl RemoteLane) -> Result<Self, CarefulError> {
        fence(Ordering::SeqCst);
        Ok(if remote.is_asleep()? {
            Self::Needed
        } else {
            Self::NotNeeded
        })
    }
}

/// What a CPU has to do after it stopped polling.
#[must_use = "a message that came just before would wait for the next interrupt"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recheck {
    /// Poll all rings once more: a sender may not have seen that everybody stopped.
    Needed,
    /// Another CPU polls on.
    NotNeeded,
}

/// How many CPUs of the own cell poll its rings.
#[derive(Debug)]
pub struct Pollers {
    count: AtomicU32,
}

impl Pollers {
    /// Nobody yet. The kernel stores 1 to `asleep` beforehand.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
        }
    }

    /// Nobody yet.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
        }
    }

    /// The calling CPU begins to poll: senders need not ring.
    pub fn enter(&self, asleep: &AtomicU32) {
        if self.count.fetch_add(1, Ordering::AcqRel) == 0 {
            asleep.store(0, Ordering::Release);
        }
    }

    /// The calling CPU stops polling. Called as often as [`Pollers::enter`], by the same CPU.
    ///
    /// Once the count is 0 again, the last word is 1: every CPU that stored 0 did so before it
    /// left, hence before the last one left.
    pub fn leave(&self, asleep: &AtomicU32) -> Recheck {
        let before = self.count.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "a CPU left that had not entered");
        if before > 1 {
            return Recheck::NotNeeded;
        }
        asleep.store(1, Ordering::Release);
        fence(Ordering::SeqCst);
        Recheck::Needed
    }
}

impl Default for Pollers {
    fn default() -> Self {
        Self::new()
    }
}
