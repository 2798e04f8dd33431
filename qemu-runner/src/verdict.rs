//! What a run showed: contained or not, and why.
//!
//! A run holds if nothing speaks against it. What can speak against it is a closed list
//! ([`Violation`]), so that campaigns can count.

use cell::CellSet;
use cell::id::CellId;
use cell::machine::CellState;
use cell::trace::Event;
use serde::Serialize;
use userland::account::OperationCounts;

use crate::fault::catalogue::Expectation;
use crate::guest::cells::total;
use crate::guest::difference::Foreign;
use crate::guest::integrity::Spoilt;
use crate::observation::{End, Observation};

mod accounts;
pub mod agreement;
mod invariant;

pub use invariant::Invariant;

/// How a run came out.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The fault had an effect, and nobody died of it.
    Contained,
    /// The fault ended the programs of its cell, which serves on without.
    ServiceLost,
    /// The target died, was expelled, rebooted and taken back, and nobody else was harmed.
    Recovered,
    /// The target died and did not come back.
    DetectedNotRecovered,
    /// The fault reached a cell that it was not injected into.
    Spread,
    /// A survivor met wrong bytes that no death explains.
    SilentCorruption,
    /// The machine went down.
    SystemDown,
    /// A survivor stopped working, or a dead cell was not noticed.
    Hang,
    /// Nobody saw an effect, but memory is not what it would be without the fault.
    Latent,
    /// The fault struck nothing, or had no effect that anybody saw.
    NotActivated,
}

impl Outcome {
    /// For people, behind the word on whether the fault was contained.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Contained => "nobody died",
            Self::ServiceLost => "nobody died, but its programs are gone",
            Self::Recovered => "recovered",
            Self::DetectedNotRecovered => "detected not recovered",
            Self::Spread => "spread",
            Self::SilentCorruption => "silent corruption",
            Self::SystemDown => "system down",
            Self::Hang => "hang",
            Self::Latent => "latent: nobody saw an effect, and memory differs",
            Self::NotActivated => "not activated",
        }
    }
}

/// Something that speaks against a run.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Violation {
    /// The machine went down.
    SystemDown {
        /// How.
        how: String,
    },
    /// A cell died that no fault was injected into.
    BystanderDied {
        /// The cell.
        cell: usize,
    },
    /// A survivor met wrong bytes.
    WrongBytes {
        /// The cell.
        cell: usize,
        /// In what.
        operation: &'static str,
        /// How many.
        bytes: u64,
    },
    /// A survivor met bytes that only a death could explain, and nobody died.
    SuspectWithoutDeath {
        /// The cell.
        cell: usize,
        /// How many.
        bytes: u64,
    },
    /// Operations of a survivor vanished, or came from nowhere.
    Unaccounted {
        /// The cell.
        cell: usize,
        /// Which kind.
        operation: &'static str,
    },
    /// A survivor finished nothing of a kind.
    NoProgress {
        /// The cell.
        cell: usize,
        /// Which kind.
        operation: &'static str,
    },
    /// Work was lost with a cell that did not die.
    LostWithTheLiving {
        /// Who lost it.
        cell: usize,
        /// With whom.
        with: usize,
        /// How much.
        operations: u64,
    },
    /// A cell did not work at the end.
    Stopped {
        /// The cell.
        cell: usize,
    },
    /// A cell that the fault must kill went on.
    Unnoticed {
        /// The cell.
        cell: usize,
    },
    /// A cell that the fault must not kill died.
    KilledForNothing {
        /// The cell.
        cell: usize,
    },
    /// A dead cell was not taken back.
    NotReintegrated {
        /// The cell.
        cell: usize,
    },
    /// Two survivors decided differently.
    LiveSetsDiffer {
        /// The epoch.
        epoch: u64,
    },
    /// Stores reached memory that their cell had no right to write. The emulator saw them.
    StrayStores {
        /// The cell whose CPU made the first.
        cell: Option<usize>,
        /// Where it went.
        address: u64,
        /// How many.
        stores: u64,
    },
    /// Code or constants were changed of somebody that no fault was injected into.
    ForeignWrite(Spoilt),
    /// Memory differs from the control's, and nobody wrote it who may.
    ForeignDifference(Foreign),
    /// A survivor ended with another live set than the true one.
    LiveSetUntrue {
        /// The survivor.
        cell: usize,
    },
    /// A fault of the plan never struck.
    NotTriggered,
    /// The target of a fault after the first was gone when the fault was due.
    TargetGone {
        /// The cell that it was meant for.
        cell: usize,
        /// The fault.
        fault: &'static str,
    },
    /// A cell did not do the fault to itself that it was asked for.
    NotCarriedOut {
        /// The cell.
        cell: usize,
        /// The fault.
        fault: &'static str,
    },
}

