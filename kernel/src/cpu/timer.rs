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

/// However slowly the cell's clock runs.
const PERIOD_MAX: Duration = Duration::from_secs(1);

/// The time between two ticks by the cell's clock.
fn period() -> Duration {
    Duration::from_micros(own().settings.tick_microseconds.into())
}

/// The same by the right one, to which the hardware keeps.
fn hardware_period() -> Duration {
    clock::by_the_right_one(period()).clamp(PERIOD_MIN, PERIOD_MAX)
}

/// How many ticks per second every clock word is meant to make.
pub fn ticks_per_second() -> u32 {
    1_000_000 / own().settings.tick_microseconds.max(1)
}

/// Starts the running CPU's timer.
pub fn start() {
    lapic::enable();
    lapic::start_timer(hardware_period());
}

/// Serves a tick of the running CPU, at interrupt level.
pub fn tick(cpu: &'static PerCpu) {
    let now = clock::now();
    note_lateness(cpu, now);
    cpu.ticks.fetch_add(1, Ordering::Relaxed);
    if cpu.current.load(Ordering::Relaxed) == IDLE {
        cpu.idle_ticks.fetch_add(1, Ordering::Relaxed);
    }
    let period = hardware_period();
    let nanoseconds = period.as_nanos() as u64;
    let before = cpu.timer_period.swap(nanoseconds, Ordering::Relaxed);
    if before != nanoseconds && before != 0 {
        lapic::start_timer(period);
    }
    cpu.publish_tick(now);
    scheduler::expire(now);
    publish_load();
    service::at_tick();
}

/// Says how many threads wait for a CPU.
fn publish_load() {
    let load = scheduler::load() as u64;
    own().header().load.store(load, Ordering::Relaxed);
}

/// The most by which a tick of this cell came late since [`take_lateness`], in nanoseconds.
static LATENESS: AtomicU64 = AtomicU64::new(0);

/// Notes how late this tick is: a host that takes virtual CPUs away shows here.
fn note_lateness(cpu: &PerCpu, now: Instant) {
    let last = cpu.last_tick.swap(now.0, Ordering::Relaxed);
    if last != 0 {
        let late = now.since(Instant(last)).saturating_sub(period());
        LATENESS.fetch_max(late.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// The most by which a tick of this cell came late since the last call.
pub fn take_lateness() -> Duration {
    Duration::from_nanos(LATENESS.swap(0, Ordering::Relaxed))
}
