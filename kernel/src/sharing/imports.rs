//! The pages that this cell imported, and from whom: the client's side.
//!
//! Threads of this cell share one entry per page; the home hears of the first import and of the
//! last release. Every request to a home is an [`Ask`] or a [`ReleaseRequest`] that the caller
//! carries over and brings back with the outcome, so that no lock is held while a call is under
//! way.
//!
//! # Invariants
//! 1. An entry is free exactly if no [`Import`] of it exists and its home owes no answer about it.
//! 2. At most one request about an entry is under way.
//! 3. An import is used only if its home confirmed it in the newest epoch: a page that lost its
//!    content in a recovery is found out before its next use, not after.
//! 4. An entry of a departed home yields `PeerGone` for ever; it is never confirmed.
//! 5. A release is repeated until the home answers; until then the page is not imported again. The
//!    home serves releases in order but imports ahead of them, so a release that nobody waits for
//!    could end a later import.
//!
//! # Not guaranteed
//! An import that timed out may have been carried out. The home then believes that this cell holds
//! the page, until this cell imports and releases it or dies.

#![expect(
    clippy::needless_pass_by_value,
    reason = "a handle that was given back is gone"
)]

use cell::{Epoch, Frame, FrameRange};
use rpc::operation::{Access, ImportedPage};

use super::claim::{self, Generation, PageIndex, Peer};
use super::error::SharingError;
use super::exports::Export;
use super::lives::Lives;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Asked for the first time; nothing is known yet.
    Requested,
    /// The home exported it.
    Held(Export),
    /// The home discarded it; waits for its users to let go.
    Stale(Generation),
    /// Nobody uses it; the home is yet to answer the release.
    Leaving,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    home: Peer,
    page: PageIndex,
    state: State,
    access: Access,
    users: u32,
    in_transit: bool,
    confirmed: Epoch,
}

impl Entry {
    fn allows(&self, access: Access) -> bool {
        self.access == Access::Write || access == Access::Read
    }
}

/// A thread's hold on an imported page. Given back by [`Imports::release`].
#[must_use = "an import that is not released keeps its entry for ever"]
#[derive(PartialEq, Eq, Debug)]
pub struct Import {
    slot: usize,
    home: Peer,
    generation: Generation,
}

impl Import {
    /// The home of the page.
    pub const fn home(&self) -> Peer {
        self.home
    }

    /// The content that was imported.
    pub const fn generation(&self) -> Generation {
        self.generation
    }
}

/// A request to a home to export a page or to confirm an export. Ended by [`Imports::complete`],
/// [`Imports::confirm`] or [`Imports::abandon`].
#[must_use = "the entry stays in transit until the request is ended"]
#[derive(PartialEq, Eq, Debug)]
pub struct Ask {
    slot: usize,
    held: Option<Generation>,
    /// Whom to ask.
    pub home: Peer,
    /// For which page.
    pub page: PageIndex,
    /// For which access.
    pub access: Access,
}

/// How an import begins.
#[derive(PartialEq, Eq, Debug)]
pub enum Begin {
    /// The cell has the page already.
    Held(Import),
    /// The home must be asked.
    Ask(Ask),
}

/// What the holder of an import may do now.
#[derive(PartialEq, Eq, Debug)]
pub enum Use {
    /// Access the frame, while the pass of the gate that was taken before the question is held.
    Ready(Frame),
    /// Ask the home first whether the content still stands.
    Confirm(Ask),
}

/// A request to a home to end an export. Ended by [`Imports::released`] once the home answered
/// anything, else by [`Imports::not_released`].
#[must_use = "the entry stays in transit until the request is ended"]
#[derive(PartialEq, Eq, Debug)]
pub struct ReleaseRequest {
    slot: usize,
    /// Whom to tell.
    pub home: Peer,
    /// Which page.
    pub page: PageIndex,
}

/// The pages that this cell imported, at most `ENTRIES`.
#[derive(Debug)]
pub struct Imports<const ENTRIES: usize> {
    entries: [Option<Entry>; ENTRIES],
    lives: Lives,
}

impl<const ENTRIES: usize> Imports<ENTRIES> {
    /// Nothing imported.
    pub const fn new() -> Self {
        Self {
            entries: [None; ENTRIES],
            lives: Lives::new(),
        }
    }

