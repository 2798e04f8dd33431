//! What the runs of a campaign show, as numbers.
//!
//! # Invariants
//! 1. Controls, and runs that could not be judged, enter no proportion of faults.
//! 2. Classes are put together only as they were drawn, by the weights that the file declares.
//!
//! | module | what it holds |
//! |---|---|
//! | [`controls`] | runs without a fault, and the effect of the tool itself |
//! | [`reach`] | how far faults reached |
//! | [`availability`] | how much of the time things were there |

pub mod availability;
pub mod controls;
pub mod reach;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use availability::Availability;
use controls::{ControlSummary, ProbeEffect};
use reach::Reach;

use super::directory::Manifest;
use super::outcome::{Containment, Effect, Flag};
use super::record::{Measured, Record};
use super::statistics::{Proportion, Sample, Times};
use crate::error::{Ending, Error, Result};
use crate::fault::plan::Kind;
use crate::latency::Latencies;
use crate::output::counted;
use crate::units::Span;
use crate::verdict::Invariant;

/// The share of runs that could not be carried out, in percent, from which on a campaign shows
/// nothing.
const INFRA_PERCENT_MAX: usize = 10;

/// The format of a summary, of whatever version.
pub const FORMAT: &str = "hive-campaign-summary/";

/// What a campaign shows.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The format.
    pub schema: String,
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
    /// Of all runs that were carried out, controls too: a healthy cell was voted out.
    pub accused: Proportion,
    /// All classes of faults together, as they were drawn.
    pub overall: ClassSummary,
    /// Each class of faults.
    pub classes: Vec<ClassSummary>,
    /// Golden runs, and null injections.
    pub controls: Vec<ControlSummary>,
    /// What null injections change beside golden runs.
    pub probe_effect: Vec<ProbeEffect>,
    /// What was checked in every run that was carried out, and how often it did not hold.
    pub checks: Vec<Check>,
    /// What the workers did in those runs.
    pub programs: Programs,
    /// How far faults reached.
    pub reach: Reach,
    /// How much of the time things were there.
    pub availability: Option<Availability>,
    /// Pairs of runs that were to do the same, and how many left the same memory; `None` if no two
    /// say what memory they left.
    pub determinism: Option<Proportion>,
    /// The run in the middle of those that were contained, and the worst of all, by number.
    pub shown: Shown,
    /// Every run that something speaks against.
    pub violations: Vec<ViolationLine>,
    /// Every run that could not be carried out.
    pub not_carried_out: Vec<NotCarriedOut>,
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
    /// Those of them that are controls.
    pub infra_of_controls: usize,
    /// Whose fault never struck.
    pub not_injected: usize,
    /// Those of them that something speaks against all the same.
    pub violated_without_fault: usize,
    /// In which a later fault found its target gone.
    pub left_out: usize,
    /// In which a cell died and it is not known when its fault struck, so that they enter no times.
    pub untimed: usize,
    /// Host time, in seconds.
    pub seconds: f64,
}

/// Something that is checked in every run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Check {
    /// What must hold.
    pub invariant: Invariant,
    /// In how many runs it did not.
    pub broken: Proportion,
}

/// What became of the workers, over all runs that could be judged.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub struct Programs {
    /// Operations whose result was checked byte by byte and was right.
    pub verified: u64,
    /// Workers that died.
    pub died: u64,
    /// Those of them whose cell a fault was injected into.
    pub due: u64,
    /// Operations that survivors lost with cells that died.
    pub lost_with_the_dead: u64,
    /// Operations that survivors lost with cells that lived.
    pub lost_with_the_living: u64,
}

