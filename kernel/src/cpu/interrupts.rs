//! Interrupts: the flag, and what each interrupt does.
//!
//! Every interrupt, and the software interrupt by which a thread gives the CPU away, runs
//! [`dispatch`] on the CPU's interrupt stack with interrupts off, and ends in the thread that the
//! scheduler chose.
//!
//! # Invariants
//! 1. [`dispatch`] never nests on one CPU: it runs with interrupts off from entry to return.
//! 2. Every interrupt that the local APIC delivered is acknowledged exactly once; software
//!    interrupts never are.

use core::sync::atomic::Ordering;

use firewall::hypercall::{
    VECTOR_DOORBELL, VECTOR_KICK, VECTOR_SPURIOUS, VECTOR_TIMER, VECTOR_WAKE,
};

use crate::cpu::per_cpu::PerCpu;
use crate::cpu::{lapic, per_cpu, timer};
use crate::thread::context::Context;
use crate::thread::run_queue::Intent;
use crate::thread::scheduler;
use crate::{hooks, service};

/// Vector of the software interrupt by which a thread gives the CPU away.
pub const VECTOR_SWITCH: u8 = 0xf4;
/// What an interrupt that has no vector of its own here is called.
pub const VECTOR_UNEXPECTED: u8 = 0xf5;

/// Interrupts are off for as long as this lives; then they are as they were before.
#[derive(Debug)]
pub struct InterruptsOff {
    were_on: bool,
}

impl InterruptsOff {
    /// Turns interrupts off.
    #[inline]
    pub fn new() -> Self {
        let were_on = enabled();
        disable();
        Self { were_on }
    }
}

impl Default for InterruptsOff {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for InterruptsOff {
    #[inline]
    fn drop(&mut self) {
        if self.were_on {
            enable();
        }
    }
}

/// Whether interrupts are on.
#[inline]
pub fn enabled() -> bool {
    if cfg!(test) {
        false
    } else {
        x86_64::instructions::interrupts::are_enabled()
    }
}

/// Turns interrupts off.
#[inline]
pub fn disable() {
    if !cfg!(test) {
        x86_64::instructions::interrupts::disable();
    }
}

/// Turns interrupts on.
#[inline]
pub fn enable() {
    if !cfg!(test) {
        x86_64::instructions::interrupts::enable();
    }
}

/// Turns interrupts on and sleeps until one comes; none can slip in between (the shadow of STI).
pub fn enable_and_halt() {
    x86_64::instructions::interrupts::enable_and_hlt();
}

/// Enters [`dispatch`] by the software interrupt; returns when the scheduler comes back to this
/// thread.
pub fn switch() {
    // SAFETY: the gate of this vector leads to `stubs::interrupt_entry`, which restores every
    // register before it comes back here. Memory may have changed: no `nomem`. The processor pushes
    // onto the stack of the gate, not onto this one.
    unsafe { core::arch::asm!("int {vector}", vector = const VECTOR_SWITCH, options(nostack)) };
}

/// Serves an interrupt that was taken over `context`, and returns the context to resume.
///
/// # Safety
/// Called by the entry stub only, with the complete context of what this CPU ran.
pub(super) unsafe extern "C" fn dispatch(context: *mut Context) -> *mut Context {
    let cpu = per_cpu::this();
    cpu.interrupt_level.store(1, Ordering::Relaxed);
    // SAFETY: the stub filled the context, and nobody else touches it before it is resumed.
    let vector = unsafe { (*context).vector } as u8;
    let intent = serve(cpu, vector);
    let next = scheduler::switch_from(cpu, context, intent);
    cpu.interrupt_level.store(0, Ordering::Relaxed);
    next
}

/// Does what the vector asks for, and says what that means for the thread that was interrupted.
fn serve(cpu: &'static PerCpu, vector: u8) -> Intent {
    if matches!(vector, VECTOR_TIMER | VECTOR_DOORBELL | VECTOR_WAKE) && hooks::loses_interrupt() {
        lapic::end_of_interrupt();
        return Intent::Continue;
    }
    match vector {
        VECTOR_SWITCH => cpu.take_intent(),
        VECTOR_TIMER => {
            lapic::end_of_interrupt();
            timer::tick(cpu);
            Intent::Yield
        }
        VECTOR_DOORBELL => {
            lapic::end_of_interrupt();
            service::at_doorbell();
            Intent::Continue
        }
        // A kick asks for nothing but an entry into the monitor, which ending the interrupt is.
        VECTOR_WAKE | VECTOR_KICK => {
            lapic::end_of_interrupt();
            Intent::Continue
        }
        VECTOR_SPURIOUS => Intent::Continue,
        _ => {
            lapic::end_of_interrupt();
            cpu.unexpected_interrupts.fetch_add(1, Ordering::Relaxed);
            Intent::Continue
        }
    }
}
