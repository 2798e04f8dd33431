//! The behaviours that every back end of the firewall must show, described once.
//!
//! A trial is a machine, faults, and what must come of them. Where it runs is decided by
//! [`crate::platform`], so that no back end is held to less than another.

use std::time::Duration;

use cell::fault::InnerFault;
use cell::trace::Event;
use qemu_runner::fault::catalogue::HostFault;
use qemu_runner::fault::plan::{Area, Plan, Strike, Trigger};

use crate::harness::{Outcome, host, inner};

/// How much a trial says about a back end for the time that it takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Weight {
    /// It runs everywhere, also where the same back end runs on two emulators.
    Essential,
    /// It runs for every back end.
    Telling,
    /// Slow platforms run it only on demand.
    Further,
}

/// How much memory a machine has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// As much as usual.
    Usual,
    /// So much that each cell sees whole GiB of another's.
    Gibibytes,
}

/// A behaviour.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// What it shows, by group.
    pub name: &'static str,
    /// Cells and CPUs.
    pub size: (usize, usize),
    /// How much memory.
    pub memory: Memory,
    /// What is done to the machine.
    pub plan: fn() -> Plan,
    /// What must come of it.
    pub check: fn(&Outcome),
    /// Whether slow platforms run it.
    pub weight: Weight,
}

const fn further(name: &'static str, plan: fn() -> Plan, check: fn(&Outcome)) -> Trial {
    Trial {
        name,
        size: (4, 8),
        memory: Memory::Usual,
        plan,
        check,
        weight: Weight::Further,
    }
}

const fn telling(name: &'static str, plan: fn() -> Plan, check: fn(&Outcome)) -> Trial {
    Trial {
        weight: Weight::Telling,
        ..further(name, plan, check)
    }
}

const fn essential(name: &'static str, plan: fn() -> Plan, check: fn(&Outcome)) -> Trial {
    Trial {
        weight: Weight::Essential,
        ..further(name, plan, check)
    }
}

fn struck_and_held(outcome: &Outcome) {
    outcome.assert_struck();
    outcome.assert_held();
}

fn of(fault: HostFault, cell: usize) -> Plan {
    Plan::single(host(fault, cell))
}

fn by(fault: InnerFault, cell: usize) -> Plan {
    Plan::single(inner(fault, cell))
}

fn seeded(seed: u64, mut strike: Strike) -> Plan {
    strike.seed = seed;
    Plan::single(strike)
}

fn thawed(cell: usize, after: Duration) -> Plan {
    let thaw = Some(after);
    Plan::single(Strike {
        thaw,
        ..host(HostFault::CpuFreeze, cell)
    })
}

/// Halts a CPU of cell 1 and strikes again at the first `event` after it.
fn pair(second: Strike, event: Event) -> Plan {
    Plan {
        then: vec![(second, Trigger::at(event))],
        ..of(HostFault::CpuHalt, 1)
    }
}

