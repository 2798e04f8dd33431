//! What a CPU does when nobody is ready: it sleeps until an interrupt.

use crate::cpu::interrupts;
use crate::thread::run_queue::Intent;
use crate::thread::scheduler;

/// Runs the idle thread of this CPU, which is what entered the kernel on it.
pub fn run() -> ! {
    loop {
        interrupts::disable();
        if scheduler::is_somebody_ready() {
            scheduler::give_away(Intent::Continue);
        } else {
            interrupts::enable_and_halt();
        }
    }
}
