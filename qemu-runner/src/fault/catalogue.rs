//! Every fault: what it does, how it is injected, what must come of it.
//!
//! Whatever is injected into a cell, the damage must stay in that cell. Beyond that, some faults
//! must end its life, because a cell that goes on with them would be of no use; others may or must
//! not.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use cell::fault::InnerFault;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Most bits of a burst.
pub const BURST_MAX: u64 = 255;
/// Most interrupts that are sent at once: the machine is not looked at meanwhile.
const INTERRUPTS_MAX: u64 = 10_000;

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
    /// Neighbouring bits of the cell's memory flip.
    MemBurst,
    /// One bit of the cell's memory keeps its value.
    MemStuck,
    /// All of the cell's memory fails.
    MemFail,
    /// One bit of a register of a CPU flips.
    RegBitflip,
    /// A CPU gets interrupts that nobody sent.
    IrqSpurious,
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
use HostFault::{
    CpuFreeze, CpuHalt, CpuMce, CpuMceCorrected, CpuNmi, IrqSpurious, MemBitflip, MemBurst,
    MemFail, MemPointer, MemStuck, RegBitflip,
};

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
        "one random bit flips in a part of the cell's memory (--area) or in a field (--object)",
        "read and write over qtest",
        MayDie,
    ),
    host(
        MemPointer,
        "a pointer, any or --object, becomes a random address, one or two words off, or itself",
        "write over qtest",
        MayDie,
    ),
    Entry {
        argument: Some(("bits", 8)),
        ..host(
            MemBurst,
            "neighbouring bits flip (--area, --object)",
            "read and write over qtest",
            MayDie,
        )
    },
    host(
        MemStuck,
        "one random bit sticks at the value that it does not have (--area, --object)",
        "written over qtest again and again",
        MayDie,
    ),
    host(
        MemFail,
        "all of the cell's memory turns into ones, with an uncorrected machine check",
        "the file behind the guest's memory; mce, by QMP",
        Dies,
    ),
    host(
        RegBitflip,
        "one random bit of a register (--registers) flips while a CPU executes its kernel",
        "P over the gdb stub",
        MayDie,
    ),
    Entry {
        argument: Some(("interrupts", 16)),
        ..host(
            IrqSpurious,
            "a CPU gets interrupts of random vectors that nobody sent",
            "interrupt messages over qtest",
            MayDie,
        )
    },
    inner(InnerFault::Panic, "the kernel panics", Dies, None),
    inner(
        InnerFault::Loop,
        "kernel threads loop for ever, one on each CPU, interrupts on",
        Dies,
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
        InnerFault::SlowClock,
        "the cell's clock runs too slowly",
        MayDie,
        Some(("times too slowly", InnerFault::SlowClock.default_argument())),
    ),
    inner(
        InnerFault::ClockStall,
        "the cell's clock stands still, and is right again after it",
        MayDie,
        Some((
            "milliseconds, 0 for ever",
            InnerFault::ClockStall.default_argument(),
        )),
    ),
    inner(
        InnerFault::ClockSkew,
        "the cell's clock jumps ahead",
        MayDie,
        Some(("microseconds", InnerFault::ClockSkew.default_argument())),
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
        InnerFault::RpcReorder,
        "outgoing messages are overtaken by those that follow",
        MayDie,
        MESSAGES,
    ),
    inner(
        InnerFault::InterruptLost,
        "timer ticks, doorbells and wake-ups of the cell are lost",
        MayDie,
        Some(("interrupts", InnerFault::InterruptLost.default_argument())),
    ),
    inner(
        InnerFault::ProgramKill,
        "threads of a name (--program) end where they are, with nothing cleaned up",
        MayDie,
        Some(("threads", InnerFault::ProgramKill.default_argument())),
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
            MemBurst => "mem.burst",
            MemStuck => "mem.stuck",
            MemFail => "mem.fail",
            RegBitflip => "reg.bitflip",
            IrqSpurious => "irq.spurious",
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

    /// The numbers that it takes, if it takes any. With 0 most would strike nothing.
    pub const fn arguments(self) -> RangeInclusive<u64> {
        match self {
            Self::Host(MemBurst) => 1..=BURST_MAX,
            Self::Host(IrqSpurious) => 1..=INTERRUPTS_MAX,
            // A clock that stands still for no time stands still for ever.
            Self::Inner(InnerFault::ClockStall) => 0..=u64::MAX,
            _ => 1..=u64::MAX,
        }
    }

    /// Whether it strikes one CPU of its cell, so that it matters which.
    pub const fn is_of_one_cpu(self) -> bool {
        matches!(
            self,
            Self::Host(
                CpuHalt | CpuFreeze | CpuNmi | CpuMce | CpuMceCorrected | RegBitflip | IrqSpurious
            )
        )
    }

    /// Whether it chooses a place in the cell's memory by an area.
    pub const fn has_area(self) -> bool {
        matches!(self, Self::Host(MemBitflip | MemBurst | MemStuck))
    }

    /// Whether it can be aimed at an object of the kernel.
    pub const fn has_object(self) -> bool {
        self.has_area() || matches!(self, Self::Host(MemPointer))
    }

    /// Whether it waits in the machine until something uses it.
    pub const fn is_latent(self) -> bool {
        self.has_object() || matches!(self, Self::Host(RegBitflip))
    }

    /// Whether it can still be there in the next life of its cell: a CPU that stands still, a bit
    /// that sticks.
    pub const fn outlives_its_cell(self) -> bool {
        matches!(self, Self::Host(CpuHalt | CpuFreeze | MemStuck))
    }

    /// Whether it strikes some of what passes a hook of the kernel.
    pub const fn is_hook(self) -> bool {
        matches!(self, Self::Inner(fault) if fault.is_hook())
    }

    /// Whether it can strike while the machine stands still: what it needs is a change of memory or
    /// a message to a local APIC, and not QEMU's own part.
    pub const fn is_deterministic(self) -> bool {
        match self {
            Self::Inner(_) => true,
            Self::Host(fault) => matches!(
                fault,
                CpuHalt | CpuFreeze | CpuNmi | MemBitflip | MemPointer
            ),
        }
    }

    /// Whether it strikes messages.
    pub const fn is_of_messages(self) -> bool {
        matches!(self, Self::Inner(fault) if fault.is_of_messages())
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
        for fault in [MemBurst, MemStuck, MemFail, RegBitflip, IrqSpurious] {
            assert_eq!(Fault::Host(fault).entry().fault, Fault::Host(fault));
        }
        for entry in CATALOGUE {
            assert_eq!(entry.fault.name().parse(), Ok(entry.fault));
            assert_eq!(entry.fault.entry().summary, entry.summary);
            let default = entry.argument.map_or(1, |(_, default)| default);
            assert!(
                entry.fault.arguments().contains(&default),
                "{}",
                entry.fault
            );
        }
        assert!("cpu.smoke".parse::<Fault>().is_err());
    }
}
