//! What a run of a campaign counts as, on two axes.
//!
//! The first axis says what became of the system, the second what became of the cell that the fault
//! was injected into. Both follow from the [`Verdict`]; this file only orders and names.
//!
//! # Invariants
//! 1. The first label that applies holds, in the order of [`Containment`]; but nothing that broke
//!    containment is hidden behind a second fault that never struck. Where not even the first did,
//!    nothing came of a fault. The other labels that apply are kept beside the one that holds, and
//!    the run speaks against the machine all the same.
//! 2. What could not be judged ([`Containment::is_valid`]) counts for nothing, and is shown.
//! 3. That a cell met its fault is said only where the fault cannot be missed.
//!
//! # Not guaranteed
//! Without a look at all memory, beside a control, a changed bit or pointer that is gone and one
//! whose traces are still there look the same: both are [`Effect::NotManifested`]. With it, one
//! that was never used and one whose harm does not show yet are both [`Effect::Latent`].
//!
//! Suspicions prove nothing: a busy host causes them all the time. A run that is slow without
//! standing still is not [`Containment::Degraded`]: how much work is due is known only from the
//! controls, so the report compares the two.

use std::collections::BTreeSet;

use cell::CellId;
use cell::machine::{CellState, EvidenceKind};
use cell::trace::Event;
use serde::{Deserialize, Serialize};

use crate::fault::catalogue::{Fault, HostFault};
use crate::fault::plan::Kind;
use crate::guest::difference::Difference;
use crate::guest::trace::{Observed, Source};
use crate::latency::Latencies;
use crate::observation::{CellSnapshot, Observation, Reached};
use crate::verdict::{Verdict, Violation};

