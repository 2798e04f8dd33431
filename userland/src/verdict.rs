//! The judgement of a whole run: held, or violated and why.
//!
//! For the runner, on copies of the accounts at two moments. The accounts of cells that were
//! expelled in between say nothing: a sick cell writes its own record. All others are held to it.
//!
//! # The rule
//! 1. No surviving cell met a wrong byte.
//! 2. No surviving cell was restarted.
//! 3. Work was lost only with cells that were expelled, and bytes were suspect only if any was.
//! 4. Every operation of a surviving cell is accounted for.
//! 5. Every surviving cell went on: it verified operations of each kind for which it had peers,
//!    and, where a limit is given, never stopped for longer.

use core::fmt;

use cell::workload::Operation;
use cell::{CELLS_MAX, CellId, CellSet, Incarnation};

use crate::account::{Account, OperationCounts};

/// Violations that a verdict keeps.
pub const VIOLATIONS_MAX: usize = 32;

/// Operations that a worker can have under way, or in doubt.
const UNDER_WAY_PER_WORKER: u64 = 9;

/// Something that must not have happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// A surviving cell met bytes that no death explains.
    WrongBytes {
        /// Who met them.
        cell: CellId,
        /// In what.
        operation: Operation,
        /// How many.
        bytes: u64,
    },
    /// A cell that was not expelled is in another life than before.
    Restarted {
        /// The cell.
        cell: CellId,
        /// The life before.
        before: Incarnation,
        /// The life after.
        after: Incarnation,
    },
    /// Work was lost with a cell that was not expelled.
    LostWithLiveCell {
        /// Whose work.
        cell: CellId,
        /// With whom.
        with: CellId,
        /// How many operations.
        operations: u64,
    },
    /// Bytes were suspect though no cell was expelled.
    SuspectWithoutDeath {
        /// Who met them.
        cell: CellId,
        /// How many.
        bytes: u64,
    },
    /// Operations vanished from, or appeared in, the account.
    Unaccounted {
        /// The cell.
        cell: CellId,
        /// Which.
        operation: Operation,
    },
    /// A surviving cell verified nothing of a kind for which it had peers.
    NoProgress {
        /// The cell.
        cell: CellId,
        /// Which kind.
        operation: Operation,
    },
    /// A surviving cell stopped for longer than allowed.
    Paused {
        /// The cell.
        cell: CellId,
        /// For how long, in nanoseconds.
        nanoseconds: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WrongBytes {
                cell,
                operation,
                bytes,
            } => {
                write!(
                    f,
                    "cell {cell}: {bytes} wrong bytes in {}",
                    operation.name()
                )
            }
            Self::Restarted {
                cell,
                before,
                after,
            } => {
                write!(
                    f,
                    "cell {cell}: restarted, life {} became {}",
                    before.0, after.0
                )
            }
            Self::LostWithLiveCell {
                cell,
                with,
                operations,
            } => {
                write!(
                    f,
                    "cell {cell}: {operations} operations lost with live cell {with}"
                )
            }
            Self::SuspectWithoutDeath { cell, bytes } => {
                write!(
                    f,
                    "cell {cell}: {bytes} suspect bytes though no cell was expelled"
                )
            }
            Self::Unaccounted { cell, operation } => {
                write!(
                    f,
                    "cell {cell}: account of {} does not add up",
                    operation.name()
                )
            }
            Self::NoProgress { cell, operation } => {
                write!(f, "cell {cell}: no {} verified", operation.name())
            }
            Self::Paused { cell, nanoseconds } => {
                let microseconds = nanoseconds / 1000;
                write!(
                    f,
                    "cell {cell}: stopped for {}.{:03} ms",
                    microseconds / 1000,
                    microseconds % 1000
                )
            }
        }
    }
}

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The account of each cell before, by number; at most [`CELLS_MAX`].
    pub before: &'a [Account],
    /// The account of each cell after, by number.
    pub after: &'a [Account],
    /// The cells that were expelled in between, whether or not they are back.
    pub expelled: CellSet,
    /// The longest pause that a surviving cell may have made, in nanoseconds.
    pub pause_limit: Option<u64>,
}

/// The judgement of a run.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    violations: [Option<Violation>; VIOLATIONS_MAX],
    count: usize,
    /// What the surviving cells did in between, all kinds together.
    pub survivors: OperationCounts,
    /// The longest pause of a surviving cell, in nanoseconds.
    pub longest_pause: u64,
}

