//! Tables in both formats, changed by one CPU; by several: `crate::interleavings`.

use std::collections::{HashMap, HashSet};

use cell::{Frame, FrameRange};
use proptest::prelude::*;

use super::page::{GIB_FRAMES, STRETCH_FRAMES};
use super::table::is_branch;
use super::{Access, Exhausted, LargestPage, NestedTable, Rules, Size, TablePage};
use crate::atomic::{AtomicU64, Ordering};
use crate::format::{ADDRESS, Ept, Format, LARGE, X86};

const FORMATS: [&dyn Format; 2] = [&X86, &Ept];
/// The other cells' memory: a part of the first GiB, and all of the second.
const NEAR: FrameRange = range(2 * STRETCH_FRAMES, 6 * STRETCH_FRAMES);
const WHOLE: FrameRange = range(GIB_FRAMES, 2 * GIB_FRAMES);
/// The cell's own.
const OWN: FrameRange = range(6 * STRETCH_FRAMES, 10 * STRETCH_FRAMES);

const fn range(start: u64, end: u64) -> FrameRange {
    FrameRange {
        start: Frame(start),
        end: Frame(end),
    }
}

fn rules(format: &'static dyn Format) -> Rules {
    Rules {
        format,
        largest: LargestPage::Gibibyte,
        ungranted: Access::Read,
    }
}

/// A closed table of 2 GiB with `stretches_each` pages for each of the two other cells.
fn made(rules: Rules, stretches_each: usize, edges: usize) -> NestedTable {
    let size = Size {
        end: Frame(2 * GIB_FRAMES),
        homes: 2,
        stretches_each,
        edges,
    };
    let pages: Vec<_> = (0..size.pages()).map(|_| TablePage::new()).collect();
    let owners: Vec<_> = (0..size.leaves()).map(|_| AtomicU64::new(0)).collect();
    let mut table = NestedTable::new(size, Vec::leak(pages), Vec::leak(owners), rules);
    table.divide([NEAR, WHOLE].into_iter());
    table
}

/// Lays out a life.
fn begin(table: &NestedTable) {
    table.reset();
    for (frames, access) in [
        (NEAR, Access::Read),
        (WHOLE, Access::Read),
        (OWN, Access::Own),
    ] {
        table.set_range(frames, access).expect("whole stretches");
    }
    table.merge(table.frames());
    table.open();
}

fn table_in(format: &'static dyn Format) -> NestedTable {
    let table = made(rules(format), 8, 0);
    begin(&table);
    table
}

/// As the processor does when the cell stores to `frame`, if it may.
fn store(table: &NestedTable, frame: Frame) -> bool {
    let may = table.access(frame) == Access::Write;
    if may {
        let dirty = table.rules.format.dirty();
        let entry = table.small_leaf(frame).expect("no grant by a large page");
        entry.fetch_or(dirty, Ordering::SeqCst);
    }
    may
}

fn is_split(table: &NestedTable, frame: Frame) -> bool {
    let entry = table.directory_entry(frame).expect("in range");
    is_branch(entry.load(Ordering::SeqCst))
}

fn is_whole_gibibyte(table: &NestedTable, frame: Frame) -> bool {
    let entry = table.upper_entry(frame).expect("in range");
    !is_branch(entry.load(Ordering::SeqCst))
}

#[test]
fn a_grant_splits_what_it_must_and_leaves_the_neighbours() {
    for format in FORMATS {
        let table = table_in(format);
        let frame = Frame(WHOLE.start.0 + 700);
        assert!(is_whole_gibibyte(&table, frame));
        table.grant(frame).expect("a page is free");
        assert!(!is_whole_gibibyte(&table, frame) && is_split(&table, frame));
        assert_eq!(table.access(frame), Access::Write);
        for neighbour in [699, 701, 1500, 0] {
            let neighbour = Frame(WHOLE.start.0 + neighbour);
            assert_eq!(table.access(neighbour), Access::Read);
        }
        assert!(!is_split(&table, Frame(WHOLE.start.0 + 1500)));
    }
}

#[test]
fn an_entry_of_a_gibibyte_says_what_its_stretches_say() {
    for format in FORMATS {
        let table = table_in(format);
        let upper = table.upper_entry(WHOLE.start).expect("in range");
        let expected = WHOLE.start.start().0 | format.leaf(Access::Read) | LARGE;
        assert_eq!(upper.load(Ordering::SeqCst), expected);
        assert!(
            !is_whole_gibibyte(&table, NEAR.start),
            "three things are there"
        );
    }
}

#[test]
fn a_processor_without_pages_of_a_gibibyte_gets_none() {
    let rules = Rules {
        largest: LargestPage::Stretch,
        ..rules(&X86)
    };
    let table = made(rules, 8, 0);
    begin(&table);
    assert!(!is_whole_gibibyte(&table, WHOLE.start));
    assert_eq!(table.access(WHOLE.start), Access::Read);
}

