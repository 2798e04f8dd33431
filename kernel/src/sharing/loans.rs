//! The frames that this cell lends, and to whom: the memory home's side.
//!
//! The pool is set aside for lending at boot; the kernel's own allocator never sees it. So nothing
//! that a borrower does to a frame can hurt this kernel, and no search of the allocator is needed
//! when a borrower dies.
//!
//! ```text
//! free ──lend──> lent ──return──> returning ──drained──> free
//!                  └──death──> fencing ──fence holds──> free
//! ```
//!
//! # Invariants
//! 1. A frame is lent to one life at a time, and lent again only from `free`.
//! 2. A frame is `free` only when no other cell can write it: after the drain of a revoke, or the
//!    fence.
//! 3. No frame leaves the pool: every frame is in one state of the picture.
//!
//! # Not guaranteed
//! The content of a lent frame: the borrower fills it. If the answer to a loan is lost, the frames
//! stay lent until the borrower returns them or dies; [`QUOTA`] bounds that.
//!
//! # References
//! Hive, SOSP'95, section 5.4 (`loan_frame`, the reserved list).

use cell::{CellId, CellSet, Frame, FrameRange};

use super::claim::Peer;
use super::error::SharingError;
use super::firewall::Firewall;
use super::lives::Lives;

/// Frames that one loan can have: as many as one message names.
pub const LOAN_FRAMES_MAX: u64 = rpc::operation::FRAMES_MAX as u64;

/// Which part of the pool one borrower may hold: one in so many frames.
pub const QUOTA: u64 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Lent(Peer),
    Returning(CellId),
    Fencing(CellId),
}

impl State {
    /// The cell whose drain or fence the frame waits for.
    const fn awaits(self) -> Option<CellId> {
        match self {
            Self::Returning(cell) | Self::Fencing(cell) => Some(cell),
            Self::Free | Self::Lent(_) => None,
        }
    }
}

/// How many frames of the pool are in which state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolCounts {
    /// To be lent.
    pub free: u32,
    /// In use by a borrower.
    pub lent: u32,
    /// Given back by a live borrower that may still hold a translation.
    pub returning: u32,
    /// Left by a dead borrower whose CPUs are not fenced yet.
    pub fencing: u32,
}

/// The frames that this cell lends, at most `FRAMES`.
#[derive(Debug)]
pub struct Loans<const FRAMES: usize> {
    pool: FrameRange,
    states: [State; FRAMES],
    lives: Lives,
}

impl<const FRAMES: usize> Loans<FRAMES> {
    /// Lends from `pool`; frames beyond the first `FRAMES` are left alone.
    pub const fn new(pool: FrameRange) -> Self {
        let count = if pool.len() < FRAMES as u64 {
            pool.len()
        } else {
            FRAMES as u64
        };
        let pool = FrameRange {
            start: pool.start,
            end: Frame(pool.start.0 + count),
        };
        Self {
            pool,
            states: [State::Free; FRAMES],
            lives: Lives::new(),
        }
    }

    /// Lends a run of `count` frames to `borrower`, writable.
    ///
    /// # Errors
    /// `BadCount`, `StaleLife`, `OldLifeHolds`, `QuotaExceeded`, `OutOfFrames`, or `Refused` by the
    /// monitor.
    pub fn lend(
        &mut self,
        borrower: Peer,
        count: u64,
        firewall: &mut impl Firewall,
    ) -> Result<FrameRange, SharingError> {
        if count == 0 || count > LOAN_FRAMES_MAX {
            return Err(SharingError::BadCount);
        }
        self.lives.admit(borrower)?;
        let held = self
            .states()
            .iter()
            .filter(|state| **state == State::Lent(borrower))
            .count();
        if held as u64 + count > self.pool.len() / QUOTA {
            return Err(SharingError::QuotaExceeded);
        }
        let frames = self.free_run(count).ok_or(SharingError::OutOfFrames)?;
        firewall.grant(frames, borrower)?;
        self.set(frames, State::Lent(borrower));
        Ok(frames)
    }

