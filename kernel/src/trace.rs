//! The cell's trace: what happened here, in a ring that survives the cell.
//!
//! # Invariants
//! 1. The ring is never reset by a kernel: a rebooted cell goes on where its last life stopped.

use cell::public::{CellTrace, TRACE_OFFSET};
use cell::trace::{Event, TraceRecord};

use crate::cpu::per_cpu;
use crate::memory::window;
use crate::own::known;
use crate::{clock, faults};

/// The cell's own ring, once the handover block is taken.
pub fn ring() -> Option<&'static CellTrace> {
    let own = known()?;
    // SAFETY: the ring lies in the cell's own public area, mapped for as long as the cell lives,
    // and is made of atomics that any bit pattern fits.
    Some(unsafe { &*window::pointer::<CellTrace>(own.public(TRACE_OFFSET)) })
}

/// Records an event. Never waits; fit for every context, the panic path included.
pub fn record(event: Event, first: u64, second: u64) {
    let (Some(ring), Some(own)) = (ring(), known()) else {
        return;
    };
    ring.record(TraceRecord {
        at: clock::now(),
        cell: own.cell.index() as u8,
        cpu: per_cpu::cpu_number() as u8,
        event: event as u16,
        arguments: [first, second],
    });
    faults::at_event(event);
}