#[test]
fn what_nothing_is_granted_of_any_more_is_merged_up_to_the_gibibyte() {
    for format in FORMATS {
        let table = table_in(format);
        let [first, second] = [5, 5 + STRETCH_FRAMES].map(|it| Frame(WHOLE.start.0 + it));
        for frame in [first, second] {
            table.grant(frame).expect("a page is free");
            assert!(store(&table, frame));
        }
        table.write_protect(first);
        table.merge(WHOLE);
        assert!(!is_split(&table, first), "nothing is granted there");
        assert!(is_split(&table, second) && !is_whole_gibibyte(&table, second));
        table.write_protect(second);
        table.merge(WHOLE);
        assert!(is_whole_gibibyte(&table, first));
        assert!(table.is_written(first) && table.is_written(second));
        table.grant(first).expect("it has its page");
        assert!(!table.is_written(first) && table.is_written(second));
        assert_eq!(table.access(first), Access::Write);
    }
}

#[test]
fn a_withheld_right_keeps_its_stretch_split() {
    let table = table_in(&Ept);
    table.grant(NEAR.start).expect("a page is free");
    table.withhold(NEAR.start);
    table.merge(NEAR);
    assert!(is_split(&table, NEAR.start));
    table.give_back(NEAR.start);
    assert_eq!(table.access(NEAR.start), Access::Write);
}

#[test]
fn a_share_that_is_used_up_is_nobody_elses_matter() {
    let table = made(rules(&X86), 1, 0);
    let other_stretch = Frame(NEAR.start.0 + STRETCH_FRAMES);
    for _life in 0..2 {
        begin(&table);
        table.grant(NEAR.start).expect("the first stretch");
        assert_eq!(table.grant(other_stretch), Err(Exhausted));
        assert_eq!(table.access(other_stretch), Access::Read);
        let next = Frame(NEAR.start.0 + 1);
        assert_eq!(table.grant(next), Ok(()), "the page still serves");
        assert_eq!(table.grant(WHOLE.start), Ok(()));
    }
    assert_eq!(table.grant(OWN.start), Err(Exhausted), "nobody grants that");
}

#[test]
fn stretches_that_want_the_same_page_get_one_each() {
    let table = made(rules(&X86), 2, 0);
    begin(&table);
    let wanted = [1, 3, 0].map(|it| Frame(NEAR.start.0 + it * STRETCH_FRAMES));
    assert_eq!(table.grant(wanted[0]), Ok(()));
    assert_eq!(table.grant(wanted[1]), Ok(()), "the other page");
    assert_eq!(table.grant(wanted[2]), Err(Exhausted));
    table.write_protect(wanted[0]);
    assert_eq!(table.access(wanted[0]), Access::Read);
    assert_eq!(table.access(wanted[1]), Access::Write);
}

#[test]
fn a_new_life_finds_nothing_of_the_one_before() {
    let table = table_in(&Ept);
    table.grant(NEAR.start).expect("a page is free");
    assert!(store(&table, NEAR.start));
    begin(&table);
    assert!(!is_split(&table, NEAR.start));
    assert!(!table.is_written(NEAR.start));
    let next = Frame(NEAR.start.0 + 1);
    table.grant(next).expect("a page is free");
    assert_eq!(table.access(NEAR.start), Access::Read);
}

#[test]
fn a_reset_that_stopped_in_the_middle_leaves_nothing_to_the_next_life() {
    let table = table_in(&X86);
    let frame = Frame(NEAR.start.0 + 5);
    table.grant(frame).expect("a page is free");
    // As a CPU leaves the page that stops for good while it clears it.
    for position in 0..3 {
        let entry = table.small_leaf(Frame(NEAR.start.0 + position));
        entry.expect("bound").store(0, Ordering::SeqCst);
    }
    begin(&table);
    table.grant(NEAR.start).expect("it has its page");
    assert_eq!(table.access(frame), Access::Read);
    assert_eq!(table.access(NEAR.start), Access::Write);
}

#[test]
fn a_home_that_begins_anew_takes_back_what_no_set_says() {
    let table = table_in(&Ept);
    let [open, withheld, others] = [NEAR.start, Frame(NEAR.end.0 - 1), WHOLE.start];
    for frame in [open, withheld, others] {
        table.grant(frame).expect("a page is free");
    }
    table.withhold(withheld);
    assert!(store(&table, open));
    table.write_protect_all(NEAR);
    table.give_back(withheld);
    assert_eq!(table.access(open), Access::Read);
    assert_eq!(table.access(withheld), Access::Read);
    assert_eq!(table.access(others), Access::Write, "another home's");
    assert!(table.is_written(open));
    table.merge(NEAR);
    assert!(!is_split(&table, open) && !is_split(&table, withheld));
}

