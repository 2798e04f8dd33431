//! The frames that this cell borrowed, and from whom: the borrower's side.
//!
//! # Kernel data never in borrowed frames
//! A borrowed frame can vanish, and its memory home can change it at any moment; it must never hold
//! what the kernel trusts. [`BorrowedFrame`] is a type of its own without a way to [`cell::Frame`]:
//! the kernel's allocator, which takes frames, cannot be given one; all that comes out of it is an
//! address for user data.
//!
//! # Invariants
//! 1. An entry is free exactly if no [`Borrowed`] of it exists and its home owes no answer about
//!    it.
//! 2. No frame is in two entries whose homes are alive.
//! 3. Frames of a departed home yield `PeerGone` for ever.
//! 4. A return is repeated until the home answers; until then a loan of the same frames is not
//!    accepted.
//!
//! # References
//! Hive, SOSP'95, section 5.4 (`borrow_frame`, `return_frame`).

#![expect(
    clippy::needless_pass_by_value,
    reason = "a handle that was given back is gone"
)]

use cell::{Frame, FrameRange, PhysicalAddress};
use rpc::operation::FrameList;

use super::claim::{self, Peer};
use super::error::SharingError;
use super::lives::Lives;
use super::loans::LOAN_FRAMES_MAX;

/// A frame of another cell, for user data only.
#[derive(PartialEq, Eq, Debug)]
pub struct BorrowedFrame(Frame);

impl BorrowedFrame {
    /// Where user data may go, while the pass of the gate that was taken before is held.
    pub const fn address(&self) -> PhysicalAddress {
        self.0.start()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A thread has it.
    Held,
    /// To be returned.
    Leaving,
    /// The home was told and is yet to answer.
    Returning,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    home: Peer,
    frames: FrameRange,
    state: State,
}

/// A run of borrowed frames. Given back by [`Borrowings::give_back`].
#[must_use = "frames that are not given back are lost to their home until this cell dies"]
#[derive(PartialEq, Eq, Debug)]
pub struct Borrowed {
    slot: usize,
    home: Peer,
    count: u64,
}

impl Borrowed {
    /// The memory home.
    pub const fn home(&self) -> Peer {
        self.home
    }

    /// How many frames.
    pub const fn count(&self) -> u64 {
        self.count
    }
}

/// A request to a memory home to take frames back. Ended by [`Borrowings::returned`] once the home
/// answered anything, else by [`Borrowings::not_returned`].
#[must_use = "the entry stays in use until the request is ended"]
#[derive(PartialEq, Eq, Debug)]
pub struct ReturnRequest {
    slot: usize,
    /// Whom to tell.
    pub home: Peer,
    /// Which frames.
    pub frames: FrameRange,
}

/// What this cell borrowed, at most `RUNS` runs of frames.
#[derive(Debug)]
pub struct Borrowings<const RUNS: usize> {
    entries: [Option<Entry>; RUNS],
    lives: Lives,
}

impl<const RUNS: usize> Borrowings<RUNS> {
    /// Nothing borrowed.
    pub const fn new() -> Self {
        Self {
            entries: [None; RUNS],
            lives: Lives::new(),
        }
    }

    /// Checks that `home` may be asked for `count` frames. Asked before the call, so that no loan
    /// is made that this cell cannot keep.
    ///
    /// # Errors
    /// `BadCount`, `PeerGone`, `OldLifeHolds`, `TableFull`.
    pub fn may_borrow(&mut self, home: Peer, count: u64) -> Result<(), SharingError> {
        if count == 0 || count > LOAN_FRAMES_MAX {
            return Err(SharingError::BadCount);
        }
        self.lives.admit_home(home)?;
        if self.entries.iter().all(Option::is_some) {
            return Err(SharingError::TableFull);
        }
        Ok(())
    }

    /// Takes the loan that `home`, whose memory is `region`, says it made when asked for `count`
    /// frames.
    ///
    /// # Errors
    /// `PeerGone`, `OldLifeHolds`, `BadCount`, `OutsideRegion`, `FrameTwice`, `InTransit`,
    /// `TableFull`.
    pub fn accept(
        &mut self,
        home: Peer,
        count: u64,
        loan: &FrameList,
        region: FrameRange,
    ) -> Result<Borrowed, SharingError> {
        let slot = self.enter(home, loan, region, State::Held)?;
        let given = self.entries[slot].map_or(0, |entry| entry.frames.len());
        if given == 0 || given > count {
            self.entries[slot] = None;
            return Err(SharingError::BadCount);
        }
        Ok(Borrowed {
            slot,
            home,
            count: given,
        })
    }

