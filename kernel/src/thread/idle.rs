//! What a CPU does when nobody is ready: it sleeps until an interrupt.
//!
//! A sleeping cell cannot see a message, so its public header says whether anybody polls the rings; a sender rings the
//! doorbell when nobody does.
//!
//! # Invariants
//! 1. `asleep` is 0 only while a [`Polling`] lives, and whoever polls looks once more after it set the word to 1. So a
//!    message is either seen by that look, or its sender sees the word.

use core::sync::atomic::{AtomicU32, Ordering, fence};

use crate::cpu::interrupts;
use crate::own::own;
use crate::service;
use crate::thread::run_queue::Intent;
use crate::thread::scheduler;

/// Threads that poll the cell's rings.
static POLLERS: AtomicU32 = AtomicU32::new(0);

/// Somebody polls the cell's rings for as long as this lives; senders need not ring.
#[derive(Debug)]
pub struct Polling(());

impl Polling {
    /// Begins to poll.
    pub fn new() -> Self {
        POLLERS.fetch_add(1, Ordering::SeqCst);
        own().header().asleep.store(0, Ordering::SeqCst);
        Self(())
    }
}

impl Default for Polling {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        if POLLERS.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        let asleep = &own().header().asleep;
        asleep.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if POLLERS.load(Ordering::SeqCst) > 0 {
            // Somebody began in between, and perhaps stored its 0 before the 1.
            asleep.store(0, Ordering::SeqCst);
        }
        service::at_doorbell();
    }
}

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
