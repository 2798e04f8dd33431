//! Which faults, where, when.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cell::fault::PROGRAM_BYTES;
use cell::id::CellId;
use cell::partition::cpus_of;
use rpc::operation::Operation;
use serde::{Deserialize, Serialize};

use super::catalogue::{Expectation, Fault, HostFault};
pub use super::trigger::{Cause, Trigger, parse_event};
use crate::error::{Error, Result};
use crate::observation::matters;

/// A closed list of names: what they mean, and how they are written everywhere.
macro_rules! names {
    ($(#[$meta:meta])+ $name:ident, $what:literal {
        $($(#[$doc:meta])+ $label:ident = $text:literal,)+
    }) => {
        $(#[$meta])+
        #[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])+ $label,)+ }

        impl $name {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$label,)+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$label => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(name: &str) -> std::result::Result<Self, String> {
                let found = Self::ALL.iter().copied().find(|one| one.name() == name);
                found.ok_or_else(|| {
                    let names: Vec<&str> = Self::ALL.iter().map(|one| one.name()).collect();
                    format!("no {} \"{name}\"; there are {}", $what, names.join(", "))
                })
            }
        }
    };
}

names! {
    /// Where a memory fault strikes.
    Area, "area" {
        /// The cell's copy of the kernel image.
        #[default]
        Image = "image",
        /// All of the cell's memory.
        Region = "region",
        /// The image's code.
        Text = "text",
        /// The image's constants.
        Rodata = "rodata",
        /// The image's variables that begin with a value.
        Data = "data",
        /// The image's variables that begin as zero.
        Bss = "bss",
        /// The kernel's heap, as far as it is in use.
        Heap = "heap",
        /// The stacks of the kernel's threads.
        Stack = "stack",
        /// The kernel's own page tables.
        PageTables = "page_tables",
    }
}

names! {
    /// Which registers a register fault strikes.
    Registers, "registers" {
        /// The sixteen general registers and the instruction pointer.
        #[default]
        General = "general",
        /// The flags.
        Flags = "flags",
        /// Segment selectors and their bases.
        Segment = "segment",
        /// CR0, CR2, CR3, CR4, CR8, EFER.
        Control = "control",
        /// The registers of floating-point numbers and vectors.
        Fp = "fp",
    }
}

/// What of all that passes a hook of the kernel is struck; see [`cell::fault::Attributes`].
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Hook {
    /// In millionths; 0 for certainty.
    pub probability: u32,
    /// Only every so manieth; 0 and 1 for every one.
    pub interval: u32,
    /// So much passes first.
    pub space: u64,
    /// For messages: the cell that they go to.
    pub to: Option<usize>,
    /// For messages: the number of what they ask for or answer; 0 for everything.
    pub operation: u16,
    /// For threads: their name; empty for the workers.
    pub program: String,
    /// For threads: so long they run first.
    pub run_time: Duration,
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
    /// For faults of memory: an object of the kernel instead of an area: a static, and what of it,
    /// as `kernel::thread::scheduler::TABLE.inner.data.value.ready_count`.
    #[serde(default)]
    pub object: Option<String>,
    /// For faults of registers.
    #[serde(default)]
    pub registers: Registers,
    /// For faults that wait at a hook of the kernel.
    #[serde(default)]
    pub hook: Hook,
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
            object: None,
            registers: Registers::default(),
            hook: Hook::default(),
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

/// The number of what a message asks for, by its name.
///
/// # Errors
/// Says which there are.
pub fn parse_operation(name: &str) -> std::result::Result<u16, String> {
    let mut all = Operation::ALL.iter();
    let found = all.find(|operation| operation.name() == name);
    found.map(|&operation| operation as u16).ok_or_else(|| {
        let names: Vec<&str> = Operation::ALL.iter().map(|one| one.name()).collect();
        format!("no operation \"{name}\"; there are {}", names.join(", "))
    })
}

/// The name of a thread.
///
/// # Errors
/// Says what is expected.
pub fn parse_program(name: &str) -> std::result::Result<String, String> {
    if (1..=PROGRAM_BYTES).contains(&name.len()) {
        Ok(name.into())
    } else {
        Err(format!(
            "no program \"{name}\"; expected 1 to {PROGRAM_BYTES} bytes"
        ))
    }
}

/// A probability above 0 and up to 1, in millionths.
///
/// # Errors
/// Says what is expected.
pub fn parse_probability(text: &str) -> std::result::Result<u32, String> {
    let share: Option<f64> = text.parse().ok();
    let inside = share.filter(|share| (1e-6..=1.0).contains(share));
    let wrong = || format!("\"{text}\": expected a probability above 0 and up to 1");
    inside.map(millionths).ok_or_else(wrong)
}

/// A share of 1 in millionths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share lies between 0 and 1"
)]
pub fn millionths(share: f64) -> u32 {
    (share * 1e6).round() as u32
}

/// What of a plan's faults has to strike.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Series {
    /// Every one.
    #[default]
    Whole,
    /// Those before the first death; it ends the series.
    UntilDeath,
    /// Those that come before the bound of the run.
    UntilBound,
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
    /// What it waits for after that.
    pub trigger: Trigger,
    /// The faults after it, each counted from the one before.
    pub then: Vec<(Strike, Trigger)>,
    /// What of them has to strike.
    pub series: Series,
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
            trigger: Trigger::NOW,
            then: Vec::new(),
            series: Series::Whole,
            bound,
        }
    }

    /// All strikes in order.
    pub fn strikes(&self) -> impl Iterator<Item = &Strike> {
        std::iter::once(&self.first).chain(self.then.iter().map(|(strike, _)| strike))
    }

    /// What they wait for.
    pub fn triggers(&self) -> impl Iterator<Item = &Trigger> {
        std::iter::once(&self.trigger).chain(self.then.iter().map(|(_, trigger)| trigger))
    }

    /// Whether a fault waits for an event of the cells' daily work, of which there are many.
    pub fn watches_daily_work(&self) -> bool {
        let daily =
            |trigger: &Trigger| matches!(trigger.cause, Cause::Event(event) if !matters(event));
        self.triggers().any(daily)
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
        let unfit = |strike: &&Strike| !strike.fault.is_deterministic();
        if let Some(Strike { fault, .. }) = self.strikes().find(unfit) {
            return Err(Error::Usage(format!(
                "{fault} strikes at a time of the host's; it cannot be deterministic"
            )));
        }
        match self.triggers().find(|trigger| trigger.needs_gdb()) {
            Some(Trigger { cause, .. }) => Err(Error::Usage(format!(
                "a debugger stops the machine at a time of the host's: {cause}; that cannot be \
                 deterministic"
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
    fn what_goes_by_the_time_of_the_host_is_not_deterministic() {
        let plan = |fault, cause| {
            let mut plan = Plan::single(Strike::new(Fault::Host(fault), 1));
            plan.trigger.cause = cause;
            plan.check_deterministic()
        };
        assert!(plan(HostFault::CpuHalt, Cause::Now).is_ok());
        assert!(plan(HostFault::CpuMce, Cause::Now).is_err());
        let symbol = Cause::Symbol("kernel::panic".into());
        assert!(plan(HostFault::CpuHalt, symbol).is_err());
    }

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