    /// Begins to import a page of `home`.
    ///
    /// # Errors
    /// `PeerGone`, `OldLifeHolds`, `InTransit`, `TableFull`.
    pub fn begin(
        &mut self,
        home: Peer,
        page: PageIndex,
        access: Access,
    ) -> Result<Begin, SharingError> {
        self.lives.admit_home(home)?;
        let Some(slot) = self.current(home, page) else {
            return self.request(home, page, access);
        };
        let entry = self.entry(slot);
        let State::Held(export) = entry.state else {
            return Err(SharingError::InTransit);
        };
        if entry.in_transit {
            return Err(SharingError::InTransit);
        }
        if !entry.allows(access) {
            entry.in_transit = true;
            let held = Some(export.generation);
            return Ok(Begin::Ask(Ask {
                slot,
                held,
                home,
                page,
                access,
            }));
        }
        entry.users += 1;
        Ok(Begin::Held(Import {
            slot,
            home,
            generation: export.generation,
        }))
    }

    /// Ends a request of [`Self::begin`] with what the home answered. `region` is the home's own
    /// memory, by the machine record; `epoch` the newest one when the request was sent.
    ///
    /// # Errors
    /// `PeerGone`, `OutsideRegion`, `FrameTwice`, `StaleGeneration`.
    pub fn complete(
        &mut self,
        ask: Ask,
        answer: ImportedPage,
        region: FrameRange,
        epoch: Epoch,
    ) -> Result<Import, SharingError> {
        let (slot, home, access) = (ask.slot, ask.home, ask.access);
        let generation = self.settle_answer(ask, answer, region, epoch)?;
        let entry = self.entry(slot);
        entry.users += 1;
        if !entry.allows(access) {
            entry.access = access;
        }
        Ok(Import {
            slot,
            home,
            generation,
        })
    }

    /// Ends a request of [`Self::usable`] with what the home answered; the import may be used if
    /// that is `Ok`.
    ///
    /// # Errors
    /// As [`Self::complete`].
    pub fn confirm(
        &mut self,
        ask: Ask,
        answer: ImportedPage,
        region: FrameRange,
        epoch: Epoch,
    ) -> Result<(), SharingError> {
        self.settle_answer(ask, answer, region, epoch).map(|_| ())
    }

    /// Ends a request that failed with `error`, and returns the error that the thread gets.
    pub fn abandon(&mut self, ask: Ask, error: SharingError) -> SharingError {
        let over = self.lives.is_over(ask.home);
        let entry = self.entry(ask.slot);
        entry.in_transit = false;
        if let SharingError::StaleGeneration { current } = error {
            entry.state = State::Stale(current);
        }
        if entry.state == State::Requested {
            self.entries[ask.slot] = None;
        } else {
            self.leave_if_unused(ask.slot);
        }
        if over {
            SharingError::PeerGone(ask.home.cell)
        } else {
            error
        }
    }

    /// What the holder may do in `epoch`. Asked before every access.
    ///
    /// # Errors
    /// `PeerGone`, `StaleGeneration`; `InTransit` while another thread asks the home.
    pub fn usable(&mut self, import: &Import, epoch: Epoch) -> Result<Use, SharingError> {
        if self.lives.is_over(import.home) {
            return Err(SharingError::PeerGone(import.home.cell));
        }
        let entry = self.entry(import.slot);
        let export = match entry.state {
            State::Held(export) => export,
            State::Stale(current) => return Err(SharingError::StaleGeneration { current }),
            State::Requested | State::Leaving => panic!("a page that is not held has a user"),
        };
        if entry.confirmed >= epoch {
            return Ok(Use::Ready(export.frame));
        }
        if entry.in_transit {
            return Err(SharingError::InTransit);
        }
        entry.in_transit = true;
        let (home, page, access) = (entry.home, entry.page, entry.access);
        let held = Some(export.generation);
        Ok(Use::Confirm(Ask {
            slot: import.slot,
            held,
            home,
            page,
            access,
        }))
    }

    /// Gives an import back. After the last one of a page, [`Self::next_release`] yields a request
    /// to its home.
    pub fn release(&mut self, import: Import) {
        self.entry(import.slot).users -= 1;
        self.leave_if_unused(import.slot);
    }

    /// A release that its home is to be told of, for the first time or again.
    pub fn next_release(&mut self) -> Option<ReleaseRequest> {
        let waiting = |entry: &Entry| entry.state == State::Leaving && !entry.in_transit;
        let slot = self
            .entries
            .iter()
            .position(|entry| entry.as_ref().is_some_and(waiting))?;
        let entry = self.entry(slot);
        entry.in_transit = true;
        Some(ReleaseRequest {
            slot,
            home: entry.home,
            page: entry.page,
        })
    }

    /// Ends a release that the home answered, whatever it said.
    pub fn released(&mut self, request: ReleaseRequest) {
        self.entries[request.slot] = None;
    }