    /// Takes back those of `frames` that are lent to `borrower`; returns how many. The others are
    /// back already: the request may have come twice.
    ///
    /// # Errors
    /// `StaleLife`, `OldLifeHolds`, `NotLent`, or `Refused` by the monitor; frames not taken back
    /// stay lent.
    pub fn take_back(
        &mut self,
        borrower: Peer,
        frames: FrameRange,
        firewall: &mut impl Firewall,
    ) -> Result<u32, SharingError> {
        self.lives.admit(borrower)?;
        if frames.is_empty() || !self.pool.contains_range(frames) {
            return Err(SharingError::NotLent);
        }
        let lent = |frame| self.states[self.slot(frame)] == State::Lent(borrower);
        if frames.iter().all(lent) {
            // The usual case, in one hypercall.
            firewall.revoke(frames, borrower.cell)?;
            self.set(frames, State::Returning(borrower.cell));
            return Ok(frames.len() as u32);
        }
        let mut taken = 0;
        for frame in frames.iter() {
            if self.states[self.slot(frame)] == State::Lent(borrower) {
                firewall.revoke(FrameRange::single(frame), borrower.cell)?;
                self.set(FrameRange::single(frame), State::Returning(borrower.cell));
                taken += 1;
            }
        }
        Ok(taken)
    }

    /// Ends every loan to the lives `dead`; returns how many frames wait for the fence. Doing it
    /// again changes nothing.
    pub fn recall(&mut self, dead: &[Peer], firewall: &mut impl Firewall) -> u32 {
        let mut recalled = 0;
        for &peer in dead {
            if self.lives.is_over(peer) {
                continue;
            }
            let holds = self
                .lives
                .current(peer.cell)
                .is_some_and(|life| life <= peer.incarnation);
            self.lives.depart(peer);
            if holds {
                recalled += self.recall_from(peer.cell, firewall);
            }
        }
        recalled
    }

    /// Frees the frames that nobody else can write any more. Called now and then.
    pub fn settle(&mut self, firewall: &mut impl Firewall) {
        let awaited = self.states().iter().filter_map(|state| state.awaits());
        let awaited: CellSet = awaited.collect();
        let drained: CellSet = awaited
            .iter()
            .filter(|&cell| firewall.drained(cell))
            .collect();
        let mut start = self.pool.start;
        while start < self.pool.end {
            let end = self.run_end(start, drained);
            let run = FrameRange { start, end };
            if !run.is_empty() && firewall.reclaim(run).is_ok() {
                self.set(run, State::Free);
            }
            start = Frame(end.0.max(start.0 + 1));
        }
    }

    /// The end of the run of frames, from `start` on, that wait for nobody but the cells `drained`;
    /// `start` if there is no such frame.
    fn run_end(&self, start: Frame, drained: CellSet) -> Frame {
        let most = self.pool.end.0.min(start.0 + LOAN_FRAMES_MAX);
        let waits = |frame: &u64| {
            let state = self.states[self.slot(Frame(*frame))];
            !state.awaits().is_some_and(|cell| drained.contains(cell))
        };
        Frame((start.0..most).find(waits).unwrap_or(most))
    }

    /// How many frames are in which state.
    pub fn counts(&self) -> PoolCounts {
        let mut counts = PoolCounts::default();
        for state in self.states() {
            *match state {
                State::Free => &mut counts.free,
                State::Lent(_) => &mut counts.lent,
                State::Returning(_) => &mut counts.returning,
                State::Fencing(_) => &mut counts.fencing,
            } += 1;
        }
        counts
    }

    fn recall_from(&mut self, cell: CellId, firewall: &mut impl Firewall) -> u32 {
        let mut recalled = 0;
        for frame in self.pool.iter() {
            let slot = self.slot(frame);
            let state = self.states[slot];
            if matches!(state, State::Lent(borrower) if borrower.cell == cell) {
                // An expelled cell's grants mean nothing to the monitor any more; the fence decides
                // in any case.
                let _ = firewall.revoke(FrameRange::single(frame), cell);
            } else if state != State::Returning(cell) {
                continue;
            }
            self.states[slot] = State::Fencing(cell);
            recalled += 1;
        }
        recalled
    }

    fn free_run(&self, count: u64) -> Option<FrameRange> {
        let mut run = 0;
        for frame in self.pool.iter() {
            run = if self.states[self.slot(frame)] == State::Free {
                run + 1
            } else {
                0
            };
            if run == count {
                let end = Frame(frame.0 + 1);
                return Some(FrameRange {
                    start: Frame(end.0 - count),
                    end,
                });
            }
        }
        None
    }

    fn set(&mut self, frames: FrameRange, state: State) {
        for frame in frames.iter() {
            self.states[self.slot(frame)] = state;
        }
    }

    fn states(&self) -> &[State] {
        &self.states[..self.pool.len() as usize]
    }

    /// The index of a frame of the pool.
    const fn slot(&self, frame: Frame) -> usize {
        (frame.0 - self.pool.start.0) as usize
    }
}
