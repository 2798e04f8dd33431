//! Which frame of the cell serves what: a table with one entry per frame.
//!
//! Only the cell's own frames are here. Frames that it borrowed are other cells', and `sharing`
//! keeps them, as a type that no allocator of kernel data takes.
//!
//! # Invariants
//! 1. A frame changes its use only from the use that the caller names.
//! 2. `free_count` is the number of entries that say `Free`.

use cell::{Frame, FrameRange};

/// What a frame serves.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameUse {
    /// Nothing.
    Free = 0,
    /// The kernel's own data; never writable for another cell.
    Kernel = 1,
    /// A page of content, which other cells may be granted.
    Page = 2,
    /// Lent to another cell.
    Loaned = 3,
    /// Dropped in a recovery; not to be used before the fence holds.
    Discarded = 4,
}

/// Every use, in the order of their numbers.
pub const USES: [FrameUse; 5] = [
    FrameUse::Free,
    FrameUse::Kernel,
    FrameUse::Page,
    FrameUse::Loaned,
    FrameUse::Discarded,
];

/// A frame was not in the use that the caller named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// It belongs to another cell, or to nobody.
    NotOwn(Frame),
    /// It serves something else.
    Serves(FrameUse),
}

/// The uses of a cell's frames.
#[derive(Debug)]
pub struct FrameTable<'a> {
    first: Frame,
    uses: &'a mut [FrameUse],
    free_count: usize,
    /// Where the next search begins.
    hint: usize,
}

impl<'a> FrameTable<'a> {
    /// A table of the frames from `first`, one per entry: those in `used` are the kernel's, the
    /// others free.
    pub fn new(first: Frame, uses: &'a mut [FrameUse], used: FrameRange) -> Self {
        let mut free_count = 0;
        for (number, entry) in uses.iter_mut().enumerate() {
            let is_used = used.contains(Frame(first.0 + number as u64));
            *entry = if is_used {
                FrameUse::Kernel
            } else {
                FrameUse::Free
            };
            free_count += usize::from(!is_used);
        }
        Self {
            first,
            uses,
            free_count,
            hint: 0,
        }
    }

    fn entry(&self, frame: Frame) -> Result<usize, FrameError> {
        let number = frame
            .0
            .checked_sub(self.first.0)
            .ok_or(FrameError::NotOwn(frame))? as usize;
        if number < self.uses.len() {
            Ok(number)
        } else {
            Err(FrameError::NotOwn(frame))
        }
    }

    /// What `frame` serves.
    ///
    /// # Errors
    /// `NotOwn`.
    pub fn serves(&self, frame: Frame) -> Result<FrameUse, FrameError> {
        self.entry(frame).map(|number| self.uses[number])
    }

    /// Changes the use of `frame` from `from` to `to` (invariant 1).
    ///
    /// # Errors
    /// `NotOwn`, `Serves`; nothing changed then.
    pub fn change(&mut self, frame: Frame, from: FrameUse, to: FrameUse) -> Result<(), FrameError> {
        let number = self.entry(frame)?;
        let serves = self.uses[number];
        if serves != from {
            return Err(FrameError::Serves(serves));
        }
        self.uses[number] = to;
        self.free_count += usize::from(to == FrameUse::Free);
        self.free_count -= usize::from(from == FrameUse::Free);
        Ok(())
    }

    /// Takes a free frame for `to`.
    pub fn allocate(&mut self, to: FrameUse) -> Option<Frame> {
        if self.free_count == 0 {
            return None;
        }
        let is_free = |&number: &usize| self.uses[number] == FrameUse::Free;
        let number = (self.hint..self.uses.len())
            .find(is_free)
            .or_else(|| (0..self.hint).find(is_free))?;
        self.hint = number + 1;
        let frame = Frame(self.first.0 + number as u64);
        self.change(frame, FrameUse::Free, to).ok()?;
        Some(frame)
    }