macro_rules! labels {
    ($(#[$meta:meta])+ $name:ident { $($(#[$doc:meta])+ $label:ident = $text:literal,)+ }) => {
        $(#[$meta])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])+ $label,)+ }

        impl $name {
            /// Every label, the worst first.
            pub const ALL: &[Self] = &[$(Self::$label,)+];

            /// For people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$label => $text,)+ }
            }
        }
    };
}

labels! {
    /// What became of the system.
    Containment {
        /// The runner or QEMU failed.
        Infra = "infrastructure",
        /// The trigger never fired, the fault was never carried out, or the machine did not last
        /// until then.
        NotInjected = "not injected",
        /// No cell serves: the machine went down, or every cell did.
        SystemFailure = "system failure",
        /// A survivor took wrong bytes for right ones.
        FsvExternal = "fail-silence violation",
        /// A cell that the fault was not injected into crashed or hung, or lost work with nobody
        /// suspected.
        Propagated = "propagated",
        /// A healthy cell was voted out.
        WrongAccusation = "wrong accusation",
        /// Survivors decided differently.
        SplitView = "split view",
        /// The cell is dead or hung, and nobody noticed.
        Missed = "missed",
        /// Noticed, and the survivors did not go on as they should.
        RecoveryFailed = "recovery failed",
        /// As contained or not manifested, but a survivor stood still for longer than allowed.
        Degraded = "degraded",
        /// The cell failed, nobody else did, and it did not come back.
        Contained = "contained",
        /// The cell failed, nobody else did, and it came back.
        ContainedReintegrated = "contained, reintegrated",
        /// The cell did not fail, and nobody else did.
        NotManifested = "not manifested",
    }
}

labels! {
    /// What else is to be said of a run, whatever its label.
    Flag {
        /// A program died, or lost work, that had nothing to do with a cell that died.
        Overkill = "overkill",
        /// A survivor stood still for longer than the campaign allows.
        Paused = "paused",
        /// Cells voted, and expelled nobody.
        FalseAlarm = "false alarm",
        /// A fault after the first found its target gone: the run shows what came of the others.
        LeftOut = "later fault left out",
    }
}

labels! {
    /// What became of the cell that the fault was injected into.
    Effect {
        /// An exception, a triple fault or a machine check ended its life.
        Crash = "crash",
        /// It stood still, by no order of the fault.
        Hang = "hang",
        /// Its own kernel stopped it.
        Assert = "assert",
        /// It met wrong bytes itself, and went on.
        FsvLocal = "local fail-silence violation",
        /// The fault itself was the stop.
        Halted = "halted",
        /// The fault ended its programs: it serves on, and does no work any more.
        ServiceLost = "service lost",
        /// The fault ended programs of it, and the others work on.
        ProgramsLost = "programs lost",
        /// The cell went on, and memory is not what it would be without the fault.
        Latent = "latent",
        /// The fault was surely met, or nothing is left of it, and the cell went on.
        Masked = "masked",
        /// The cell went on, and whether it ever met the fault is not known.
        NotManifested = "not manifested",
    }
}

impl Containment {
    /// Whether the run says anything about the system.
    pub const fn is_valid(self) -> bool {
        !matches!(self, Self::Infra | Self::NotInjected)
    }

    /// Whether the fault had an effect beyond being noticed.
    pub const fn is_manifested(self) -> bool {
        self.is_valid() && !matches!(self, Self::NotManifested)
    }

    /// Whether a fault that manifested stayed in its cell.
    pub const fn is_contained(self) -> bool {
        matches!(
            self,
            Self::Contained | Self::ContainedReintegrated | Self::Degraded
        )
    }
}

/// Longest pause of a survivor that is not degraded, in microseconds; `None` for any.
pub type PauseLimit = Option<u64>;

/// Classifies a run that was carried out.
pub fn classify(
    kind: Kind,
    run: &Observation,
    verdict: &Verdict,
    latencies: &Latencies,
    limit: PauseLimit,
) -> (Containment, Option<Effect>) {
    let effect = (kind == Kind::Fault).then(|| effect(run, verdict));
    (containment(run, verdict, latencies, effect, limit), effect)
}

/// Every label that something speaks for, the worst first. Where nobody serves there is no system,
/// whether or not the machine went down.
pub fn labels(
    run: &Observation,
    verdict: &Verdict,
    latencies: &Latencies,
) -> BTreeSet<Containment> {
    let serves = |cell: &CellSnapshot| cell.state == CellState::Live && cell.serves;
    let nobody = !run.after.iter().any(serves);
    let violations = verdict.violations.iter();
    violations
        .filter_map(|violation| label(violation, run, verdict, latencies))
        .chain(nobody.then_some(Containment::SystemFailure))
        .collect()
}

/// What else is to be said of a run.
pub fn flags(run: &Observation, verdict: &Verdict, limit: PauseLimit) -> Vec<Flag> {
    let needless = |violation: &Violation| {
        matches!(
            violation,
            Violation::BystanderDied { .. }
                | Violation::KilledForNothing { .. }
                | Violation::LostWithTheLiving { .. }
        )
    };
    let found = [
        (Flag::Overkill, verdict.violations.iter().any(needless)),
        (Flag::Paused, is_paused(verdict, limit)),
        (Flag::FalseAlarm, run.false_alarms() > 0),
        (Flag::LeftOut, !run.left_out.is_empty()),
    ];
    let found = found.into_iter().filter(|&(_, holds)| holds);
    found.map(|(flag, _)| flag).collect()
}

/// The longest pause of a worker of a cell that survived and that no fault was injected into: a
/// target that stands still for a while does what its fault says.
pub fn longest_pause_us(verdict: &Verdict) -> Option<u64> {
    let others = verdict
        .cells
        .iter()
        .filter(|cell| !verdict.targets.contains(&cell.cell));
    others.filter_map(|cell| cell.longest_pause_us).max()
}

fn is_paused(verdict: &Verdict, limit: PauseLimit) -> bool {
    let longest = longest_pause_us(verdict);
    limit.is_some_and(|limit| longest.is_some_and(|longest| longest > limit))
}

fn containment(
    run: &Observation,
    verdict: &Verdict,
    latencies: &Latencies,
    effect: Option<Effect>,
    limit: PauseLimit,
) -> Containment {
    let labels = labels(run, verdict, latencies);
    let fell_short = run.reached == Reached::Work;
    if effect.is_some() && (fell_short || run.injected.is_empty()) {
        return Containment::NotInjected;
    }
    if let Some(&worst) = labels.first() {
        return worst;
    }
    if fell_short {
        return Containment::NotInjected;
    }
    let asked_in_vain = !run.not_triggered.is_empty() || !run.not_carried_out.is_empty();
    if effect.is_some() && (asked_in_vain || run.undone().next().is_some()) {
        return Containment::NotInjected;
    }
    if is_paused(verdict, limit) {
        return Containment::Degraded;
    }
    let is_poorer = matches!(effect, Some(Effect::ServiceLost | Effect::ProgramsLost));
    let failed = !verdict.dead.is_empty() || is_poorer || effect == Some(Effect::FsvLocal);
    let back = |violation: &Violation| matches!(violation, Violation::NotReintegrated { .. });
    match failed {
        false => Containment::NotManifested,
        true if verdict.violations.iter().any(back) || is_poorer => Containment::Contained,
        true => Containment::ContainedReintegrated,
    }
}

/// What a violation makes of a run; `None` if it says nothing about containment.
fn label(
    violation: &Violation,
    run: &Observation,
    verdict: &Verdict,
    latencies: &Latencies,
) -> Option<Containment> {
    let is_target = |cell: &usize| verdict.targets.contains(cell);
    let noticed = latencies.first_hint.is_some() || !verdict.dead.is_empty();
    Some(match violation {
        Violation::SystemDown { .. } => Containment::SystemFailure,
        Violation::WrongBytes { .. } | Violation::SuspectWithoutDeath { .. } => {
            Containment::FsvExternal
        }
        Violation::BystanderDied { cell } | Violation::KilledForNothing { cell } => {
            match (broke_down(run, *cell), is_target(cell)) {
                (false, _) => Containment::WrongAccusation,
                (true, false) => Containment::Propagated,
                (true, true) => return None,
            }
        }
        Violation::LiveSetsDiffer { .. } | Violation::LiveSetUntrue { .. } => {
            Containment::SplitView
        }
        // The dead may take along the work that needed them. More than that is too much.
        Violation::Unnoticed { .. } | Violation::LostWithTheLiving { .. } if noticed => {
            Containment::RecoveryFailed
        }
        Violation::LostWithTheLiving { .. }
        | Violation::ForeignWrite(_)
        | Violation::ForeignDifference(_)
        | Violation::StrayStores { .. } => Containment::Propagated,
        Violation::Unnoticed { .. } => Containment::Missed,
        Violation::Stopped { cell } | Violation::NoProgress { cell, .. } => {
            match (noticed, is_target(cell)) {
                (true, true) => Containment::RecoveryFailed,
                (false, true) => Containment::Missed,
                (_, false) if is_held_up(run, *cell) => Containment::RecoveryFailed,
                (_, false) => Containment::Propagated,
            }
        }
        Violation::Unaccounted { .. } => Containment::RecoveryFailed,
        Violation::NotReintegrated { .. }
        | Violation::NotTriggered
        | Violation::TargetGone { .. }
        | Violation::NotCarriedOut { .. } => return None,
    })
}

/// Whether a cell that died was sick: its kernel or the monitor says so, or one of its CPUs had to
/// be restarted because it did not come by itself.
fn broke_down(run: &Observation, cell: usize) -> bool {
    let about = |record: &Observed| match (record.source, record.event) {
        (Source::Cell(by), Event::Panic) => by == cell,
        (Source::Monitor, Event::Evidence) => record.arguments[0] & 0xffff_ffff == cell as u64,
        (Source::Monitor, Event::Restarted) => record.arguments[1] == cell as u64,
        _ => false,
    };
    run.since_start().any(about)
}

/// Whether a survivor's work is held by a recovery that did not end, or that nobody began though
/// somebody died. Who alone took no part in one hangs.
fn is_held_up(run: &Observation, cell: usize) -> bool {
    let is_phase =
        |record: &&Observed| matches!(record.event, Event::RecoveryBegin | Event::Resume);
    let phases = || run.since_start().filter(is_phase);
    let own = |record: &&Observed| record.source == Source::Cell(cell);
    match phases().filter(own).last() {
        Some(last) => last.event == Event::RecoveryBegin,
        None => !run.dead().is_empty() && phases().next().is_none(),
    }
}

fn effect(run: &Observation, verdict: &Verdict) -> Effect {
    let Some(first) = run.injected.first() else {
        return Effect::NotManifested;
    };
    let cell = first.cell;
    if verdict.dead.contains(&cell) {
        return death(run, first.fault, cell);
    }
    let wrong = verdict.cells.get(cell).is_some_and(|cell| cell.wrong > 0);
    let unnoticed = |violation: &Violation| {
        let stands = matches!(
            violation,
            Violation::Unnoticed { .. } | Violation::Stopped { .. }
        );
        stands && violation.cell() == Some(cell)
    };
    if verdict.violations.iter().any(unnoticed) {
        Effect::Hang
    } else if wrong {
        Effect::FsvLocal
    } else if verdict.out_of_work.contains(&cell) {
        Effect::ServiceLost
    } else if CellId::new(cell).is_some_and(|id| run.robbed().contains(id)) {
        Effect::ProgramsLost
    } else if !first.fault.is_latent() {
        Effect::Masked
    } else {
        match run.difference.as_ref().map(Difference::is_none) {
            Some(true) => Effect::Masked,
            Some(false) => Effect::Latent,
            None => Effect::NotManifested,
        }
    }
}

/// Whether a fault is itself the stop of a CPU.
pub fn stops_by_itself(fault: Fault) -> bool {
    [HostFault::CpuHalt, HostFault::CpuFreeze]
        .map(Fault::Host)
        .contains(&fault)
}

fn death(run: &Observation, fault: Fault, cell: usize) -> Effect {
    if stops_by_itself(fault) {
        return Effect::Halted;
    }
    let evidence = |record: &Observed| {
        let about = record.source == Source::Monitor
            && record.event == Event::Evidence
            && record.arguments[0] & 0xffff_ffff == cell as u64;
        about.then(|| EvidenceKind::from_raw((record.arguments[0] >> 32) as u32))
    };
    let evidence: Vec<EvidenceKind> = run.since_start().filter_map(evidence).collect();
    // A panic because of an exception names the instruction.
    let panic = run
        .since_start()
        .find(|record| record.source == Source::Cell(cell) && record.event == Event::Panic);
    let exception = panic.is_some_and(|record| record.arguments[0] != 0);
    // A CPU that leaves its life by INIT is how a cell that stands still is ended.
    let crashed = evidence.iter().any(|kind| {
        !matches!(
            kind,
            EvidenceKind::None | EvidenceKind::Reset | EvidenceKind::Panic
        )
    });
    if exception || (panic.is_none() && crashed) {
        Effect::Crash
    } else if panic.is_some() || evidence.contains(&EvidenceKind::Panic) {
        Effect::Assert
    } else {
        Effect::Hang
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