    /// Takes a loan whose answer came too late for the thread that had asked, so that it is
    /// returned.
    ///
    /// # Errors
    /// As [`Self::accept`]; the frames then stay lent.
    pub fn accept_late(
        &mut self,
        home: Peer,
        loan: &FrameList,
        region: FrameRange,
    ) -> Result<(), SharingError> {
        self.enter(home, loan, region, State::Leaving).map(|_| ())
    }

    /// The frame of number `index` in a run, for one access.
    ///
    /// # Errors
    /// `PeerGone`; `BadCount` if the run is shorter.
    pub fn frame(&self, borrowed: &Borrowed, index: u64) -> Result<BorrowedFrame, SharingError> {
        if self.lives.is_over(borrowed.home) {
            return Err(SharingError::PeerGone(borrowed.home.cell));
        }
        if index >= borrowed.count {
            return Err(SharingError::BadCount);
        }
        let entry = self.entries[borrowed.slot].expect("a handle names an entry that is in use");
        Ok(BorrowedFrame(Frame(entry.frames.start.0 + index)))
    }

    /// Gives a run back. [`Self::next_return`] yields a request to its home, unless the home is
    /// gone.
    pub fn give_back(&mut self, borrowed: Borrowed) {
        self.leave(borrowed.slot);
    }

    /// A return that its home is to be told of, for the first time or again.
    pub fn next_return(&mut self) -> Option<ReturnRequest> {
        for (slot, entry) in self.entries.iter_mut().enumerate() {
            if let Some(entry) = entry
                && entry.state == State::Leaving
            {
                entry.state = State::Returning;
                return Some(ReturnRequest {
                    slot,
                    home: entry.home,
                    frames: entry.frames,
                });
            }
        }
        None
    }

    /// Ends a return that the home answered, whatever it said.
    pub fn returned(&mut self, request: ReturnRequest) {
        self.entries[request.slot] = None;
    }

    /// Ends a return without an answer; it will be tried again unless the home departed.
    pub fn not_returned(&mut self, request: ReturnRequest) {
        self.leave(request.slot);
    }

    /// Gives up the frames of the lives `dead`; returns how many frames that were. Doing it again
    /// changes nothing.
    pub fn drop_departed(&mut self, dead: &[Peer]) -> u64 {
        let mut lost = 0;
        for &peer in dead {
            if self.lives.is_over(peer) {
                continue;
            }
            self.lives.depart(peer);
            for entry in &mut self.entries {
                let Some(gone) = entry.filter(|entry| entry.home.is_at_most(peer)) else {
                    continue;
                };
                lost += gone.frames.len();
                if gone.state == State::Leaving {
                    *entry = None;
                }
            }
        }
        lost
    }

    fn enter(
        &mut self,
        home: Peer,
        loan: &FrameList,
        region: FrameRange,
        state: State,
    ) -> Result<usize, SharingError> {
        self.lives.admit_home(home)?;
        let frames = claim::run_of(loan, region)?;
        let alive = |entry: &&Entry| !self.lives.is_over(entry.home);
        for entry in self.entries.iter().flatten().filter(alive) {
            if claim::overlap(entry.frames, frames) {
                let held = entry.state == State::Held;
                return Err(if held {
                    SharingError::FrameTwice
                } else {
                    SharingError::InTransit
                });
            }
        }
        let slot = self
            .entries
            .iter()
            .position(Option::is_none)
            .ok_or(SharingError::TableFull)?;
        self.entries[slot] = Some(Entry {
            home,
            frames,
            state,
        });
        Ok(slot)
    }

    fn leave(&mut self, slot: usize) {
        let entry = &mut self.entries[slot];
        let leaving = entry.filter(|entry| !self.lives.is_over(entry.home));
        *entry = leaving.map(|entry| Entry {
            state: State::Leaving,
            ..entry
        });
    }
}

impl<const RUNS: usize> Default for Borrowings<RUNS> {
    fn default() -> Self {
        Self::new()
    }
}
