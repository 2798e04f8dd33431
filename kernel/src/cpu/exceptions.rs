//! Exceptions: bus errors and page faults at a landing pad go on there; the rest ends the cell.
//!
//! # Invariants
//! 1. An exception whose instruction lies in the routine of `memory::copy` (or is the one of
//!    `port`) and whose address lies in the physical window resumes at the routine's landing pad.
//!    Every other one is this kernel's own fault (careful reference, step 5).
//! 2. An NMI changes nothing but a counter and the trace.

use core::sync::atomic::Ordering;

use cell::PhysicalAddress;
use cell::trace::Event;
use firewall::hypercall::{
    BUS_ERROR_CODE, BusError, BusErrorKind, BusErrorSlots, VECTOR_BUS_ERROR,
};
use x86_64::registers::control::Cr2;

use crate::cpu::{per_cpu, port};
use crate::memory::{copy, window};
use crate::own::own;
use crate::thread::context::Context;
use crate::{hypercall, panic, trace};

const VECTOR_NMI: u64 = 2;
const VECTOR_PAGE_FAULT: u64 = 14;
const VECTOR_BUS: u64 = VECTOR_BUS_ERROR as u64;

/// Bit of a page fault's error code: the access was a store.
const PAGE_FAULT_WRITE: u64 = 1 << 1;

/// Serves an exception that was taken over `context`.
pub extern "C" fn dispatch(context: &mut Context) {
    match context.vector {
        VECTOR_NMI => stray_nmi(),
        VECTOR_BUS if context.error == BUS_ERROR_CODE.into() => bus_error(context),
        VECTOR_PAGE_FAULT => page_fault(context),
        _ => panic::unexpected_exception(context, None),
    }
}

fn stray_nmi() {
    // The monitor traces it as well; a kernel must survive it, and here is nothing to do.
    per_cpu::this().stray_nmis.fetch_add(1, Ordering::Relaxed);
}

/// What the monitor says about the bus error that this CPU takes.
fn slot() -> BusError {
    let own = own();
    let last = cell::Frame(own.used.end.0 - 1);
    let slots = window::pointer::<BusErrorSlots>(last.start());
    let index = per_cpu::this().index();
    // SAFETY: the slots are the last page of what the cell used at entry, its own memory, never
    // given to anybody; the monitor writes this CPU's slot only while the CPU is in the monitor. An
    // index is below `CPUS_MAX`, and that below 256.
    unsafe { (&raw const (*slots).slots[index]).read_volatile() }
}

fn bus_error(context: &mut Context) {
    let error = slot();
    land_or_stop(context, error);
}

/// A page fault on the physical window is how a bus error looks where no nested table stands behind
/// it.
fn page_fault(context: &mut Context) {
    let address = Cr2::read_raw();
    let Some(physical) = window::physical(address) else {
        panic::unexpected_exception(context, Some(address));
    };
    let kind = if context.error & PAGE_FAULT_WRITE == 0 {
        BusErrorKind::Read
    } else {
        BusErrorKind::Write
    };
    // Otherwise the instruction is tried again: the fault dropped the outdated translation.
    if let Some(kind) = refine(physical, context.rip, kind) {
        land_or_stop(
            context,
            BusError {
                address: physical.0,
                kind: kind as u64,
            },
        );
    }
}

/// Reports a bus error where the monitor did not see it, and takes its word for what it was; `None`
/// if it is none any more.
fn refine(address: PhysicalAddress, instruction: u64, kind: BusErrorKind) -> Option<BusErrorKind> {
    if hypercall::by_instruction() {
        return Some(kind);
    }
    hypercall::report_bus_error(address, instruction, kind).unwrap_or(Some(kind))
}

fn land_or_stop(context: &mut Context, error: BusError) {
    per_cpu::this().bus_errors.fetch_add(1, Ordering::Relaxed);
    // A quarantined store is tried again until the cells have voted; it is nothing to remember.
    if error.kind != BusErrorKind::Quarantined as u64 {
        trace::record(Event::BusError, error.address, error.kind);
    }
    match copy::landing_pad(context.rip).or_else(|| port::landing_pad(context.rip)) {
        Some(pad) => {
            context.rip = pad;
            // The copy routines answer in RAX and RDX; no error has kind 0.
            context.rax = error.kind.max(1);
            context.rdx = error.address;
        }
        None => panic::bus_error(context, error),
    }
}