/// Runs to be shown.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub struct Shown {
    /// The contained run whose work went on after the median time.
    pub typical: Option<u32>,
    /// The run with the worst label, and of those the one in which work took longest to go on.
    pub worst: Option<u32>,
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
    /// Of those: somebody else suspected a cell that it was meant for, or such a cell died.
    pub detected: Proportion,
    /// Of those: stayed in their cell.
    pub contained: Proportion,
    /// Of those: not contained.
    pub escaped: Proportion,
    /// As contained, with runs that could not be judged counted as escapes.
    pub contained_at_worst: Proportion,
    /// Of the contained ones in which a cell died: it came back.
    pub reintegrated: Proportion,
    /// Of the faults that struck: survivors took wrong bytes for right ones.
    pub silent: Proportion,
    /// The named latencies of the runs whose fault manifested, in milliseconds.
    pub latencies_ms: Vec<(&'static str, Times)>,
    /// The samples behind them, for charts.
    #[serde(skip)]
    pub samples: Vec<(&'static str, Vec<Sample>)>,
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
    /// What other labels hold.
    pub also: Vec<Containment>,
    /// What else is to be said.
    pub flags: Vec<Flag>,
    /// What speaks against it.
    pub reasons: String,
    /// Which invariants it breaks.
    pub invariants: Vec<Invariant>,
}

/// A run that could not be carried out.
#[derive(Clone, Debug, Serialize)]
pub struct NotCarriedOut {
    /// Its number.
    pub run: u32,
    /// What it was to be.
    pub what: String,
    /// What kept it from being that.
    pub reason: String,
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
        let kinds = [Kind::Golden, Kind::Null];
        Self {
            schema: format!("{FORMAT}1"),
            name: manifest.name.clone(),
            purpose: manifest.purpose.clone(),
            seed: manifest.seed,
            setup: manifest.setup.text(),
            totals: Totals::of(manifest.runs, &records),
            accused: accused(&records),
            overall: ClassSummary::of("all", &faults),
            classes: names.into_iter().map(class).collect(),
            controls: kinds
                .map(|kind| ControlSummary::of(kind, &of_kind(&records, kind)))
                .into(),
            probe_effect: controls::probe_effect(&records),
            checks: checks(&records),
            programs: Programs::of(&records),
            reach: Reach::of(&faults, manifest.setup.cells()),
            availability: Availability::of(&records, manifest.setup.cells()),
            determinism: determinism(&records),
            shown: Shown::of(&faults),
            violations: violations(&records),
            not_carried_out: not_carried_out(&records),
        }
    }

    /// How the campaign ended, for whoever trusts it.
    ///
    /// # Errors
    /// [`Error::Campaign`] if it shows nothing: no run is finished, too many could not be carried
    /// out, or no fault was injected or struck.
    pub fn ended(&self) -> Result<Ending> {
        let Totals {
            runs,
            infra,
            faults,
            ..
        } = self.totals;
        let nothing = if runs == 0 {
            "no run is finished".into()
        } else if infra * 100 > INFRA_PERCENT_MAX * runs {
            format!(
                "{infra} of {} could not be carried out",
                counted(runs as u64, "run")
            )
        } else if self.overall.manifested.of == 0 && self.violations.is_empty() {
            none_struck(faults)
        } else {
            return Ok(self.ending());
        };
        Err(Error::Campaign(nothing))
    }

    /// Adds what the measured repair times would mean for cells that fail once in so long.
    #[must_use]
    pub fn with_mttf(mut self, mttf: &Span) -> Self {
        if let Some(availability) = &mut self.availability {
            availability.extrapolate(mttf);
        }
        self
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
        if self.totals.runs == 0 {
            return "No run is finished: this shows nothing yet.".into();
        }
        let all = &self.overall;
        let mut accused = format!(
            "Runs in which a healthy cell was voted out: {}.",
            self.accused.text()
        );
        if self.totals.violated_without_fault > 0 {
            let _ = write!(
                accused,
                " Runs that something speaks against though their fault never struck: {}.",
                self.totals.violated_without_fault
            );
        }
        if all.manifested.of == 0 {
            let none = none_struck(self.totals.faults);
            return format!("This shows nothing of faults yet: {none}. {accused}");
        }
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

/// What is said where no fault struck, of so many runs that were to inject one.
fn none_struck(faults: usize) -> String {
    match faults {
        0 => "no fault was injected".into(),
        faults => format!("of {} none struck", counted(faults as u64, "fault")),
    }
}

fn accused(records: &[&Record]) -> Proportion {
    let judged = records.iter().filter(|run| run.was_carried_out());
    Proportion::counting(judged, |run| run.is(Containment::WrongAccusation))
}

fn of_kind<'a>(records: &[&'a Record], kind: Kind) -> Vec<&'a Record> {
    let matching = records.iter().filter(|run| run.kind() == kind);
    matching.copied().collect()
}

fn checks(records: &[&Record]) -> Vec<Check> {
    let judged = || records.iter().filter(|run| run.was_carried_out());
    let check = |invariant: Invariant| Check {
        invariant,
        broken: Proportion::counting(judged(), |run| {
            let mut violations = run.violations.iter();
            violations.any(|broken| broken.invariant == invariant)
        }),
    };
    let asked = Invariant::ALL.into_iter();
    let asked = asked.filter(|invariant| invariant.is_of_the_system());
    asked.map(check).collect()
}

/// Only runs that leave a hash can be compared, and only those with the same plan.
fn determinism(records: &[&Record]) -> Option<Proportion> {
    let hashed: Vec<&Record> = records
        .iter()
        .copied()
        .filter(|run| run.ram_sha256.is_some())
        .collect();
    let pairs = hashed.iter().enumerate().flat_map(|(position, first)| {
        let later = hashed[position + 1..].iter();
        later
            .filter(|second| first.is_same_plan(second))
            .map(move |second| (first, second))
    });
    let same = |(first, second): &(&&Record, &&Record)| first.ram_sha256 == second.ram_sha256;
    let same = Proportion::counting(pairs, same);
    (same.of > 0).then_some(same)
}

impl Programs {
    fn of(records: &[&Record]) -> Self {
        let judged = records.iter().filter(|run| run.containment.is_valid());
        let mut programs = Self::default();
        for one in judged.filter_map(|run| run.measured.as_ref()) {
            programs.verified += one.verified;
            programs.died += one.workers.died;
            programs.due += one.workers.due;
            programs.lost_with_the_dead += one.lost.with_the_dead;
            programs.lost_with_the_living += one.lost.with_the_living;
        }
        programs
    }
}

