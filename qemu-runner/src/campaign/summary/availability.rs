//! How much of the time the machine, its cells and their programs were there.
//!
//! Measured over the guest's time from the fault to the end of each run. Every run has a fault, so
//! these shares compare campaigns and say nothing of years; what the measured repair times would
//! mean for a machine that fails now and then is worked out by [`Model`], and is a model.
//!
//! # Invariants
//! A machine that went down stays down until the bound of its run: nobody would have repaired it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bench::statistics::Summary as Spread;
use crate::campaign::lanes::{State, slices};
use crate::campaign::outcome::Containment;
use crate::campaign::record::{Measured, Record};
use crate::campaign::statistics::{Proportion, chain};
use crate::campaign::summary::controls::work;
use crate::fault::plan::Kind;
use crate::output::counted;
use crate::units::{Span, float};

/// A run that did less than this share of the controls' work took more than half as long again.
const SLOW: f64 = 1.0 / 1.5;
/// Mean times to failure of a cell for which the model is worked out, in hours.
const MTTF_HOURS: [(&str, f64); 3] = [("a day", 24.0), ("a month", 730.0), ("a year", 8766.0)];

/// How much of the time things were there.
#[derive(Clone, Debug, Serialize)]
pub struct Availability {
    /// The guest's time that was looked at, in seconds.
    pub seconds: f64,
    /// The share of it in which a cell lived.
    pub machine: f64,
    /// The share in which a cell lived, over all cells.
    pub cell: f64,
    /// The share in which a cell's programs worked, over all cells.
    pub service: f64,
    /// Work per second of each run as a share of the controls' median.
    pub work: Option<Spread>,
    /// Runs that did so little that they would have taken more than 1.5 times as long.
    pub slow: Proportion,
    /// Each state of a cell.
    pub states: Vec<StateSummary>,
    /// Each transition between them.
    pub transitions: Vec<Transition>,
    /// Failures of cells that were repaired within their run, in milliseconds from the failure
    /// until the cell served again; the mean is the MTTR.
    pub mttr_ms: Option<f64>,
    /// Failures of cells.
    pub failures: usize,
    /// Those of them that were repaired within their run.
    pub repaired: usize,
    /// How long each survivor's work was held per failure, in milliseconds.
    pub held_ms: Option<f64>,
    /// What that means in the long run.
    pub model: Vec<Model>,
    #[serde(skip)]
    cells: usize,
}

/// A state of a cell.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StateSummary {
    /// Which.
    pub state: State,
    /// The share of all cells' time.
    pub share: f64,
    /// How often a cell was in it.
    pub visits: u64,
    /// How long a visit took, in milliseconds.
    pub mean_ms: Option<f64>,
    /// The share in the long run of a Markov chain with the measured rates, faults among them.
    pub steady: Option<f64>,
}

/// A transition between states of a cell.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Transition {
    /// From.
    pub from: State,
    /// To.
    pub to: State,
    /// How often.
    pub count: u64,
    /// Per second in the state that it leads out of.
    pub per_second: f64,
}

/// What the measured times mean for cells that fail by themselves, each as often and none because
/// of another.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// The mean time to failure of a cell, in words.
    pub mttf: String,
    /// The same in hours.
    pub mttf_hours: f64,
    /// The share of time in which a cell lives: MTTF / (MTTF + MTTR).
    pub cell: f64,
    /// The share in which its programs work: held too while another cell recovers.
    pub service: f64,
}

/// Times and counts of all cells together.
#[derive(Default)]
struct Tally {
    /// Milliseconds of runs, and those of them in which a cell lived.
    run_ms: f64,
    machine_ms: f64,
    state_ms: BTreeMap<State, f64>,
    visits: BTreeMap<State, u64>,
    transitions: BTreeMap<(State, State), u64>,
    failures: usize,
    repairs_ms: Vec<f64>,
}

impl Availability {
    /// The work of a run beside that of the controls, in words; `None` without controls.
    pub fn work_text(&self) -> Option<String> {
        let Spread {
            samples,
            median,
            least,
            greatest,
            ..
        } = self.work?;
        let runs = counted(samples as u64, "run");
        Some(format!(
            "{median:.2} of the controls' rate (median of {runs}, {least:.2} to {greatest:.2})"
        ))
    }

