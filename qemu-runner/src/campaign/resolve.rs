//! From a campaign, its seed and the number of a run to everything that the run does.
//!
//! # Invariants
//! 1. The same file, seed and number give the same run, whichever other runs are asked for.
//! 2. What is resolved is all that a replay needs.
//! 3. Run 0 is golden and, where at most half are, run 1 is a null injection; from there on each
//!    kind of control comes as often as its share says, evenly spread.

use std::iter;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::draw::{Number, Source};
use super::file::{Campaign, Choice, Class, StrikeKeys};
use super::when::{Anew, Rate, Repeat, Until, When};
use crate::fault::plan::{
    Cause, Hook, Kind, Plan, Series, Strike, Trigger, millionths, parse_operation,
};

/// Seeds of faults are drawn below this, so that every reader of JSON keeps them whole.
const SEEDS: u64 = 1 << 48;

/// A run with nothing left to draw.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Resolved {
    /// The number of the run.
    pub run: u32,
    /// Whether it injects anything.
    pub kind: Kind,
    /// The class of its fault; for a control, of the fault that is left out.
    pub class: String,
    /// How long the cells work before the fault, in milliseconds.
    pub work_ms: u64,
    /// Recoveries beforehand.
    pub rehearsals: u32,
    /// How long the run may take after the fault, in milliseconds.
    pub bound_ms: u64,
    /// The first fault.
    pub first: Strike,
    /// What it waits for after that work.
    pub trigger: Trigger,
    /// The faults after it, each counted from the one before.
    pub then: Vec<(Strike, Trigger)>,
    /// What of them has to strike.
    pub series: Series,
}

impl Resolved {
    /// Resolves a run.
    pub fn of(campaign: &Campaign, seed: u64, run: u32) -> Self {
        let name = campaign.name();
        let draw = Draw {
            campaign,
            source: Source { name, seed, run },
        };
        let class = draw.class("class");
        let first = draw.strike("first", class.strike(), &[]);
        let (then, series) = match &class.repeat {
            Some(repeat) => draw.series(class, &first, repeat.get_ref()),
            None => (draw.chain(class, &first), Series::Whole),
        };
        let when = class.when.get_ref();
        let work_ms = match (&when.work_ms, &when.rate_per_s) {
            (Some(work), _) => draw.number("time", work.get_ref()),
            (None, Some(rate)) => draw.number("time", &arrival(*rate.get_ref())),
            (None, None) => 0,
        };
        Self {
            run,
            kind: kind(campaign, run),
            class: class.id.get_ref().clone(),
            work_ms,
            rehearsals: *campaign.header.rehearsals.get_ref(),
            bound_ms: *campaign.header.bound_ms.get_ref(),
            trigger: draw.trigger("first", when),
            first,
            then,
            series,
        }
    }

    /// The plan of the run.
    pub fn plan(&self) -> Plan {
        Plan {
            kind: self.kind,
            at: Duration::from_millis(self.work_ms),
            rehearsals: self.rehearsals,
            first: self.first.clone(),
            trigger: self.trigger.clone(),
            then: self.then.clone(),
            series: self.series,
            bound: Duration::from_millis(self.bound_ms),
        }
    }

    /// The cells that its faults are meant for, in order.
    pub fn targets(&self) -> impl Iterator<Item = usize> {
        let later = self.then.iter().map(|(strike, _)| strike.cell);
        iter::once(self.first.cell).chain(later)
    }

    /// Whether all its faults are meant for one cell.
    pub fn is_of_one_cell(&self) -> bool {
        self.targets().all(|cell| cell == self.first.cell)
    }

    /// In a few words, for the line of progress.
    pub fn text(&self) -> String {
        let Strike { fault, cell, .. } = self.first;
        match self.kind {
            Kind::Golden => "golden".into(),
            Kind::Null => format!("null injection for {}", self.class),
            Kind::Fault => format!("{}: {fault} in cell {cell}", self.class),
        }
    }
}

/// Whether a run is a control: as soon as its share of the runs so far is not a whole number of
/// them any more.
fn kind(campaign: &Campaign, run: u32) -> Kind {
    let controls = campaign.header.controls.get_ref();
    let (golden, null) = (controls.golden.millionths(), controls.null.millionths());
    let due = |share: u64, of: u64, position: u64| (position * share).div_ceil(of);
    let all = 1_000_000;
    let run = u64::from(run);
    let golden_before = due(golden, all, run);
    if due(golden, all, run + 1) > golden_before {
        return Kind::Golden;
    }
    // The others are numbered on their own.
    let position = run - golden_before;
    if due(null, all - golden, position + 1) > due(null, all - golden, position) {
        Kind::Null
    } else {
        Kind::Fault
    }
}

struct Draw<'a> {
    campaign: &'a Campaign,
    source: Source<'a>,
}

