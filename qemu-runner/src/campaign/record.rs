//! One finished run, as one line of `runs.jsonl`.
//!
//! Everything that a report says is made from these lines, so that a campaign can be reported on
//! again without running it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lanes::{Lane, lanes};
use super::outcome::{
    Containment, Effect, Flag, PauseLimit, classify, flags, labels, longest_pause_us,
};
use super::resolve::Resolved;
use crate::error::Error;
use crate::fault::plan::Kind;
use crate::guest::difference::Difference;
use crate::latency::Latencies;
use crate::observation::Observation;
use crate::units::{float, milliseconds, milliseconds_between};
use crate::verdict::{Invariant, Verdict, Violation, agreement};

/// A finished run.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Record {
    /// What was to be done.
    pub resolved: Resolved,
    /// What became of the system.
    pub containment: Containment,
    /// What else speaks against the system, in the order of the labels.
    #[serde(default)]
    pub also: Vec<Containment>,
    /// What else is to be said.
    #[serde(default)]
    pub flags: Vec<Flag>,
    /// What became of the cell; `None` for controls and for runs that could not be carried out.
    pub effect: Option<Effect>,
    /// What exactly was injected.
    pub injected: Vec<String>,
    /// What speaks against the run.
    pub violations: Vec<Broken>,
    /// What was measured; `None` if the run could not be carried out.
    pub measured: Option<Measured>,
    /// Why the run could not be carried out.
    pub infra: Option<String>,
    /// The hash of all the guest's memory at the end, where a run can be had again bit for bit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ram_sha256: Option<String>,
    /// How memory differs from the control's, where that was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// Host time of the whole run, in milliseconds.
    pub wall_ms: f64,
}

/// A violation, in words.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Broken {
    /// What it speaks against.
    pub invariant: Invariant,
    /// A sentence.
    pub text: String,
}

/// What was measured in a run.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Measured {
    /// Host time until every cell served, in milliseconds.
    pub boot_ms: f64,
    /// The guest's time from the fault to the end, in milliseconds.
    pub followed_ms: f64,
    /// The cells that died.
    pub dead: Vec<usize>,
    /// The cells that something happened to, though nothing was injected there.
    pub affected: Vec<usize>,
    /// How often a cell saw an attempt at agreement end with nobody expelled.
    pub false_alarms: usize,
    /// Operations of all cells from the fault to the end.
    pub verified: u64,
    /// The longest pause of a survivor's worker, in milliseconds; of targets none.
    pub longest_pause_ms: Option<f64>,
    /// Workers that died, and those of them whose cell a fault was injected into.
    #[serde(default)]
    pub workers: Workers,
    /// Operations that survivors lost with cells that died, and with others.
    #[serde(default)]
    pub lost: Lost,
    /// Who lived at the end.
    #[serde(default)]
    pub live_set: LiveSet,
    /// What state each cell was in.
    #[serde(default)]
    pub lanes: Vec<Lane>,
    /// Times since the fault.
    pub latencies: Latencies,
    /// Trace records that were lost.
    pub records_lost: u64,
}

/// Workers whose life ended in a run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Workers {
    /// How many.
    pub died: u64,
    /// How many of them with a cell that a fault was injected into.
    pub due: u64,
}

/// Operations that survivors lost.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Lost {
    /// With cells that died.
    pub with_the_dead: u64,
    /// With cells that lived.
    pub with_the_living: u64,
}

/// Who lived at the end, and what the survivors made of it. Bits by cell.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct LiveSet {
    /// Who lived, by the monitor's states of the cells.
    pub truth: u64,
    /// What each survivor decided last; nothing for those that had nothing to decide.
    pub decided: BTreeMap<usize, u64>,
}

impl Record {
    /// A run that was carried out.
    pub fn of(resolved: Resolved, run: &Observation, limit: PauseLimit, wall: Duration) -> Self {
        let (verdict, latencies) = (Verdict::of(run), Latencies::of(run));
        let (containment, effect) = classify(resolved.kind, run, &verdict, &latencies, limit);
        let labels = labels(run, &verdict, &latencies);
        let flags = flags(run, &verdict, limit);
        let broken = |violation: &Violation| Broken {
            invariant: violation.invariant(),
            text: violation.text(),
        };
        let pause = longest_pause_us(&verdict).unwrap_or(0);
        let paused = flags.contains(&Flag::Paused).then(|| Broken {
            invariant: Invariant::SurvivorsGoOn,
            text: format!("a survivor stood still for {:.1} ms", float(pause) / 1e3),
        });
        let violations = verdict.violations.iter().map(broken).chain(paused);
        Self {
            resolved,
            containment,
            also: labels
                .into_iter()
                .filter(|&label| label != containment)
                .collect(),
            flags,
            effect: effect.filter(|_| containment.is_valid()),
            injected: run.injected.iter().map(|one| one.detail.clone()).collect(),
            violations: violations.collect(),
            measured: Some(Measured::of(run, &verdict, latencies)),
            infra: None,
            ram_sha256: run.ram_sha256.clone(),
            difference: run.difference.clone(),
            wall_ms: milliseconds(wall),
        }
    }

