//! Which faults, where, when.

use std::time::Duration;

use cell::id::CellId;
use cell::partition::cpus_of;
use cell::trace::Event;
use serde::{Deserialize, Serialize};

use super::catalogue::{Expectation, Fault, HostFault};
use super::channels::is_deterministic;
use crate::error::{Error, Result};

/// Where a memory fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// The cell's copy of the kernel image.
    #[default]
    Image,
    /// All of the cell's memory.
    Region,
}

/// A fault and its target.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Strike {
    /// The fault.
    pub fault: Fault,
    /// The number of the cell.
    pub cell: usize,
    /// Which of the cell's CPUs, for faults of one CPU.
    pub cpu_index: usize,
    /// For faults that take a number.
    pub argument: u64,
    /// For everything that is drawn at random.
    pub seed: u64,
    /// For faults of memory.
    pub area: Area,
    /// For `cpu.freeze`: when the CPU goes on.
    pub thaw: Option<Duration>,
}

impl Strike {
    /// A strike at a cell with everything else by default.
    pub fn new(fault: Fault, cell: usize) -> Self {
        let argument = fault.entry().argument.map_or(0, |(_, default)| default);
        Self {
            fault,
            cell,
            cpu_index: 0,
            argument,
            seed: 1,
            area: Area::Image,
            thaw: None,
        }
    }

    /// What must come of it. A frozen CPU that goes on may have been missed by nobody.
    pub fn expectation(&self) -> Expectation {
        match self.thaw {
            Some(_) if self.fault == Fault::Host(HostFault::CpuFreeze) => Expectation::MayDie,
            _ => self.fault.entry().expectation,
        }
    }
}

/// When a second fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Trigger {
    /// The event to wait for, after the first fault.
    #[serde(with = "event_name")]
    pub event: Event,
    /// Which occurrence of it, from 1.
    pub count: u32,
    /// How long after it.
    pub delay: Duration,
}

impl Trigger {
    /// Whether the victim's own kernel can time a fault from inside: it sees the event in its own
    /// trace.
    pub const fn is_seen_by_every_cell(&self) -> bool {
        matches!(
            self.event,
            Event::EpochBegin
                | Event::Opinion
                | Event::Round
                | Event::Vote
                | Event::Decided
                | Event::RecoveryBegin
                | Event::Barrier1
                | Event::Discard
                | Event::Barrier2
                | Event::Resume
        )
    }
}

/// The event of a name.
///
/// # Errors
/// Says which there are.
pub fn parse_event(name: &str) -> std::result::Result<Event, String> {
    let found = Event::ALL
        .iter()
        .copied()
        .find(|event| event.name() == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = Event::ALL.iter().map(|event| event.name()).collect();
        format!("no event \"{name}\"; there are {}", names.join(", "))
    })
}

/// An event in files: its name.
mod event_name {
    use super::{Event, parse_event};
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature that serde asks for"
    )]
    pub(super) fn serialize<S: Serializer>(
        event: &Event,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(event.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<Event, D::Error> {
        parse_event(&String::deserialize(source)?).map_err(de::Error::custom)
    }
}

/// Whether a run injects anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The faults are injected.
    #[default]
    Fault,
    /// Everything is as for a fault, also the channels into the machine, and nothing is injected.
    Null,
    /// The machine is left alone once its rehearsals are over.
    Golden,
}

/// A run's faults.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Whether they are injected.
    pub kind: Kind,
    /// How long the cells work before the first fault.
    pub at: Duration,
    /// Recoveries that the machine goes through beforehand. An emulator translates code when it
    /// first runs, and nothing of agreement and recovery has run before the first death.
    pub rehearsals: u32,
    /// The first fault.
    pub first: Strike,
    /// The second fault, timed by an event of the first.
    pub second: Option<(Strike, Trigger)>,
    /// How long the run may take after the first fault.
    pub bound: Duration,
}

impl Plan {
    /// One fault after half a second of work.
    pub fn single(strike: Strike) -> Self {
        let (at, bound) = (Duration::from_millis(500), Duration::from_secs(30));
        Self {
            kind: Kind::Fault,
            at,
            rehearsals: 0,
            first: strike,
            second: None,
            bound,
        }
    }

    /// All strikes in order.
    pub fn strikes(&self) -> impl Iterator<Item = &Strike> {
        std::iter::once(&self.first).chain(self.second.iter().map(|(strike, _)| strike))
    }

    /// Refuses targets that the machine does not have.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check(&self, cells: usize) -> Result<()> {
        let Some(last) = cells.checked_sub(1) else {
            return Err(Error::Usage("--cells 0: there must be at least one".into()));
        };
        match self.strikes().find(|strike| strike.cell >= cells) {
            Some(strike) => {
                let cell = strike.cell;
                Err(Error::Usage(format!(
                    "there is no cell {cell}: the last is cell {last}"
                )))
            }
            None => Ok(()),
        }
    }

    /// Refuses faults that cannot strike in the deterministic mode.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check_deterministic(&self) -> Result<()> {
        match self
            .strikes()
            .find(|strike| !is_deterministic(strike.fault))
        {
            Some(strike) => Err(Error::Usage(format!(
                "{} strikes at a time of the host's; it cannot be deterministic",
                strike.fault
            ))),
            None => Ok(()),
        }
    }

    /// Refuses CPUs that the cells do not have, when `cpus` CPUs are shared by `cells` cells.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check_cpus(&self, cells: usize, cpus: usize) -> Result<()> {
        for strike in self.strikes() {
            let share = CellId::new(strike.cell).map(|cell| cpus_of(cell, cells, cpus));
            let count = share.map_or(0, |share| share.len());
            if strike.cpu_index >= count {
                let (cell, cpu) = (strike.cell, strike.cpu_index);
                return Err(Error::Usage(format!(
                    "--cpu {cpu}: cell {cell} has {count} CPUs, counted from 0"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_the_machine_does_not_have_are_refused() {
        let strike = |cell, cpu_index| Strike {
            cpu_index,
            ..Strike::new(Fault::Host(HostFault::CpuHalt), cell)
        };
        let plan = |cell, cpu_index| Plan::single(strike(cell, cpu_index));
        assert!(plan(3, 0).check(4).is_ok());
        assert!(plan(4, 0).check(4).is_err());
        assert!(plan(0, 0).check(0).is_err(), "no cell at all");
        assert!(plan(3, 1).check_cpus(4, 8).is_ok());
        assert!(plan(3, 2).check_cpus(4, 8).is_err());
        assert!(
            plan(0, 2).check_cpus(4, 9).is_ok(),
            "the first has one more"
        );
    }
}
