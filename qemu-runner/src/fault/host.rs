//! Faults of CPUs, injected from outside.

use cell::standing::CpuState;

use super::catalogue::{Fault, HostFault};
use super::corrupt::{self, Stuck};
use super::inner;
use super::plan::{Strike, Trigger};
use crate::emulator::Emulator;
use crate::error::{Error, Result};
use crate::guest::machine::{CpuStatus, MachineView};
use crate::guest::memory::GuestMemory;
use crate::images::Images;

/// A running machine that a fault can be injected into.
#[derive(Debug)]
pub struct Target<'a> {
    /// Its memory.
    pub memory: &'a GuestMemory,
    /// Its record.
    pub machine: &'a MachineView,
    /// Its images.
    pub images: &'a Images,
}

/// What an injection did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// In words.
    pub detail: String,
    /// The CPU that stands still since.
    pub frozen: Option<Frozen>,
    /// The bit that is stuck since.
    pub stuck: Option<Stuck>,
}

/// A CPU that was frozen. It is remembered, because its cell may go on without it: looked for once
/// more, it may not be found, or another in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frozen {
    /// Its number.
    pub cpu: usize,
    /// The cell that it belonged to.
    pub cell: usize,
    /// Its local APIC's identifier.
    pub apic_id: u8,
}

impl From<String> for Done {
    fn from(detail: String) -> Self {
        Self {
            detail,
            frozen: None,
            stuck: None,
        }
    }
}

/// Injects a fault now, or leaves it to the victim's kernel to do so at `trigger`. Says what
/// exactly was done.
///
/// # Errors
/// [`Error::Guest`] if its place is not there now, [`Error::Channel`] if it cannot be done.
pub fn inject(
    target: &Target<'_>,
    emulator: &mut dyn Emulator,
    strike: &Strike,
    trigger: Option<&Trigger>,
) -> Result<Done> {
    let fault = match strike.fault {
        Fault::Inner(fault) => {
            let asked = inner::request(target.memory, target.machine, strike, fault, trigger);
            return asked.map(Done::from);
        }
        Fault::Host(fault) => fault,
    };
    match fault {
        HostFault::MemBitflip => {
            corrupt::flip_bits(target, emulator.bus()?, strike, 1).map(Done::from)
        }
        HostFault::MemBurst => {
            let bits = strike.argument;
            corrupt::flip_bits(target, emulator.bus()?, strike, bits).map(Done::from)
        }
        HostFault::MemStuck => {
            let (detail, stuck) = corrupt::stick_bit(target, emulator.bus()?, strike)?;
            Ok(Done {
                stuck: Some(stuck),
                ..Done::from(detail)
            })
        }
        HostFault::MemPointer => {
            corrupt::change_pointer(target, emulator.bus()?, strike).map(Done::from)
        }
        _ => {
            let cpu = victim(target, strike)?;
            let detail = emulator.strike_cpu(target, cpu, strike, fault)?;
            let frozen = (fault == HostFault::CpuFreeze).then_some(Frozen {
                cpu: cpu.cpu,
                cell: strike.cell,
                apic_id: cpu.apic_id,
            });
            Ok(Done {
                frozen,
                ..Done::from(detail)
            })
        }
    }
}

/// Lets a frozen CPU go on. Says what became of it.
///
/// # Errors
/// [`Error::Channel`].
pub fn thaw(emulator: &mut dyn Emulator, frozen: Frozen) -> Result<String> {
    let became = emulator.thaw(frozen.apic_id)?;
    Ok(format!(
        "CPU {} of cell {} {became}",
        frozen.cpu, frozen.cell
    ))
}

fn victim(target: &Target<'_>, strike: &Strike) -> Result<CpuStatus> {
    let cpus = target.machine.cpus_of(target.memory, strike.cell)?;
    let started: Vec<&CpuStatus> = cpus
        .iter()
        .filter(|cpu| cpu.state != CpuState::Absent)
        .collect();
    let (cell, count) = (strike.cell, started.len());
    // The machine was checked before: the cell has lost CPUs, or is on its way back.
    let index = strike.cpu_index;
    let missing = || {
        Error::Guest(format!(
            "cell {cell} has no CPU {index}, but {count} of them"
        ))
    };
    started
        .get(strike.cpu_index)
        .copied()
        .copied()
        .ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::machine::tests::synthetic;

    /// So that it costs its run, and not the campaign.
    #[test]
    fn a_cpu_that_its_cell_has_lost_is_no_mistake_of_the_users() {
        let (memory, base) = synthetic();
        let machine = MachineView::read(&memory, base).unwrap().unwrap();
        let images = Images::none();
        let target = Target {
            memory: &memory,
            machine: &machine,
            images: &images,
        };
        let strike = |cpu_index| Strike {
            cpu_index,
            ..Strike::new(Fault::Host(HostFault::CpuHalt), 1)
        };
        assert_eq!(victim(&target, &strike(1)).unwrap().cpu, 3);
        assert!(matches!(victim(&target, &strike(2)), Err(Error::Guest(_))));
    }
}
