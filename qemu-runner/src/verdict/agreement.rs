//! Whether the survivors agreed on one live set, and on the true one.

use std::collections::BTreeMap;

use cell::CellSet;
use cell::id::CellId;
use cell::machine::CellState;
use cell::trace::Event;

use super::Violation;
use crate::guest::trace::Source;
use crate::observation::{End, Observation};

/// The cells that live at the end, by the monitor's own states of them.
pub fn truth(run: &Observation) -> CellSet {
    let live =
        |&(_, cell): &(usize, &crate::observation::CellSnapshot)| cell.state == CellState::Live;
    let cells = run.after.iter().enumerate().filter(live);
    cells.filter_map(|(cell, _)| CellId::new(cell)).collect()
}

/// The live set that each survivor decided last, as bits by cell; none for those that decided
/// nothing.
pub fn last_decided(run: &Observation) -> BTreeMap<usize, u64> {
    let decisions = decisions(run).into_iter();
    decisions.map(|(cell, [_, live])| (cell, live)).collect()
}

/// The epochs and live sets that survivors decided, in order.
fn decisions(run: &Observation) -> Vec<(usize, [u64; 2])> {
    let survivors = run.survivors();
    let decided = run.since_start().filter_map(|record| match record.source {
        Source::Cell(cell) if record.event == Event::Decided => Some((cell, record.arguments)),
        _ => None,
    });
    let is_survivor = |cell: usize| CellId::new(cell).is_some_and(|id| survivors.contains(id));
    decided.filter(|&(cell, _)| is_survivor(cell)).collect()
}

/// Survivors that decided the same epoch must have decided the same; and where everything has come
/// to rest, what each decided last must be true. Records that were lost may have been decisions.
pub(super) fn violations(run: &Observation) -> Vec<Violation> {
    let decided = decisions(run);
    let mut violations = Vec::new();
    for (position, (_, [epoch, live])) in decided.iter().enumerate() {
        let differs = |other: &(usize, [u64; 2])| other.1[0] == *epoch && other.1[1] != *live;
        if decided[..position].iter().any(differs) {
            violations.push(Violation::LiveSetsDiffer { epoch: *epoch });
        }
    }
    violations.dedup();
    if run.end == End::Settled && run.records_lost == 0 {
        let truth = truth(run);
        let untrue = last_decided(run).into_iter();
        let untrue = untrue.filter(|&(_, live)| live != truth.0);
        violations.extend(untrue.map(|(cell, _)| Violation::LiveSetUntrue { cell }));
    }
    violations
}
