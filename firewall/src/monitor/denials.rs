//! What a denied access was: somebody's misdeed, a matter of time, or the end of its target.
//!
//! Every denial ends in a bus error or in another try. Only an access that no healthy kernel makes
//! is evidence; a store that a home holds up, and an access to memory that its home cut off, are
//! not the accessing cell's fault.

use core::sync::atomic::{AtomicU64, Ordering};

use cell::PhysicalAddress;
use cell::machine::EvidenceKind;

use super::state::{Monitor, PerCpu};
use super::{fence, reach};
use crate::hypercall::{BusError, BusErrorKind};
use crate::nested::Access;

/// An access that the tables or maps did not let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    /// A load from, or fetch of, this address.
    Read(PhysicalAddress),
    /// A store to this address.
    Write(PhysicalAddress),
    /// An I/O port.
    Port(u16),
    /// A model-specific register.
    Register(u32),
    /// An instruction that is the monitor's alone; the number is the back end's exit code.
    Instruction(u64),
}

/// The load or fetch of a CPU that was tried again last.
///
/// A load that the tables allow by now may be tried again: another CPU of the cell opened the
/// frame. But a fetch from memory that is not the cell's own looks the same, and is denied for
/// ever; so nothing is tried again twice in a row. Frames are missing at most once in a life of
/// their home and of the cell, so in other lives it counts as another.
#[derive(Debug, Default)]
pub struct Retried(AtomicU64);

impl Retried {
    /// None yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether the CPU tried another one last. `lives`: of the cell and of the memory's home.
    fn is_another(&self, address: PhysicalAddress, instruction: u64, lives: [u32; 2]) -> bool {
        // Addresses leave the uppermost bits alone; where two names meet all the same, an access
        // that was tried counts as denied, or one that is denied is tried once more.
        let [own, home] = lives.map(|life| u64::from(life & 0xff));
        let lives = own << 56 | home << 48;
        let name = address.0 ^ instruction.rotate_left(u64::BITS / 2) ^ lives;
        self.0.swap(name, Ordering::Relaxed) != name
    }
}

/// What comes of a denied access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// The tables allow it by now: the instruction is tried again.
    Again,
    /// The instruction ends in a bus error.
    BusError(BusError),
}

/// Judges an access of the instruction at `instruction`, and publishes evidence if it is any.
pub fn judge(monitor: &Monitor, cpu: &PerCpu, denial: Denial, instruction: u64) -> Judgement {
    if is_stale(monitor, cpu, denial, instruction) {
        return Judgement::Again;
    }
    let (evidence, error) = match denial {
        Denial::Read(address) | Denial::Write(address)
            if reach::is_cut_off(monitor, cpu.cell, address) =>
        {
            return bus_error(BusErrorKind::Read, address.0);
        }
        Denial::Write(address) if is_granted(monitor, cpu, address) => {
            if !is_quarantined(monitor, cpu, address) {
                // Between a grant, or the end of a quarantine, and its arrival in the table.
                return Judgement::Again;
            }
            return bus_error(BusErrorKind::Quarantined, address.0);
        }
        Denial::Write(address) => (EvidenceKind::WriteDenied, (BusErrorKind::Write, address.0)),
        Denial::Read(address) => (EvidenceKind::ReadDenied, (BusErrorKind::Read, address.0)),
        Denial::Port(port) => (
            EvidenceKind::PortDenied,
            (BusErrorKind::Port, u64::from(port)),
        ),
        Denial::Register(register) => (
            EvidenceKind::MsrDenied,
            (BusErrorKind::Msr, u64::from(register)),
        ),
        Denial::Instruction(code) => (EvidenceKind::InstructionDenied, (BusErrorKind::Msr, code)),
    };
    let (kind, address) = error;
    fence::publish(monitor, cpu, evidence, address, instruction);
    bus_error(kind, address)
}

const fn bus_error(kind: BusErrorKind, address: u64) -> Judgement {
    let kind = kind as u64;
    Judgement::BusError(BusError { address, kind })
}

/// Whether the tables allow by now what the processor denied: a grant came meanwhile, or the
/// processor held an older entry, the home came back after it had cut its memory off, or the serial
/// port changed hands.
fn is_stale(monitor: &Monitor, cpu: &PerCpu, denial: Denial, instruction: u64) -> bool {
    let access = |address: PhysicalAddress| monitor.nested(cpu.cell).access(address.frame());
    match denial {
        Denial::Write(address) => {
            let is_open = || matches!(access(address), Access::Write | Access::Own);
            is_open() || reach::reopen(monitor, cpu.cell, address.frame())
        }
        Denial::Read(address) => {
            let may_load = || access(address) != Access::Absent;
            let lives = || lives(monitor, cpu, address);
            reach::reopen(monitor, cpu.cell, address.frame())
                || may_load() && cpu.retried.is_another(address, instruction, lives())
        }
        Denial::Register(_) | Denial::Instruction(_) => false,
        Denial::Port(port) => {
            monitor.machine.uart_owner.load(Ordering::SeqCst) == cpu.cell.index() as u32
                && crate::machine::permissions::UART_PORTS.contains(&port)
                && !cpu.had_uart.load(Ordering::Relaxed)
        }
    }
}

/// The lives of the cell and of the home of `address`, if that has one.
fn lives(monitor: &Monitor, cpu: &PerCpu, address: PhysicalAddress) -> [u32; 2] {
    let home = monitor.table.homes().of(address.frame());
    [cpu.cell, home.unwrap_or(cpu.cell)].map(|cell| monitor.machine.cell(cell).incarnation().0)
}

fn is_granted(monitor: &Monitor, cpu: &PerCpu, address: PhysicalAddress) -> bool {
    let writers = monitor.table.writers(address.frame());
    writers.contains(cpu.cell)
}

fn is_quarantined(monitor: &Monitor, cpu: &PerCpu, address: PhysicalAddress) -> bool {
    let home = monitor.table.homes().of(address.frame());
    home.is_some_and(|home| reach::grants(monitor, home, cpu.cell).is_quarantined())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_tried_again_twice_in_a_row() {
        let retried = Retried::new();
        let [one, other] = [0x1000, 0x2000].map(PhysicalAddress);
        assert!(retried.is_another(one, 0x40, [1, 1]));
        assert!(
            !retried.is_another(one, 0x40, [1, 1]),
            "a fetch that stays denied"
        );
        assert!(
            retried.is_another(other, 0x40, [1, 1]),
            "the same code elsewhere"
        );
        assert!(retried.is_another(one, 0x44, [1, 1]), "other code");
        assert!(retried.is_another(one, 0x40, [1, 1]), "not in a row");
        assert!(!retried.is_another(one, 0x40, [1, 1]));
        assert!(
            retried.is_another(one, 0x40, [1, 2]),
            "the home's next life"
        );
        assert!(
            retried.is_another(one, 0x40, [2, 2]),
            "the cell's next life"
        );
    }
}
