//! Which page of 4 KiB entries serves which stretch of 2 MiB.
//!
//! Each other cell has a share of the pages, so that what one grants takes nothing from the others.
//! A page is bound to a stretch of that cell's memory when the cell first grants a frame there, and
//! serves it from then on, in every later life of either cell. Where the share is as large as the
//! cell's memory, there is a page for every stretch of it.
//!
//! # Invariants
//! 1. The owner of a page is set once, by a compare-and-exchange. All who look for the page of a
//!    stretch look at the same pages in the same order, up to the first that is free, so that no
//!    stretch gets two.

use core::fmt;
use core::ops::Range;

use cell::{CELLS_MAX, Frame, FrameRange};

use super::page::{STRETCH_FRAMES, TablePage, stretch_of};
use crate::atomic::{AtomicU64, Ordering};

/// The pages that a cell, or the machine's own stretches, have in the table are used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted;

/// The pages of 4 KiB entries for other cells' memory.
pub(super) struct Leaves {
    pages: &'static [TablePage],
    /// For each page, one more than the number of the stretch that it serves; 0 for none.
    owners: &'static [AtomicU64],
    /// The other cells' memory: the first `homes` of these.
    regions: [FrameRange; CELLS_MAX],
    homes: usize,
    /// Pages in each cell's share.
    share: usize,
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaves")
            .field("pages", &self.pages.len())
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}

impl Leaves {
    /// `pages`, of which each other cell gets `share`, with as many `owners`.
    pub(super) fn new(
        pages: &'static [TablePage],
        owners: &'static [AtomicU64],
        share: usize,
    ) -> Self {
        assert!(pages.len() == owners.len(), "every page can have an owner");
        Self {
            pages,
            owners,
            regions: [FrameRange::default(); CELLS_MAX],
            homes: 0,
            share,
        }
    }

    /// Gives each of `regions` its share.
    pub(super) fn divide(&mut self, regions: impl Iterator<Item = FrameRange>) {
        for (slot, region) in self.regions.iter_mut().zip(regions) {
            *slot = region;
            self.homes += 1;
        }
    }

    /// Whether `frame` is another cell's.
    pub(super) fn cover(&self, frame: Frame) -> bool {
        self.home(frame).is_some()
    }

    /// The page that serves the stretch around `frame`.
    pub(super) fn of(&self, frame: Frame) -> Option<&'static TablePage> {
        let name = name(frame);
        for index in self.candidates(frame) {
            match self.owners.get(index)?.load(Ordering::SeqCst) {
                0 => return None,
                owner if owner == name => return self.pages.get(index),
                _ => {}
            }
        }
        None
    }

    /// The same, bound to it if there was none.
    ///
    /// # Errors
    /// [`Exhausted`] if the cell's share serves other stretches, or the frame is no other cell's.
    pub(super) fn bind(&self, frame: Frame) -> Result<&'static TablePage, Exhausted> {
        let name = name(frame);
        let is_bound = |&index: &usize| {
            let owner = &self.owners[index];
            match owner.compare_exchange(0, name, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => true,
                Err(other) => other == name,
            }
        };
        let index = self.candidates(frame).find(is_bound).ok_or(Exhausted)?;
        self.pages.get(index).ok_or(Exhausted)
    }

    /// Those that serve a stretch. Whether they are filled does not count: a CPU that stopped while
    /// it cleared one leaves it without its first entry, and with others.
    pub(super) fn bound(&self) -> impl Iterator<Item = &'static TablePage> {
        self.pages
            .iter()
            .zip(self.owners)
            .filter(|(_, owner)| owner.load(Ordering::SeqCst) != 0)
            .map(|(page, _)| page)
    }

    fn home(&self, frame: Frame) -> Option<usize> {
        self.regions[..self.homes]
            .iter()
            .position(|region| region.contains(frame))
    }

    /// Where the page for the stretch around `frame` can be: the home's share, from the position
    /// that the stretch has in the home's memory on.
    fn candidates(&self, frame: Frame) -> impl Iterator<Item = usize> {
        let home = self.home(frame);
        let share: Range<usize> =
            home.map_or(0..0, |home| home * self.share..(home + 1) * self.share);
        let region = home.map_or(Frame(0), |home| self.regions[home].start);
        let first = ((stretch_of(frame).0 - stretch_of(region).0) / STRETCH_FRAMES) as usize;
        (0..share.len()).map(move |step| share.start + (first + step) % share.len())
    }
}

/// How the stretch around `frame` is named as an owner.
const fn name(frame: Frame) -> u64 {
    frame.0 / STRETCH_FRAMES + 1
}