/// A cell's share in a run.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct CellReport {
    /// The cell.
    pub cell: usize,
    /// Its life before the fault, and at the end.
    pub incarnations: [u32; 2],
    /// Operations that ended well from the fault to the end, over all lives.
    pub verified: u64,
    /// Operations lost with dead cells.
    pub lost: u64,
    /// Operations lost, by the cell that they were lost with.
    pub lost_with: Vec<u64>,
    /// Bytes that were wrong with no dead cell to explain it.
    pub wrong: u64,
    /// Bytes that were wrong where a dead cell explains it.
    pub suspect: u64,
    /// The longest time without progress, in microseconds, for cells that survived.
    pub longest_pause_us: Option<u64>,
}

/// What a run showed.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct Verdict {
    /// How it came out.
    pub outcome: Outcome,
    /// Whether nothing speaks against it.
    pub held: bool,
    /// Whether the damage stayed in the cells that faults were injected into.
    pub contained: bool,
    /// What speaks against it.
    pub violations: Vec<Violation>,
    /// The cells that faults were injected into.
    pub targets: Vec<usize>,
    /// The cells that died.
    pub dead: Vec<usize>,
    /// The cells that serve on, and whose programs a fault ended: they do no work any more.
    pub out_of_work: Vec<usize>,
    /// Every cell's share.
    pub cells: Vec<CellReport>,
}

impl Verdict {
    /// Judges a run.
    pub fn of(run: &Observation) -> Self {
        let cells: Vec<CellReport> = (0..run.before.len())
            .map(|cell| report(run, cell))
            .collect();
        let mut violations = Vec::new();
        match &run.end {
            End::SystemDown(how) => violations.push(Violation::SystemDown { how: how.clone() }),
            End::Silence => violations.push(Violation::SystemDown {
                how: "no CPU works any more".into(),
            }),
            End::Settled | End::Quiet | End::Bound => {}
        }
        deaths(run, &mut violations);
        accounts::violations(run, &mut violations);
        violations.extend(agreement::violations(run));
        violations.extend(run.spoilt.iter().copied().map(Violation::ForeignWrite));
        let foreign = run.difference.iter().flat_map(|found| &found.foreign);
        violations.extend(foreign.copied().map(Violation::ForeignDifference));
        stores(run, &mut violations);
        if !run.not_triggered.is_empty() {
            violations.push(Violation::NotTriggered);
        }
        let missed = run.not_carried_out.iter();
        violations.extend(missed.map(|missed| Violation::NotCarriedOut {
            cell: missed.cell,
            fault: missed.fault.name(),
        }));
        violations.extend(run.left_out.iter().map(|missed| Violation::TargetGone {
            cell: missed.cell,
            fault: missed.fault.name(),
        }));
        let numbers = |set: CellSet| set.iter().map(CellId::index).collect();
        Self {
            outcome: outcome(run, &violations),
            held: violations.is_empty(),
            contained: !violations.iter().any(Violation::breaks_containment),
            violations,
            targets: numbers(run.targets()),
            dead: numbers(run.dead()),
            out_of_work: numbers(run.out_of_work()),
            cells,
        }
    }
}

impl Violation {
    /// Whether the fault got out of its cell.
    pub const fn breaks_containment(&self) -> bool {
        matches!(
            self,
            Self::SystemDown { .. }
                | Self::BystanderDied { .. }
                | Self::WrongBytes { .. }
                | Self::SuspectWithoutDeath { .. }
                | Self::LostWithTheLiving { .. }
                | Self::LiveSetsDiffer { .. }
                | Self::StrayStores { .. }
                | Self::ForeignWrite(_)
                | Self::ForeignDifference(_)
                | Self::LiveSetUntrue { .. }
        )
    }