    /// A run whose machine went down before all cells served.
    pub fn down(resolved: Resolved, how: &str, wall: Duration) -> Self {
        // The rest is the serial log.
        let how = how.lines().next().unwrap_or_default();
        let (containment, also) = match resolved.kind {
            Kind::Fault => (Containment::NotInjected, vec![Containment::SystemFailure]),
            Kind::Golden | Kind::Null => (Containment::SystemFailure, Vec::new()),
        };
        Self {
            containment,
            also,
            violations: vec![Broken {
                invariant: Invariant::MachineStaysUp,
                text: how.into(),
            }],
            infra: None,
            ..Self::failed(resolved, &Error::Down(how.into()), wall)
        }
    }

    /// A run that could not be carried out.
    pub fn failed(resolved: Resolved, error: &Error, wall: Duration) -> Self {
        Self {
            resolved,
            containment: Containment::Infra,
            also: Vec::new(),
            flags: Vec::new(),
            effect: None,
            injected: Vec::new(),
            violations: Vec::new(),
            measured: None,
            infra: Some(error.to_string()),
            ram_sha256: None,
            difference: None,
            wall_ms: milliseconds(wall),
        }
    }

    /// Its number.
    pub const fn run(&self) -> u32 {
        self.resolved.run
    }

    /// Whether it injects anything.
    pub const fn kind(&self) -> Kind {
        self.resolved.kind
    }

    /// Whether the runner and its emulator did their part, so that what must hold of the machine
    /// can be asked.
    pub const fn was_carried_out(&self) -> bool {
        self.infra.is_none()
    }

    /// Whether something speaks against the system. A fault that never struck does not; what came
    /// of another in the same run does, though it enters no share.
    pub fn is_violation(&self) -> bool {
        let mut violations = self.violations.iter();
        violations.any(|broken| broken.invariant.is_of_the_system())
    }

    /// Whether a label holds, as the worst or beside it.
    pub fn is(&self, label: Containment) -> bool {
        self.containment == label || self.also.contains(&label)
    }

    /// Whether two runs were to do the same.
    pub fn is_same_plan(&self, other: &Self) -> bool {
        let (one, other) = (&self.resolved, &other.resolved);
        // Most differ in the seed of their first fault: only those that do not are copied.
        one.first == other.first
            && *one
                == Resolved {
                    run: one.run,
                    ..other.clone()
                }
    }

    /// Why it is a violation, in words.
    pub fn reasons(&self) -> String {
        let words: Vec<&str> = self
            .violations
            .iter()
            .map(|broken| broken.text.as_str())
            .collect();
        if words.is_empty() {
            self.containment.text().into()
        } else {
            words.join("; ")
        }
    }
}

impl Measured {
    /// Whether the trace shows what became of the fault. If the host held the machine up just then,
    /// the time of the fault can be taken for later than everything that came of it.
    pub fn is_timed(&self) -> bool {
        let known = |(_, time): &(&str, Option<f64>)| time.is_some();
        self.dead.is_empty() || self.latencies.named().iter().any(known)
    }

    fn of(run: &Observation, verdict: &Verdict, latencies: Latencies) -> Self {
        let of_the_system = verdict.violations.iter();
        let of_the_system = of_the_system.filter(|one| one.invariant().is_of_the_system());
        let others = of_the_system.filter_map(Violation::cell);
        let affected: BTreeSet<usize> = others
            .filter(|cell| !verdict.targets.contains(cell))
            .collect();
        Self {
            boot_ms: milliseconds(run.boot_time),
            followed_ms: milliseconds_between(run.start(), run.ended_at),
            dead: verdict.dead.clone(),
            affected: affected.into_iter().collect(),
            false_alarms: run.false_alarms(),
            verified: verdict.cells.iter().map(|cell| cell.verified).sum(),
            longest_pause_ms: longest_pause_us(verdict).map(|pause| float(pause) / 1e3),
            workers: Workers::of(run, verdict),
            lost: Lost::of(verdict),
            live_set: LiveSet::of(run),
            lanes: lanes(run),
            latencies,
            records_lost: run.records_lost,
        }
    }
}

impl Workers {
    fn of(run: &Observation, verdict: &Verdict) -> Self {
        let of = |cell: &usize| run.before[*cell].account.workers;
        let due = |cell: &&usize| verdict.targets.contains(cell);
        Self {
            died: verdict.dead.iter().map(of).sum(),
            due: verdict.dead.iter().filter(due).map(of).sum(),
        }
    }
}

impl Lost {
    fn of(verdict: &Verdict) -> Self {
        let is_dead = |cell: &usize| verdict.dead.contains(cell);
        let mut lost = Self::default();
        let survivors = verdict.cells.iter().filter(|one| !is_dead(&one.cell));
        for (with, &operations) in survivors.flat_map(|one| one.lost_with.iter().enumerate()) {
            if is_dead(&with) {
                lost.with_the_dead += operations;
            } else {
                lost.with_the_living += operations;
            }
        }
        lost
    }
}

impl LiveSet {
    fn of(run: &Observation) -> Self {
        Self {
            truth: agreement::truth(run).0,
            decided: agreement::last_decided(run),
        }
    }
}