impl Verdict {
    /// Whether there was no violation.
    pub const fn is_held(&self) -> bool {
        self.count == 0
    }

    /// How many violations there were, kept or not.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The first [`VIOLATIONS_MAX`] violations.
    pub fn violations(&self) -> impl Iterator<Item = Violation> {
        self.violations.iter().copied().flatten()
    }

    fn add(&mut self, violation: Violation) {
        if let Some(slot) = self.violations.get_mut(self.count) {
            *slot = Some(violation);
        }
        self.count += 1;
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_held() {
            return f.write_str("held");
        }
        write!(f, "violated: ")?;
        for (number, violation) in self.violations().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{violation}")?;
        }
        match self.count.saturating_sub(VIOLATIONS_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Judges a run.
pub fn judge(case: &Case<'_>) -> Verdict {
    let mut verdict = Verdict {
        violations: [None; VIOLATIONS_MAX],
        count: 0,
        survivors: OperationCounts::default(),
        longest_pause: 0,
    };
    let cells = case.before.len().min(case.after.len()).min(CELLS_MAX);
    let survivors = CellSet::first(cells).minus(case.expelled);
    for cell in survivors.iter() {
        let (before, after) = (&case.before[cell.index()], &case.after[cell.index()]);
        if before.life == after.life {
            let survivor = Survivor {
                cell,
                before,
                after,
                peers: survivors.len() - 1,
            };
            survivor.judge(case, &mut verdict);
        } else {
            let (before, after) = (before.life, after.life);
            verdict.add(Violation::Restarted {
                cell,
                before,
                after,
            });
        }
    }
    verdict
}

struct Survivor<'a> {
    cell: CellId,
    before: &'a Account,
    after: &'a Account,
    /// How many other cells survived.
    peers: usize,
}

impl Survivor<'_> {
    fn judge(&self, case: &Case<'_>, verdict: &mut Verdict) {
        let cell = self.cell;
        for operation in Operation::ALL {
            self.judge_operation(operation, case, verdict);
        }
        for with in CellSet::first(CELLS_MAX).minus(case.expelled).iter() {
            let lost = |account: &Account| account.lost_with[with.index()];
            let operations = lost(self.after).saturating_sub(lost(self.before));
            if operations > 0 {
                verdict.add(Violation::LostWithLiveCell {
                    cell,
                    with,
                    operations,
                });
            }
        }
        let nanoseconds = self.after.longest_pause;
        verdict.longest_pause = verdict.longest_pause.max(nanoseconds);
        if case.pause_limit.is_some_and(|limit| nanoseconds > limit) {
            verdict.add(Violation::Paused { cell, nanoseconds });
        }
    }

    fn judge_operation(&self, operation: Operation, case: &Case<'_>, verdict: &mut Verdict) {
        let cell = self.cell;
        let done = between(self.before.of(operation), self.after.of(operation));
        add(&mut verdict.survivors, &done);
        if done.wrong > 0 {
            verdict.add(Violation::WrongBytes {
                cell,
                operation,
                bytes: done.wrong,
            });
        }
        if done.suspect > 0 && case.expelled.is_empty() {
            verdict.add(Violation::SuspectWithoutDeath {
                cell,
                bytes: done.suspect,
            });
        }
        let after = self.after.of(operation);
        let ended = after.verified + after.lost + after.refused;
        let most = ended + self.after.workers * UNDER_WAY_PER_WORKER;
        if after.wrong == 0 && !(ended..=most).contains(&after.attempted) {
            verdict.add(Violation::Unaccounted { cell, operation });
        }
        let has_work =
            self.after.workers > 0 && (operation == Operation::Compute || self.peers > 0);
        if has_work && done.verified == 0 {
            verdict.add(Violation::NoProgress { cell, operation });
        }
    }
}

fn between(before: &OperationCounts, after: &OperationCounts) -> OperationCounts {
    OperationCounts {
        attempted: after.attempted.saturating_sub(before.attempted),
        verified: after.verified.saturating_sub(before.verified),
        lost: after.lost.saturating_sub(before.lost),
        refused: after.refused.saturating_sub(before.refused),
        wrong: after.wrong.saturating_sub(before.wrong),
        suspect: after.suspect.saturating_sub(before.suspect),
    }
}