#[test]
fn write_protection_keeps_the_dirty_bit_and_a_new_grant_clears_it() {
    for format in FORMATS {
        let table = table_in(format);
        table.grant(NEAR.start).expect("a page is free");
        assert!(store(&table, NEAR.start));
        table.write_protect(NEAR.start);
        assert_eq!(table.access(NEAR.start), Access::Read);
        assert!(table.is_written(NEAR.start));
        table.grant(NEAR.start).expect("it has its page");
        assert!(!table.is_written(NEAR.start));
    }
}

#[test]
fn what_is_taken_for_good_is_not_given_back() {
    let table = table_in(&X86);
    let frame = NEAR.start;
    table.grant(frame).expect("a page is free");
    table.withhold(frame);
    assert_eq!(table.access(frame), Access::Read);
    table.give_back(frame);
    assert_eq!(table.access(frame), Access::Write);
    table.withhold(frame);
    table.write_protect(frame);
    table.give_back(frame);
    assert_eq!(table.access(frame), Access::Read);
    let never = Frame(frame.0 + 1);
    table.withhold(never);
    table.give_back(never);
    assert_eq!(table.access(never), Access::Read);
}

#[test]
fn a_closed_table_still_tells_what_was_written() {
    let table = table_in(&X86);
    table.grant(NEAR.start).expect("a page is free");
    assert!(store(&table, NEAR.start));
    table.close();
    assert!(!table.is_open());
    assert!(table.is_written(NEAR.start));
}

#[test]
fn what_is_cut_off_is_absent_until_it_is_opened_again() {
    let table = table_in(&X86);
    let part = FrameRange {
        start: WHOLE.start,
        end: Frame(WHOLE.start.0 + 2 * STRETCH_FRAMES),
    };
    table.cut_off(part);
    let frame = Frame(part.start.0 + 3);
    table.grant(frame).expect("a page is free");
    assert_eq!(table.access(frame), Access::Absent);
    assert_eq!(table.access(part.end), Access::Read);
    assert!(table.reopen(Frame(frame.0 + 1)));
    assert_eq!(table.access(Frame(frame.0 + 1)), Access::Read);
    assert!(table.reopen(frame), "the grant was not seen yet");
    assert_eq!(table.access(frame), Access::Write);
    assert!(!table.reopen(frame), "nothing is missing");
    let far = Frame(part.start.0 + STRETCH_FRAMES);
    assert_eq!(table.access(far), Access::Absent);
    assert!(!table.reopen(OWN.start) && !table.reopen(Frame(2 * GIB_FRAMES)));
}

#[test]
fn the_edges_of_what_a_cell_is_shown_are_shown_to_the_frame() {
    for format in FORMATS {
        let table = made(rules(format), 0, 2);
        let [start, end] = [20 * STRETCH_FRAMES + 7, 22 * STRETCH_FRAMES + 9];
        table.reset();
        table
            .set_range(range(start, end), Access::Read)
            .expect("two edges");
        for (frame, access) in [
            (start - 1, Access::Absent),
            (start, Access::Read),
            (21 * STRETCH_FRAMES, Access::Read),
            (end - 1, Access::Read),
            (end, Access::Absent),
        ] {
            assert_eq!(table.access(Frame(frame)), access, "{format:?} {frame}");
        }
        let entry = table.directory_entry(Frame(start)).expect("in range");
        let page = table
            .page_behind(entry.load(Ordering::SeqCst))
            .expect("split");
        let bits = page.entry(Frame(start).index()).load(Ordering::SeqCst);
        assert_eq!(bits, Frame(start).start().0 | format.leaf(Access::Read));
        let third = table.set_range(range(0, 1), Access::Read);
        assert_eq!(third, Err(Exhausted));
    }
}

#[test]
fn the_registers_of_a_device_are_loaded_past_the_caches() {
    for format in FORMATS {
        let table = made(rules(format), 0, 1);
        table.reset();
        table
            .set_range(range(0, STRETCH_FRAMES), Access::Own)
            .expect("a stretch");
        table.show_device(Frame(9)).expect("one edge");
        assert_eq!(table.access(Frame(9)), Access::Read);
        assert_eq!(table.access(Frame(8)), Access::Own);
        let entry = table.directory_entry(Frame(9)).expect("in range");
        let page = table
            .page_behind(entry.load(Ordering::SeqCst))
            .expect("split");
        let bits = page.entry(9).load(Ordering::SeqCst);
        assert_eq!(bits & !ADDRESS, format.device());
        assert_ne!(format.device(), format.leaf(Access::Read));
    }
}

