//! Judges what a cell did that it could not do alone.
//!
//! A back end translates its processor's exit codes into an [`Exit`] and carries out the
//! [`Verdict`].
//!
//! # Not guaranteed
//! Two kicks in short succession can come as one NMI or as two. So that the second is not taken for
//! somebody else's, as many NMIs as kicks are expected for [`ECHO_SPAN`]; a stray one in that time
//! may be taken for a kick's.

use core::sync::atomic::Ordering;
use core::time::Duration;

use cell::machine::EvidenceKind;
use cell::trace::Event;
use cell::{Incarnation, Instant, PhysicalAddress};

use super::hypercalls::{self, After, Reply, Request};
use super::state::{Monitor, PerCpu};
use super::{fence, life, reach};
use crate::hypercall::{BusError, BusErrorKind};
use crate::nested::Access;

/// For how long NMIs are expected that belong to kicks which were answered already.
pub const ECHO_SPAN: Duration = Duration::from_millis(200);

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

/// Why a CPU left its cell, in neutral words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// A hypercall.
    Hypercall(Request),
    /// A non-maskable interrupt.
    Nmi,
    /// A denied access of the instruction at `instruction`.
    Denied {
        /// What was tried.
        denial: Denial,
        /// The instruction pointer.
        instruction: u64,
    },
    /// The end of this life: triple fault, refused entry, a fault while an event was delivered.
    Fatal {
        /// Which.
        kind: EvidenceKind,
        /// The back end's own detail: an exit code or an address.
        detail: u64,
        /// The instruction pointer.
        instruction: u64,
    },
}

/// What the back end does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Enter again, unchanged.
    Resume,
    /// Enter after the hypercall instruction with this answer.
    Answer(Reply),
    /// Deliver a bus error at the instruction.
    BusError(BusError),
    /// Deliver an NMI.
    Nmi,
    /// Do not enter again: this life is over.
    Leave,
}

/// Judges one exit.
pub fn judge(monitor: &Monitor, cpu: &PerCpu, exit: Exit) -> Verdict {
    monitor
        .machine
        .cpu(cpu.id)
        .exits
        .fetch_add(1, Ordering::Relaxed);
    match exit {
        Exit::Hypercall(request) => match hypercalls::answer(monitor, cpu, request) {
            After::Return(reply) => Verdict::Answer(reply),
            After::Leave => Verdict::Leave,
        },
        Exit::Nmi => judge_nmi(monitor, cpu),
        // What a cell does after it was voted out, until its CPUs are fenced, is nobody's concern.
        Exit::Denied { .. } if !is_in_life(monitor, cpu) => Verdict::Leave,
        Exit::Denied {
            denial,
            instruction,
        } => judge_denial(monitor, cpu, denial, instruction),
        Exit::Fatal {
            kind,
            detail,
            instruction,
        } => {
            fence::publish(monitor, cpu, kind, detail, instruction);
            Verdict::Leave
        }
    }
}

/// Whether the life that the CPU runs may still go on.
fn is_in_life(monitor: &Monitor, cpu: &PerCpu) -> bool {
    let life = monitor
        .machine
        .cpu(cpu.id)
        .incarnation
        .load(Ordering::SeqCst);
    life::is_alive(monitor, cpu, Incarnation(life))
}

fn judge_nmi(monitor: &Monitor, cpu: &PerCpu) -> Verdict {
    let is_kick = fence::answer_kicks(monitor, cpu);
    let answered_at = Instant(cpu.kick_answered_at.load(Ordering::Relaxed));
    let expected = cpu.nmis_expected.load(Ordering::Relaxed);
    let is_echo = expected > 0 && monitor.now().since(answered_at) < ECHO_SPAN;
    cpu.nmis_expected
        .store(expected.saturating_sub(1), Ordering::Relaxed);
    if is_kick || is_echo {
        return Verdict::Resume;
    }
    monitor.trace(
        cpu,
        Event::StrayNmi,
        [cpu.id.index() as u64, cpu.cell.index() as u64],
    );
    Verdict::Nmi
}

fn judge_denial(monitor: &Monitor, cpu: &PerCpu, denial: Denial, instruction: u64) -> Verdict {
    if is_stale(monitor, cpu, denial) {
        return Verdict::Resume;
    }
    let (kind, evidence, address) = match denial {
        Denial::Write(address) if is_granted(monitor, cpu, address) => {
            if !is_quarantined(monitor, cpu, address) {
                // Between a grant, or the end of a quarantine, and its arrival in the table.
                return Verdict::Resume;
            }
            let kind = BusErrorKind::Quarantined as u64;
            return Verdict::BusError(BusError {
                address: address.0,
                kind,
            });
        }
        Denial::Write(address) => (BusErrorKind::Write, EvidenceKind::WriteDenied, address.0),
        Denial::Read(address) => (BusErrorKind::Read, EvidenceKind::ReadDenied, address.0),
        Denial::Port(port) => (
            BusErrorKind::Port,
            EvidenceKind::PortDenied,
            u64::from(port),
        ),
        Denial::Register(register) => (
            BusErrorKind::Msr,
            EvidenceKind::MsrDenied,
            u64::from(register),
        ),
        Denial::Instruction(code) => (BusErrorKind::Msr, EvidenceKind::InstructionDenied, code),
    };
    fence::publish(monitor, cpu, evidence, address, instruction);
    Verdict::BusError(BusError {
        address,
        kind: kind as u64,
    })
}

/// Whether the tables allow by now what the processor denied: a grant came meanwhile, or the
/// processor held an older entry, or the serial port changed hands.
fn is_stale(monitor: &Monitor, cpu: &PerCpu, denial: Denial) -> bool {
    let access = |address: PhysicalAddress| monitor.nested(cpu.cell).access(address.frame());
    match denial {
        Denial::Write(address) => matches!(access(address), Access::Write | Access::Own),
        Denial::Read(_) | Denial::Register(_) | Denial::Instruction(_) => false,
        Denial::Port(port) => {
            monitor.machine.uart_owner.load(Ordering::SeqCst) == cpu.cell.index() as u32
                && crate::machine::svm::UART_PORTS.contains(&port)
                && !cpu.had_uart.load(Ordering::Relaxed)
        }
    }
}

fn is_granted(monitor: &Monitor, cpu: &PerCpu, address: PhysicalAddress) -> bool {
    let writers = monitor.table.writers(address.frame());
    writers.contains(cpu.cell)
}

fn is_quarantined(monitor: &Monitor, cpu: &PerCpu, address: PhysicalAddress) -> bool {
    let home = monitor.table.homes().of(address.frame());
    home.is_some_and(|home| reach::grants(monitor, home, cpu.cell).is_quarantined())
}
