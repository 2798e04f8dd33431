//! The clock that a run goes by: the host's, or the guest's own.
//!
//! # Invariants
//! 1. In the deterministic mode everything that a run decides depends on moments of the guest's
//!    clock and on what is in the guest's memory at a standstill.

use std::ops::Add;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::guest::memory::GuestMemory;
use crate::qemu::standstill::Standstills;

/// A moment of a run, since its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Moment(Duration);

impl Moment {
    /// The time from `earlier` to this moment; zero if `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0 + span)
    }
}

/// What a run goes by.
#[derive(Debug)]
pub enum Pace {
    /// The host's clock, from this instant on.
    Realtime(Instant),
    /// The guest's clock, from one standstill to the next.
    Deterministic(Box<Standstills>),
}

/// How a wait goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Its time has come.
    Over,
    /// The machine still runs.
    GoesOn,
}

impl Pace {
    /// Now.
    pub fn now(&self) -> Moment {
        Moment(match self {
            Self::Realtime(begun) => begun.elapsed(),
            Self::Deterministic(standstills) => Duration::from_nanos(standstills.at()),
        })
    }

    /// The guest's time, if it is known exactly.
    pub fn guest_time(&self) -> Option<u64> {
        match self {
            Self::Realtime(_) => None,
            Self::Deterministic(standstills) => Some(standstills.at()),
        }
    }

    /// Lets the machine go on for `span`.
    ///
    /// # Errors
    /// [`crate::error::Error::Host`].
    pub fn begin_wait(&mut self, memory: &GuestMemory, span: Duration) -> Result<()> {
        match self {
            Self::Realtime(_) => {
                thread::sleep(span);
                Ok(())
            }
            Self::Deterministic(standstills) => standstills.go_on(memory, span),
        }
    }

    /// Waits for the end of the span, but no longer than `limit`.
    ///
    /// # Errors
    /// See [`Standstills::wait`].
    pub fn wait(&mut self, memory: &GuestMemory, limit: Duration) -> Result<Wait> {
        let is_over = match self {
            Self::Realtime(_) => true,
            Self::Deterministic(standstills) => standstills.wait(memory, limit)?,
        };
        Ok(if is_over { Wait::Over } else { Wait::GoesOn })
    }
}
