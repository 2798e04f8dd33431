//! Nested tables: what one cell can reach.
//!
//! One table per cell, in monitor memory, guest-physical equal to host-physical. The NPT and EPT
//! back ends hang it under the root of the nested walk, the paging back end under the physical
//! window of the cell's own tables. The levels are the same everywhere; what the bits of an entry
//! mean is the back end's [`Format`].
//!
//! Uniform stretches are mapped by 2 MiB pages; the first 4 KiB entry in a stretch splits it. Pages
//! for the lower level come from a pool that is set aside at boot.
//!
//! # Invariants
//! 1. Every change is one compare-and-exchange or one store of one entry, so that a CPU that stops
//!    in the middle leaves a table that is valid, and that no CPU waits for another. The processor
//!    marks entries too, at any moment: an exchange that it spoils is tried again.
//! 2. Page addresses inside a table come from this table's own storage only.
//! 3. [`NestedTable::close`] unhooks the whole table from its root; the leaves stay for
//!    [`NestedTable::is_written`].
//!
//! # Not guaranteed
//! A processor may use an entry that it read before a change until it next enters the monitor. Who
//! revokes must kick the cell's CPUs and wait for them (`crate::monitor::fence`).

#[cfg(not(loom))]
use cell::address::LARGE_PAGE_SIZE;
use cell::address::PAGE_SIZE;
use cell::{Frame, FrameRange, PhysicalAddress};

use crate::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::format::{ADDRESS, Format, LARGE, PRESENT, WITHHELD, WRITABLE};

/// Entries of one page. The model checker's large pages are small.
const ENTRIES: usize = if cfg!(loom) { 2 } else { 512 };
const GIB: u64 = 1 << 30;
const LARGE_PAGE_FRAMES: u64 = ENTRIES as u64;

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

    fn clear(&self) {
        for entry in &self.0 {
            entry.store(0, Ordering::Relaxed);
        }
    }

    /// Says of each 4 KiB what `large` says of them all.
    fn fill_from(&self, large: u64) {
        let flags = large & !(ADDRESS | LARGE);
        for (position, entry) in self.0.iter().enumerate() {
            let target = (large & ADDRESS) + position as u64 * PAGE_SIZE;
            let bits = if large & PRESENT == 0 {
                0
            } else {
                target | flags
            };
            entry.store(bits, Ordering::Relaxed);
        }
    }
}

impl Default for TablePage {
    fn default() -> Self {
        Self::new()
    }
}

/// The pool of the table ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted;

/// How many [`TablePage`]s a table over `bytes` bytes of address space needs, with `splits` splits.
pub const fn pages_needed(bytes: u64, splits: usize) -> usize {
    2 + bytes.div_ceil(GIB) as usize + splits
}

/// The nested table of one cell.
#[derive(Debug)]
pub struct NestedTable {
    format: &'static dyn Format,
    root: &'static TablePage,
    /// The third level: one entry per GiB.
    upper: &'static TablePage,
    /// The second level: one page per GiB.
    directories: &'static [TablePage],
    pool: &'static [TablePage],
    pool_used: AtomicUsize,
}

impl NestedTable {
    /// A closed table over `bytes` bytes in `pages`, of which there are [`pages_needed`]. The range
    /// is at most 512 GiB.
    pub fn new(pages: &'static [TablePage], bytes: u64, format: &'static dyn Format) -> Self {
        let gibibytes = bytes.div_ceil(GIB) as usize;
        assert!(
            gibibytes <= ENTRIES && pages.len() > 2 + gibibytes,
            "a table fits its storage"
        );
        let (top, rest) = pages.split_at(2);
        let (directories, pool) = rest.split_at(gibibytes);
        Self {
            format,
            root: &top[0],
            upper: &top[1],
            directories,
            pool,
            pool_used: AtomicUsize::new(0),
        }
    }

    /// The address for the nested root register.
    pub fn root(&self) -> PhysicalAddress {
        self.root.address()
    }

    /// The entry that hangs the whole table under a root of somebody else's (the paging back end's
    /// window).
    pub fn branch(&self) -> u64 {
        self.lead_to(self.upper)
    }

    /// An entry that leads to `page`.
    fn lead_to(&self, page: &TablePage) -> u64 {
        page.address().0 | self.format.branch()
    }

    /// Forgets every mapping. Only for a table that no CPU uses: closed, and its CPUs fenced.
    pub fn reset(&self) {
        self.close();
        for (index, directory) in self.directories.iter().enumerate() {
            directory.clear();
            self.upper
                .entry(index)
                .store(self.lead_to(directory), Ordering::Relaxed);
        }
        self.pool_used.store(0, Ordering::SeqCst);
    }