    /// What it speaks against.
    pub const fn invariant(&self) -> Invariant {
        match self {
            Self::SystemDown { .. } => Invariant::MachineStaysUp,
            Self::BystanderDied { .. } | Self::KilledForNothing { .. } => Invariant::NobodyElseDies,
            Self::WrongBytes { .. } | Self::SuspectWithoutDeath { .. } => Invariant::NoWrongBytes,
            Self::StrayStores { .. } => Invariant::StoresStayInside,
            Self::ForeignWrite(_) | Self::ForeignDifference(_) => Invariant::NoForeignWrites,
            Self::LiveSetsDiffer { .. } | Self::LiveSetUntrue { .. } => Invariant::OneLiveSet,
            Self::Unaccounted { .. } | Self::LostWithTheLiving { .. } => {
                Invariant::WorkIsAccountedFor
            }
            Self::NoProgress { .. } | Self::Stopped { .. } => Invariant::SurvivorsGoOn,
            Self::Unnoticed { .. } => Invariant::TheDeadAreNoticed,
            Self::NotReintegrated { .. } => Invariant::TheDeadComeBack,
            Self::NotTriggered | Self::NotCarriedOut { .. } | Self::TargetGone { .. } => {
                Invariant::EveryFaultStrikes
            }
        }
    }

    /// The cell that it is about.
    pub const fn cell(&self) -> Option<usize> {
        match self {
            Self::BystanderDied { cell }
            | Self::WrongBytes { cell, .. }
            | Self::SuspectWithoutDeath { cell, .. }
            | Self::Unaccounted { cell, .. }
            | Self::NoProgress { cell, .. }
            | Self::LostWithTheLiving { cell, .. }
            | Self::Stopped { cell }
            | Self::Unnoticed { cell }
            | Self::KilledForNothing { cell }
            | Self::NotReintegrated { cell }
            | Self::LiveSetUntrue { cell }
            | Self::NotCarriedOut { cell, .. }
            | Self::TargetGone { cell, .. } => Some(*cell),
            Self::StrayStores { cell, .. } => *cell,
            Self::ForeignWrite(spoilt) => spoilt.cell,
            Self::ForeignDifference(foreign) => foreign.cell(),
            Self::SystemDown { .. } | Self::LiveSetsDiffer { .. } | Self::NotTriggered => None,
        }
    }

    const fn is_corruption(&self) -> bool {
        matches!(
            self,
            Self::WrongBytes { .. } | Self::SuspectWithoutDeath { .. }
        )
    }

    const fn is_hang(&self) -> bool {
        matches!(
            self,
            Self::Stopped { .. } | Self::Unnoticed { .. } | Self::NoProgress { .. }
        )
    }

    /// The violation as a sentence.
    pub fn text(&self) -> String {
        match self {
            Self::SystemDown { how } => format!("the machine went down: {how}"),
            Self::ForeignWrite(spoilt) => spoilt.text(),
            Self::ForeignDifference(foreign) => foreign.text(),
            Self::BystanderDied { cell } => {
                format!("cell {cell} died, though nothing had been injected into that life of it")
            }
            Self::WrongBytes {
                cell,
                operation,
                bytes,
            } => {
                format!("cell {cell} met {bytes} wrong bytes in {operation}")
            }
            Self::SuspectWithoutDeath { cell, bytes } => {
                format!("cell {cell} met {bytes} suspect bytes, though nobody died")
            }
            Self::Unaccounted { cell, operation } => {
                format!("cell {cell}: the account of {operation} does not add up")
            }
            Self::NoProgress { cell, operation } => {
                format!("cell {cell} finished no {operation} after the fault")
            }
            Self::LostWithTheLiving {
                cell,
                with,
                operations,
            } => {
                format!("cell {cell} lost {operations} operations with cell {with}, which lived")
            }
            Self::Stopped { cell } => format!("cell {cell} did not work at the end"),
            Self::Unnoticed { cell } => {
                format!("cell {cell} was not expelled, though the fault must end its life")
            }
            Self::KilledForNothing { cell } => {
                format!("cell {cell} died of a fault that must not kill")
            }
            Self::NotReintegrated { cell } => format!("cell {cell} was not taken back"),
            Self::LiveSetsDiffer { epoch } => {
                format!("the survivors decided differently in epoch {epoch}")
            }
            Self::StrayStores {
                cell,
                address,
                stores,
            } => {
                let who = cell.map_or("the monitor".into(), |cell| format!("cell {cell}"));
                format!(
                    "{who} made {stores} stores that nothing allowed, the first to {address:#x}"
                )
            }
            Self::LiveSetUntrue { cell } => {
                format!("cell {cell} ended with a live set that was not the true one")
            }
            Self::NotTriggered => "a fault never struck: what it waits for did not happen".into(),
            Self::TargetGone { cell, fault } => {
                format!("cell {cell} had no place for {fault} any more when it was due")
            }
            Self::NotCarriedOut { cell, fault } => {
                format!("cell {cell} was asked for {fault} and did not do it")
            }
        }
    }
}