    /// Takes `count` free frames in a row for `to`, the first one a multiple of `alignment` frames.
    pub fn allocate_row(&mut self, count: u64, alignment: u64, to: FrameUse) -> Option<FrameRange> {
        let last = self.first.0 + self.uses.len() as u64;
        let mut start = self.first.0.next_multiple_of(alignment);
        while count > 0 && start + count <= last {
            let row = FrameRange::new(Frame(start), count)?;
            match self.last_used(row) {
                None => {
                    for frame in row.iter() {
                        self.change(frame, FrameUse::Free, to).ok()?;
                    }
                    return Some(row);
                }
                Some(used) => start = (used.0 + 1).next_multiple_of(alignment),
            }
        }
        None
    }

    /// The last frame of a row that is not free.
    fn last_used(&self, row: FrameRange) -> Option<Frame> {
        row.iter()
            .filter(|&frame| self.serves(frame) != Ok(FrameUse::Free))
            .last()
    }

    /// How many frames serve each of [`USES`].
    pub fn counts(&self) -> [usize; USES.len()] {
        let mut counts = [0; USES.len()];
        for &entry in &*self.uses {
            counts[entry as usize] += 1;
        }
        counts
    }

    /// How many frames are free.
    pub const fn free_count(&self) -> usize {
        self.free_count
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> FrameRange {
        FrameRange {
            start: Frame(start),
            end: Frame(end),
        }
    }

    #[test]
    fn used_frames_are_not_given_out() {
        let mut uses = [FrameUse::Free; 8];
        let mut table = FrameTable::new(Frame(100), &mut uses, range(100, 103));
        assert_eq!(table.free_count(), 5);
        let frames: Vec<_> = std::iter::from_fn(|| table.allocate(FrameUse::Page)).collect();
        assert_eq!(frames, (103..108).map(Frame).collect::<Vec<_>>());
        table
            .change(Frame(104), FrameUse::Page, FrameUse::Free)
            .unwrap();
        assert_eq!(table.allocate(FrameUse::Kernel), Some(Frame(104)));
        assert_eq!(table.counts(), [0, 4, 4, 0, 0]);
    }

    #[test]
    fn a_wrong_use_is_refused() {
        let mut uses = [FrameUse::Free; 2];
        let mut table = FrameTable::new(Frame(4), &mut uses, range(4, 5));
        let refused = table.change(Frame(4), FrameUse::Page, FrameUse::Loaned);
        assert_eq!(refused, Err(FrameError::Serves(FrameUse::Kernel)));
        assert_eq!(table.serves(Frame(3)), Err(FrameError::NotOwn(Frame(3))));
        assert_eq!(table.serves(Frame(6)), Err(FrameError::NotOwn(Frame(6))));
    }

    #[test]
    fn rows_are_aligned_and_skip_what_is_used() {
        let mut uses = [FrameUse::Free; 16];
        let mut table = FrameTable::new(Frame(3), &mut uses, range(3, 5));
        assert_eq!(
            table.allocate_row(4, 4, FrameUse::Kernel),
            Some(range(8, 12))
        );
        assert_eq!(
            table.allocate_row(4, 4, FrameUse::Kernel),
            Some(range(12, 16))
        );
        assert_eq!(table.allocate_row(4, 4, FrameUse::Kernel), None);
        assert_eq!(
            table.allocate_row(3, 1, FrameUse::Kernel),
            Some(range(5, 8))
        );
    }

    proptest! {
        #[test]
        fn the_count_of_free_frames_is_right(
            steps in prop::collection::vec((0u64..20, 0usize..5, 0usize..5), 0..100)
        ) {
            let mut uses = [FrameUse::Free; 16];
            let mut table = FrameTable::new(Frame(2), &mut uses, range(2, 4));
            for (frame, from, to) in steps {
                let _ = table.change(Frame(frame), USES[from], USES[to]);
                prop_assert_eq!(table.counts()[0], table.free_count());
            }
        }
    }
}
