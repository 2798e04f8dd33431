//! One finished run, as one line of `runs.jsonl`.
//!
//! Everything that a report says is made from these lines, so that a campaign can be reported on
//! again without running it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outcome::{Containment, Effect, PauseLimit, classify};
use super::resolve::Resolved;
use crate::error::Error;
use crate::fault::plan::Kind;
use crate::latency::Latencies;
use crate::observation::Observation;
use crate::units::{float, milliseconds, milliseconds_between};
use crate::verdict::{Invariant, Verdict, Violation};

/// A finished run.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Record {
    /// What was to be done.
    pub resolved: Resolved,
    /// What became of the system.
    pub containment: Containment,
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
    /// The SHA-256 of all memory at the end, in the deterministic mode.
    #[serde(default)]
    pub ram_sha256: Option<String>,
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
    /// The longest pause of a survivor's worker, in milliseconds.
    pub longest_pause_ms: Option<f64>,
    /// Times since the fault.
    pub latencies: Latencies,
    /// Trace records that were lost.
    pub records_lost: u64,
}

impl Record {
    /// A run that was carried out.
    pub fn of(resolved: Resolved, run: &Observation, limit: PauseLimit, wall: Duration) -> Self {
        let (verdict, latencies) = (Verdict::of(run), Latencies::of(run));
        let (containment, effect) = classify(resolved.kind, run, &verdict, &latencies, limit);
        let broken = |violation: &Violation| Broken {
            invariant: violation.invariant(),
            text: violation.text(),
        };
        Self {
            resolved,
            containment,
            effect: effect.filter(|_| containment.is_valid()),
            injected: run.injected.iter().map(|one| one.detail.clone()).collect(),
            violations: verdict.violations.iter().map(broken).collect(),
            measured: Some(Measured::of(run, &verdict, latencies)),
            infra: None,
            ram_sha256: run.ram_sha256.clone(),
            wall_ms: milliseconds(wall),
        }
    }

    /// A run that could not be carried out.
    pub fn failed(resolved: Resolved, error: &Error, wall: Duration) -> Self {
        Self {
            resolved,
            containment: Containment::Infra,
            effect: None,
            injected: Vec::new(),
            violations: Vec::new(),
            measured: None,
            infra: Some(error.to_string()),
            ram_sha256: None,
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

    /// Whether something speaks against the system. A fault that never struck does not.
    pub fn is_violation(&self) -> bool {
        let real = |broken: &Broken| broken.invariant != Invariant::EveryFaultStrikes;
        self.containment.is_valid()
            && (self.violations.iter().any(real) || self.containment == Containment::Degraded)
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
    fn of(run: &Observation, verdict: &Verdict, latencies: Latencies) -> Self {
        let others = verdict.violations.iter().filter_map(Violation::cell);
        let affected: BTreeSet<usize> = others
            .filter(|cell| !verdict.targets.contains(cell))
            .collect();
        let pauses = verdict
            .cells
            .iter()
            .filter_map(|cell| cell.longest_pause_us);
        Self {
            boot_ms: milliseconds(run.boot_time),
            followed_ms: milliseconds_between(run.start(), run.ended_at),
            dead: verdict.dead.clone(),
            affected: affected.into_iter().collect(),
            false_alarms: run.false_alarms(),
            verified: verdict.cells.iter().map(|cell| cell.verified).sum(),
            longest_pause_ms: pauses.max().map(|pause| float(pause) / 1e3),
            latencies,
            records_lost: run.records_lost,
        }
    }
}
