//! Whether everybody serves and works and nothing has happened for a while.
//!
//! # Invariants
//! 1. Progress is never judged over less than [`SETTLE`], unless the whole run was shorter: work
//!    comes in operations, and between two looks there may be none. Nor over much more: what a cell
//!    did before it stopped says nothing of it now.
//! 2. A cell whose programs a fault ends need not work for the run to be over; whether it does is
//!    judged all the same.
//! 3. One cell that is out does not keep the others from being judged.

use std::time::Duration;

use cell::fault::InnerFault;
use cell::workload::Operation;
use cell::{CellId, CellSet};
use userland::Account;

use crate::fault::catalogue::Fault;
use crate::fault::plan::{Kind, Plan};
use crate::observation::CellSnapshot;
use crate::pace::Moment;

/// How long nothing may happen, and everybody work, before a run is over.
const SETTLE: Duration = Duration::from_millis(400);
/// How far back work is looked for, at least, when a run ends before everything has settled.
const SPAN: Duration = Duration::from_secs(1);

/// The accounts of all cells at one time.
#[derive(Clone, Debug)]
struct Accounts {
    at: Moment,
    accounts: Vec<Account>,
}

impl Accounts {
    fn of(cells: &[CellSnapshot], at: Moment) -> Self {
        let accounts = cells.iter().map(|cell| cell.account).collect();
        Self { at, accounts }
    }
}

/// What was seen on the way to rest.
#[derive(Debug)]
pub(super) struct Settled {
    /// Whether the cells have workers.
    works: bool,
    /// The cells that a fault may rob of their programs.
    may_idle: CellSet,
    /// Since when nothing happened.
    since: Option<Moment>,
    /// While nothing happens: two to three times [`SETTLE`] ago, and later than that.
    marks: [Accounts; 3],
    /// From [`SPAN`] to twice that ago, and later than that.
    older: Accounts,
    newer: Accounts,
}

impl Settled {
    /// Begins with the cells as they are.
    pub(super) fn new(cells: &[CellSnapshot], plan: &Plan, now: Moment) -> Self {
        let accounts = Accounts::of(cells, now);
        let kill = Fault::Inner(InnerFault::ProgramKill);
        let strikes = plan.strikes().filter(|_| plan.kind == Kind::Fault);
        let kills = strikes.filter(|strike| strike.fault == kill);
        Self {
            works: cells.iter().any(|cell| cell.account.workers > 0),
            may_idle: kills
                .filter_map(|strike| CellId::new(strike.cell))
                .collect(),
            since: None,
            marks: std::array::from_fn(|_| accounts.clone()),
            older: accounts.clone(),
            newer: accounts,
        }
    }

    /// Something happened.
    pub(super) fn restart(&mut self) {
        self.since = None;
    }

    /// Looks at the cells as they are; whether everything has settled.
    pub(super) fn holds(&mut self, cells: &[CellSnapshot], now: Moment) -> bool {
        if now.since(self.newer.at) >= SPAN {
            let newest = Accounts::of(cells, now);
            self.older = std::mem::replace(&mut self.newer, newest);
        }
        if !cells.iter().all(|cell| cell.serves) {
            self.restart();
        }
        if self.since.is_none() {
            self.since = Some(now);
            self.marks.fill(Accounts::of(cells, now));
        }
        if now.since(self.marks[2].at) >= SETTLE {
            self.marks.rotate_left(1);
            self.marks[2] = Accounts::of(cells, now);
        }
        self.all_progress(cells, now)
    }

    fn all_progress(&self, cells: &[CellSnapshot], now: Moment) -> bool {
        self.since.is_some_and(|since| {
            let progress = self.progress_since(&self.marks[0], cells);
            let need_not = |cell| CellId::new(cell).is_some_and(|id| self.may_idle.contains(id));
            let mut progress = progress.enumerate();
            now.since(since) >= SETTLE && progress.all(|(cell, on)| on || need_not(cell))
        })
    }

    /// Which cells serve and have finished operations of every kind of late.
    pub(super) fn progressing(&self, cells: &[CellSnapshot], now: Moment) -> Vec<bool> {
        let since = if self.all_progress(cells, now) {
            &self.marks[0]
        } else {
            &self.older
        };
        self.progress_since(since, cells).collect()
    }

    fn progress_since<'a>(
        &self,
        then: &'a Accounts,
        cells: &'a [CellSnapshot],
    ) -> impl Iterator<Item = bool> + use<'a> {
        let (works, alone) = (self.works, cells.len() == 1);
        let goes_on = move |(cell, then): (&CellSnapshot, &Account)| {
            let more = |&operation: &Operation| {
                let (now, then) = (cell.account.of(operation), then.of(operation));
                now.verified > then.verified || (alone && operation != Operation::Compute)
            };
            let same_life = cell.account.life == then.life;
            cell.serves && (!works || (same_life && Operation::ALL.iter().all(more)))
        };
        cells.iter().zip(&then.accounts).map(goes_on)
    }
}