    /// Ends a release without an answer; it will be tried again unless the home departed.
    pub fn not_released(&mut self, request: ReleaseRequest) {
        self.entry(request.slot).in_transit = false;
        self.leave_if_unused(request.slot);
    }

    /// Drops everything imported from the lives `dead`; returns how many pages that were. Doing it
    /// again changes nothing.
    pub fn drop_departed(&mut self, dead: &[Peer]) -> u32 {
        let mut dropped = 0;
        for &peer in dead {
            if self.lives.is_over(peer) {
                continue;
            }
            self.lives.depart(peer);
            let of_peer = |entry: &&Entry| entry.home.is_at_most(peer);
            dropped += self.entries.iter().flatten().filter(of_peer).count() as u32;
        }
        for slot in 0..ENTRIES {
            if self.entries[slot].is_some() {
                self.leave_if_unused(slot);
            }
        }
        dropped
    }

    /// The entry of a page that is or will be held, or whose release is under way.
    fn current(&self, home: Peer, page: PageIndex) -> Option<usize> {
        let same = |entry: &Entry| {
            entry.home == home && entry.page == page && !matches!(entry.state, State::Stale(_))
        };
        self.entries
            .iter()
            .position(|entry| entry.as_ref().is_some_and(same))
    }

    fn request(
        &mut self,
        home: Peer,
        page: PageIndex,
        access: Access,
    ) -> Result<Begin, SharingError> {
        let free = self.entries.iter().position(Option::is_none);
        let slot = free.ok_or(SharingError::TableFull)?;
        self.entries[slot] = Some(Entry {
            home,
            page,
            state: State::Requested,
            access,
            users: 0,
            in_transit: true,
            confirmed: Epoch(0),
        });
        Ok(Begin::Ask(Ask {
            slot,
            held: None,
            home,
            page,
            access,
        }))
    }

    /// Checks an answer and brings the entry up to date; ends the request in any case.
    fn settle_answer(
        &mut self,
        ask: Ask,
        answer: ImportedPage,
        region: FrameRange,
        epoch: Epoch,
    ) -> Result<Generation, SharingError> {
        let export = match self.check_answer(&ask, answer, region) {
            Ok(export) => export,
            Err(error) => return Err(self.abandon(ask, error)),
        };
        let entry = self.entry(ask.slot);
        entry.in_transit = false;
        entry.state = State::Held(export);
        entry.confirmed = entry.confirmed.max(epoch);
        Ok(export.generation)
    }

    fn check_answer(
        &self,
        ask: &Ask,
        answer: ImportedPage,
        region: FrameRange,
    ) -> Result<Export, SharingError> {
        if self.lives.is_over(ask.home) {
            return Err(SharingError::PeerGone(ask.home.cell));
        }
        let generation = Generation::from_raw(answer.generation);
        if ask.held.is_some_and(|held| held != generation) {
            return Err(SharingError::StaleGeneration {
                current: generation,
            });
        }
        let frame = answer
            .frame
            .within(region)
            .ok_or(SharingError::OutsideRegion)?;
        claim::frames_of(region, FrameRange::single(frame))?;
        let others = self.entries.iter().flatten().filter(|entry| {
            let same = entry.home == ask.home && entry.page == ask.page;
            !same && !self.lives.is_over(entry.home)
        });
        let holds = |state| matches!(state, State::Held(held) if held.frame == frame);
        if others.into_iter().any(|entry| holds(entry.state)) {
            return Err(SharingError::FrameTwice);
        }
        Ok(Export { frame, generation })
    }

    /// The entry that a handle or a request names; there is one by invariant 1.
    fn entry(&mut self, slot: usize) -> &mut Entry {
        self.entries[slot]
            .as_mut()
            .expect("a handle names an entry that is in use")
    }

    /// Frees an entry without users, or has its home told first. The home is not told if it
    /// departed, or if another entry stands for the page by now: it counts cells, not imports.
    fn leave_if_unused(&mut self, slot: usize) {
        let &mut Entry {
            home,
            page,
            state,
            users,
            in_transit,
            ..
        } = self.entry(slot);
        if users > 0 || in_transit {
            return;
        }
        let replaced = matches!(state, State::Stale(_)) && self.current(home, page).is_some();
        if replaced || self.lives.is_over(home) {
            self.entries[slot] = None;
        } else {
            self.entry(slot).state = State::Leaving;
        }
    }
}

impl<const ENTRIES: usize> Default for Imports<ENTRIES> {
    fn default() -> Self {
        Self::new()
    }
}
