//! Names: cells, CPUs, incarnations, epochs, and sets of cells.
//!
//! Each is a type of its own, so that an index of one kind cannot be used as another. A name that
//! came from another cell's memory is a plain integer until [`CellId::new`] or [`CpuId::new`] has
//! checked it.
//!
//! # Invariants
//! 1. A [`CellId`] is below [`CELLS_MAX`], a [`CpuId`] below [`CPUS_MAX`] (kept by the
//!    constructors).
//! 2. An [`Incarnation`] of a cell only grows; 0 means that the cell never ran.

use core::fmt;

/// Cells that one machine can be divided into. A writer set is one 64-bit word, as in FLASH (Hive,
/// SOSP'95, 4.2).
pub const CELLS_MAX: usize = 64;

/// CPUs that one machine can have: the 8-bit APIC identifiers of xAPIC, less the broadcast address.
pub const CPUS_MAX: usize = 255;

/// The number of a cell, below [`CELLS_MAX`].
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellId(u8);

impl CellId {
    /// The first cell, which every machine has.
    pub const FIRST: Self = Self(0);

    /// Checks a number and makes it a name; `None` if no cell can have it.
    pub const fn new(number: usize) -> Option<Self> {
        if number < CELLS_MAX {
            Some(Self(number as u8))
        } else {
            None
        }
    }

    /// The number, for indexing tables of [`CELLS_MAX`] entries.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cell {}", self.0)
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number of a CPU in the machine, in the order in which the firmware lists them (not the APIC
/// identifier).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(u8);

impl CpuId {
    /// The CPU that the firmware started.
    pub const BOOT: Self = Self(0);

    /// Checks a number and makes it a name; `None` if no CPU can have it.
    pub const fn new(number: usize) -> Option<Self> {
        if number < CPUS_MAX {
            Some(Self(number as u8))
        } else {
            None
        }
    }

    /// The number, for indexing tables of [`CPUS_MAX`] entries.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {}", self.0)
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The generation of a cell: 1 for its first life, one more for each reboot, 0 for "never ran".
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The next life.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// The number of a membership decision: epoch 0 is the live set at boot, each later one adds or
/// removes cells.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A set of cells, one bit each.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CellSet(pub u64);

impl CellSet {
    /// No cell.
    pub const EMPTY: Self = Self(0);

    /// Just `cell`.
    pub const fn only(cell: CellId) -> Self {
        Self(1 << cell.0)
    }

    /// The cells numbered below `count`.
    pub const fn first(count: usize) -> Self {
        if count >= CELLS_MAX {
            Self(u64::MAX)
        } else {
            Self((1 << count) - 1)
        }
    }

    /// Whether `cell` is in the set.
    pub const fn contains(self, cell: CellId) -> bool {
        self.0 & (1 << cell.0) != 0
    }

    /// The set and `cell`.
    #[must_use]
    pub const fn with(self, cell: CellId) -> Self {
        Self(self.0 | 1 << cell.0)
    }

    /// The set without `cell`.
    #[must_use]
    pub const fn without(self, cell: CellId) -> Self {
        Self(self.0 & !(1 << cell.0))
    }

    /// The cells of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The cells of both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The cells of this set that are not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every cell of this set is in `other`.
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether there is no cell in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many cells.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The lowest-numbered cell.
    pub const fn lowest(self) -> Option<CellId> {
        if self.0 == 0 {
            None
        } else {
            Some(CellId(self.0.trailing_zeros() as u8))
        }
    }

    /// The cells in ascending order.
    pub fn iter(self) -> impl Iterator<Item = CellId> {
        let mut rest = self;
        core::iter::from_fn(move || {
            let cell = rest.lowest()?;
            rest = rest.without(cell);
            Some(cell)
        })
    }
}

impl FromIterator<CellId> for CellSet {
    fn from_iter<I: IntoIterator<Item = CellId>>(cells: I) -> Self {
        cells.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for CellSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `{0,1,3}`.
impl fmt::Display for CellSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (position, cell) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            write!(f, "{cell}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_outside_the_machine_are_refused() {
        assert!(CellId::new(CELLS_MAX - 1).is_some());
        assert!(CellId::new(CELLS_MAX).is_none());
        assert!(CpuId::new(CPUS_MAX).is_none());
    }

    #[test]
    fn sets_print_as_lists() {
        let set: CellSet = [0, 1, 3].into_iter().filter_map(CellId::new).collect();
        assert_eq!(set.to_string(), "{0,1,3}");
        assert_eq!(CellSet::EMPTY.to_string(), "{}");
    }

    proptest! {
        #[test]
        fn iteration_gives_back_the_set(bits: u64) {
            let set = CellSet(bits);
            prop_assert_eq!(set.iter().collect::<CellSet>(), set);
            prop_assert_eq!(set.iter().count(), set.len());
        }

        #[test]
        fn first_holds_exactly_the_lower_numbers(count in 0usize..=CELLS_MAX) {
            prop_assert_eq!(CellSet::first(count).len(), count);
            prop_assert!(CellSet::first(count).iter().all(|cell| cell.index() < count));
        }
    }
}
