//! The clock that a machine goes by: the host's, or the guest's own.
//!
//! # Invariants
//! 1. In the deterministic mode everything that a run decides depends on moments of the guest's
//!    clock and on what is in the guest's memory at a standstill.

use std::thread;
use std::time::{Duration, Instant};

use super::main_thread::MainThread;
use super::standstill::Standstills;
use crate::error::Result;
use crate::guest::memory::GuestMemory;
use crate::pace::{Moment, Wait};

/// So far away that no standstill comes before the machine is stopped for a debugger.
const FAR: Duration = Duration::from_hours(1);
/// How long the machine may take to its next standstill, on the host, before QEMU is let look
/// whether it is still up; this and so many times the span.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE_SPANS: u32 = 20;

/// What a run goes by.
#[derive(Debug)]
pub enum Pace {
    /// The host's clock, from this instant on.
    Realtime(Instant),
    /// The guest's clock, from one standstill to the next.
    Deterministic(Box<Counted>),
}

/// A machine whose time is instructions counted.
#[derive(Debug)]
pub struct Counted {
    standstills: Standstills,
    main_thread: MainThread,
    /// When the main thread is let go, if there is no standstill by then.
    patience_ends: Instant,
}

impl Counted {
    /// For the QEMU with this process number, which has just started.
    pub fn new(standstills: Standstills, process: u32) -> Self {
        Self {
            standstills,
            main_thread: MainThread::of(process),
            patience_ends: Instant::now(),
        }
    }

    fn go_on(&mut self, memory: &GuestMemory, span: Duration) -> Result<()> {
        self.patience_ends = Instant::now() + PATIENCE + span * PATIENCE_SPANS;
        self.standstills.go_on(memory, span)
    }

    fn wait(&mut self, memory: &GuestMemory, limit: Duration) -> Result<bool> {
        let is_over = self.standstills.wait(memory, limit)?;
        if is_over {
            self.main_thread.hold()?;
        } else if Instant::now() >= self.patience_ends {
            self.main_thread.release()?;
        }
        Ok(is_over)
    }

    /// Lets the machine go on and QEMU answer, which it does not during a standstill; what is
    /// ordered is done first of all.
    ///
    /// # Errors
    /// See [`Standstills::go_on`], [`MainThread::release`].
    pub fn let_go(&mut self, memory: &GuestMemory) -> Result<()> {
        self.standstills.go_on(memory, FAR)?;
        self.main_thread.release()
    }
}

impl Pace {
    /// Now.
    pub fn now(&self) -> Moment {
        Moment::after(match self {
            Self::Realtime(begun) => begun.elapsed(),
            Self::Deterministic(counted) => Duration::from_nanos(counted.standstills.at()),
        })
    }

    /// The guest's time, if it is known exactly.
    pub fn guest_time(&self) -> Option<u64> {
        match self {
            Self::Realtime(_) => None,
            Self::Deterministic(counted) => Some(counted.standstills.at()),
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
            Self::Deterministic(counted) => counted.go_on(memory, span),
        }
    }

    /// Waits for the end of the span, but no longer than `limit`.
    ///
    /// # Errors
    /// See [`Standstills::wait`].
    pub fn wait(&mut self, memory: &GuestMemory, limit: Duration) -> Result<Wait> {
        let is_over = match self {
            Self::Realtime(_) => true,
            Self::Deterministic(counted) => counted.wait(memory, limit)?,
        };
        Ok(if is_over { Wait::Over } else { Wait::GoesOn })
    }
}
