//! The table: made for a life, and changed during it.
//!
//! Between [`NestedTable::reset`] and [`NestedTable::open`] one CPU lays out what the life begins
//! with. What other CPUs do from then on goes by frame: a grant and what takes it back, or by
//! stretches: a cell that cuts its memory off, and what opens it again.

use cell::{Frame, FrameRange, PhysicalAddress};

use super::leaves::{Exhausted, Leaves};
use super::page::{
    Access, GIB_FRAMES, LargestPage, STRETCH_FRAMES, Size, TablePage, gibibytes, stretch_of,
    stretches,
};
use crate::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use crate::format::{ADDRESS, Format, LARGE, MERGING, PRESENT, WITHHELD, WRITABLE};

/// What the machine and its back end ask of a table.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How entries say what they say.
    pub format: &'static dyn Format,
    /// The largest page that may be used.
    pub largest: LargestPage,
    /// What a cell may do with the memory of another that granted it nothing.
    pub ungranted: Access,
}

/// The nested table of one cell.
#[derive(Debug)]
pub struct NestedTable {
    pub(super) rules: Rules,
    root: &'static TablePage,
    /// The third level: one entry per GiB.
    upper: &'static TablePage,
    /// The second level: one page per GiB.
    directories: &'static [TablePage],
    /// The first level: `leaves` and `edges`.
    lower: &'static [TablePage],
    pub(super) leaves: Leaves,
    /// Pages for stretches outside the cells' memory, which change only before a life begins.
    edges: &'static [TablePage],
    edges_used: AtomicUsize,
    /// Not 0 while a CPU merges (`merge`, invariant 1).
    pub(super) merging: AtomicU64,
}

impl NestedTable {
    /// A closed table of this size, in [`Size::pages`] pages, with [`Size::leaves`] owners.
    pub fn new(
        size: Size,
        pages: &'static [TablePage],
        owners: &'static [AtomicU64],
        rules: Rules,
    ) -> Self {
        assert!(pages.len() == size.pages(), "a table fits its storage");
        let (top, rest) = pages.split_at(2);
        let (directories, lower) = rest.split_at(size.gibibytes());
        let (leaves, edges) = lower.split_at(size.leaves());
        Self {
            rules,
            root: &top[0],
            upper: &top[1],
            directories,
            lower,
            leaves: Leaves::new(leaves, owners, size.stretches_each),
            edges,
            edges_used: AtomicUsize::new(0),
            merging: AtomicU64::new(0),
        }
    }

    /// Says where the memory of the other cells lies. Before the first life, once.
    pub fn divide(&mut self, regions: impl Iterator<Item = FrameRange>) {
        self.leaves.divide(regions);
    }

    /// The frames that it spans, rounded to whole GiB.
    pub fn frames(&self) -> FrameRange {
        FrameRange {
            start: Frame(0),
            end: Frame(self.directories.len() as u64 * GIB_FRAMES),
        }
    }

    /// The address for the nested root register.
    pub fn root(&self) -> PhysicalAddress {
        self.root.address()
    }

    /// The entry that hangs the whole table under a root of somebody else's (the paging back end's
    /// window).
    pub fn branch(&self) -> u64 {
        self.way_to(self.upper)
    }

    /// An entry that leads to `page`.
    fn way_to(&self, page: &TablePage) -> u64 {
        page.address().0 | self.rules.format.branch()
    }

    /// Forgets every mapping. Only for a table that no CPU uses: closed, and its CPUs fenced. A CPU
    /// of another cell may still be about to grant the life before something: it finds that life
    /// over, and takes the grant back.
    pub fn reset(&self) {
        self.close();
        for (index, directory) in self.directories.iter().enumerate() {
            directory.clear();
            let way = self.way_to(directory);
            self.upper.entry(index).store(way, Ordering::SeqCst);
        }
        for page in self.leaves.bound() {
            page.clear();
        }
        self.edges_used.store(0, Ordering::SeqCst);
    }

    /// Hangs the table under its root: from now on a walk finds it.
    pub fn open(&self) {
        self.root.entry(0).store(self.branch(), Ordering::SeqCst);
    }