fn deaths(run: &Observation, violations: &mut Vec<Violation>) {
    let dead = run.dead();
    for cell in run.bystanders().iter() {
        violations.push(Violation::BystanderDied { cell: cell.index() });
    }
    for injected in &run.injected {
        let Some(id) = CellId::new(injected.cell) else {
            continue;
        };
        match injected.expectation {
            Expectation::Dies if !dead.contains(id) => {
                violations.push(Violation::Unnoticed {
                    cell: injected.cell,
                });
            }
            Expectation::Lives if dead.contains(id) => {
                violations.push(Violation::KilledForNothing {
                    cell: injected.cell,
                });
            }
            _ => {}
        }
    }
    for cell in dead.iter().map(CellId::index) {
        let after = &run.after[cell];
        if after.state != CellState::Live || !after.serves {
            violations.push(Violation::NotReintegrated { cell });
        }
    }
    // Whose programs the fault itself ended does not hang.
    for id in run.survivors().minus(run.out_of_work()).iter() {
        let cell = id.index();
        if !run.progressing[cell] {
            violations.push(Violation::Stopped { cell });
        }
    }
}

/// What the emulator's watch on stores saw.
fn stores(run: &Observation, violations: &mut Vec<Violation>) {
    let Some(watched) = &run.watched else { return };
    violations.extend(watched.strays.first().map(|first| Violation::StrayStores {
        cell: first.cell,
        address: first.address,
        stores: watched.strays_count,
    }));
}

fn outcome(run: &Observation, violations: &[Violation]) -> Outcome {
    let any = |test: fn(&Violation) -> bool| violations.iter().any(test);
    let active = run.since_start().any(|record| {
        matches!(
            record.event,
            Event::Hint | Event::Evidence | Event::BusError | Event::Panic | Event::Struck
        )
    });
    if any(|one| matches!(one, Violation::SystemDown { .. })) {
        Outcome::SystemDown
    } else if any(Violation::is_corruption) {
        Outcome::SilentCorruption
    } else if any(Violation::breaks_containment) {
        Outcome::Spread
    } else if any(Violation::is_hang) {
        Outcome::Hang
    } else if any(|one| matches!(one, Violation::NotReintegrated { .. })) {
        Outcome::DetectedNotRecovered
    } else if !run.dead().is_empty() {
        Outcome::Recovered
    } else if !run.out_of_work().is_empty() {
        Outcome::ServiceLost
    } else if active {
        Outcome::Contained
    } else if run.difference.as_ref().is_some_and(|it| !it.is_none()) {
        Outcome::Latent
    } else {
        Outcome::NotActivated
    }
}

fn report(run: &Observation, cell: usize) -> CellReport {
    let (before, after) = (&run.before[cell], &run.after[cell]);
    let first = &before.account;
    let mut report = CellReport {
        cell,
        incarnations: [before.incarnation, after.incarnation],
        verified: 0,
        lost: 0,
        lost_with: vec![0; run.before.len()],
        wrong: 0,
        suspect: 0,
        longest_pause_us: None,
    };
    for (_, account) in run.lives.range((cell, first.life.0)..=(cell, u32::MAX)) {
        let same = account.life == first.life;
        let since = |now: u64, then: u64| now.saturating_sub(if same { then } else { 0 });
        let done =
            |count: fn(&OperationCounts) -> u64| since(total(account, count), total(first, count));
        report.verified += done(|counts| counts.verified);
        report.lost += done(|counts| counts.lost);
        report.wrong += done(|counts| counts.wrong);
        report.suspect += done(|counts| counts.suspect);
        for (with, lost) in report.lost_with.iter_mut().enumerate() {
            *lost += since(account.lost_with[with], first.lost_with[with]);
        }
    }
    if before.incarnation == after.incarnation {
        report.longest_pause_us = Some(after.account.longest_pause / 1000);
    }
    report
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
pub(crate) mod tests;
