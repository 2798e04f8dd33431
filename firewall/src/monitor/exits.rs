//! Judges what a cell did that it could not do alone.
//!
//! A back end translates its processor's exit codes into an [`Exit`] and carries out the
//! [`Verdict`].
//!
//! # Not guaranteed
//! Two kicks in short succession can come as one NMI or as two. So an NMI that no kick explains is
//! taken for the echo of the last one until the guest has left for another reason, which it does
//! at its next tick; a stray one in that time, or one that comes together with a kick, is not seen.

use core::sync::atomic::Ordering;

use cell::machine::EvidenceKind;
use cell::standing::Arrival;
use cell::trace::Event;

use super::denials::{self, Denial, Judgement};
use super::hypercalls::{self, After, Reply, Request};
use super::state::{Monitor, PerCpu};
use super::{fence, life, standstill};
use crate::hypercall::BusError;

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
    /// Do not enter again: this life is over, and the CPU arrives in the monitor so.
    Leave(Arrival),
}

/// Judges one exit.
pub fn judge(monitor: &Monitor, cpu: &PerCpu, exit: Exit) -> Verdict {
    monitor
        .machine
        .cpu(cpu.id)
        .exits
        .fetch_add(1, Ordering::Relaxed);
    if exit != Exit::Nmi {
        fence::note_other_exit(cpu);
    }
    let arrival = match exit {
        Exit::Fatal {
            kind: EvidenceKind::Reset,
            ..
        } => life::expect_reset(monitor, cpu),
        _ => Arrival::Return,
    };
    match exit {
        Exit::Nmi => judge_nmi(monitor, cpu),
        // What a cell does after it was voted out, until its CPUs are fenced, is nobody's concern;
        // what it asks for would be done to the life after it.
        _ if !life::is_in_life(monitor, cpu) => Verdict::Leave(arrival),
        Exit::Hypercall(request) => match hypercalls::answer(monitor, cpu, request) {
            After::Return(reply) => Verdict::Answer(reply),
            After::Leave => Verdict::Leave(arrival),
        },
        Exit::Denied {
            denial,
            instruction,
        } => match denials::judge(monitor, cpu, denial, instruction) {
            Judgement::Again => Verdict::Resume,
            Judgement::BusError(error) => Verdict::BusError(error),
        },
        Exit::Fatal {
            kind,
            detail,
            instruction,
        } => {
            fence::publish(monitor, cpu, kind, detail, instruction);
            Verdict::Leave(arrival)
        }
    }
}

fn judge_nmi(monitor: &Monitor, cpu: &PerCpu) -> Verdict {
    standstill::wait_while_frozen(monitor, cpu);
    let is_sent = cpu.all_kicks_sent.load(Ordering::Relaxed);
    if fence::answer_kicks(monitor, cpu) {
        return Verdict::Resume;
    }
    if cpu.is_echo_possible.load(Ordering::Relaxed) {
        // With nothing on its way any more, this was the last one.
        cpu.is_echo_possible.store(!is_sent, Ordering::Relaxed);
        return Verdict::Resume;
    }
    monitor.trace(
        cpu,
        Event::StrayNmi,
        [cpu.id.index() as u64, cpu.cell.index() as u64],
    );
    Verdict::Nmi
}