    /// Of runs that injected faults, beside the controls; `None` if nothing was measured.
    pub(super) fn of(records: &[&Record], cells: usize) -> Option<Self> {
        let judged = || records.iter().filter(|run| run.containment.is_valid());
        let faults = || judged().filter(|run| run.kind() == Kind::Fault);
        let mut tally = Tally::default();
        for run in faults() {
            if let Some(one) = run.measured.as_ref().filter(|one| one.is_timed()) {
                tally.add(run, one);
            }
        }
        let all_ms: f64 = tally.state_ms.values().sum();
        if all_ms <= 0.0 {
            return None;
        }
        let share = |test: fn(State) -> bool| {
            let matching = tally.state_ms.iter().filter(|&(&state, _)| test(state));
            matching.map(|(_, time)| time).sum::<f64>() / all_ms
        };
        let controls = judged().filter(|run| run.kind() != Kind::Fault);
        let controls = controls.filter_map(|run| work(run.measured.as_ref()?));
        let due = Spread::of(controls).map(|spread| spread.median);
        let done = faults().filter_map(|run| work(run.measured.as_ref()?));
        let done = done.filter_map(|done| due.filter(|due| *due > 0.0).map(|due| done / due));
        let done: Vec<f64> = done.collect();
        let mttr_ms = mean(&tally.repairs_ms);
        let recovering = tally.state_ms.get(&State::Recovering).copied();
        let held_ms = (tally.failures > 0).then(|| {
            let others = float((tally.failures * (cells.max(2) - 1)) as u64);
            recovering.unwrap_or(0.0) / others
        });
        Some(Self {
            seconds: tally.run_ms / 1e3,
            machine: tally.machine_ms / tally.run_ms,
            cell: share(State::is_alive),
            service: share(State::is_in_service),
            slow: Proportion::counting(&done, |share| **share < SLOW),
            work: Spread::of(done),
            states: tally.states(all_ms),
            transitions: tally.rates(),
            mttr_ms,
            failures: tally.failures,
            repaired: tally.repairs_ms.len(),
            held_ms,
            model: MTTF_HOURS
                .iter()
                .filter_map(|&mttf| Some(model(mttf, mttr_ms.zip(held_ms)?, cells)))
                .collect(),
            cells,
        })
    }

    /// Works the model out for a mean time to failure that the user gives, before the others.
    pub(super) fn extrapolate(&mut self, mttf: &Span) {
        let words = format!("in {}", mttf.text);
        let hours = mttf.length.as_secs_f64() / 3600.0;
        let measured = self.mttr_ms.zip(self.held_ms);
        let found = measured.map(|measured| model((&words, hours), measured, self.cells));
        self.model.splice(0..0, found);
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    let count = float(values.len() as u64);
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / count)
}

fn model((mttf, hours): (&str, f64), (repair, held): (f64, f64), cells: usize) -> Model {
    let up = hours * 3.6e6;
    let others = float(cells.saturating_sub(1) as u64);
    Model {
        mttf: mttf.into(),
        mttf_hours: hours,
        cell: up / (up + repair),
        service: up / (up + repair + others * held),
    }
}

impl Tally {
    fn add(&mut self, run: &Record, one: &Measured) {
        let until = if run.is(Containment::SystemFailure) {
            one.followed_ms.max(float(run.resolved.bound_ms))
        } else {
            one.followed_ms
        };
        let lanes: Vec<Vec<(f64, f64, State)>> = one
            .lanes
            .iter()
            .map(|lane| {
                let slices = slices(lane, until);
                merged(slices.map(|(from, to, phase)| (from, to, phase.state())))
            })
            .collect();
        if lanes.is_empty() {
            return;
        }
        for lane in &lanes {
            self.add_lane(lane);
        }
        self.run_ms += until;
        self.machine_ms += alive_somewhere(&lanes);
    }

    fn add_lane(&mut self, lane: &[(f64, f64, State)]) {
        for &(from, to, state) in lane {
            *self.state_ms.entry(state).or_default() += to - from;
            *self.visits.entry(state).or_default() += 1;
        }
        // A fault at the very beginning struck a cell that was up.
        if let Some(&(_, _, first)) = lane.first().filter(|(_, _, first)| *first != State::Up) {
            *self.transitions.entry((State::Up, first)).or_default() += 1;
        }
        for pair in lane.windows(2) {
            *self.transitions.entry((pair[0].2, pair[1].2)).or_default() += 1;
        }
        let mut down_since = None;
        for &(from, _, state) in lane {
            match (state.is_alive(), down_since) {
                (false, None) => {
                    self.failures += 1;
                    down_since = Some(from);
                }
                (true, Some(since)) => {
                    self.repairs_ms.push(from - since);
                    down_since = None;
                }
                _ => {}
            }
        }
    }

