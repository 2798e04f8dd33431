//! The cell's frames: the frame table over its region.
//!
//! # Invariants
//! 1. The table itself lies in the first frames behind those that the cell used at entry, and these
//!    are the kernel's.

use cell::{Frame, FrameRange, PAGE_SIZE};

use crate::lock::Lock;
use crate::memory::frames::{FrameError, FrameTable, FrameUse, USES};
use crate::memory::window;
use crate::own::Own;

static TABLE: Lock<Option<FrameTable<'static>>> = Lock::new(None);

/// Builds the table. Boot CPU, once.
pub fn set_up(own: &Own) {
    let count = own.region.len() as usize;
    let table_frames = (count as u64).div_ceil(PAGE_SIZE);
    let table_start = own.used.end;
    let used = FrameRange {
        start: own.region.start,
        end: Frame(table_start.0 + table_frames),
    };
    assert!(
        own.region.contains_range(used),
        "a region is larger than its frame table"
    );
    let first = window::pointer::<FrameUse>(table_start.start());
    // SAFETY: these frames are the cell's, behind everything that was used at entry, and marked as
    // the kernel's below, so nobody else gets them. They are zeroed before they are taken for uses,
    // and 0 is `Free`.
    let uses = unsafe {
        core::ptr::write_bytes(first, 0, count);
        core::slice::from_raw_parts_mut(first, count)
    };
    *TABLE.lock() = Some(FrameTable::new(own.region.start, uses, used));
}

fn with<T>(operation: impl FnOnce(&mut FrameTable<'static>) -> T) -> T {
    operation(
        TABLE
            .lock()
            .as_mut()
            .expect("the frame table is built before anybody asks for frames"),
    )
}

/// Takes a free frame. Its content is whatever it was.
pub fn allocate(to: FrameUse) -> Option<Frame> {
    with(|table| table.allocate(to))
}

/// Takes `count` free frames in a row, the first one a multiple of `alignment` frames.
pub fn allocate_row(count: u64, alignment: u64, to: FrameUse) -> Option<FrameRange> {
    with(|table| table.allocate_row(count, alignment, to))
}

/// Changes the use of an own frame.
///
/// # Errors
/// [`FrameError`]; nothing changed then.
pub fn change(frame: Frame, from: FrameUse, to: FrameUse) -> Result<(), FrameError> {
    with(|table| table.change(frame, from, to))
}

/// Frees an own frame that served `from`.
///
/// # Errors
/// [`FrameError`]; nothing changed then.
pub fn release(frame: Frame, from: FrameUse) -> Result<(), FrameError> {
    change(frame, from, FrameUse::Free)
}

/// What an own frame serves.
///
/// # Errors
/// [`FrameError::NotOwn`].
pub fn serves(frame: Frame) -> Result<FrameUse, FrameError> {
    with(|table| table.serves(frame))
}

/// How many frames are free.
pub fn free_count() -> usize {
    with(|table| table.free_count())
}

/// How many frames serve each of [`USES`].
pub fn counts() -> [usize; USES.len()] {
    with(|table| table.counts())
}
