//! One page of a nested table, and the sizes of everything.

#[cfg(not(loom))]
use cell::address::LARGE_PAGE_SIZE;
use cell::address::PAGE_SIZE;
use cell::{Frame, FrameRange, PhysicalAddress};

use crate::atomic::{AtomicU64, Ordering};

/// Entries of one page. The model checker's large pages are small.
pub(super) const ENTRIES: usize = if cfg!(loom) { 2 } else { 512 };
/// Frames of a stretch: what one entry of the second level maps.
pub(super) const STRETCH_FRAMES: u64 = ENTRIES as u64;
/// Frames of what one entry of the third level maps.
pub(super) const GIB_FRAMES: u64 = STRETCH_FRAMES * ENTRIES as u64;

/// What a cell may do with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Nothing.
    Absent,
    /// Load.
    Read,
    /// Load and store.
    Write,
    /// Load, store and fetch instructions.
    Own,
}

/// The largest page that the processor's walk knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LargestPage {
    /// 2 MiB.
    Stretch,
    /// 1 GiB.
    Gibibyte,
}

/// What a table has to hold.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// The end of the frames that it spans: at most 512 GiB.
    pub end: Frame,
    /// Cells other than its own.
    pub homes: usize,
    /// Stretches of 2 MiB in which each of them can grant frames.
    pub stretches_each: usize,
    /// Stretches outside the cells' memory of which a part is shown.
    pub edges: usize,
}

impl Size {
    /// Pages in all.
    pub const fn pages(self) -> usize {
        2 + self.gibibytes() + self.leaves() + self.edges
    }

    /// Pages of 4 KiB entries for other cells' memory.
    pub const fn leaves(self) -> usize {
        self.homes * self.stretches_each
    }

    pub(super) const fn gibibytes(self) -> usize {
        self.end.0.div_ceil(GIB_FRAMES) as usize
    }
}

/// One page of a table.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct TablePage([AtomicU64; ENTRIES]);

impl TablePage {
    /// An empty page.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES])
    }

    /// An empty page; loom's atomics cannot be made by a `const fn`.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// The page's physical address: the monitor runs identity-mapped.
    pub fn address(&self) -> PhysicalAddress {
        PhysicalAddress(core::ptr::from_ref(self) as u64)
    }

    /// The entry at `index`.
    pub fn entry(&self, index: usize) -> &AtomicU64 {
        &self.0[index % ENTRIES]
    }

    /// Empties the page, from its first entry on: see [`Self::fill`].
    pub(super) fn clear(&self) {
        for entry in &self.0 {
            entry.store(0, Ordering::Release);
        }
    }

    /// Gives what is empty the value of `bits`, unless that was done before. Several CPUs may do so
    /// at once, and one of them much later than the others: what is there already stays. The first
    /// entry comes last, so that a page with a first entry is a full one.
    pub(super) fn fill(&self, bits: impl Fn(u64) -> u64) {
        if !self.is_empty() {
            return;
        }
        for (position, entry) in self.0.iter().enumerate().rev() {
            let bits = bits(position as u64);
            let _ = entry.compare_exchange(0, bits, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Takes `bits` from every entry.
    pub(super) fn take(&self, bits: u64) {
        for entry in &self.0 {
            // Most entries have none, and a load costs less than an atomic change.
            if entry.load(Ordering::SeqCst) & bits != 0 {
                entry.fetch_and(!bits, Ordering::SeqCst);
            }
        }
    }

    /// Whether the page was not filled since it was cleared.
    pub(super) fn is_empty(&self) -> bool {
        self.0[0].load(Ordering::SeqCst) == 0
    }

    /// Whether the entry at each position, without the bits of `but`, is what `bits` says of it.
    pub(super) fn says(&self, but: u64, bits: impl Fn(u64) -> u64) -> bool {
        self.0.iter().enumerate().all(|(position, entry)| {
            let found = entry.load(Ordering::SeqCst);
            found & !but == bits(position as u64)
        })
    }
}

impl Default for TablePage {
    fn default() -> Self {
        Self::new()
    }
}

/// The first frame of the stretch around `frame`.
pub(super) const fn stretch_of(frame: Frame) -> Frame {
    Frame(frame.0 / STRETCH_FRAMES * STRETCH_FRAMES)
}

/// The first frames of all stretches that `frames` has a part of.
pub(super) fn stretches(frames: FrameRange) -> impl Iterator<Item = Frame> {
    steps(frames, STRETCH_FRAMES)
}

/// The first frames of all GiB that `frames` has a part of.
pub(super) fn gibibytes(frames: FrameRange) -> impl Iterator<Item = Frame> {
    steps(frames, GIB_FRAMES)
}

fn steps(frames: FrameRange, size: u64) -> impl Iterator<Item = Frame> {
    let first = frames.start.0 / size;
    (first..frames.end.0.div_ceil(size)).map(move |step| Frame(step * size))
}

const _: () = assert!(size_of::<TablePage>() == PAGE_SIZE as usize);
#[cfg(not(loom))]
const _: () = assert!(STRETCH_FRAMES * PAGE_SIZE == LARGE_PAGE_SIZE);