/// Every trial.
pub const TRIALS: &[Trial] = &[
    telling(
        "halt: the cell with the boot CPU is recovered",
        || of(HostFault::CpuHalt, 0),
        |outcome| outcome.assert_recovered(&[0]),
    ),
    further(
        "halt: cell 1 is recovered",
        || of(HostFault::CpuHalt, 1),
        |outcome| outcome.assert_recovered(&[1]),
    ),
    essential(
        "halt: cell 2 is recovered",
        || of(HostFault::CpuHalt, 2),
        |outcome| outcome.assert_recovered(&[2]),
    ),
    further(
        "halt: the last cell is recovered",
        || of(HostFault::CpuHalt, 3),
        |outcome| outcome.assert_recovered(&[3]),
    ),
    further(
        "halt: a second CPU takes its cell along",
        || {
            Plan::single(Strike {
                cpu_index: 1,
                ..host(HostFault::CpuHalt, 1)
            })
        },
        |outcome| outcome.assert_recovered(&[1]),
    ),
    Trial {
        size: (2, 4),
        ..further(
            "halt: of two cells the dead one goes",
            || of(HostFault::CpuHalt, 1),
            |outcome| outcome.assert_recovered(&[1]),
        )
    },
    Trial {
        size: (8, 8),
        ..further(
            "halt: of eight cells seven survive",
            || of(HostFault::CpuHalt, 5),
            |outcome| outcome.assert_recovered(&[5]),
        )
    },
    telling(
        "freeze: a frozen CPU that goes on finds itself expelled",
        || thawed(2, Duration::from_secs(1)),
        |outcome| {
            outcome.assert_recovered(&[2]);
            assert_eq!(outcome.run.notes.len(), 1, "it went on");
        },
    ),
    further(
        "freeze: a CPU that stays frozen is left behind",
        || of(HostFault::CpuFreeze, 1),
        |outcome| outcome.assert_recovered(&[1]),
    ),
    further(
        "freeze: a CPU that stands still for a moment harms nobody",
        || thawed(3, Duration::from_millis(2)),
        Outcome::assert_held,
    ),
    further(
        "hardware: an uncorrected machine check kills one cell",
        || of(HostFault::CpuMce, 1),
        |outcome| outcome.assert_recovered(&[1]),
    ),
    further(
        "hardware: a corrected machine check kills nobody",
        || of(HostFault::CpuMceCorrected, 1),
        |outcome| {
            outcome.assert_held();
            assert!(outcome.verdict.dead.is_empty());
        },
    ),
    further(
        "hardware: a stray NMI is contained",
        || of(HostFault::CpuNmi, 3),
        Outcome::assert_held,
    ),
    telling(
        "memory: a flipped bit in a kernel is contained",
        || seeded(1, host(HostFault::MemBitflip, 2)),
        Outcome::assert_held,
    ),
    further(
        "memory: another flipped bit in a kernel is contained",
        || seeded(2, host(HostFault::MemBitflip, 2)),
        Outcome::assert_held,
    ),
    further(
        "memory: a flipped bit anywhere in a cell is contained",
        || {
            Plan::single(Strike {
                area: Area::Region,
                ..host(HostFault::MemBitflip, 1)
            })
        },
        Outcome::assert_held,
    ),
    further(
        "memory: a changed pointer is contained",
        || seeded(1, host(HostFault::MemPointer, 3)),
        Outcome::assert_held,
    ),
    further(
        "memory: another changed pointer is contained",
        || seeded(2, host(HostFault::MemPointer, 3)),
        Outcome::assert_held,
    ),
    further(
        "messages: dropped",
        || by(InnerFault::RpcDrop, 1),
        struck_and_held,
    ),
    further(
        "messages: doubled",
        || by(InnerFault::RpcDuplicate, 2),
        struck_and_held,
    ),
    further(
        "messages: spoilt",
        || by(InnerFault::RpcCorrupt, 3),
        struck_and_held,
    ),
    further(
        "messages: late",
        || by(InnerFault::RpcDelay, 0),
        struck_and_held,
    ),
    essential(
        "software: a panic leaves an epitaph and is recovered",
        || by(InnerFault::Panic, 1),
        |outcome| {
            outcome.assert_recovered(&[1]);
            let mut epitaphs = outcome.run.epitaphs.keys();
            assert!(epitaphs.any(|&(cell, life)| (cell, life) == (1, 1)));
        },
    ),
    further(
        "software: the cell with the boot CPU may panic",
        || by(InnerFault::Panic, 0),
        |outcome| outcome.assert_recovered(&[0]),
    ),
    further(
        "software: a panic of cell 2 is recovered",
        || by(InnerFault::Panic, 2),
        |outcome| outcome.assert_recovered(&[2]),
    ),
    further(
        "software: a loop with interrupts on is recovered",
        || by(InnerFault::Loop, 2),
        |outcome| outcome.assert_recovered(&[2]),
    ),
    telling(
        "software: a loop with interrupts off is recovered",
        || by(InnerFault::InterruptsOff, 3),
        |outcome| outcome.assert_recovered(&[3]),
    ),
    telling(
        "software: a stack overflow is recovered",
        || by(InnerFault::StackOverflow, 2),
        |outcome| outcome.assert_recovered(&[2]),
    ),
    further(
        "software: a fast clock convinces nobody",
        || by(InnerFault::FastClock, 1),
        Outcome::assert_held,
    ),
    further(
        "software: a cell that cries wolf expels no healthy one",
        || by(InnerFault::CryWolf, 3),
        |outcome| {
            outcome.assert_held();
            outcome.assert_cell_traced(3, Event::Hint);
        },
    ),
    essential(
        "walls: wild stores reach no other cell",
        || seeded(1, inner(InnerFault::WildWrite, 1)),
        Outcome::assert_held,
    ),
    further(
        "walls: other wild stores reach no other cell",
        || seeded(2, inner(InnerFault::WildWrite, 1)),
        Outcome::assert_held,
    ),
    further(
        "walls: wild stores of the cell with the boot CPU reach no other cell",
        || by(InnerFault::WildWrite, 0),
        Outcome::assert_held,
    ),
    telling(
        "walls: interrupts at other cells do not arrive",
        || by(InnerFault::IpiStorm, 2),
        Outcome::assert_held,
    ),
    essential(
        "walls: no cell resets the machine",
        || by(InnerFault::PortReset, 3),
        Outcome::assert_held,
    ),
    Trial {
        memory: Memory::Gibibytes,
        ..telling(
            "gibibytes: wild stores reach no other cell",
            || seeded(1, inner(InnerFault::WildWrite, 1)),
            Outcome::assert_held,
        )
    },
    Trial {
        memory: Memory::Gibibytes,
        ..further(
            "gibibytes: cell 2 is recovered after a halt",
            || of(HostFault::CpuHalt, 2),
            |outcome| outcome.assert_recovered(&[2]),
        )
    },
    further(
        "pairs: a halt during agreement",
        || pair(host(HostFault::CpuHalt, 3), Event::EpochBegin),
        |outcome| outcome.assert_recovered(&[1, 3]),
    ),
    further(
        "pairs: a panic after barrier 1",
        || pair(inner(InnerFault::Panic, 2), Event::Barrier1),
        |outcome| outcome.assert_recovered(&[1, 2]),
    ),
    further(
        "pairs: a panic during the discard",
        || pair(inner(InnerFault::Panic, 3), Event::Discard),
        |outcome| outcome.assert_recovered(&[1, 3]),
    ),
    further(
        "pairs: a halt while the first is rebooted",
        || pair(host(HostFault::CpuHalt, 2), Event::Reboot),
        |outcome| outcome.assert_recovered(&[1, 2]),
    ),
    further(
        "pairs: a third dies when the second is dealt with",
        || Plan {
            then: vec![
                (inner(InnerFault::Panic, 2), Trigger::at(Event::Barrier1)),
                (host(HostFault::CpuHalt, 3), Trigger::at(Event::Resume)),
            ],
            ..by(InnerFault::Panic, 1)
        },
        |outcome| outcome.assert_recovered(&[1, 2, 3]),
    ),
];
