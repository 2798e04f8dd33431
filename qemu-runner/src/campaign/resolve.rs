//! From a campaign, its seed and the number of a run to everything that the run does.
//!
//! # Invariants
//! 1. The same file, seed and number give the same run, whichever other runs are asked for.
//! 2. What is resolved is all that a replay needs.
//! 3. Run 0 is golden and run 1 is a null injection; from there on each kind of control comes as
//!    often as its share says, evenly spread.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::draw::{Number, Source};
use super::file::{Campaign, Choice, Class, StrikeKeys};
use crate::fault::plan::{Kind, Plan, Strike, Trigger};

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
    /// The second fault.
    pub second: Option<(Strike, Trigger)>,
}

impl Resolved {
    /// Resolves a run.
    pub fn of(campaign: &Campaign, seed: u64, run: u32) -> Self {
        let name = campaign.name();
        let draw = Draw {
            campaign,
            source: Source { name, seed, run },
        };
        let class = draw.class();
        let first = draw.strike("first", class.strike(), None);
        let second = class.then.as_ref().map(|then| {
            let strike = draw.strike("second", then.strike(), Some(first.cell));
            let or = |number: &Option<Spanned<Number>>, purpose, default| {
                let number = number.as_ref().map(Spanned::get_ref);
                number.map_or(default, |number| draw.number(purpose, number))
            };
            let trigger = Trigger {
                event: then.when.event,
                count: or(&then.when.count, "second count", 1) as u32,
                delay: Duration::from_micros(or(&then.when.delay_us, "second delay", 0)),
            };
            (strike, trigger)
        });
        Self {
            run,
            kind: kind(campaign, run),
            class: class.id.get_ref().clone(),
            work_ms: draw.number("time", class.when.work_ms.get_ref()),
            rehearsals: *campaign.header.rehearsals.get_ref(),
            bound_ms: *campaign.header.bound_ms.get_ref(),
            first,
            second,
        }
    }

    /// The plan of the run.
    pub fn plan(&self) -> Plan {
        Plan {
            kind: self.kind,
            at: Duration::from_millis(self.work_ms),
            rehearsals: self.rehearsals,
            first: self.first.clone(),
            second: self.second.clone(),
            bound: Duration::from_millis(self.bound_ms),
        }
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
    fn class(&self) -> &'a Class {
        let classes = &self.campaign.classes;
        let total = classes.iter().map(|class| class.weight.get_ref()).sum();
        let mut left = self.source.stream("class").below(total);
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

    fn choice(&self, purpose: &str, choice: &Choice, count: usize, not: Option<usize>) -> usize {
        let mut stream = self.source.stream(purpose);
        match (choice, not) {
            (Choice::Of(numbers), _) => *stream.choose(numbers),
            (Choice::RandomSurvivor, Some(not)) => {
                let drawn = stream.below(count as u64 - 1) as usize;
                drawn + usize::from(drawn >= not)
            }
            _ => stream.below(count as u64) as usize,
        }
    }

    fn strike(&self, which: &str, keys: StrikeKeys<'_>, dead: Option<usize>) -> Strike {
        let machine = self.campaign.machine.get_ref();
        let target = keys.target.get_ref();
        let purpose = |what: &str| format!("{which} {what}");
        let number = |what: &str, number: Option<&Spanned<Number>>| {
            number.map(|number| self.number(&purpose(what), number.get_ref()))
        };
        let cell = self.choice(&purpose("cell"), &target.cell, machine.cells, dead);
        let default = Strike::new(keys.model, cell);
        let cpus = machine.cpus / machine.cells;
        Strike {
            cpu_index: self.choice(&purpose("cpu"), &target.cpu, cpus, None),
            argument: number("argument", keys.argument).unwrap_or(default.argument),
            seed: self.source.stream(&purpose("seed")).below(SEEDS),
            area: keys.area.map_or(default.area, |area| *area.get_ref()),
            thaw: number("thaw", keys.thaw_ms).map(Duration::from_millis),
            ..default
        }
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
