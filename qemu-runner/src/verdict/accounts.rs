//! What the accounts of the workers say, in the words of a verdict.

use cell::CellSet;
use userland::account::Account;

use super::Violation;
use crate::observation::{CellSnapshot, Observation};

/// What the accounts of the survivors say, by the rules of the workload itself. A cell that a fault
/// was injected into and that lived on may have met wrong bytes of its own.
pub(super) fn violations(run: &Observation, violations: &mut Vec<Violation>) {
    if !run.works {
        return;
    }
    let accounts = |cells: &[CellSnapshot]| cells.iter().map(|cell| cell.account).collect();
    let (before, after): (Vec<Account>, Vec<Account>) =
        (accounts(&run.before), accounts(&run.after));
    let case = userland::Case {
        before: &before,
        after: &after,
        expelled: run.dead(),
        pause_limit: None,
    };
    let targets = run.targets();
    let found = userland::verdict::judge(&case);
    violations.extend(
        found
            .violations()
            .filter_map(|found| in_account(found, targets)),
    );
}

fn in_account(found: userland::Violation, targets: CellSet) -> Option<Violation> {
    use userland::Violation as Found;
    let (cell, violation) = match found {
        Found::WrongBytes {
            cell,
            operation,
            bytes,
        } => {
            let operation = operation.name();
            (
                cell,
                Violation::WrongBytes {
                    cell: cell.index(),
                    operation,
                    bytes,
                },
            )
        }
        Found::LostWithLiveCell {
            cell,
            with,
            operations,
        } => {
            let with = with.index();
            (
                cell,
                Violation::LostWithTheLiving {
                    cell: cell.index(),
                    with,
                    operations,
                },
            )
        }
        Found::SuspectWithoutDeath { cell, bytes } => (
            cell,
            Violation::SuspectWithoutDeath {
                cell: cell.index(),
                bytes,
            },
        ),
        Found::Unaccounted { cell, operation } => {
            let operation = operation.name();
            (
                cell,
                Violation::Unaccounted {
                    cell: cell.index(),
                    operation,
                },
            )
        }
        Found::NoProgress { cell, operation } => {
            let operation = operation.name();
            (
                cell,
                Violation::NoProgress {
                    cell: cell.index(),
                    operation,
                },
            )
        }
        // Restarts are counted as deaths; pauses are reported, not judged.
        Found::Restarted { .. } | Found::Paused { .. } => return None,
    };
    (!targets.contains(cell)).then_some(violation)
}
