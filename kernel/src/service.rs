//! What runs at interrupt level on ticks and doorbells, in one table.
//!
//! # Invariants
//! 1. No service blocks, waits for another cell, or runs for longer than a small part of a tick.
//! 2. Any CPU of the cell may run any service; each sees to it that two CPUs in it at once do no
//!    harm.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::calls::rings;
use crate::cpu::secondary;
use crate::liveness::agent;
use crate::own::own;
use crate::{bench, clock, console, faults};

/// Once per tick, on whichever CPU ticks first, in this order.
const AT_TICK: &[fn()] = &[
    faults::at_tick,
    rings::at_tick,
    agent::step,
    secondary::at_tick,
    console::input::at_tick,
    bench::at_tick,
];

/// When the services of a tick last ran, in nanoseconds.
static LAST_ROUND: AtomicU64 = AtomicU64::new(0);

/// When somebody rang the doorbell.
const AT_DOORBELL: &[fn()] = &[agent::step, rings::poll_all];

/// Runs the services of a timer tick, unless another CPU of the cell just did: once per tick is
/// enough for the cell, and a CPU that stops leaves them to the others.
pub fn at_tick() {
    let period = u64::from(own().settings.tick_microseconds) * 1000;
    let now = clock::now().0;
    let last = LAST_ROUND.load(Ordering::Relaxed);
    let is_due = now.saturating_sub(last) >= period * 3 / 4;
    let is_mine = || {
        LAST_ROUND
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    };
    if !is_due || !is_mine() {
        return;
    }
    for service in AT_TICK {
        service();
    }
}

/// Runs the services of a doorbell.
pub fn at_doorbell() {
    for service in AT_DOORBELL {
        service();
    }
}
