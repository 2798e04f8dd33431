//! Writer sets and nested tables under every interleaving of two or three CPUs, explored by loom.
//!
//! A stretch has two frames here, a GiB two stretches, and a table one GiB, which is one cell's.
//! One of the CPUs is often the processor's own walker, which marks an entry as accessed or written
//! whenever it likes: what it does is one atomic change of the entry that it finds, and here as
//! well.
//!
//! # Not guaranteed
//! Where there are three CPUs, at most [`PREEMPTIONS`] times one is stopped that could go on.

mod merges;
mod sets;
mod tables;

use loom::sync::Arc;
use loom::thread;

use cell::{Frame, FrameRange};

use crate::atomic::{AtomicU64, Ordering};
use crate::format::{LARGE, PRESENT, WRITABLE, X86};
use crate::nested::{Access, Exhausted, LargestPage, NestedTable, Rules, Size, TablePage};

const PREEMPTIONS: usize = 3;
const FRAME: Frame = Frame(0);
/// In the same stretch as [`FRAME`].
const NEIGHBOUR: Frame = Frame(1);
/// In the same GiB, in another stretch.
const FAR: Frame = Frame(2);
const STRETCH: FrameRange = FrameRange {
    start: Frame(0),
    end: Frame(2),
};
const ALL: FrameRange = FrameRange {
    start: Frame(0),
    end: Frame(4),
};
const ORDER: Ordering = Ordering::SeqCst;

/// A table and the memory under it, which goes with it.
struct Table {
    nested: NestedTable,
    pages: *mut [TablePage],
    owners: *mut [AtomicU64],
}

// SAFETY: `pages` and `owners` are only used to free the memory, by whoever has the `Table` alone.
unsafe impl Send for Table {}
// SAFETY: as above; the table itself is made of atomics.
unsafe impl Sync for Table {}

impl Table {
    /// A table in which [`ALL`] is another cell's, and one large page that may be read.
    fn new() -> Arc<Self> {
        let size = Size {
            end: ALL.end,
            homes: 1,
            stretches_each: 2,
            edges: 0,
        };
        let pages: Vec<_> = (0..size.pages()).map(|_| TablePage::new()).collect();
        let pages: &'static mut [TablePage] = Box::leak(pages.into_boxed_slice());
        let owners: Vec<_> = (0..size.leaves()).map(|_| AtomicU64::new(0)).collect();
        let owners: &'static mut [AtomicU64] = Box::leak(owners.into_boxed_slice());
        let memory: (*mut [TablePage], *mut [AtomicU64]) = (pages, owners);
        let rules = Rules {
            format: &X86,
            largest: LargestPage::Gibibyte,
            ungranted: Access::Read,
        };
        let mut nested = NestedTable::new(size, pages, owners, rules);
        nested.divide([ALL].into_iter());
        begin(&nested);
        Arc::new(Self {
            nested,
            pages: memory.0,
            owners: memory.1,
        })
    }

    /// As the processor does when it uses the entry for `frame`, to store if `right` says so: it
    /// goes down the levels, and marks the leaf if that gives the right when it is marked. Whether
    /// it did.
    fn walk(&self, frame: Frame, right: u64, marks: u64) -> bool {
        let upper = self.nested.upper_entry(frame).expect("in range");
        let directory = self.nested.directory_entry(frame).expect("in range");
        for entry in [upper, directory] {
            let found = entry.load(ORDER);
            if found & PRESENT == 0 {
                return false;
            }
            if found & LARGE != 0 {
                let marked = found | marks;
                let is_allowed = found & right == right;
                return is_allowed && entry.compare_exchange(found, marked, ORDER, ORDER).is_ok();
            }
            if let Some(page) = self.nested.page_behind(found) {
                let mark = |bits| (bits & right == right).then_some(bits | marks);
                let leaf = page.entry(frame.index());
                return leaf.fetch_update(ORDER, ORDER, mark).is_ok();
            }
        }
        unreachable!("every directory entry that leads on leads to a page")
    }

    fn load(&self, frame: Frame) -> bool {
        self.walk(frame, PRESENT, X86::ACCESSED)
    }

    fn store(&self, frame: Frame) -> bool {
        self.walk(frame, WRITABLE, X86::ACCESSED | X86::DIRTY)
    }

    fn is_merged(&self) -> bool {
        let entry = self.nested.upper_entry(FRAME).expect("in range");
        entry.load(ORDER) & LARGE != 0
    }
}

/// Lays out a life.
fn begin(nested: &NestedTable) {
    nested.reset();
    let laid = nested.set_range(ALL, Access::Read);
    laid.expect("whole stretches need no page");
    nested.merge(ALL);
    nested.open();
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: `new` leaked it from a box; every thread that could use the table has ended, and
        // `nested` is not used again.
        drop(unsafe { Box::from_raw(self.pages) });
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(self.owners) });
    }
}

/// Explores `programs` beside each other on one table each, after `prepare`, then runs `check`.
fn explore<T: Send + 'static>(
    prepare: fn(&Table),
    programs: &'static [fn(&Table) -> T],
    check: impl Fn(&Table, &[T]) + Send + Sync + 'static,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = (programs.len() > 2).then_some(PREEMPTIONS);
    model.check(move || {
        let table = Table::new();
        prepare(&table);
        let others: Vec<_> = programs[1..]
            .iter()
            .map(|program| {
                let table = Arc::clone(&table);
                thread::spawn(move || program(&table))
            })
            .collect();
        let mut outcomes = vec![programs[0](&table)];
        outcomes.extend(
            others
                .into_iter()
                .map(|other| other.join().expect("no panic")),
        );
        check(&table, &outcomes);
    });
}

type Changed = Result<(), Exhausted>;

fn grant(table: &Table, frame: Frame) -> Changed {
    table.nested.grant(frame)
}

/// Splits the table down to [`FRAME`], and leaves nothing granted.
fn split(table: &Table) {
    grant(table, FRAME).expect("a page for each stretch");
    table.nested.write_protect(FRAME);
}

fn granted(table: &Table) {
    grant(table, FRAME).expect("a page for each stretch");
}
