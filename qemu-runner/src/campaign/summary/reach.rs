//! How far faults reached: from cell to cell, and how many cells failed together.
//!
//! # Invariants
//! Only runs with one fault say where an effect came from.

use std::collections::{BTreeMap, BTreeSet};

use cell::CellId;
use serde::Serialize;

use crate::campaign::record::{Measured, Record};
use crate::campaign::statistics::Proportion;
use crate::guest::difference::Difference;

/// How far faults reached.
#[derive(Clone, Debug, Serialize)]
pub struct Reach {
    /// For each cell that faults were injected into and each other cell, in how many of those runs
    /// something happened to the other.
    pub matrix: Vec<Propagation>,
    /// Runs by the number of cells that failed or were affected.
    pub cells_affected: BTreeMap<usize, u64>,
    /// Of the runs in which a cell failed: more than one did.
    pub correlated: Proportion,
    /// What memory showed, where it was compared with a control's.
    pub memory: Option<MemoryReach>,
}

/// What the memory of the runs showed that were compared with a control each.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryReach {
    /// All memory was the same.
    pub same: Proportion,
    /// Of the runs in which nobody died, after which the others must do something else: memory of
    /// cells differed that no fault was injected into, if only in time.
    pub others: Proportion,
    /// Memory differed that nobody wrote who may.
    pub foreign: Proportion,
}

impl MemoryReach {
    fn of(faults: &[&Record]) -> Option<Self> {
        let compared: Vec<(&Record, &Difference)> = faults
            .iter()
            .filter_map(|run| Some((*run, run.difference.as_ref()?)))
            .collect();
        let share = |test: &dyn Fn(&Record, &Difference) -> bool| {
            Proportion::counting(&compared, |(run, found)| test(run, found))
        };
        let others = |(run, found): &&(&Record, &Difference)| {
            let targets = run.resolved.targets().filter_map(CellId::new).collect();
            !found.others(targets).is_empty()
        };
        let nobody_died = |(run, _): &&(&Record, &Difference)| {
            let measured = run.measured.as_ref();
            measured.is_some_and(|one| one.dead.is_empty())
        };
        (!compared.is_empty()).then(|| Self {
            same: share(&|_, found| found.is_none()),
            others: Proportion::counting(compared.iter().filter(nobody_died), others),
            foreign: share(&|_, found| !found.foreign.is_empty()),
        })
    }

    /// In a sentence.
    pub fn text(self) -> String {
        format!(
            "Memory beside a control's, without the fault: the same in {}; where nobody died, that \
             of cells that were not struck differed, if only in time, in {}; written by somebody \
             who must not in {}.",
            self.same.text(),
            self.others.text(),
            self.foreign.text()
        )
    }
}

/// How often what was done to a cell reached another.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Propagation {
    /// The cell that the first fault was injected into.
    pub from: usize,
    /// The other.
    pub to: usize,
    /// How often.
    pub affected: Proportion,
}

/// The cells that failed or that something happened to.
fn struck(one: &Measured) -> BTreeSet<usize> {
    one.dead.iter().chain(&one.affected).copied().collect()
}

impl Reach {
    /// Of runs that injected faults.
    pub(super) fn of(faults: &[&Record], cells: usize) -> Self {
        let single = || {
            let runs = faults.iter().filter(|run| run.resolved.is_of_one_cell());
            let judged = runs.filter(|run| run.containment.is_valid());
            judged.filter_map(|run| Some((run.resolved.first.cell, run.measured.as_ref()?)))
        };
        let mut cells_affected = BTreeMap::new();
        for (_, one) in single() {
            *cells_affected.entry(struck(one).len()).or_default() += 1;
        }
        let pairs = (0..cells).flat_map(|from| (0..cells).map(move |to| (from, to)));
        let between = |(from, to): (usize, usize)| {
            let from_here = single().filter(|(cell, _)| *cell == from);
            let reached = |(_, one): &(usize, &Measured)| one.affected.contains(&to);
            Propagation {
                from,
                to,
                affected: Proportion::counting(from_here, reached),
            }
        };
        let failed = single().filter(|(_, one)| !struck(one).is_empty());
        Self {
            matrix: pairs.filter(|(from, to)| from != to).map(between).collect(),
            correlated: Proportion::counting(failed, |(_, one)| struck(one).len() > 1),
            cells_affected,
            memory: MemoryReach::of(faults),
        }
    }
}
