//! What runs without a fault show: false alarms, and what the tool itself does to the machine.

use serde::Serialize;

use crate::bench::statistics::Summary as Spread;
use crate::campaign::record::{Measured, Record};
use crate::campaign::statistics::{Proportion, Sample, Shift};
use crate::fault::plan::Kind;
use crate::units::float;

/// What the controls of a kind show.
#[derive(Clone, Debug, Serialize)]
pub struct ControlSummary {
    /// The kind.
    pub kind: Kind,
    /// In how many of them something speaks against the system.
    pub violated: Proportion,
    /// In how many of them a healthy cell was voted out.
    pub accused: Proportion,
    /// In how many of them nobody was expelled, but some cells voted about it.
    pub alarmed: Proportion,
    /// False alarms per second of the guest's time, by all cells.
    pub false_alarms_per_second: Option<f64>,
    /// Operations per second of the guest's time, of all cells.
    pub work_per_second: Option<Spread>,
    /// The longest pause of a worker in each run, in milliseconds.
    pub longest_pause_ms: Option<Spread>,
}

/// What a null injection changes beside a golden run: the effect of the tool.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProbeEffect {
    /// What was measured.
    pub what: &'static str,
    /// In golden runs.
    pub golden: Option<Spread>,
    /// In null injections.
    pub null: Option<Spread>,
    /// Null injections less golden runs.
    pub shift: Option<Shift>,
}

impl ControlSummary {
    /// The kind, for people.
    pub const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Golden => "golden run",
            Kind::Null => "null injection",
            Kind::Fault => "fault",
        }
    }

    pub(super) fn of(kind: Kind, runs: &[&Record]) -> Self {
        let valid: Vec<&Record> = runs
            .iter()
            .copied()
            .filter(|run| run.containment.is_valid())
            .collect();
        let measured: Vec<&Measured> = valid
            .iter()
            .filter_map(|run| run.measured.as_ref())
            .collect();
        let alarms: usize = measured.iter().map(|one| one.false_alarms).sum();
        let seconds: f64 = measured.iter().map(|one| one.followed_ms / 1e3).sum();
        Self {
            kind,
            violated: Proportion::counting(&valid, |run| run.is_violation()),
            accused: Proportion::counting(&measured, |one| !one.dead.is_empty()),
            alarmed: Proportion::counting(&measured, |one| {
                one.dead.is_empty() && one.false_alarms > 0
            }),
            false_alarms_per_second: (seconds > 0.0).then(|| float(alarms as u64) / seconds),
            work_per_second: Spread::of(measured.iter().filter_map(|one| work(one))),
            longest_pause_ms: Spread::of(measured.iter().filter_map(|one| one.longest_pause_ms)),
        }
    }
}

/// Operations per second of the guest's time, of all cells.
pub fn work(one: &Measured) -> Option<f64> {
    let seconds = one.followed_ms / 1e3;
    (seconds > 0.0).then(|| float(one.verified) / seconds)
}

type Measure = fn(&Measured) -> Option<f64>;

/// What could show that the tool disturbs what it looks at.
const MEASURES: [(&str, Measure); 3] = [
    ("work per second", work),
    ("longest pause, ms", |one| one.longest_pause_ms),
    ("false alarms per second", |one| {
        let seconds = one.followed_ms / 1e3;
        (seconds > 0.0).then(|| float(one.false_alarms as u64) / seconds)
    }),
];

/// Compares null injections with golden runs.
pub(super) fn probe_effect(records: &[&Record]) -> Vec<ProbeEffect> {
    let of = |kind: Kind, measure: Measure| -> Vec<f64> {
        let runs = records.iter().filter(|run| run.kind() == kind);
        let judged = runs.filter(|run| run.containment.is_valid());
        let measured = judged.filter_map(|run| run.measured.as_ref());
        measured.filter_map(measure).collect()
    };
    let samples = |times: &[f64]| {
        times
            .iter()
            .copied()
            .map(Sample::Measured)
            .collect::<Vec<_>>()
    };
    let compared = MEASURES.map(|(what, measure)| {
        let (golden, null) = (of(Kind::Golden, measure), of(Kind::Null, measure));
        ProbeEffect {
            what,
            shift: Shift::between(&samples(&golden), &samples(&null)),
            golden: Spread::of(golden),
            null: Spread::of(null),
        }
    });
    compared.into()
}
