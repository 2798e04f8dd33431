//! Writer sets and nested tables under every interleaving of two or three CPUs, explored by loom.
//!
//! A large page has two frames here, and a table one or two pages to split with. One of the CPUs is
//! often the processor's own walker, which marks an entry as accessed or written whenever it likes:
//! what it does is one atomic change of the entry that it finds, and here as well.
//!
//! # Not guaranteed
//! Where there are three CPUs, at most [`PREEMPTIONS`] times one is stopped that could go on.

use loom::sync::Arc;
use loom::thread;

use cell::{CELLS_MAX, CellId, CellSet, Frame, FrameRange};

use crate::atomic::{AtomicU64, Ordering};
use crate::format::{WRITABLE, X86};
use crate::grants::Grants;
use crate::model::{FirewallTable, Homes};
use crate::nested::{Access, Exhausted, NestedTable, TablePage, pages_needed};

const PREEMPTIONS: usize = 3;
const GIB: u64 = 1 << 30;
const ACCESSED: u64 = 1 << 5;
const FRAME: Frame = Frame(0);
/// In the same large page as [`FRAME`].
const NEIGHBOUR: Frame = Frame(1);
const STRETCH: FrameRange = FrameRange {
    start: Frame(0),
    end: Frame(2),
};

/// A table and the memory under it, which goes with it.
struct Table {
    nested: NestedTable,
    pages: *mut [TablePage],
}

// SAFETY: `pages` is only used to free the memory, by whoever has the `Table` alone.
unsafe impl Send for Table {}
// SAFETY: as above; the table itself is made of atomics.
unsafe impl Sync for Table {}

impl Table {
    /// A table in which [`STRETCH`] is one large page that may be read.
    fn new(splits: usize) -> Arc<Self> {
        let pages: Vec<_> = (0..pages_needed(GIB, splits))
            .map(|_| TablePage::new())
            .collect();
        let pages: &'static mut [TablePage] = Box::leak(pages.into_boxed_slice());
        let memory: *mut [TablePage] = pages;
        let nested = NestedTable::new(pages, GIB, &X86);
        nested.reset();
        nested
            .set_range(STRETCH, Access::Read)
            .expect("no split is needed");
        nested.open();
        Arc::new(Self {
            nested,
            pages: memory,
        })
    }

    /// As the processor does when it uses the entry for `frame`.
    fn walk(&self, frame: Frame, bits: u64) {
        let large = self.nested.directory_entry(frame).expect("in range");
        match self.nested.small_leaf(frame) {
            Some(small) => _ = small.fetch_or(bits, Ordering::SeqCst),
            // A walk that found a large page marks it only if it is still there.
            None => {
                let found = large.load(Ordering::SeqCst);
                if found & LARGE_PRESENT == LARGE_PRESENT {
                    let marked = found | bits;
                    let order = Ordering::SeqCst;
                    let _ = large.compare_exchange(found, marked, order, order);
                }
            }
        }
    }
}

const LARGE_PRESENT: u64 = 1 << 7 | 1;

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: `new` leaked it from a box; every thread that could use the table has ended, and
        // `nested` is not used again.
        drop(unsafe { Box::from_raw(self.pages) });
    }
}