impl Shown {
    fn of(faults: &[&Record]) -> Self {
        let judged = || {
            let runs = faults.iter().filter(|run| run.containment.is_valid());
            runs.filter_map(|run| Some((*run, run.measured.as_ref()?)))
        };
        // A run that never got so far took longer than any that did.
        let resumed = |one: &Measured| one.latencies.resumed.unwrap_or(f64::INFINITY);
        let mut contained: Vec<(f64, u32)> = judged()
            .filter(|(run, _)| run.containment.is_contained())
            .map(|(run, one)| (resumed(one), run.run()))
            .collect();
        contained.sort_by(|a, b| a.0.total_cmp(&b.0));
        let had_effect = judged().filter(|(run, _)| run.containment.is_manifested());
        let worst = had_effect.min_by(|(a, one), (b, other)| {
            // Contained runs are alike, and better than all others.
            let rank = |run: &Record| match run.containment {
                label if label.is_contained() => (1, None),
                label => (0, Some(label)),
            };
            let by_label = rank(a).cmp(&rank(b));
            by_label.then(resumed(other).total_cmp(&resumed(one)))
        });
        Self {
            typical: contained.get(contained.len() / 2).map(|&(_, run)| run),
            worst: worst.map(|(run, _)| run.run()),
        }
    }
}

impl Totals {
    fn of(wanted: u32, records: &[&Record]) -> Self {
        let count = |test: &dyn Fn(&Record) -> bool| records.iter().filter(|run| test(run)).count();
        Self {
            wanted,
            runs: records.len(),
            faults: count(&|run| run.kind() == Kind::Fault),
            infra: count(&|run| run.containment == Containment::Infra),
            infra_of_controls: count(&|run| {
                run.containment == Containment::Infra && run.kind() != Kind::Fault
            }),
            not_injected: count(&|run| run.containment == Containment::NotInjected),
            violated_without_fault: count(&|run| {
                run.containment == Containment::NotInjected && run.is_violation()
            }),
            left_out: count(&|run| run.flags.contains(&Flag::LeftOut)),
            untimed: count(&|run| run.measured.as_ref().is_some_and(|one| !one.is_timed())),
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
            reintegrated: Proportion::counting(
                contained().filter(|run| somebody_died(run)),
                |run| {
                    run.violations
                        .iter()
                        .all(|broken| broken.invariant != Invariant::TheDeadComeBack)
                },
            ),
            silent: Proportion::counting(valid(), |run| run.is(Containment::FsvExternal)),
            latencies_ms: samples.iter().filter_map(times).collect(),
            samples,
        }
    }
}

fn is_detected(run: &Record) -> bool {
    run.measured.as_ref().is_some_and(|one| {
        let mut targets = run.resolved.targets();
        one.latencies.first_hint.is_some() || targets.any(|cell| one.dead.contains(&cell))
    })
}

fn somebody_died(run: &Record) -> bool {
    let measured = run.measured.as_ref();
    measured.is_some_and(|one| !one.dead.is_empty())
}

/// The latencies of runs, censored at the end of each run that did not get so far. A run whose
/// fault has no place in time has none; and how long a step alone takes is known only of steps that
/// were over.
fn samples(runs: &[&Record]) -> Vec<(&'static str, Vec<Sample>)> {
    let names = Latencies::default().named().map(|(name, _)| name);
    let of = |position: usize| {
        let sample = |measured: &Measured| match measured.latencies.named()[position] {
            (_, Some(time)) => Some(Sample::Measured(time)),
            (name, None) if Latencies::ALONE.contains(&name) => None,
            (_, None) => Some(Sample::Censored(measured.followed_ms)),
        };
        let measured = runs.iter().filter_map(|run| run.measured.as_ref());
        let timed = measured.filter(|one| one.is_timed());
        timed.filter_map(sample).collect()
    };
    let named = names.into_iter().enumerate();
    named.map(|(position, name)| (name, of(position))).collect()
}

fn violations(records: &[&Record]) -> Vec<ViolationLine> {
    let violated = records.iter().filter(|run| run.is_violation());
    let line = |run: &&Record| ViolationLine {
        run: run.run(),
        kind: run.kind(),
        class: run.resolved.class.clone(),
        containment: run.containment,
        also: run.also.clone(),
        flags: run.flags.clone(),
        reasons: run.reasons(),
        invariants: run
            .violations
            .iter()
            .map(|broken| broken.invariant)
            .collect(),
    };
    violated.map(line).collect()
}

fn not_carried_out(records: &[&Record]) -> Vec<NotCarriedOut> {
    let failed = records
        .iter()
        .filter(|run| run.containment == Containment::Infra);
    let line = |run: &&Record| NotCarriedOut {
        run: run.run(),
        what: run.resolved.text(),
        reason: run.infra.clone().unwrap_or_default(),
    };
    failed.map(line).collect()
}

#[cfg(test)]
pub(crate) mod tests;
