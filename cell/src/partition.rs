//! The arithmetic that divides CPUs and frames among cells.
//!
//! Pure; the monitor applies it at boot and the runner to refuse impossible requests before it
//! boots anything.
//!
//! # Invariants
//! 1. Shares are contiguous, disjoint, in cell order; together they hold all CPUs, and all frames
//!    up to alignment.
//! 2. Every cell gets at least one CPU and [`CELL_BYTES_MIN`] bytes.
//! 3. Regions start and end on [`LARGE_PAGE_SIZE`] boundaries, so that a nested table can map them
//!    by large pages.

use core::fmt;
use core::ops::Range;

use crate::address::{Frame, FrameRange, LARGE_PAGE_SIZE, PAGE_SIZE};
use crate::id::{CELLS_MAX, CPUS_MAX, CellId};

/// The least memory in which a cell can run: public area, image, stacks, heap and something to work
/// with.
pub const CELL_BYTES_MIN: u64 = 24 << 20;

const LARGE_PAGE_FRAMES: u64 = LARGE_PAGE_SIZE / PAGE_SIZE;

/// Why a machine cannot be divided as asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartitionError {
    /// The number of cells is zero or above [`CELLS_MAX`].
    CellsOutOfRange(usize),
    /// There are more cells than CPUs.
    TooFewCpus {
        /// CPUs of the machine.
        cpus: usize,
        /// Cells asked for.
        cells: usize,
    },
    /// A share would be below [`CELL_BYTES_MIN`].
    TooLittleMemory {
        /// Bytes that each cell would get.
        bytes_each: u64,
    },
}

impl fmt::Display for PartitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CellsOutOfRange(cells) => {
                write!(f, "{cells} cells asked for; 1 to {CELLS_MAX} are possible")
            }
            Self::TooFewCpus { cpus, cells } => {
                write!(
                    f,
                    "{cells} cells need at least {cells} CPUs; the machine has {cpus}"
                )
            }
            Self::TooLittleMemory { bytes_each } => write!(
                f,
                "each cell would get {} MiB; a cell needs {} MiB",
                bytes_each >> 20,
                CELL_BYTES_MIN >> 20
            ),
        }
    }
}

/// The CPUs of `cell` when `cpus` CPUs are shared by `cells` cells; the first cells get one more
/// where it does not divide evenly.
pub fn cpus_of(cell: CellId, cells: usize, cpus: usize) -> Range<usize> {
    let (each, extra) = (cpus / cells, cpus % cells);
    let start = |index: usize| index * each + index.min(extra);
    start(cell.index())..start(cell.index() + 1)
}

/// Checks that `cpus` CPUs can be shared by `cells` cells.
///
/// # Errors
/// [`PartitionError::CellsOutOfRange`] and [`PartitionError::TooFewCpus`].
pub fn check_cpus(cells: usize, cpus: usize) -> Result<(), PartitionError> {
    if cells == 0 || cells > CELLS_MAX {
        return Err(PartitionError::CellsOutOfRange(cells));
    }
    if cpus.min(CPUS_MAX) < cells {
        return Err(PartitionError::TooFewCpus { cpus, cells });
    }
    Ok(())
}

/// The region of `cell` when `memory` is shared by `cells` cells in equal parts.
///
/// # Errors
/// [`PartitionError::TooLittleMemory`] if that is not enough to run in.
pub fn region_of(
    cell: CellId,
    cells: usize,
    memory: FrameRange,
) -> Result<FrameRange, PartitionError> {
    let first = memory.start.0.next_multiple_of(LARGE_PAGE_FRAMES);
    let large_pages = memory.end.0.saturating_sub(first) / LARGE_PAGE_FRAMES;
    let each = large_pages / cells as u64 * LARGE_PAGE_FRAMES;
    if each * PAGE_SIZE < CELL_BYTES_MIN {
        return Err(PartitionError::TooLittleMemory {
            bytes_each: each * PAGE_SIZE,
        });
    }
    let start = first + each * cell.index() as u64;
    Ok(FrameRange {
        start: Frame(start),
        end: Frame(start + each),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cell(number: usize) -> CellId {
        CellId::new(number).unwrap()
    }

    #[test]
    fn eight_cpus_make_four_pairs() {
        let shares: Vec<_> = (0..4).map(|number| cpus_of(cell(number), 4, 8)).collect();
        assert_eq!(shares, [0..2, 2..4, 4..6, 6..8]);
    }

    #[test]
    fn impossible_divisions_are_refused() {
        assert_eq!(check_cpus(0, 8), Err(PartitionError::CellsOutOfRange(0)));
        assert_eq!(check_cpus(65, 99), Err(PartitionError::CellsOutOfRange(65)));
        assert_eq!(
            check_cpus(5, 4),
            Err(PartitionError::TooFewCpus { cpus: 4, cells: 5 })
        );
        let memory = FrameRange {
            start: Frame(0),
            end: Frame(16 << 8),
        };
        assert!(region_of(cell(0), 1, memory).is_err());
    }

    proptest! {
        #[test]
        fn cpu_shares_cover_the_machine(cells in 1usize..=64, more in 0usize..=191) {
            let cpus = cells + more;
            let mut next = 0;
            for number in 0..cells {
                let share = cpus_of(cell(number), cells, cpus);
                prop_assert_eq!(share.start, next);
                prop_assert!(!share.is_empty());
                next = share.end;
            }
            prop_assert_eq!(next, cpus);
        }

        #[test]
        fn regions_are_disjoint_aligned_and_inside(
            cells in 1usize..=64, start in 0u64..100_000, frames in 0u64..10_000_000
        ) {
            let memory = FrameRange { start: Frame(start), end: Frame(start + frames) };
            let mut end = memory.start;
            for number in 0..cells {
                if let Ok(region) = region_of(cell(number), cells, memory) {
                    prop_assert!(region.start >= end && memory.contains_range(region));
                    prop_assert!(region.start.start().is_aligned(LARGE_PAGE_SIZE));
                    prop_assert!(region.len() * PAGE_SIZE >= CELL_BYTES_MIN);
                    end = region.end;
                }
            }
        }
    }

    #[test]
    fn no_numbers_make_the_division_panic_or_overlap() {
        let valid = fuzz::bytes(&[4, 8, 0x100, 0x8_0000]);
        fuzz::cases(&[&valid], |bytes| {
            let words = fuzz::words(bytes);
            let [cells, cpus, start, end] = words[..] else {
                return;
            };
            let (cells, cpus) = (cells as usize, cpus as usize);
            // What a memory map can name.
            let top = u64::MAX / PAGE_SIZE;
            let memory = FrameRange {
                start: Frame(start.min(top)),
                end: Frame(end.min(top)),
            };
            if check_cpus(cells, cpus).is_err() {
                return;
            }
            let last = cell(cells - 1);
            assert_eq!(cpus_of(last, cells, cpus).end, cpus);
            if let Ok(region) = region_of(last, cells, memory) {
                assert!(memory.contains_range(region));
            }
        });
    }
}
