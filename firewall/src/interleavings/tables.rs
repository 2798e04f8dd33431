//! Grants, and what takes them back, in one table.

use super::{ALL, Changed, FAR, FRAME, NEIGHBOUR, STRETCH, Table, begin, explore, grant, granted};
use crate::nested::Access;

#[test]
fn two_splits_of_one_large_page_lose_no_grant() {
    for second in [
        |table: &Table| grant(table, NEIGHBOUR),
        |table: &Table| grant(table, FAR),
    ] {
        let first = |table: &Table| grant(table, FRAME);
        let programs = Vec::leak(vec![first as fn(&Table) -> Changed, second]);
        explore(
            |_| (),
            programs,
            |table, outcomes| {
                assert_eq!(outcomes, [Ok(()), Ok(())]);
                let others = [NEIGHBOUR, FAR].map(|frame| table.nested.access(frame));
                assert_eq!(table.nested.access(FRAME), Access::Write);
                assert!(others.contains(&Access::Write) && others.contains(&Access::Read));
            },
        );
    }
}

#[test]
fn a_split_never_shows_a_neighbour_anything_else() {
    explore(
        |_| (),
        &[
            |table| grant(table, FRAME),
            |table| {
                for frame in [NEIGHBOUR, FAR] {
                    assert_eq!(table.nested.access(frame), Access::Read);
                }
                Ok(())
            },
        ],
        |_, _| (),
    );
}

#[test]
fn a_grant_is_not_lost_when_the_processor_marks_the_large_page() {
    explore(
        |_| (),
        &[
            |table| grant(table, FRAME).is_ok(),
            |table| table.load(NEIGHBOUR),
        ],
        |table, outcomes| {
            assert!(outcomes[0]);
            assert_eq!(table.nested.access(FRAME), Access::Write);
            assert_eq!(table.nested.access(NEIGHBOUR), Access::Read);
        },
    );
}

#[test]
fn what_is_cut_off_during_a_grant_is_cut_off() {
    explore(
        |_| (),
        &[
            |table| {
                table.nested.cut_off(STRETCH);
                Ok(())
            },
            |table| grant(table, FRAME),
        ],
        |table, outcomes| {
            assert_eq!(outcomes, [Ok(()), Ok(())]);
            assert_eq!(table.nested.access(FRAME), Access::Absent);
            assert_eq!(table.nested.access(NEIGHBOUR), Access::Absent);
            assert_eq!(table.nested.access(FAR), Access::Read);
        },
    );
}

#[test]
fn a_grant_while_memory_is_opened_again_is_found_at_the_latest_when_it_is_missed() {
    explore(
        |table| table.nested.cut_off(ALL),
        &[
            |table| grant(table, FRAME).is_ok(),
            |table| table.nested.reopen(NEIGHBOUR),
        ],
        |table, outcomes| {
            assert_eq!(outcomes, [true, true]);
            assert_eq!(table.nested.access(NEIGHBOUR), Access::Read);
            table.nested.reopen(FRAME);
            assert_eq!(table.nested.access(FRAME), Access::Write);
            assert_eq!(table.nested.access(FAR), Access::Absent);
        },
    );
}

#[test]
fn a_revoke_keeps_the_record_of_a_last_store() {
    explore(
        granted,
        &[
            |table| {
                table.nested.write_protect(FRAME);
                false
            },
            |table| table.store(FRAME),
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
        granted,
        &[
            |table| grant(table, NEIGHBOUR).is_ok(),
            |table| {
                table.nested.write_protect(FRAME);
                true
            },
            |table| table.store(FRAME),
        ],
        |table, outcomes| {
            assert_eq!(table.nested.access(FRAME), Access::Read);
            assert_eq!(table.nested.access(NEIGHBOUR), Access::Write);
            assert_eq!(table.nested.is_written(FRAME), outcomes[2]);
            assert!(!table.nested.is_written(NEIGHBOUR));
        },
    );
}

#[test]
fn a_table_that_is_closed_during_a_grant_stays_closed_and_tells_what_was_written() {
    explore(
        |table| {
            granted(table);
            assert!(table.store(FRAME));
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

#[test]
fn a_grant_to_a_life_that_is_over_leaves_nothing_to_the_next() {
    explore(
        granted,
        &[
            |table| {
                grant(table, NEIGHBOUR).expect("a page for each stretch");
                // The life is over, as its home notices afterwards.
                table.nested.write_protect(NEIGHBOUR);
            },
            |table| begin(&table.nested),
        ],
        |table, _| {
            for frame in [FRAME, NEIGHBOUR, FAR] {
                assert!(!table.store(frame));
                table.nested.reopen(frame);
                assert_eq!(table.nested.access(frame), Access::Read);
            }
        },
    );
}