    /// Hangs the table under its root: from now on a walk finds it.
    pub fn open(&self) {
        self.root.entry(0).store(self.branch(), Ordering::SeqCst);
    }

    /// Unhooks the table: nothing is reachable, not even the cell's own memory.
    pub fn close(&self) {
        self.root.entry(0).store(0, Ordering::SeqCst);
    }

    #[cfg(all(test, loom))]
    pub(crate) fn is_open(&self) -> bool {
        self.root.entry(0).load(Ordering::SeqCst) != 0
    }

    /// Sets the access to a stretch of frames, by large pages where it can.
    ///
    /// # Errors
    /// [`Exhausted`] if a split needs a page and the pool is empty; the frames before it are done.
    pub fn set_range(&self, frames: FrameRange, access: Access) -> Result<(), Exhausted> {
        let mut next = frames.start;
        while next < frames.end {
            let whole = next.0.is_multiple_of(LARGE_PAGE_FRAMES)
                && next.0 + LARGE_PAGE_FRAMES <= frames.end.0;
            if whole && self.set_large(next, access) {
                next = Frame(next.0 + LARGE_PAGE_FRAMES);
            } else {
                self.set(next, access)?;
                next = Frame(next.0 + 1);
            }
        }
        Ok(())
    }

    /// Sets the access to one frame and forgets whether it was written.
    ///
    /// # Errors
    /// [`Exhausted`], with nothing changed.
    pub fn set(&self, frame: Frame, access: Access) -> Result<(), Exhausted> {
        let Some(entry) = self.leaf_for_change(frame)? else {
            return Ok(());
        };
        let bits = match access {
            Access::Absent => 0,
            _ => frame.start().0 | self.format.leaf(access),
        };
        entry.store(bits, Ordering::SeqCst);
        Ok(())
    }