#[test]
fn frames_beyond_the_range_are_absent() {
    let table = table_in(&X86);
    let beyond = 2 * GIB_FRAMES;
    assert_eq!(table.access(Frame(beyond)), Access::Absent);
    let frames = range(beyond, beyond + 1);
    assert_eq!(table.set_range(frames, Access::Own), Ok(()));
    assert_eq!(table.access(Frame(beyond)), Access::Absent);
}

/// Where the stretches begin that the steps are about.
const STARTS: [u64; 3] = [NEAR.start.0, NEAR.start.0 + STRETCH_FRAMES, WHOLE.start.0];

/// What is done to a table.
#[derive(Clone, Copy, Debug)]
enum Step {
    Grant(Frame),
    Protect(Frame),
    Withhold(Frame),
    GiveBack(Frame),
    Store(Frame),
    Reopen(Frame),
    CutOff(Frame),
    Merge,
}

/// Frames of few stretches, so that the steps meet.
fn any_frame() -> impl Strategy<Value = Frame> {
    (prop::sample::select(&STARTS[..]), 0u64..3).prop_map(|(start, offset)| Frame(start + offset))
}

fn any_step() -> impl Strategy<Value = Step> {
    any_frame().prop_flat_map(|frame| {
        prop::sample::select(vec![
            Step::Grant(frame),
            Step::Protect(frame),
            Step::Withhold(frame),
            Step::GiveBack(frame),
            Step::Store(frame),
            Step::Reopen(frame),
            Step::CutOff(frame),
            Step::Merge,
        ])
    })
}

/// What a table has to say, in the simplest words.
#[derive(Default)]
struct Expected {
    rights: HashMap<Frame, Access>,
    withheld: HashSet<Frame>,
    written: HashSet<Frame>,
    absent: HashSet<u64>,
    /// Stretches that were absent: what is granted there may be seen only when it is missed.
    were_absent: HashSet<u64>,
}

impl Expected {
    fn right(&self, frame: Frame) -> Access {
        self.rights.get(&frame).copied().unwrap_or(Access::Read)
    }

    fn apply(&mut self, step: Step, table: &NestedTable) {
        match step {
            Step::Grant(frame) => {
                table.grant(frame).expect("a page is free");
                self.rights.insert(frame, Access::Write);
                self.withheld.remove(&frame);
                self.written.remove(&frame);
            }
            Step::Protect(frame) => {
                table.write_protect(frame);
                self.rights.remove(&frame);
                self.withheld.remove(&frame);
            }
            Step::Withhold(frame) => {
                table.withhold(frame);
                if self.rights.remove(&frame).is_some() {
                    self.withheld.insert(frame);
                }
            }
            Step::GiveBack(frame) => {
                table.give_back(frame);
                if self.withheld.remove(&frame) {
                    self.rights.insert(frame, Access::Write);
                }
            }
            Step::Store(frame) => {
                if store(table, frame) {
                    self.written.insert(frame);
                }
            }
            Step::Reopen(frame) => {
                table.reopen(frame);
                self.absent.remove(&(frame.0 / STRETCH_FRAMES));
                assert_eq!(table.access(frame), self.right(frame), "{frame:?}");
            }
            Step::CutOff(frame) => {
                let stretch = frame.0 / STRETCH_FRAMES;
                table.cut_off(FrameRange::single(frame));
                self.absent.insert(stretch);
                self.were_absent.insert(stretch);
            }
            Step::Merge => table.merge(table.frames()),
        }
    }

    fn assert(&self, table: &NestedTable, frame: Frame) {
        let stretch = frame.0 / STRETCH_FRAMES;
        let (found, right) = (table.access(frame), self.right(frame));
        assert_eq!(table.is_written(frame), self.written.contains(&frame));
        if self.absent.contains(&stretch) {
            assert_eq!(found, Access::Absent, "{frame:?}");
        } else if self.were_absent.contains(&stretch) && right == Access::Write {
            assert!(matches!(found, Access::Read | Access::Write), "{frame:?}");
        } else {
            assert_eq!(found, right, "{frame:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_table_says_what_was_done_to_it_and_merges_change_nothing(
        format in prop::sample::select(&FORMATS[..]),
        steps in prop::collection::vec(any_step(), 1..40)
    ) {
        let table = table_in(format);
        let mut expected = Expected::default();
        let watched = STARTS.into_iter().flat_map(|start| (start..start + 4).map(Frame));
        let watched: Vec<_> = watched.collect();
        for step in steps {
            expected.apply(step, &table);
            for &frame in &watched {
                expected.assert(&table, frame);
            }
        }
        // Without grants, everything that is not absent is large again.
        for &frame in &watched {
            expected.apply(Step::Protect(frame), &table);
            expected.apply(Step::Reopen(frame), &table);
        }
        expected.apply(Step::Merge, &table);
        prop_assert!(watched.iter().all(|&frame| !is_split(&table, frame)));
        prop_assert!(is_whole_gibibyte(&table, WHOLE.start));
    }
}
