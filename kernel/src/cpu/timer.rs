//! The timer tick: the clock word, sleepers, and the services that look at every tick.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use cell::Instant;

use crate::cpu::lapic;
use crate::cpu::per_cpu::{IDLE, PerCpu};
use crate::own::own;
use crate::thread::scheduler;
use crate::{clock, service};

/// No tick comes sooner after the last one, however fast the cell's clock runs: a CPU that does
/// nothing but take ticks would be another fault than a fast clock.
const PERIOD_MIN: Duration = Duration::from_micros(100);

/// The time between two ticks; shorter by as much as the cell's clock runs too fast.
fn period(factor: u64) -> Duration {
    let right = Duration::from_micros(own().settings.tick_microseconds.into());
    (right / u32::try_from(factor).unwrap_or(u32::MAX)).max(PERIOD_MIN)
}

/// How many ticks per second every clock word is meant to make.
pub fn ticks_per_second() -> u32 {
    1_000_000 / own().settings.tick_microseconds.max(1)
}

/// Starts the running CPU's timer.
pub fn start() {
    lapic::enable();
    lapic::start_timer(period(clock::factor()));
}

/// Serves a tick of the running CPU, at interrupt level.
pub fn tick(cpu: &'static PerCpu) {
    let now = clock::now();
    note_lateness(cpu, now);
    cpu.ticks.fetch_add(1, Ordering::Relaxed);
    if cpu.current.load(Ordering::Relaxed) == IDLE {
        cpu.idle_ticks.fetch_add(1, Ordering::Relaxed);
    }
    let factor = clock::factor();
    if cpu.timer_factor.swap(factor, Ordering::Relaxed) != factor {
        lapic::start_timer(period(factor));
    }
    cpu.publish_tick(now);
    scheduler::expire(now);
    service::at_tick();
}

/// The most by which a tick of this cell came late since [`take_lateness`], in nanoseconds.
static LATENESS: AtomicU64 = AtomicU64::new(0);

/// Notes how late this tick is: a host that takes virtual CPUs away shows here.
fn note_lateness(cpu: &PerCpu, now: Instant) {
    let last = cpu.last_tick.swap(now.0, Ordering::Relaxed);
    if last != 0 {
        let late = now.since(Instant(last)).saturating_sub(period(1));
        LATENESS.fetch_max(late.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// The most by which a tick of this cell came late since the last call.
pub fn take_lateness() -> Duration {
    Duration::from_nanos(LATENESS.swap(0, Ordering::Relaxed))
}