    /// Lets the registers of a device that lie in `frame` be loaded.
    ///
    /// # Errors
    /// [`Exhausted`], with nothing changed.
    pub fn show_device(&self, frame: Frame) -> Result<(), Exhausted> {
        if let Some(entry) = self.leaf_for_change(frame)? {
            let bits = frame.start().0 | self.format.device();
            entry.store(bits, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Takes the right to write a frame away, withheld or not, and keeps the record of whether it
    /// was written.
    pub fn write_protect(&self, frame: Frame) {
        if let Some(entry) = self.small_leaf(frame) {
            entry.fetch_and(!(WRITABLE | WITHHELD), Ordering::SeqCst);
        }
    }

    /// Withholds the right to write a frame, if there is one.
    pub fn withhold(&self, frame: Frame) {
        self.exchange(frame, WRITABLE, WITHHELD);
    }

    /// Gives back what [`Self::withhold`] took, if it was not taken for good meanwhile.
    pub fn give_back(&self, frame: Frame) {
        self.exchange(frame, WITHHELD, WRITABLE);
    }

    /// Replaces one bit by another, if it is set.
    fn exchange(&self, frame: Frame, from: u64, to: u64) {
        let Some(entry) = self.small_leaf(frame) else {
            return;
        };
        let change = |bits| (bits & from != 0).then_some(bits & !from | to);
        let _ = entry.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
    }

    /// Gives `access` to an absent frame, together with the large page around it if all of that is
    /// absent. Everything else stays as it is: another CPU may have set it meanwhile.
    pub fn reopen(&self, frame: Frame, access: Access) {
        let Some(directory) = self.directory_entry(frame) else {
            return;
        };
        let open = |entry: &AtomicU64, bits: u64| {
            entry
                .compare_exchange(0, bits, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        };
        let large = frame.0 / LARGE_PAGE_FRAMES * LARGE_PAGE_FRAMES * PAGE_SIZE;
        if open(directory, large | self.format.leaf(access) | LARGE) {
            return;
        }
        if let Some(entry) = self.small_leaf(frame) {
            open(entry, frame.start().0 | self.format.leaf(access));
        }
    }

    /// Whether the cell wrote `frame` since its access was last set. Only frames with an entry of
    /// their own are tracked; a large page says `false`, and no grant is ever made by one.
    pub fn is_written(&self, frame: Frame) -> bool {
        self.small_leaf(frame)
            .is_some_and(|entry| entry.load(Ordering::SeqCst) & self.format.dirty() != 0)
    }

    /// What the table says of `frame` now (not what a processor may still hold).
    pub fn access(&self, frame: Frame) -> Access {
        let Some(directory) = self.directory_entry(frame) else {
            return Access::Absent;
        };
        let upper = directory.load(Ordering::SeqCst);
        let bits = if is_split(upper) {
            self.small_leaf(frame)
                .map_or(0, |entry| entry.load(Ordering::SeqCst))
        } else {
            upper
        };
        self.format.access(bits)
    }

    fn set_large(&self, start: Frame, access: Access) -> bool {
        let Some(entry) = self.directory_entry(start) else {
            return true;
        };
        let bits = match access {
            Access::Absent => 0,
            _ => start.start().0 | self.format.leaf(access) | LARGE,
        };
        // What was split before goes by its entries.
        let change = |old| (!is_split(old)).then_some(bits);
        entry
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, change)
            .is_ok()
    }

    pub(crate) fn directory_entry(&self, frame: Frame) -> Option<&AtomicU64> {
        let address = frame.start().0;
        let directory = self.directories.get((address / GIB) as usize)?;
        Some(directory.entry((frame.0 / LARGE_PAGE_FRAMES) as usize))
    }

    pub(crate) fn small_leaf(&self, frame: Frame) -> Option<&AtomicU64> {
        let upper = self.directory_entry(frame)?.load(Ordering::SeqCst);
        if !is_split(upper) {
            return None;
        }
        let first = self.pool.first()?.address().0;
        let page = self
            .pool
            .get(((upper & ADDRESS).checked_sub(first)? / PAGE_SIZE) as usize)?;
        Some(page.entry(frame.index()))
    }

    /// The 4 KiB entry of `frame`, splitting its large page if need be; `None` outside the table's
    /// range.
    fn leaf_for_change(&self, frame: Frame) -> Result<Option<&AtomicU64>, Exhausted> {
        let Some(directory) = self.directory_entry(frame) else {
            return Ok(None);
        };
        if self.small_leaf(frame).is_none() {
            self.split(directory)?;
        }
        Ok(self.small_leaf(frame))
    }

    fn split(&self, directory: &AtomicU64) -> Result<(), Exhausted> {
        let index = self.pool_used.fetch_add(1, Ordering::SeqCst);
        let Some(page) = self.pool.get(index) else {
            self.pool_used.fetch_sub(1, Ordering::SeqCst);
            return Err(Exhausted);
        };
        let change = |old| {
            (!is_split(old)).then(|| {
                page.fill_from(old);
                self.lead_to(page)
            })
        };
        // Tried again when the processor marked the large page meanwhile. If another CPU was
        // faster, its page serves and this one is lost until the next reset.
        let _ = directory.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
        Ok(())
    }
}

/// Whether an entry of the second level leads to 4 KiB entries.
const fn is_split(entry: u64) -> bool {
    entry & PRESENT != 0 && entry & LARGE == 0
}

const _: () = assert!(size_of::<TablePage>() == PAGE_SIZE as usize);
#[cfg(not(loom))]
const _: () = assert!(LARGE_PAGE_FRAMES * PAGE_SIZE == LARGE_PAGE_SIZE);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::format::{Ept, X86};
    use proptest::prelude::*;
    use std::collections::HashMap;

    const FORMATS: [&dyn Format; 2] = [&X86, &Ept];

    fn table(splits: usize) -> NestedTable {
        table_in(&X86, splits)
    }

    fn table_in(format: &'static dyn Format, splits: usize) -> NestedTable {
        let pages: Vec<_> = (0..pages_needed(GIB, splits))
            .map(|_| TablePage::new())
            .collect();
        let table = NestedTable::new(Vec::leak(pages), GIB, format);
        table.reset();
        table.open();
        table
    }

    fn frames(start: u64, count: u64) -> FrameRange {
        FrameRange::new(Frame(start), count).expect("small")
    }

    #[test]
    fn a_grant_splits_one_large_page_and_leaves_its_neighbours() {
        let table = table(1);
        table
            .set_range(frames(0, 2048), Access::Read)
            .expect("no split needed");
        table.set(Frame(700), Access::Write).expect("one split");
        assert_eq!(table.access(Frame(700)), Access::Write);
        assert_eq!(table.access(Frame(699)), Access::Read);
        assert_eq!(table.access(Frame(701)), Access::Read);
        assert_eq!(table.access(Frame(1500)), Access::Read);
    }

    #[test]
    fn an_empty_pool_changes_nothing() {
        let table = table(1);
        table
            .set_range(frames(0, 2048), Access::Read)
            .expect("no split needed");
        table.set(Frame(0), Access::Write).expect("one split");
        assert_eq!(table.set(Frame(512), Access::Write), Err(Exhausted));
        assert_eq!(table.access(Frame(512)), Access::Read);
        assert_eq!(
            table.set(Frame(1), Access::Write),
            Ok(()),
            "the split page still serves"
        );
    }

    #[test]
    fn write_protection_keeps_the_dirty_bit_and_a_new_grant_clears_it() {
        for format in FORMATS {
            let table = table_in(format, 2);
            table.set(Frame(5), Access::Write).expect("one split");
            store(&table, Frame(5));
            table.write_protect(Frame(5));
            assert_eq!(table.access(Frame(5)), Access::Read);
            assert!(table.is_written(Frame(5)));
            table.set(Frame(5), Access::Write).expect("split already");
            assert!(!table.is_written(Frame(5)));
        }
    }

    /// As the processor does when the cell stores to `frame`.
    fn store(table: &NestedTable, frame: Frame) {
        table
            .small_leaf(frame)
            .expect("split")
            .fetch_or(table.format.dirty(), Ordering::SeqCst);
    }

    #[test]
    fn a_large_page_is_split_into_what_it_said() {
        for format in FORMATS {
            let table = table_in(format, 1);
            table
                .set_range(frames(0, 512), Access::Own)
                .expect("no split needed");
            table.set(Frame(7), Access::Read).expect("one split");
            let neighbour = table.small_leaf(Frame(6)).expect("split");
            let expected = Frame(6).start().0 | format.leaf(Access::Own);
            assert_eq!(neighbour.load(Ordering::SeqCst), expected);
        }
    }

    #[test]
    fn the_registers_of_a_device_are_loaded_past_the_caches() {
        for format in FORMATS {
            let table = table_in(format, 1);
            table.show_device(Frame(9)).expect("one split");
            assert_eq!(table.access(Frame(9)), Access::Read);
            let entry = table.small_leaf(Frame(9)).expect("split");
            let bits = entry.load(Ordering::SeqCst);
            assert_eq!(bits & !ADDRESS, format.device());
            assert_ne!(format.device(), format.leaf(Access::Read));
        }
    }

    #[test]
    fn what_is_taken_for_good_is_not_given_back() {
        let table = table(1);
        table.set(Frame(5), Access::Write).expect("one split");
        table.withhold(Frame(5));
        assert_eq!(table.access(Frame(5)), Access::Read);
        table.give_back(Frame(5));
        assert_eq!(table.access(Frame(5)), Access::Write);
        table.withhold(Frame(5));
        table.write_protect(Frame(5));
        table.give_back(Frame(5));
        assert_eq!(table.access(Frame(5)), Access::Read);
        table.withhold(Frame(6));
        table.give_back(Frame(6));
        assert_eq!(table.access(Frame(6)), Access::Absent);
    }

    #[test]
    fn a_closed_table_still_tells_what_was_written() {
        let table = table(1);
        table.set(Frame(9), Access::Write).expect("one split");
        store(&table, Frame(9));
        table.close();
        assert_eq!(table.root.entry(0).load(Ordering::SeqCst), 0);
        assert!(table.is_written(Frame(9)));
    }

    #[test]
    fn only_what_is_absent_is_opened_again() {
        let table = table(2);
        table
            .set_range(frames(512, 1024), Access::Absent)
            .expect("no split needed");
        table.reopen(Frame(700), Access::Read);
        assert_eq!(table.access(Frame(512)), Access::Read);
        assert_eq!(table.access(Frame(1023)), Access::Read);
        assert_eq!(table.access(Frame(1024)), Access::Absent);
        table.set(Frame(1030), Access::Write).expect("one split");
        table.reopen(Frame(1030), Access::Read);
        table.reopen(Frame(1031), Access::Read);
        assert_eq!(table.access(Frame(1030)), Access::Write);
        assert_eq!(table.access(Frame(1031)), Access::Read);
        assert_eq!(table.access(Frame(1032)), Access::Absent);
        table.reopen(Frame(GIB / PAGE_SIZE), Access::Read);
    }

    #[test]
    fn frames_beyond_the_range_are_absent() {
        let table = table(1);
        assert_eq!(table.access(Frame(GIB / PAGE_SIZE)), Access::Absent);
        assert_eq!(table.set(Frame(GIB / PAGE_SIZE), Access::Own), Ok(()));
        assert_eq!(table.access(Frame(GIB / PAGE_SIZE)), Access::Absent);
    }

    fn any_access() -> impl Strategy<Value = Access> {
        prop_oneof![
            Just(Access::Absent),
            Just(Access::Read),
            Just(Access::Write),
            Just(Access::Own)
        ]
    }

    proptest! {
        #[test]
        fn the_last_setting_of_a_frame_counts(
            format in prop::sample::select(&FORMATS[..]),
            settings in prop::collection::vec((0u64..2048, 1u64..1200, any_access()), 1..12)
        ) {
            let table = table_in(format, 8);
            let mut expected = HashMap::new();
            for (start, count, access) in settings {
                table.set_range(frames(start, count), access).expect("pool is large enough");
                for frame in frames(start, count).iter() {
                    expected.insert(frame, access);
                }
            }
            for frame in frames(0, 4096).iter() {
                let access = expected.get(&frame).copied().unwrap_or(Access::Absent);
                prop_assert_eq!(table.access(frame), access);
            }
        }
    }
}
