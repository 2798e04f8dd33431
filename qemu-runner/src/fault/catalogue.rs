//! Every fault: what it does, how it is injected, what must come of it.
//!
//! Whatever is injected into a cell, the damage must stay in that cell. Beyond that, some faults
//! must end its life, because a cell that goes on with them would be of no use; others may or must
//! not.

use std::fmt;
use std::str::FromStr;

use cell::fault::InnerFault;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A fault from outside.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HostFault {
    /// A CPU executes no more instructions.
    CpuHalt,
    /// A CPU stands still, and perhaps goes on later.
    CpuFreeze,
    /// A CPU gets an NMI that nobody sent.
    CpuNmi,
    /// A CPU gets an uncorrected machine check.
    CpuMce,
    /// A CPU's bank holds a corrected error.
    CpuMceCorrected,
    /// One bit of the cell's memory flips.
    MemBitflip,
    /// One pointer in the cell's memory is changed.
    MemPointer,
}

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// From outside.
    Host(HostFault),
    /// From inside.
    Inner(InnerFault),
}

/// What must come of a fault in the cell where it is injected.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// The cell is expelled and comes back in a new life.
    Dies,
    /// The cell may be expelled, or go on.
    MayDie,
    /// The cell goes on.
    Lives,
}

/// A line of the catalogue.
#[derive(Debug)]
pub struct Entry {
    /// The fault.
    pub fault: Fault,
    /// What it does.
    pub summary: &'static str,
    /// How it is injected.
    pub channel: &'static str,
    /// What must come of it.
    pub expectation: Expectation,
    /// What its argument means and what holds if none is given; `None` if it takes none.
    pub argument: Option<(&'static str, u64)>,
}

use Expectation::{Dies, Lives, MayDie};
use HostFault::{CpuFreeze, CpuHalt, CpuMce, CpuMceCorrected, CpuNmi, MemBitflip, MemPointer};

const fn host(
    fault: HostFault,
    summary: &'static str,
    channel: &'static str,
    expectation: Expectation,
) -> Entry {
    Entry {
        fault: Fault::Host(fault),
        summary,
        channel,
        expectation,
        argument: None,
    }
}

const fn inner(
    fault: InnerFault,
    summary: &'static str,
    expectation: Expectation,
    argument: Option<(&'static str, u64)>,
) -> Entry {
    let channel = "fault request in the cell's public area";
    Entry {
        fault: Fault::Inner(fault),
        summary,
        channel,
        expectation,
        argument,
    }
}

const MESSAGES: Option<(&str, u64)> = Some(("messages", InnerFault::RpcDrop.default_argument()));

/// Every fault.
pub const CATALOGUE: &[Entry] = &[
    host(
        CpuHalt,
        "a CPU executes no more instructions (fail-stop)",
        "INIT over qtest; the boot CPU is left out of vCont (gdb stub) for good",
        Dies,
    ),
    host(
        CpuFreeze,
        "a CPU stands still; with --thaw it goes on later, in its old life",
        "left out of vCont (gdb stub)",
        Dies,
    ),
    host(
        CpuNmi,
        "a CPU gets an NMI that nobody sent",
        "NMI message over qtest",
        MayDie,
    ),
    host(
        CpuMce,
        "a CPU gets an uncorrected machine check",
        "mce, by QMP",
        Dies,
    ),
    host(
        CpuMceCorrected,
        "a CPU's bank holds a corrected error",
        "mce, by QMP",
        Lives,
    ),
    host(
        MemBitflip,
        "one random bit flips in the kernel image or in the whole region (--area)",
        "read and write over qtest",
        MayDie,
    ),
    host(
        MemPointer,
        "one random pointer becomes a random address, one or two words off, or itself",
        "write over qtest",
        MayDie,
    ),
    inner(InnerFault::Panic, "the kernel panics", Dies, None),
    inner(
        InnerFault::Loop,
        "a kernel thread loops for ever, interrupts on",
        MayDie,
        None,
    ),
    inner(
        InnerFault::InterruptsOff,
        "a CPU loops for ever, interrupts off",
        Dies,
        None,
    ),
    inner(
        InnerFault::WildWrite,
        "random stores over all of physical memory",
        MayDie,
        Some(("stores", InnerFault::WildWrite.default_argument())),
    ),
    inner(
        InnerFault::StackOverflow,
        "endless recursion on a kernel stack",
        Dies,
        None,
    ),
    inner(
        InnerFault::FastClock,
        "the cell's clock runs too fast",
        MayDie,
        Some(("times too fast", InnerFault::FastClock.default_argument())),
    ),
    inner(
        InnerFault::CryWolf,
        "the cell accuses healthy cells, again and again",
        MayDie,
        Some(("accusations", InnerFault::CryWolf.default_argument())),
    ),
    inner(
        InnerFault::RpcDrop,
        "outgoing messages are dropped",
        MayDie,
        MESSAGES,
    ),
    inner(
        InnerFault::RpcDuplicate,
        "outgoing messages are sent twice",
        MayDie,
        MESSAGES,
    ),
    inner(
        InnerFault::RpcCorrupt,
        "a bit of outgoing messages is flipped",
        MayDie,
        MESSAGES,
    ),
    inner(
        InnerFault::RpcDelay,
        "outgoing messages wait for half their time",
        MayDie,
        MESSAGES,
    ),
    inner(
        InnerFault::IpiStorm,
        "interrupts, NMIs and INITs at CPUs of other cells",
        MayDie,
        Some(("interrupts", InnerFault::IpiStorm.default_argument())),
    ),
    inner(
        InnerFault::PortReset,
        "every way to reset the machine is tried",
        MayDie,
        None,
    ),
];

impl HostFault {
    const fn name(self) -> &'static str {
        match self {
            CpuHalt => "cpu.halt",
            CpuFreeze => "cpu.freeze",
            CpuNmi => "cpu.nmi",
            CpuMce => "cpu.mce",
            CpuMceCorrected => "cpu.mce_corrected",
            MemBitflip => "mem.bitflip",
            MemPointer => "mem.pointer",
        }
    }
}

impl Fault {
    /// The fault's name on the command line and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host(fault) => fault.name(),
            Self::Inner(fault) => fault.name(),
        }
    }

    /// Whether it strikes one CPU of its cell, so that it matters which.
    pub const fn is_of_one_cpu(self) -> bool {
        matches!(
            self,
            Self::Host(CpuHalt | CpuFreeze | CpuNmi | CpuMce | CpuMceCorrected)
        )
    }

    /// The fault's line in the catalogue.
    ///
    /// # Panics
    /// If the catalogue lacks a fault; a test keeps it whole.
    pub fn entry(self) -> &'static Entry {
        let entry = CATALOGUE.iter().find(|entry| entry.fault == self);
        entry.expect("the catalogue has every fault")
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = CATALOGUE.iter().find(|entry| entry.fault.name() == name);
        found
            .map(|entry| entry.fault)
            .ok_or_else(|| format!("no fault \"{name}\"; `inject list` shows them all"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        String::deserialize(source)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_whole_and_names_are_unique() {
        for &fault in InnerFault::ALL {
            assert_eq!(Fault::Inner(fault).entry().fault, Fault::Inner(fault));
        }
        for entry in CATALOGUE {
            assert_eq!(entry.fault.name().parse(), Ok(entry.fault));
            assert_eq!(entry.fault.entry().summary, entry.summary);
        }
        assert!("cpu.smoke".parse::<Fault>().is_err());
    }
}