/// The cells that live on and that no fault of the plan is for; in a control none is for any.
/// Whoever came back has a new image, and a target's own is its own concern.
pub(super) fn untouched(before: &[CellSnapshot], after: &[CellSnapshot], plan: &Plan) -> CellSet {
    let is_target =
        |cell: usize| plan.kind == Kind::Fault && plan.strikes().any(|strike| strike.cell == cell);
    let pairs = before.iter().zip(after).enumerate();
    pairs
        .filter(|(cell, (then, now))| then.incarnation == now.incarnation && !is_target(*cell))
        .filter_map(|(cell, _)| CellId::new(cell))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::catalogue::HostFault;
    use crate::fault::plan::Strike;
    use cell::machine::CellState;
    use cell::{CELLS_MAX, Incarnation};
    use userland::account::OperationCounts;

    /// Three cells, each with so many operations of every kind; one without any is out.
    fn cells(verified: [u64; 3]) -> Vec<CellSnapshot> {
        let cell = |verified: u64| {
            let counts = OperationCounts {
                attempted: verified,
                verified,
                ..OperationCounts::default()
            };
            CellSnapshot {
                state: CellState::Live,
                incarnation: 1,
                serves: verified > 0,
                account: Account {
                    life: Incarnation(1),
                    workers: 2,
                    operations: [counts; 4],
                    lost_with: [0; CELLS_MAX],
                    longest_pause: 0,
                    longest_pause_of: [0; 4],
                    last_progress: 0,
                },
            }
        };
        verified.into_iter().map(cell).collect()
    }

    const LOOK: Duration = Duration::from_millis(10);

    fn halt() -> Plan {
        Plan::single(Strike::new(Fault::Host(HostFault::CpuHalt), 1))
    }

    /// Looks as often as a run does, with operations that take 50 looks each; `working` says who
    /// does any. The last cell is out.
    fn run_with_one_out(looks: u64, working: [bool; 2]) -> Vec<bool> {
        let begun = Moment::default();
        let mut settled = Settled::new(&cells([1; 3]), &halt(), begun);
        let (mut now, mut seen) = (begun, cells([1; 3]));
        for look in 1..=looks {
            now = now + LOOK;
            let [first, second] = working.map(|works| 1 + if works { look / 50 } else { 0 });
            seen = cells([first, second, 0]);
            assert!(!settled.holds(&seen, now));
        }
        settled.progressing(&seen, now)
    }

    #[test]
    fn a_cell_that_is_out_does_not_hide_the_work_of_the_others() {
        assert_eq!(run_with_one_out(1010, [true, true]), [true, true, false]);
        assert_eq!(run_with_one_out(1010, [true, false]), [true, false, false]);
    }

    #[test]
    fn in_a_control_no_cell_is_a_target() {
        let of = |kind| {
            let plan = Plan { kind, ..halt() };
            let found = untouched(&cells([1; 3]), &cells([2; 3]), &plan);
            found.iter().map(CellId::index).collect::<Vec<_>>()
        };
        assert_eq!(of(Kind::Fault), [0, 2]);
        assert_eq!(of(Kind::Null), [0, 1, 2]);
        assert_eq!(of(Kind::Golden), [0, 1, 2]);
    }

    #[test]
    fn rest_needs_time_and_work() {
        let begun = Moment::default();
        let mut settled = Settled::new(&cells([1; 3]), &halt(), begun);
        assert!(!settled.holds(&cells([1; 3]), begun));
        assert!(!settled.holds(&cells([2; 3]), begun + LOOK), "too early");
        assert!(!settled.holds(&cells([2, 2, 1]), begun + SETTLE), "no work");
        assert!(settled.holds(&cells([2; 3]), begun + SETTLE));
        settled.restart();
        assert!(!settled.holds(&cells([3; 3]), begun + 2 * SETTLE));
        assert_eq!(
            settled.progressing(&cells([3; 3]), begun + 2 * SETTLE),
            [true; 3]
        );
    }

    /// Looks for as long as a run with `plan` that nothing else happens in; cell 1 stops to work
    /// after so many looks.
    fn run_with_one_that_stops(plan: &Plan, after: u64) -> (bool, Vec<bool>) {
        let begun = Moment::default();
        let mut settled = Settled::new(&cells([1; 3]), plan, begun);
        let (mut now, mut seen, mut rests) = (begun, cells([1; 3]), false);
        for look in 1..=200 {
            now = now + LOOK;
            seen = cells([1 + look, 1 + look.min(after), 1 + look]);
            rests = settled.holds(&seen, now);
        }
        (rests, settled.progressing(&seen, now))
    }

    #[test]
    fn what_a_cell_did_before_it_stopped_is_no_progress() {
        assert_eq!(
            run_with_one_that_stops(&halt(), 200),
            (true, vec![true; 3]),
            "it does not"
        );
        assert_eq!(
            run_with_one_that_stops(&halt(), 60),
            (false, vec![true, false, true])
        );
    }

    #[test]
    fn a_cell_without_programs_holds_nobody_up() {
        let kill = Strike::new(Fault::Inner(InnerFault::ProgramKill), 1);
        assert_eq!(
            run_with_one_that_stops(&Plan::single(kill), 60),
            (true, vec![true, false, true])
        );
    }
}
