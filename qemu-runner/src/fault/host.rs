//! Faults of CPUs, injected from outside.

use cell::standing::CpuState;

use super::catalogue::{Fault, HostFault};
use super::channels::Channels;
use super::corrupt;
use super::inner;
use super::plan::{Strike, Trigger};
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
        }
    }
}

/// Injects a fault now, or leaves it to the victim's kernel to do so at `trigger`. Says what
/// exactly was done.
///
/// # Errors
/// [`Error::Usage`] if there is no such CPU, [`Error::Channel`] and [`Error::Guest`] if it cannot
/// be done.
pub fn inject(
    target: &Target<'_>,
    channels: &mut Channels,
    strike: &Strike,
    trigger: Option<Trigger>,
) -> Result<Done> {
    let fault = match strike.fault {
        Fault::Inner(fault) => {
            let asked = inner::request(target.memory, target.machine, strike, fault, trigger);
            return asked.map(Done::from);
        }
        Fault::Host(fault) => fault,
    };
    match fault {
        HostFault::MemBitflip => corrupt::flip_bit(target, channels.bus()?, strike).map(Done::from),
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
            Ok(Done { detail, frozen })
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
        _ => {
            let status = match fault {
                HostFault::CpuMceCorrected => STATUS_CORRECTED,
                _ => STATUS_UNCORRECTED,
            };
            let address = target.machine.public(strike.cell).0;
            channels.machine_checks().machine_check(MachineCheck {
                cpu: u32::from(cpu.apic_id),
                bank: BANK,
                status,
                mcg_status: MCG_STATUS,
                address,
            })?;
            Ok(format!("machine check {status:#x} at {who}"))
        }
    }
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
    let missing = || Error::Usage(format!("cell {cell} has {count} CPUs, counted from 0"));
    started
        .get(strike.cpu_index)
        .copied()
        .copied()
        .ok_or_else(missing)
}