    /// Unhooks the table: nothing is reachable, not even the cell's own memory.
    pub fn close(&self) {
        self.root.entry(0).store(0, Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.root.entry(0).load(Ordering::SeqCst) != 0
    }

    /// Sets the access to a stretch of frames, before a life begins. By 4 KiB entries only where it
    /// must, and never in the cells' memory, which is whole stretches.
    ///
    /// # Errors
    /// [`Exhausted`] if there are more edges than the table was made for; the frames before are
    /// done.
    pub fn set_range(&self, frames: FrameRange, access: Access) -> Result<(), Exhausted> {
        let mut next = frames.start;
        while next < frames.end {
            let end = Frame(next.0 + STRETCH_FRAMES);
            let is_whole = next == stretch_of(next) && end <= frames.end;
            if is_whole {
                self.set_stretch(next, access);
                next = end;
            } else {
                let bits = self.rules.format.leaf(access);
                self.set_edge(next, bits)?;
                next = Frame(next.0 + 1);
            }
        }
        Ok(())
    }

    /// Lets the registers of a device that lie in `frame` be loaded. Before a life begins.
    ///
    /// # Errors
    /// As [`Self::set_range`], with nothing changed.
    pub fn show_device(&self, frame: Frame) -> Result<(), Exhausted> {
        self.set_edge(frame, self.rules.format.device())
    }

    fn set_stretch(&self, start: Frame, access: Access) {
        let Some(directory) = self.directory_entry(start) else {
            return;
        };
        let bits = match access {
            Access::Absent => 0,
            _ => start.start().0 | self.rules.format.leaf(access) | LARGE,
        };
        // Not a store, which an exchange under way elsewhere could be taken to follow.
        directory.swap(bits, Ordering::SeqCst);
    }

    fn set_edge(&self, frame: Frame, leaf: u64) -> Result<(), Exhausted> {
        let Some(directory) = self.directory_entry(frame) else {
            return Ok(());
        };
        let old = directory.load(Ordering::SeqCst);
        if !is_branch(old) {
            let index = self.edges_used.fetch_add(1, Ordering::SeqCst);
            let page = self.edges.get(index).ok_or(Exhausted)?;
            page.clear();
            if old & PRESENT != 0 {
                page.fill(|position| {
                    let small = (old & ADDRESS) + Frame(position).start().0;
                    small | old & !(ADDRESS | LARGE)
                });
            }
            directory.store(self.way_to(page), Ordering::SeqCst);
        }
        if let Some(page) = self.page_behind(directory.load(Ordering::SeqCst)) {
            let bits = if leaf == 0 { 0 } else { frame.start().0 | leaf };
            page.entry(frame.index()).store(bits, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Sets pages aside for `frames` of another cell: no grant of them fails from then on.
    ///
    /// # Errors
    /// [`Exhausted`] if the home granted frames in more stretches than it has a share for.
    pub fn reserve(&self, frames: FrameRange) -> Result<(), Exhausted> {
        stretches(frames).try_for_each(|start| self.leaves.bind(start).map(drop))
    }

    /// Opens a frame of another cell to stores, and forgets whether it was written. Where its home
    /// has cut its memory off, that begins when the stretch is opened again.
    ///
    /// # Errors
    /// [`Exhausted`] if the home granted frames in more stretches than it has a share for; nothing
    /// is changed then.
    pub fn grant(&self, frame: Frame) -> Result<(), Exhausted> {
        let page = self.leaves.bind(frame)?;
        self.fill(page, frame);
        let bits = frame.start().0 | self.rules.format.leaf(Access::Write);
        page.entry(frame.index()).store(bits, Ordering::SeqCst);
        self.lead_to(page, frame);
        Ok(())
    }

    /// Takes the right to write a frame away, withheld or not, and keeps the record of whether it
    /// was written.
    pub fn write_protect(&self, frame: Frame) {
        if let Some(entry) = self.small_leaf(frame) {
            entry.fetch_and(!(WRITABLE | WITHHELD), Ordering::SeqCst);
        }
    }

    /// The same for every frame in the stretches of `frames`, granted or not.
    pub fn write_protect_all(&self, frames: FrameRange) {
        for page in stretches(frames).filter_map(|start| self.leaves.of(start)) {
            page.take(WRITABLE | WITHHELD);
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

    /// Replaces one bit by another, if it is set. The entries above need no look: they are not
    /// merged over either bit.
    fn exchange(&self, frame: Frame, from: u64, to: u64) {
        let Some(entry) = self.small_leaf(frame) else {
            return;
        };
        let change = |bits| (bits & from != 0).then_some(bits & !from | to);
        let _ = entry.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
    }

    /// Makes stretches of another cell absent. What was granted there the caller takes back.
    pub fn cut_off(&self, frames: FrameRange) {
        for start in stretches(frames) {
            self.set_stretch(start, Access::Absent);
        }
        // What was changed before the entry above is looked at.
        fence(Ordering::SeqCst);
        for start in gibibytes(frames) {
            self.lead_to_directory(start);
        }
    }

    /// Opens a stretch of another cell that is absent, and has the table show what was granted of
    /// `frame`. Returns whether that changed anything for the frame.
    pub fn reopen(&self, frame: Frame) -> bool {
        let Some(directory) = self.directory_entry(frame) else {
            return false;
        };
        if !self.leaves.cover(frame) {
            return false;
        }
        let before = self.access(frame);
        let order = Ordering::SeqCst;
        let large = self.large(stretch_of(frame));
        let _ = directory.compare_exchange(0, large, order, order);
        if let Some(page) = self.leaves.of(frame) {
            self.fill(page, frame);
            let entry = page.entry(frame.index());
            // A table that was made afresh during a grant can have a hole.
            let small = self.small(stretch_of(frame), frame.0 % STRETCH_FRAMES);
            let _ = entry.compare_exchange(0, small, order, order);
            if self.rules.format.access(entry.load(order)) != self.access(frame) {
                self.lead_to(page, frame);
            }
        }
        self.access(frame) != before
    }

    /// Whether the cell wrote `frame` since it was last granted. Also after it was merged into a
    /// large page.
    pub fn is_written(&self, frame: Frame) -> bool {
        self.small_leaf(frame)
            .is_some_and(|entry| entry.load(Ordering::SeqCst) & self.rules.format.dirty() != 0)
    }

    /// What the table says of `frame` now (not what a processor may still hold).
    pub fn access(&self, frame: Frame) -> Access {
        let load = |entry: Option<&AtomicU64>| entry.map_or(0, |it| it.load(Ordering::SeqCst));
        let mut bits = load(self.upper_entry(frame));
        if is_branch(bits) {
            bits = load(self.directory_entry(frame));
        }
        if is_branch(bits) {
            let page = self.page_behind(bits);
            bits = load(page.map(|page| page.entry(frame.index())));
        }
        self.rules.format.access(bits)
    }

    /// Sees to it that a walk to `frame` comes by its 4 KiB entry, unless the stretch is cut off.
    fn lead_to(&self, page: &TablePage, frame: Frame) {
        // The change below before the look above: see `merge`.
        fence(Ordering::SeqCst);
        if let Some(directory) = self.directory_entry(frame) {
            lead(directory, self.way_to(page));
            self.lead_to_directory(frame);
        }
    }

    fn lead_to_directory(&self, frame: Frame) {
        if let (Some(entry), Some(page)) = (self.upper_entry(frame), self.directory(frame)) {
            // As in `lead_to`.
            fence(Ordering::SeqCst);
            lead(entry, self.way_to(page));
        }
    }

    /// Has `page`, which serves the stretch around `frame`, say what the stretch's large entry
    /// says. That is the same at all times, so it does not matter who does it, or when.
    fn fill(&self, page: &TablePage, frame: Frame) {
        page.fill(|position| self.small(stretch_of(frame), position));
    }

    /// The 4 KiB entry for a frame that was not granted, `position` frames into a stretch.
    pub(super) fn small(&self, stretch: Frame, position: u64) -> u64 {
        let leaf = self.rules.format.leaf(self.rules.ungranted);
        Frame(stretch.0 + position).start().0 | leaf
    }

    /// The entry for a stretch of which nothing was granted.
    pub(super) fn large(&self, stretch: Frame) -> u64 {
        let leaf = self.rules.format.leaf(self.rules.ungranted);
        stretch.start().0 | leaf | LARGE
    }

    /// The entry for the GiB around `frame`.
    pub(crate) fn upper_entry(&self, frame: Frame) -> Option<&'static AtomicU64> {
        let index = (frame.0 / GIB_FRAMES) as usize;
        (index < self.directories.len()).then(|| self.upper.entry(index))
    }

    /// The page of 2 MiB entries for the GiB around `frame`.
    pub(super) fn directory(&self, frame: Frame) -> Option<&'static TablePage> {
        self.directories.get((frame.0 / GIB_FRAMES) as usize)
    }

    /// The entry for the stretch around `frame`.
    pub(crate) fn directory_entry(&self, frame: Frame) -> Option<&'static AtomicU64> {
        let index = (frame.0 / STRETCH_FRAMES) as usize;
        Some(self.directory(frame)?.entry(index))
    }

    /// The 4 KiB entry of another cell's frame, if its stretch has a page.
    pub(crate) fn small_leaf(&self, frame: Frame) -> Option<&'static AtomicU64> {
        Some(self.leaves.of(frame)?.entry(frame.index()))
    }

    /// The page of 4 KiB entries that `branch` leads to.
    pub(crate) fn page_behind(&self, branch: u64) -> Option<&'static TablePage> {
        let first = self.lower.first()?.address().0;
        let offset = (branch & ADDRESS).checked_sub(first)?;
        self.lower.get(offset as usize / size_of::<TablePage>())
    }
}

/// Whether an entry leads to a lower level.
pub(super) const fn is_branch(entry: u64) -> bool {
    entry & PRESENT != 0 && entry & LARGE == 0
}

/// Makes an entry that is not absent be `way`, without a mark.
fn lead(entry: &AtomicU64, way: u64) {
    let change = |old| {
        let is_so = is_branch(old) && old & MERGING == 0;
        (old & PRESENT != 0 && !is_so).then_some(way)
    };
    let _ = entry.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
}
