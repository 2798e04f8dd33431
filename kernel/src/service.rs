//! What runs at interrupt level on ticks and doorbells, in one table.
//!
//! # Invariants
//! 1. No service blocks, waits for another cell, or runs for longer than a small part of a tick.
//! 2. Every CPU of the cell runs every service; each sees to it that two CPUs in it at once do no harm.

use crate::calls::rings;
use crate::cpu::secondary;
use crate::liveness::agent;
use crate::{bench, console, faults};

/// On each timer tick of each CPU, in this order.
const AT_TICK: &[fn()] = &[
    faults::at_tick,
    rings::at_tick,
    agent::step,
    secondary::at_tick,
    console::input::at_tick,
    bench::at_tick,
];

/// When somebody rang the doorbell.
const AT_DOORBELL: &[fn()] = &[agent::step, rings::poll_all];

/// Runs the services of a timer tick.
pub fn at_tick() {
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
