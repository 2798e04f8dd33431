//! Large pages again where small ones say all the same.
//!
//! When a cell dies, its successor has granted nothing: what was split for its grants is made whole
//! again in the tables of the others, stretch by stretch and then GiB by GiB. During a life nothing
//! is merged: a revocation would have to look at 512 entries, for a stretch in which the same home
//! most likely grants again. A split that is done again costs one exchange.
//!
//! # Protocol
//! Others change entries below at any time. So: (1) mark the entry that leads to the page; (2) look
//! whether all of the page says the same; (3) exchange the marked entry for a large one, or take
//! the mark away. Who changes an entry of the page does so first, and afterwards sees to it that
//! the entry above leads to the page without a mark. If that comes before (1), (2) sees the change;
//! if it comes after, the mark is gone when (3) comes, or the large entry is exchanged back.
//!
//! # Invariants
//! 1. One CPU merges in a table at a time, so that the mark that (3) finds is that of (1). Whoever
//!    would be the second does not wait: it merges nothing.
//!
//! # Not guaranteed
//! A CPU that stops for good in the middle of a merge leaves the table without further ones.

use cell::{Frame, FrameRange};

use super::page::{LargestPage, STRETCH_FRAMES, gibibytes, stretches};
use super::table::{NestedTable, is_branch};
use crate::atomic::{AtomicU64, Ordering, fence};
use crate::format::{ADDRESS, LARGE, MERGING, PRESENT};

impl NestedTable {
    /// Maps by large pages what is uniform around `frames`.
    pub fn merge(&self, frames: FrameRange) {
        let order = Ordering::SeqCst;
        if self.merging.compare_exchange(0, 1, order, order).is_err() {
            return;
        }
        for start in stretches(frames) {
            self.merge_stretch(start);
        }
        if self.rules.largest == LargestPage::Gibibyte {
            for start in gibibytes(frames) {
                self.merge_gibibyte(start);
            }
        }
        self.merging.store(0, order);
    }

    fn merge_stretch(&self, start: Frame) {
        let Some(directory) = self.directory_entry(start) else {
            return;
        };
        // Most stretches are not split.
        if !is_branch(directory.load(Ordering::SeqCst)) {
            return;
        }
        let Some(page) = self.leaves.of(start) else {
            return;
        };
        merge_entry(directory, || {
            let marks = self.rules.format.marks();
            let is_uniform = page.says(marks, |position| self.small(start, position));
            is_uniform.then(|| self.large(start))
        });
    }

    fn merge_gibibyte(&self, start: Frame) {
        let (Some(entry), Some(page)) = (self.upper_entry(start), self.directory(start)) else {
            return;
        };
        merge_entry(entry, || {
            let marks = self.rules.format.marks();
            let leaf = page.entry(0).load(Ordering::SeqCst) & !(ADDRESS | marks);
            let at = |position: u64| Frame(start.0 + position * STRETCH_FRAMES);
            let is_large = leaf & PRESENT != 0 && leaf & LARGE != 0;
            let is_uniform = is_large && page.says(marks, |position| at(position).start().0 | leaf);
            is_uniform.then(|| start.start().0 | leaf)
        });
    }
}

/// Exchanges an entry that leads to a page for what `uniform` says of that page, if it says
/// anything.
fn merge_entry(entry: &AtomicU64, uniform: impl FnOnce() -> Option<u64>) {
    let order = Ordering::SeqCst;
    let mark = |old| (is_branch(old) && old & MERGING == 0).then_some(old | MERGING);
    if entry.fetch_update(order, order, mark).is_err() {
        return;
    }
    // The mark before the look; see `NestedTable::lead_to`.
    fence(order);
    let large = uniform();
    let settle = |old| {
        let is_marked = is_branch(old) && old & MERGING != 0;
        is_marked.then(|| large.unwrap_or(old & !MERGING))
    };
    let _ = entry.fetch_update(order, order, settle);
}
