//! The clock that a machine goes by: the host's, or the guest's own.
//!
//! # Invariants
//! 1. In the deterministic mode everything that a run decides depends on moments of the guest's
//!    clock and on what is in the guest's memory at a standstill.

use std::thread;
use std::time::{Duration, Instant};

use super::standstill::Standstills;
use crate::error::Result;
use crate::guest::memory::GuestMemory;
use crate::pace::{Moment, Wait};

/// What a run goes by.
#[derive(Debug)]
pub enum Pace {
    /// The host's clock, from this instant on.
    Realtime(Instant),
    /// The guest's clock, from one standstill to the next.
    Deterministic(Box<Standstills>),
}

impl Pace {
    /// Now.
    pub fn now(&self) -> Moment {
        Moment::after(match self {
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
