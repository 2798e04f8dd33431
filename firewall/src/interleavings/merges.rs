//! Merges beside everything else that is done to one table.

use super::{ALL, Changed, FAR, FRAME, NEIGHBOUR, STRETCH, Table, explore, grant, granted, split};
use crate::nested::Access;

#[test]
fn what_was_split_for_a_grant_is_whole_again_without_it() {
    explore(
        split,
        &[
            |table| {
                table.nested.merge(ALL);
                true
            },
            |table| table.load(NEIGHBOUR),
        ],
        |table, outcomes| {
            assert!(outcomes[1], "it could be read all the time");
            assert!(table.is_merged());
        },
    );
}

#[test]
fn a_grant_during_a_merge_is_not_lost() {
    for first in [
        |table: &Table| grant(table, FRAME),
        |table: &Table| grant(table, NEIGHBOUR),
        |table: &Table| grant(table, FAR),
    ] {
        let merge = |table: &Table| {
            table.nested.merge(ALL);
            Ok(())
        };
        let programs = Vec::leak(vec![first as fn(&Table) -> Changed, merge]);
        explore(split, programs, |table, _| {
            let frames = [FRAME, NEIGHBOUR, FAR];
            let writable = frames.map(|frame| table.nested.access(frame) == Access::Write);
            assert_eq!(writable.iter().filter(|&&it| it).count(), 1);
        });
    }
}

#[test]
fn a_grant_during_two_merges_is_not_lost() {
    let merge = |table: &Table| table.nested.merge(ALL);
    let programs = Vec::leak(vec![granted as fn(&Table), merge, merge]);
    explore(split, programs, |table, _| {
        assert_eq!(table.nested.access(FRAME), Access::Write);
        assert_eq!(table.nested.access(NEIGHBOUR), Access::Read);
    });
}

#[test]
fn a_merge_keeps_what_is_revoked_from_being_written_and_the_record_of_a_last_store() {
    explore(
        granted,
        &[
            |table| {
                table.nested.write_protect(FRAME);
                // What its home may do from here on: nothing that is stored can be meant for it.
                false
            },
            |table| table.store(FRAME),
            |table| {
                table.nested.merge(ALL);
                false
            },
        ],
        |table, outcomes| {
            assert_eq!(table.nested.access(FRAME), Access::Read);
            assert!(!table.store(FRAME));
            assert_eq!(table.nested.is_written(FRAME), outcomes[1]);
            table.nested.merge(ALL);
            assert!(table.is_merged());
            assert_eq!(table.nested.is_written(FRAME), outcomes[1]);
        },
    );
}

#[test]
fn what_is_cut_off_during_a_merge_is_cut_off() {
    for prepare in [(|_| ()) as fn(&Table), split] {
        explore(
            prepare,
            &[
                |table| {
                    table.nested.cut_off(STRETCH);
                    for frame in STRETCH.iter() {
                        assert_eq!(table.nested.access(frame), Access::Absent);
                    }
                },
                |table| table.nested.merge(ALL),
            ],
            |table, _| {
                for frame in STRETCH.iter() {
                    assert_eq!(table.nested.access(frame), Access::Absent);
                }
                assert_eq!(table.nested.access(FAR), Access::Read);
            },
        );
    }
}