    fn states(&self, all_ms: f64) -> Vec<StateSummary> {
        let seen: Vec<State> = self.state_ms.keys().copied().collect();
        let rate = |from: &State, to: &State| {
            let count = self.transitions.get(&(*from, *to)).copied().unwrap_or(0);
            float(count) / self.state_ms[from]
        };
        let row = |from: &State| seen.iter().map(|to| rate(from, to)).collect();
        let steady = chain::steady_state(&seen.iter().map(row).collect::<Vec<Vec<f64>>>());
        let summary = |(position, &state): (usize, &State)| StateSummary {
            state,
            share: self.state_ms[&state] / all_ms,
            visits: self.visits[&state],
            mean_ms: Some(self.state_ms[&state] / float(self.visits[&state])),
            steady: steady.as_ref().map(|steady| steady[position]),
        };
        seen.iter().enumerate().map(summary).collect()
    }

    fn rates(&self) -> Vec<Transition> {
        let rate = |(&(from, to), &count): (&(State, State), &u64)| {
            let in_first = self.state_ms.get(&from)?;
            Some(Transition {
                from,
                to,
                count,
                per_second: 1e3 * float(count) / in_first,
            })
        };
        self.transitions.iter().filter_map(rate).collect()
    }
}

/// Slices of one state that follow each other are one visit.
fn merged(slices: impl Iterator<Item = (f64, f64, State)>) -> Vec<(f64, f64, State)> {
    let mut merged: Vec<(f64, f64, State)> = Vec::new();
    for (from, to, state) in slices {
        match merged.last_mut() {
            Some((_, end, last)) if *last == state => *end = to,
            _ => merged.push((from, to, state)),
        }
    }
    merged
}

/// For how long at least one cell lived.
fn alive_somewhere(lanes: &[Vec<(f64, f64, State)>]) -> f64 {
    let mut spans: Vec<(f64, f64)> = lanes
        .iter()
        .flatten()
        .filter(|(_, _, state)| state.is_alive())
        .map(|&(from, to, _)| (from, to))
        .collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut total, mut covered) = (0.0, 0.0_f64);
    for (from, to) in spans {
        total += (to - from.max(covered)).max(0.0);
        covered = covered.max(to);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Down, Rebooting, Up};

    #[test]
    fn the_machine_lives_as_long_as_any_cell() {
        let lanes = [
            vec![(0.0, 40.0, Up), (40.0, 100.0, Down)],
            vec![(0.0, 60.0, Down), (60.0, 80.0, Up), (80.0, 100.0, Down)],
        ];
        assert!((alive_somewhere(&lanes) - 60.0).abs() < 1e-9);
        assert!(alive_somewhere(&[]).abs() < 1e-9);
    }

    #[test]
    fn a_failure_lasts_until_the_cell_lives_again() {
        let mut tally = Tally::default();
        let lane = [
            (0.0, 10.0, Up),
            (10.0, 30.0, Down),
            (30.0, 50.0, Rebooting),
            (50.0, 90.0, Up),
            (90.0, 100.0, Down),
        ];
        tally.add_lane(&lane);
        assert_eq!(
            (tally.failures, tally.repairs_ms.as_slice()),
            (2, &[40.0][..])
        );
        assert_eq!(tally.transitions[&(Up, Down)], 2);
        let rates = tally.rates();
        let fails = rates.iter().find(|rate| (rate.from, rate.to) == (Up, Down));
        let per_second = fails.map(|rate| rate.per_second);
        assert!(per_second.is_some_and(|rate| (rate - 40.0).abs() < 1e-9));
        let up = tally.states(100.0)[0];
        assert!((up.share - 0.5).abs() < 1e-9 && up.visits == 2);
        // Up for 25 ms at a time, down for 30 ms until the reboot, which takes 20 ms.
        assert!(
            up.steady
                .is_some_and(|share| (share - 1.0 / 3.0).abs() < 1e-9),
            "{up:?}"
        );
    }

    #[test]
    fn the_model_is_the_share_of_up_time() {
        let day = model(("a day", 24.0), (3600.0 * 1e3, 0.0), 4);
        assert!((day.cell - 24.0 / 25.0).abs() < 1e-9);
        // An hour of repair, and three others that each hold it up for an hour.
        let held = model(("a day", 24.0), (3600.0 * 1e3, 3600.0 * 1e3), 4);
        assert!((held.service - 24.0 / 28.0).abs() < 1e-9);
    }
}