impl<'a> Draw<'a> {
    fn class(&self, purpose: &str) -> &'a Class {
        let classes = &self.campaign.classes;
        let total = classes.iter().map(|class| class.weight.get_ref()).sum();
        let mut left = self.source.stream(purpose).below(total);
        let drawn = classes.iter().find(|class| {
            let weight = *class.weight.get_ref();
            let here = left < weight;
            left = left.saturating_sub(weight);
            here
        });
        drawn.unwrap_or(&classes[0])
    }

    fn number(&self, purpose: &str, number: &Number) -> u64 {
        number.draw(&mut self.source.stream(purpose))
    }

    fn choice(&self, purpose: &str, choice: &Choice, count: usize, not: &[usize]) -> usize {
        let mut stream = self.source.stream(purpose);
        match choice {
            Choice::Of(numbers) => *stream.choose(numbers),
            Choice::RandomSurvivor => {
                let others: Vec<usize> = (0..count).filter(|it| !not.contains(it)).collect();
                // In a file that was checked somebody is left.
                others
                    .get(stream.below(others.len() as u64) as usize)
                    .copied()
                    .unwrap_or(0)
            }
            Choice::Random => stream.below(count as u64) as usize,
        }
    }

    /// The faults that a class names after its first.
    fn chain(&self, class: &Class, first: &Strike) -> Vec<(Strike, Trigger)> {
        let mut struck = vec![first.cell];
        let mut chain = Vec::new();
        for (position, then) in class.then.0.iter().enumerate() {
            // The second fault has kept its streams since there was no third.
            let which = match position {
                0 => "second".into(),
                position => format!("fault {}", position + 2),
            };
            let strike = self.strike(&which, then.strike(), &struck);
            struck.push(strike.cell);
            chain.push((strike, self.trigger(&which, then.when.get_ref())));
        }
        chain
    }

    /// More faults of a class, or of any, in the same run.
    fn series(
        &self,
        class: &Class,
        first: &Strike,
        repeat: &Repeat,
    ) -> (Vec<(Strike, Trigger)>, Series) {
        let count = self
            .number("faults", repeat.faults.get_ref())
            .saturating_sub(1);
        let (series, cause) = match repeat.until {
            Until::Death => (Series::UntilDeath, Cause::Now),
            Until::Bound => (Series::UntilBound, Cause::Settled),
        };
        let one = |number: u64| {
            let which = format!("repeated {number}");
            let class = match repeat.anew {
                Anew::Place => class,
                Anew::Class => self.class(&format!("{which} class")),
            };
            let mut strike = self.strike(&which, class.strike(), &[]);
            if repeat.anew == Anew::Place {
                (strike.cell, strike.cpu_index) = (first.cell, first.cpu_index);
                strike.hook = self.hook(&which, class.strike(), first.cell);
            }
            let wait = self.number(
                &format!("{which} delay"),
                &arrival(*repeat.rate_per_s.get_ref()),
            );
            let trigger = Trigger {
                cause: cause.clone(),
                delay: Duration::from_millis(wait),
                ..Trigger::NOW
            };
            (strike, trigger)
        };
        ((0..count).map(one).collect(), series)
    }

    fn trigger(&self, which: &str, when: &When) -> Trigger {
        let or = |number: &Option<Spanned<Number>>, what: &str, default| {
            let number = number.as_ref().map(Spanned::get_ref);
            number.map_or(default, |number| {
                self.number(&format!("{which} {what}"), number)
            })
        };
        Trigger {
            cause: when.cause(),
            count: or(&when.count, "count", 1) as u32,
            delay: Duration::from_micros(or(&when.delay_us, "delay", 0)),
        }
    }

    fn strike(&self, which: &str, keys: StrikeKeys<'_>, struck: &[usize]) -> Strike {
        let machine = self.campaign.machine.get_ref();
        let target = keys.target.get_ref();
        let purpose = |what: &str| format!("{which} {what}");
        let number = |what: &str, number: Option<&Spanned<Number>>| {
            number.map(|number| self.number(&purpose(what), number.get_ref()))
        };
        let cell = self.choice(&purpose("cell"), &target.cell, machine.cells, struck);
        let default = Strike::new(keys.model, cell);
        let cpus = machine.cpus / machine.cells;
        let argument = keys.argument.or(keys.when.get_ref().times.as_ref());
        Strike {
            cpu_index: self.choice(&purpose("cpu"), &target.cpu, cpus, &[]),
            argument: number("argument", argument).unwrap_or(default.argument),
            seed: self.source.stream(&purpose("seed")).below(SEEDS),
            area: keys.area.map_or(default.area, |area| *area.get_ref()),
            thaw: number("thaw", keys.thaw_ms).map(Duration::from_millis),
            object: keys.object.map(|object| object.get_ref().clone()),
            registers: keys.registers.map_or(default.registers, |it| *it.get_ref()),
            hook: self.hook(which, keys, cell),
            ..default
        }
    }

    fn hook(&self, which: &str, keys: StrikeKeys<'_>, cell: usize) -> Hook {
        let (when, target) = (keys.when.get_ref(), keys.target.get_ref());
        let number = |what: &str, number: &Option<Spanned<Number>>| {
            let number = number.as_ref().map(Spanned::get_ref);
            number.map_or(0, |number| self.number(&format!("{which} {what}"), number))
        };
        let cells = self.campaign.machine.get_ref().cells;
        // A cell sends itself no messages.
        let to = |to: &Choice| {
            let others = match to {
                Choice::Random | Choice::RandomSurvivor => Choice::RandomSurvivor,
                Choice::Of(cells) => {
                    Choice::Of(cells.iter().copied().filter(|&to| to != cell).collect())
                }
            };
            self.choice(&format!("{which} to"), &others, cells, &[cell])
        };
        let operation = target.operation.as_deref().map(parse_operation);
        let probability = when.probability.as_ref();
        Hook {
            probability: probability.map_or(0, |one| millionths(one.get_ref().0)),
            interval: number("interval", &when.interval) as u32,
            space: number("space", &when.space),
            to: target.to.as_ref().map(to),
            // A file that was checked names one that there is.
            operation: operation.and_then(Result::ok).unwrap_or(0),
            program: target.program.clone().unwrap_or_default(),
            run_time: Duration::from_millis(number("run time", &when.run_ms)),
        }
    }
}

/// The time between two faults that arrive at a rate.
fn arrival(rate: Rate) -> Number {
    Number::Exponential(rate.mean_ms())
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
