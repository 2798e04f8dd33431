//! Writer sets, and a writer's table in step with them.

use loom::sync::Arc;
use loom::thread;

use cell::{CELLS_MAX, CellId, CellSet, FrameRange};

use super::{FRAME, NEIGHBOUR, PREEMPTIONS, STRETCH, Table};
use crate::atomic::{AtomicU64, Ordering, fence};
use crate::grants::Grants;
use crate::model::{FirewallTable, Homes};
use crate::nested::Access;

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
fn what_is_revoked_twice_is_granted_to_nobody() {
    explore_sets(
        [
            |table| table.revoke(STRETCH, cell(1)),
            |table| {
                table.revoke(STRETCH, cell(1));
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
            table: Table::new(),
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
    grants
        .grant(ONE, || true)
        .expect("the pool is large enough");
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

#[test]
fn a_grant_and_a_quarantine_beside_a_merge_agree() {
    explore_grants(
        |grants| {
            open(grants);
            grants.revoke(ONE);
        },
        &[open, |grants| grants.quarantine(), merge],
        |grants| {
            assert_state(grants, true, false);
            grants.unquarantine();
            assert_state(grants, true, true);
        },
    );
}

/// The mark of a cell that is not there stands for the end of a life.
const OVER: u64 = 1 << 63;

#[test]
fn a_grant_beside_the_end_of_a_life_leaves_nothing() {
    explore_grants(
        |_| (),
        &[
            |grants| {
                let is_on = || grants.quarantined_by.load(Ordering::SeqCst) & OVER == 0;
                let _ = grants.grant(ONE, is_on);
            },
            |grants| {
                grants.quarantined_by.fetch_or(OVER, Ordering::SeqCst);
                // The end of the life before what it forgets.
                fence(Ordering::SeqCst);
                grants.revoke(ONE);
            },
        ],
        |grants| assert_state(grants, false, false),
    );
}

#[test]
fn the_end_of_a_quarantine_beside_a_merge_opens_what_is_granted() {
    explore_grants(
        |grants| {
            open(grants);
            grants.quarantine();
        },
        &[|grants| grants.unquarantine(), merge],
        |grants| assert_state(grants, true, true),
    );
}

fn merge(grants: &Grants<'_>) {
    let nested = grants.nested.expect("the table is enforced");
    nested.merge(STRETCH);
}
