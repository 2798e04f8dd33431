//! What the runs of a campaign show, as numbers.
//!
//! # Invariants
//! 1. Controls, and runs that could not be judged, enter no proportion of faults.
//! 2. Classes are put together only as they were drawn, by the weights that the file declares.

use std::collections::BTreeMap;

use serde::Serialize;

use super::directory::Manifest;
use super::outcome::{Containment, Effect};
use super::record::{Measured, Record};
use super::statistics::{Proportion, Sample, Times};
use crate::bench::statistics::Summary as Spread;
use crate::error::Ending;
use crate::fault::plan::Kind;
use crate::latency::Latencies;
use crate::units::float;
use crate::verdict::Invariant;

/// What a campaign shows.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The format.
    pub schema: &'static str,
    /// The campaign's name.
    pub name: String,
    /// What it shows.
    pub purpose: String,
    /// Its seed.
    pub seed: u64,
    /// What ran, in a line.
    pub setup: String,
    /// How many runs of each kind.
    pub totals: Totals,
    /// Of all runs that could be judged, controls too: a healthy cell was voted out.
    pub accused: Proportion,
    /// All classes of faults together, as they were drawn.
    pub overall: ClassSummary,
    /// Each class of faults.
    pub classes: Vec<ClassSummary>,
    /// Golden runs, and null injections.
    pub controls: Vec<ControlSummary>,
    /// For each cell that faults were injected into and each other cell, in how many of those runs
    /// something happened to the other.
    pub propagation: Vec<Propagation>,
    /// Every run that something speaks against.
    pub violations: Vec<ViolationLine>,
}

/// How many runs.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub struct Totals {
    /// That were asked for.
    pub wanted: u32,
    /// That are finished.
    pub runs: usize,
    /// That injected a fault, or tried to.
    pub faults: usize,
    /// That could not be carried out.
    pub infra: usize,
    /// Whose fault never struck.
    pub not_injected: usize,
    /// Host time, in seconds.
    pub seconds: f64,
}

/// What the runs of a class show.
#[derive(Clone, Debug, Serialize)]
pub struct ClassSummary {
    /// The name of the class.
    pub class: String,
    /// Its runs, controls not among them.
    pub runs: usize,
    /// How often each containment label.
    pub containment: BTreeMap<Containment, u64>,
    /// How often each effect.
    pub effects: BTreeMap<Effect, u64>,
    /// Of the faults that struck: had an effect.
    pub manifested: Proportion,
    /// Of those: noticed by somebody else.
    pub detected: Proportion,
    /// Of those: stayed in their cell.
    pub contained: Proportion,
    /// Of those: not contained.
    pub escaped: Proportion,
    /// As contained, with runs that could not be judged counted as escapes.
    pub contained_at_worst: Proportion,
    /// Of the contained ones: the cell came back.
    pub reintegrated: Proportion,
    /// Of the faults that struck: survivors took wrong bytes for right ones.
    pub silent: Proportion,
    /// The named latencies of the runs whose fault manifested, in milliseconds.
    pub latencies_ms: Vec<(&'static str, Times)>,
    /// The samples behind them, for charts.
    #[serde(skip)]
    pub samples: Vec<(&'static str, Vec<Sample>)>,
}

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

/// A run that something speaks against.
#[derive(Clone, Debug, Serialize)]
pub struct ViolationLine {
    /// Its number.
    pub run: u32,
    /// Its kind.
    pub kind: Kind,
    /// The class of its fault.
    pub class: String,
    /// What became of the system.
    pub containment: Containment,
    /// What speaks against it.
    pub reasons: String,
    /// Which invariants it breaks.
    pub invariants: Vec<Invariant>,
}

impl Summary {
    /// Sums up runs.
    pub fn of<'a>(manifest: &Manifest, records: impl Iterator<Item = &'a Record>) -> Self {
        let records: Vec<&Record> = records.collect();
        let faults = of_kind(&records, Kind::Fault);
        let mut names: Vec<&str> = faults
            .iter()
            .map(|run| run.resolved.class.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let class = |name: &str| {
            let runs = faults.iter().filter(|run| run.resolved.class == name);
            ClassSummary::of(name, &runs.copied().collect::<Vec<_>>())
        };
        let controls = [Kind::Golden, Kind::Null];
        Self {
            schema: "hive-campaign-summary/1",
            name: manifest.name.clone(),
            purpose: manifest.purpose.clone(),
            seed: manifest.seed,
            setup: manifest.setup.text(),
            totals: Totals::of(manifest.runs, &records),
            accused: accused(&records),
            overall: ClassSummary::of("all", &faults),
            classes: names.into_iter().map(class).collect(),
            controls: controls
                .map(|kind| ControlSummary::of(kind, &of_kind(&records, kind)))
                .into(),
            propagation: propagation(&faults, manifest.setup.cells()),
            violations: violations(&records),
        }
    }

    /// Whether nothing speaks against any run.
    pub fn ending(&self) -> Ending {
        if self.violations.is_empty() {
            Ending::Held
        } else {
            Ending::Violated
        }
    }

    /// The result in a sentence, with its bound.
    pub fn verdict(&self) -> String {
        let all = &self.overall;
        let accused = format!(
            "Runs in which a healthy cell was voted out: {}.",
            self.accused.text()
        );
        if all.manifested.count == 0 {
            let struck = all.manifested.text();
            return format!("Faults that struck and had an effect: {struck}. {accused}");
        }
        format!(
            "Faults that had an effect and did not stay in their cell: {}. {accused}",
            all.escaped.text()
        )
    }
}

fn accused(records: &[&Record]) -> Proportion {
    let valid = records.iter().filter(|run| run.containment.is_valid());
    Proportion::counting(valid, |run| run.containment == Containment::WrongAccusation)
}

fn of_kind<'a>(records: &[&'a Record], kind: Kind) -> Vec<&'a Record> {
    let matching = records.iter().filter(|run| run.kind() == kind);
    matching.copied().collect()
}

