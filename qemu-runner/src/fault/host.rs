//! Faults of CPUs, injected from outside.

use cell::standing::CpuState;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::catalogue::{Fault, HostFault};
use super::channels::Channels;
use super::corrupt::{self, Stuck};
use super::inner;
use super::plan::{Strike, Trigger};
use super::registers;
use crate::error::{Error, Result};
use crate::guest::machine::{CpuStatus, MachineView};
use crate::guest::memory::GuestMemory;
use crate::images::Images;
use crate::qemu::qmp::MachineCheck;
use crate::qemu::qtest::Delivery;

/// VAL, UC, EN, ADDRV: an uncorrected error with an address.
const STATUS_UNCORRECTED: u64 = 0xb400_0000_0000_0000;
/// VAL, EN, ADDRV: a corrected error with an address.
const STATUS_CORRECTED: u64 = 0x9400_0000_0000_0000;
/// RIPV, MCIP: the instruction pointer is good, a machine check is under way.
const MCG_STATUS: u64 = 5;
/// Vectors that a device could use.
const VECTORS: std::ops::RangeInclusive<u8> = 0x20..=0xff;
/// Where an interrupt message is written; bits 12 to 19 name the local APIC.
const MESSAGE_ADDRESS: u64 = 0xfee0_0000;
/// A bank that reports memory errors.
const BANK: u32 = 4;
/// QEMU's number, and the local APIC's identifier, of the CPU that the firmware started.
const BOOT_CPU: u8 = 0;

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
    /// QEMU's number of it.
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
    channels: &mut Channels,
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
            corrupt::flip_bits(target, channels.bus()?, strike, 1).map(Done::from)
        }
        HostFault::MemBurst => {
            let bits = strike.argument;
            corrupt::flip_bits(target, channels.bus()?, strike, bits).map(Done::from)
        }
        HostFault::MemStuck => {
            let (detail, stuck) = corrupt::stick_bit(target, channels.bus()?, strike)?;
            Ok(Done {
                stuck: Some(stuck),
                ..Done::from(detail)
            })
        }
        HostFault::MemPointer => {
            corrupt::change_pointer(target, channels.bus()?, strike).map(Done::from)
        }
        _ => {
            let cpu = victim(target, strike)?;
            let detail = inject_into_cpu(target, channels, strike, fault, cpu)?;
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

fn inject_into_cpu(
    target: &Target<'_>,
    channels: &mut Channels,
    strike: &Strike,
    fault: HostFault,
    cpu: CpuStatus,
) -> Result<String> {
    let who = format!("CPU {} of cell {}", cpu.cpu, strike.cell);
    match fault {
        HostFault::CpuHalt if cpu.apic_id == BOOT_CPU => {
            channels.freezer()?.freeze(u32::from(cpu.apic_id))?;
            Ok(format!("{who} left out of vCont for good"))
        }
        HostFault::CpuHalt => {
            channels.interrupt(cpu.apic_id, Delivery::Init)?;
            Ok(format!("INIT to {who}"))
        }
        HostFault::CpuFreeze => {
            channels.freezer()?.freeze(u32::from(cpu.apic_id))?;
            Ok(format!("{who} left out of vCont"))
        }
        HostFault::CpuNmi => {
            channels.interrupt(cpu.apic_id, Delivery::Nmi)?;
            Ok(format!("NMI to {who}"))
        }
        HostFault::RegBitflip => registers::flip_bit(channels.gdb()?, cpu.apic_id, &who, strike),
        HostFault::IrqSpurious => {
            let count = interrupt_at_random(channels, cpu.apic_id, strike)?;
            Ok(format!("{count} interrupts to {who}"))
        }
        HostFault::MemFail => {
            let filled = corrupt::fail_memory(target, strike)?;
            let check = check_machine(target, channels, strike, STATUS_UNCORRECTED, cpu)?;
            Ok(format!("{filled}; {check}"))
        }
        _ => {
            let status = match fault {
                HostFault::CpuMceCorrected => STATUS_CORRECTED,
                _ => STATUS_UNCORRECTED,
            };
            check_machine(target, channels, strike, status, cpu)
        }
    }
}

/// Reports an error of the cell's memory to a CPU.
fn check_machine(
    target: &Target<'_>,
    channels: &mut Channels,
    strike: &Strike,
    status: u64,
    cpu: CpuStatus,
) -> Result<String> {
    let address = target.machine.public(strike.cell).0;
    channels.machine_checks().machine_check(MachineCheck {
        cpu: u32::from(cpu.apic_id),
        bank: BANK,
        status,
        mcg_status: MCG_STATUS,
        address,
    })?;
    let (cpu, cell) = (cpu.cpu, strike.cell);
    Ok(format!(
        "machine check {status:#x} at CPU {cpu} of cell {cell}"
    ))
}

/// Sends interrupts of random vectors; how many.
fn interrupt_at_random(channels: &mut Channels, apic_id: u8, strike: &Strike) -> Result<u64> {
    let mut random = ChaCha8Rng::seed_from_u64(strike.seed);
    let address = MESSAGE_ADDRESS + (u64::from(apic_id) << 12);
    for _ in 0..strike.argument {
        let vector = u32::from(random.random_range(VECTORS));
        channels.bus()?.write_bus(address, &vector.to_le_bytes())?;
    }
    Ok(strike.argument)
}

/// Lets a frozen CPU go on.
///
/// # Errors
/// [`Error::Channel`].
pub fn thaw(channels: &mut Channels, frozen: Frozen) -> Result<String> {
    channels.freezer()?.thaw(u32::from(frozen.apic_id))?;
    Ok(format!(
        "CPU {} of cell {} goes on",
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
    use std::path::PathBuf;

    /// So that it costs its run, and not the campaign.
    #[test]
    fn a_cpu_that_its_cell_has_lost_is_no_mistake_of_the_users() {
        let (memory, base) = synthetic();
        let machine = MachineView::read(&memory, base).unwrap().unwrap();
        let images = Images {
            monitor: PathBuf::new(),
            kernel: PathBuf::new(),
        };
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