const fn add(sum: &mut OperationCounts, done: &OperationCounts) {
    sum.attempted += done.attempted;
    sum.verified += done.verified;
    sum.lost += done.lost;
    sum.refused += done.refused;
    sum.wrong += done.wrong;
    sum.suspect += done.suspect;
}

#[cfg(test)]
mod tests {
    use super::*;
    use cell::workload::WorkloadRecord;

    fn cell(number: usize) -> CellId {
        CellId::new(number).expect("below the limit")
    }

    /// Four cells of two workers each that verified `verified` operations of each kind.
    fn accounts(verified: u64) -> [Account; 4] {
        let mut account = Account::read(&WorkloadRecord::new());
        account.life = Incarnation(1);
        account.workers = 2;
        for counts in &mut account.operations {
            counts.attempted = verified + 1;
            counts.verified = verified;
        }
        [account; 4]
    }

    /// The verdict on a run in which cell 2 was expelled, after `change`.
    fn after(change: impl FnOnce(&mut [Account; 4])) -> Verdict {
        let (before, mut after) = (accounts(10), accounts(50));
        change(&mut after);
        let expelled = CellSet::only(cell(2));
        judge(&Case {
            before: &before,
            after: &after,
            expelled,
            pause_limit: Some(1_000_000),
        })
    }

    #[test]
    fn work_lost_with_the_dead_is_no_violation() {
        let verdict = after(|accounts| {
            let counts = &mut accounts[0].operations[1];
            counts.attempted += 3;
            counts.lost = 3;
            counts.suspect = 7;
            accounts[0].lost_with[2] = 3;
            accounts[2].operations[0].wrong = 99;
            accounts[2].life = Incarnation(2);
        });
        assert!(verdict.is_held(), "{verdict}");
        assert_eq!(
            (verdict.survivors.lost, verdict.survivors.verified),
            (3, 480)
        );
        assert_eq!(verdict.to_string(), "held");
    }

    #[test]
    fn every_violation_is_found() {
        let found = |change: fn(&mut [Account; 4])| after(change).to_string();
        assert_eq!(
            found(|a| a[1].operations[2].wrong = 4),
            "violated: cell 1: 4 wrong bytes in share"
        );
        assert_eq!(
            found(|a| a[3].life = Incarnation(2)),
            "violated: cell 3: restarted, life 1 became 2"
        );
        assert_eq!(
            found(|a| a[0].lost_with[1] = 5),
            "violated: cell 0: 5 operations lost with live cell 1"
        );
        assert_eq!(
            found(|a| a[0].operations[3].attempted += 100),
            "violated: cell 0: account of borrow does not add up"
        );
        assert_eq!(
            found(|a| a[0].operations[3].attempted -= 2),
            "violated: cell 0: account of borrow does not add up"
        );
        assert_eq!(
            found(|a| a[1].operations[1] = accounts(10)[1].operations[1]),
            "violated: cell 1: no call verified"
        );
        assert_eq!(
            found(|a| a[1].longest_pause = 2_345_678),
            "violated: cell 1: stopped for 2.345 ms"
        );
    }

    #[test]
    fn nothing_is_suspect_where_nobody_died() {
        let (before, mut after) = (accounts(10), accounts(50));
        after[0].operations[2].suspect = 1;
        let case = Case {
            before: &before,
            after: &after,
            expelled: CellSet::EMPTY,
            pause_limit: None,
        };
        assert_eq!(
            judge(&case).violations().next(),
            Some(Violation::SuspectWithoutDeath {
                cell: cell(0),
                bytes: 1
            })
        );
    }

    #[test]
    fn a_single_survivor_has_nobody_to_call() {
        let (before, mut after) = (accounts(10), accounts(50));
        for operation in 1..4 {
            after[0].operations[operation] = before[0].operations[operation];
        }
        let expelled = CellSet::first(4).without(cell(0));
        let case = Case {
            before: &before,
            after: &after,
            expelled,
            pause_limit: None,
        };
        assert!(judge(&case).is_held());
    }

    #[test]
    fn more_violations_than_a_verdict_keeps_are_counted() {
        let verdict = after(|accounts| {
            for account in accounts.iter_mut() {
                account.lost_with = [1; CELLS_MAX];
            }
        });
        assert_eq!(verdict.count(), 3 * 63);
        assert!(verdict.to_string().ends_with("and 157 more"));
    }
}