impl Totals {
    fn of(wanted: u32, records: &[&Record]) -> Self {
        let count = |test: &dyn Fn(&Record) -> bool| records.iter().filter(|run| test(run)).count();
        Self {
            wanted,
            runs: records.len(),
            faults: count(&|run| run.kind() == Kind::Fault),
            infra: count(&|run| run.containment == Containment::Infra),
            not_injected: count(&|run| run.containment == Containment::NotInjected),
            seconds: records.iter().map(|run| run.wall_ms).sum::<f64>() / 1e3,
        }
    }
}

impl ClassSummary {
    fn of(class: &str, runs: &[&Record]) -> Self {
        let valid = || runs.iter().filter(|run| run.containment.is_valid());
        let manifested = || valid().filter(|run| run.containment.is_manifested());
        let contained = || manifested().filter(|run| run.containment.is_contained());
        let (mut containment, mut effects) = (BTreeMap::new(), BTreeMap::new());
        for run in runs {
            *containment.entry(run.containment).or_default() += 1;
            if let Some(effect) = run.effect {
                *effects.entry(effect).or_default() += 1;
            }
        }
        let stayed = Proportion::counting(manifested(), |run| run.containment.is_contained());
        let samples = samples(&manifested().copied().collect::<Vec<_>>());
        let times = |(name, samples): &(&'static str, Vec<Sample>)| {
            Times::of(samples).map(|times| (*name, times))
        };
        Self {
            class: class.into(),
            runs: runs.len(),
            containment,
            effects,
            manifested: Proportion::counting(valid(), |run| run.containment.is_manifested()),
            detected: Proportion::counting(manifested(), |run| is_detected(run)),
            contained: stayed,
            escaped: stayed.others(),
            contained_at_worst: Proportion::new(
                stayed.count,
                stayed.of + (runs.len() - valid().count()) as u64,
            ),
            reintegrated: Proportion::counting(contained(), |run| {
                run.violations
                    .iter()
                    .all(|broken| broken.invariant != Invariant::TheDeadComeBack)
            }),
            silent: Proportion::counting(valid(), |run| {
                run.containment == Containment::FsvExternal
            }),
            latencies_ms: samples.iter().filter_map(times).collect(),
            samples,
        }
    }
}

fn is_detected(run: &Record) -> bool {
    let hint =
        |measured: &Measured| measured.latencies.first_hint.is_some() || !measured.dead.is_empty();
    run.measured.as_ref().is_some_and(hint)
}

/// The latencies of runs, censored at the end of each run that did not get so far.
fn samples(runs: &[&Record]) -> Vec<(&'static str, Vec<Sample>)> {
    let names = Latencies::default().named().map(|(name, _)| name);
    let of = |position: usize| {
        let sample = |measured: &Measured| match measured.latencies.named()[position].1 {
            Some(time) => Sample::Measured(time),
            None => Sample::Censored(measured.followed_ms),
        };
        let measured = runs.iter().filter_map(|run| run.measured.as_ref());
        measured.map(sample).collect()
    };
    let named = names.into_iter().enumerate();
    named.map(|(position, name)| (name, of(position))).collect()
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

    fn of(kind: Kind, runs: &[&Record]) -> Self {
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
        let work = |one: &&Measured| {
            let seconds = one.followed_ms / 1e3;
            (seconds > 0.0).then(|| float(one.verified) / seconds)
        };
        Self {
            kind,
            violated: Proportion::counting(&valid, |run| run.is_violation()),
            accused: Proportion::counting(&measured, |one| !one.dead.is_empty()),
            alarmed: Proportion::counting(&measured, |one| {
                one.dead.is_empty() && one.false_alarms > 0
            }),
            false_alarms_per_second: (seconds > 0.0).then(|| float(alarms as u64) / seconds),
            work_per_second: Spread::of(measured.iter().filter_map(work)),
            longest_pause_ms: Spread::of(measured.iter().filter_map(|one| one.longest_pause_ms)),
        }
    }
}

/// Only runs with one fault say where an effect came from.
fn propagation(faults: &[&Record], cells: usize) -> Vec<Propagation> {
    let pairs = (0..cells).flat_map(|from| (0..cells).map(move |to| (from, to)));
    let between = |(from, to): (usize, usize)| {
        let runs = faults.iter().filter(|run| {
            let one = run.resolved.is_of_one_cell() && run.resolved.first.cell == from;
            one && run.containment.is_valid()
        });
        let reached = |measured: &&Measured| measured.affected.contains(&to);
        let measured = runs.filter_map(|run| run.measured.as_ref());
        Propagation {
            from,
            to,
            affected: Proportion::counting(measured, reached),
        }
    };
    let others = pairs.filter(|(from, to)| from != to);
    others.map(between).collect()
}

fn violations(records: &[&Record]) -> Vec<ViolationLine> {
    let violated = records.iter().filter(|run| run.is_violation());
    let line = |run: &&Record| ViolationLine {
        run: run.run(),
        kind: run.kind(),
        class: run.resolved.class.clone(),
        containment: run.containment,
        reasons: run.reasons(),
        invariants: run
            .violations
            .iter()
            .map(|broken| broken.invariant)
            .collect(),
    };
    violated.map(line).collect()
}