/// Explores `others` beside `first` on one table each, then runs `check`.
fn explore<T: Send + 'static>(
    splits: usize,
    prepare: fn(&Table),
    programs: &'static [fn(&Table) -> T],
    check: impl Fn(&Table, &[T]) + Send + Sync + 'static,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = (programs.len() > 2).then_some(PREEMPTIONS);
    model.check(move || {
        let table = Table::new(splits);
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
    table.nested.set(frame, Access::Write)
}

#[test]
fn two_splits_of_one_large_page_lose_no_grant() {
    explore(
        2,
        |_| (),
        &[|table| grant(table, FRAME), |table| grant(table, NEIGHBOUR)],
        |table, outcomes| {
            assert_eq!(outcomes, [Ok(()), Ok(())]);
            assert_eq!(table.nested.access(FRAME), Access::Write);
            assert_eq!(table.nested.access(NEIGHBOUR), Access::Write);
        },
    );
}

#[test]
fn a_split_never_shows_a_neighbour_anything_else() {
    let look = |table: &Table| {
        for _ in 0..2 {
            assert_eq!(table.nested.access(NEIGHBOUR), Access::Read);
        }
        Ok(())
    };
    let look: fn(&Table) -> Changed = look;
    let programs: &'static [fn(&Table) -> Changed] =
        Vec::leak(vec![|table: &Table| grant(table, FRAME), look]);
    explore(1, |_| (), programs, |_, _| ());
}

#[test]
fn a_grant_is_not_lost_when_the_processor_marks_the_large_page() {
    explore(
        1,
        |_| (),
        &[
            |table| grant(table, FRAME),
            |table| {
                table.walk(NEIGHBOUR, ACCESSED);
                Ok(())
            },
        ],
        |table, outcomes| {
            assert_eq!(outcomes[0], Ok(()));
            assert_eq!(table.nested.access(FRAME), Access::Write);
            assert_eq!(table.nested.access(NEIGHBOUR), Access::Read);
        },
    );
}

#[test]
fn a_large_page_is_changed_as_one_although_the_processor_marks_it() {
    explore(
        1,
        // Takes the only page.
        |table| grant(table, Frame(2)).expect("one split"),
        &[
            |table| table.nested.set_range(STRETCH, Access::Absent),
            |table| {
                table.walk(FRAME, ACCESSED);
                Ok(())
            },
        ],
        |table, outcomes| {
            assert_eq!(outcomes[0], Ok(()), "no page is needed");
            assert_eq!(table.nested.access(FRAME), Access::Absent);
            assert_eq!(table.nested.access(NEIGHBOUR), Access::Absent);
        },
    );
}

#[test]
fn what_is_cut_off_during_a_grant_is_cut_off() {
    explore(
        2,
        |_| (),
        &[
            |table| table.nested.set_range(STRETCH, Access::Absent),
            |table| grant(table, FRAME),
        ],
        |table, outcomes| {
            assert_eq!(outcomes, [Ok(()), Ok(())]);
            assert_eq!(table.nested.access(NEIGHBOUR), Access::Absent);
            let granted = table.nested.access(FRAME);
            assert!(matches!(granted, Access::Absent | Access::Write));
        },
    );
}

#[test]
fn a_revoke_keeps_the_record_of_a_last_store() {
    explore(
        1,
        |table| grant(table, FRAME).expect("one split"),
        &[
            |table| {
                table.nested.write_protect(FRAME);
                false
            },
            |table| {
                // A store: the processor marks the entry only while it may be written.
                let entry = table.nested.small_leaf(FRAME).expect("split");
                let mark = |bits| (bits & WRITABLE != 0).then_some(bits | X86::DIRTY);
                let order = Ordering::SeqCst;
                entry.fetch_update(order, order, mark).is_ok()
            },
        ],
        |table, outcomes| {
            assert_eq!(table.nested.access(FRAME), Access::Read);
            assert_eq!(table.nested.is_written(FRAME), outcomes[1]);
        },
    );
}

#[test]
fn what_another_cpu_does_to_a_neighbour_disturbs_nothing() {
    explore(
        1,
        |table| grant(table, FRAME).expect("one split"),
        &[
            |table| grant(table, NEIGHBOUR),
            |table| {
                table.nested.write_protect(FRAME);
                Ok(())
            },
            |table| {
                table.walk(FRAME, X86::DIRTY);
                Ok(())
            },
        ],
        |table, _| {
            assert_eq!(table.nested.access(FRAME), Access::Read);
            assert_eq!(table.nested.access(NEIGHBOUR), Access::Write);
            assert!(table.nested.is_written(FRAME));
            assert!(!table.nested.is_written(NEIGHBOUR));
        },
    );
}

#[test]
fn a_table_that_is_closed_during_a_grant_stays_closed_and_tells_what_was_written() {
    explore(
        1,
        |table| {
            grant(table, FRAME).expect("one split");
            table.walk(FRAME, X86::DIRTY);
        },
        &[
            |table| {
                table.nested.close();
                assert!(table.nested.is_written(FRAME));
                Ok(())
            },
            |table| grant(table, NEIGHBOUR),
        ],
        |table, outcomes| {
            assert_eq!(outcomes[1], Ok(()));
            assert!(!table.nested.is_open());
            assert!(table.nested.is_written(FRAME));
        },
    );
}

fn cell(number: usize) -> CellId {
    CellId::new(number).expect("a small number")
}

/// Explores two programs on the writer sets of two frames of cell 0, both granted to cell 1.
fn explore_sets(
    programs: [fn(&FirewallTable<'_>); 2],
    check: impl Fn([CellSet; 2]) + Send + Sync + 'static,
) {
    loom::model(move || {
        let mut regions = [FrameRange::default(); CELLS_MAX];
        regions[0] = STRETCH;
        let homes = Arc::new(Homes::new(regions));
        let words = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let table = FirewallTable::new(&words[..], &homes);
        table.grant(STRETCH, cell(1));
        let other = thread::spawn({
            let (words, homes) = (Arc::clone(&words), Arc::clone(&homes));
            move || programs[1](&FirewallTable::new(&words[..], &homes))
        });
        programs[0](&table);
        other.join().expect("no panic");
        check([table.writers(FRAME), table.writers(NEIGHBOUR)]);
    });
}

#[test]
fn grants_and_revokes_of_different_cells_are_both_kept() {
    explore_sets(
        [
            |table| table.grant(STRETCH, cell(2)),
            |table| table.revoke(STRETCH, cell(1)),
        ],
        |sets| assert_eq!(sets, [CellSet::only(cell(2)); 2]),
    );
    explore_sets(
        [
            |table| table.grant(STRETCH, cell(2)),
            |table| table.grant(STRETCH, cell(3)),
        ],
        |sets| {
            let all = CellSet::only(cell(1)).with(cell(2)).with(cell(3));
            assert_eq!(sets, [all; 2]);
        },
    );
}

#[test]
fn a_grant_and_a_revoke_of_one_cell_leave_one_of_the_two() {
    explore_sets(
        [
            |table| table.grant(STRETCH, cell(2)),
            |table| table.revoke(STRETCH, cell(2)),
        ],
        |sets| {
            let one = CellSet::only(cell(1));
            assert!(
                sets.iter()
                    .all(|&set| set == one || set == one.with(cell(2)))
            );
        },
    );
}

#[test]
fn a_home_that_is_cut_off_twice_has_granted_nothing() {
    explore_sets(
        [
            |table| table.forget_grants_of(cell(0)),
            |table| {
                table.forget_grants_of(cell(0));
                assert_eq!(table.granted(cell(0), cell(1)).count(), 0);
            },
        ],
        |sets| assert_eq!(sets, [CellSet::EMPTY; 2]),
    );
}

/// What cell 0 grants to cell 1, and the words under it.
struct Pair {
    table: Arc<Table>,
    words: [AtomicU64; 2],
    quarantined_by: AtomicU64,
    homes: Homes,
}

impl Pair {
    fn grants(&self) -> Grants<'_> {
        Grants {
            table: FirewallTable::new(&self.words, &self.homes),
            nested: Some(&self.table.nested),
            quarantined_by: &self.quarantined_by,
            home: cell(0),
            writer: cell(1),
        }
    }
}

type Step = fn(&Grants<'_>);

/// Explores programs of the CPUs of cell 0, after `prepare`.
fn explore_grants(
    prepare: Step,
    programs: &'static [Step],
    check: impl Fn(&Grants<'_>) + Send + Sync + 'static,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(move || {
        let mut regions = [FrameRange::default(); CELLS_MAX];
        regions[0] = ONE;
        let pair = Arc::new(Pair {
            table: Table::new(1),
            words: [AtomicU64::new(0), AtomicU64::new(0)],
            quarantined_by: AtomicU64::new(0),
            homes: Homes::new(regions),
        });
        prepare(&pair.grants());
        let others: Vec<_> = programs[1..]
            .iter()
            .map(|program| {
                let pair = Arc::clone(&pair);
                thread::spawn(move || program(&pair.grants()))
            })
            .collect();
        programs[0](&pair.grants());
        for other in others {
            other.join().expect("no panic");
        }
        check(&pair.grants());
    });
}

const ONE: FrameRange = FrameRange {
    start: FRAME,
    end: NEIGHBOUR,
};

fn open(grants: &Grants<'_>) {
    grants.grant(ONE).expect("the pool is large enough");
}

/// The writer set says so, and the nested table agrees.
fn assert_state(grants: &Grants<'_>, is_granted: bool, is_open: bool) {
    let expected = if is_open { Access::Write } else { Access::Read };
    assert_eq!(
        grants.nested.map(|nested| nested.access(FRAME)),
        Some(expected)
    );
    assert_eq!(grants.table.writers(FRAME).contains(cell(1)), is_granted);
}

#[test]
fn a_grant_beside_the_begin_of_a_quarantine_is_closed() {
    explore_grants(
        |_| (),
        &[open, |grants| grants.quarantine()],
        |grants| {
            assert_state(grants, true, false);
            grants.unquarantine();
            assert_state(grants, true, true);
        },
    );
}

#[test]
fn a_grant_beside_the_end_of_a_quarantine_is_open() {
    explore_grants(
        |grants| grants.quarantine(),
        &[open, |grants| grants.unquarantine()],
        |grants| assert_state(grants, true, true),
    );
}

#[test]
fn a_grant_beside_the_end_and_the_begin_of_quarantines_is_closed() {
    explore_grants(
        |grants| grants.quarantine(),
        &[open, |grants| {
            grants.unquarantine();
            grants.quarantine();
        }],
        |grants| assert_state(grants, true, false),
    );
}

#[test]
fn a_revoke_beside_a_quarantine_is_final() {
    for end in [
        |_: &Grants<'_>| (),
        |grants: &Grants<'_>| grants.unquarantine(),
    ] {
        explore_grants(
            open,
            &[|grants| grants.revoke(ONE), |grants| grants.quarantine()],
            move |grants| {
                end(grants);
                assert_state(grants, false, false);
            },
        );
    }
    explore_grants(
        |grants| {
            open(grants);
            grants.quarantine();
        },
        &[|grants| grants.revoke(ONE), |grants| grants.unquarantine()],
        |grants| assert_state(grants, false, false),
    );
}

#[test]
fn two_cpus_that_quarantine_and_one_that_ends_it_agree() {
    explore_grants(
        open,
        &[
            |grants| grants.quarantine(),
            |grants| grants.quarantine(),
            |grants| grants.unquarantine(),
        ],
        |grants| assert_state(grants, true, !grants.is_quarantined()),
    );
}
