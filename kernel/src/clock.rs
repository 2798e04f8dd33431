//! The cell's view of the machine's one clock.
//!
//! # Not guaranteed
//! That the clock is right: `sw.fast_clock` makes this cell's run too fast, from the moment of the
//! fault on. The other cells are not touched by it.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use cell::Instant;
use cell::time::Clock;
use spin::Once;

/// Bits of fraction in [`Rate::multiplier`].
const FRACTION_BITS: u32 = 32;

/// The conversion from cycles, with the division done beforehand: [`now`] runs on every path.
#[derive(Clone, Copy, Debug)]
struct Rate {
    start_cycles: u64,
    cycles_per_second: u64,
    /// Nanoseconds per cycle.
    multiplier: u64,
}

impl Rate {
    const fn new(clock: Clock) -> Self {
        let cycles_per_second = if clock.cycles_per_second == 0 {
            1
        } else {
            clock.cycles_per_second
        };
        let multiplier = (1_000_000_000u128 << FRACTION_BITS) / cycles_per_second as u128;
        Self {
            start_cycles: clock.start_cycles,
            cycles_per_second,
            multiplier: multiplier as u64,
        }
    }

    const fn instant(self, cycles: u64) -> Instant {
        let since = cycles.saturating_sub(self.start_cycles);
        Instant(((since as u128 * self.multiplier as u128) >> FRACTION_BITS) as u64)
    }

    const fn cycles(self, span: Duration) -> u64 {
        (span.as_nanos() * self.cycles_per_second as u128 / 1_000_000_000) as u64
    }
}

static RATE: Once<Rate> = Once::new();

/// How many times too fast the clock runs (`sw.fast_clock`); 1 in health.
static FACTOR: AtomicU64 = AtomicU64::new(1);
/// When it began to.
static FAST_SINCE: AtomicU64 = AtomicU64::new(0);

/// Sets the rate, once, before anything asks for the time.
pub fn set_up(clock: Clock) {
    RATE.call_once(|| Rate::new(clock));
}

/// The time-stamp counter.
#[inline]
pub fn cycles() -> u64 {
    // SAFETY: RDTSC reads a counter and has no other effect; every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Now, by this cell's clock.
#[inline]
pub fn now() -> Instant {
    let right = RATE.get().map_or(Instant(0), |rate| rate.instant(cycles()));
    match FACTOR.load(Ordering::Relaxed) {
        1 => right,
        factor => {
            let since = FAST_SINCE.load(Ordering::Relaxed);
            Instant(since.saturating_add(right.0.saturating_sub(since).saturating_mul(factor)))
        }
    }
}

/// How many counter cycles `span` lasts.
pub fn cycles_of(span: Duration) -> u64 {
    RATE.get().map_or(0, |rate| rate.cycles(span))
}

/// How many times too fast the clock runs; 1 in health. Ticks come as much more often.
pub fn factor() -> u64 {
    FACTOR.load(Ordering::Relaxed)
}

/// Makes the clock run `factor` times too fast from now on (`sw.fast_clock`).
pub fn run_fast(factor: u64) {
    FAST_SINCE.store(now().0, Ordering::Relaxed);
    FACTOR.store(factor.max(1), Ordering::Relaxed);
}

/// Waits for `span` by the counter, without giving the CPU away. For hardware waits of
/// microseconds.
pub fn spin(span: Duration) {
    let (start, length) = (cycles(), cycles_of(span));
    while cycles().wrapping_sub(start) < length {
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_conversion_agrees_with_the_exact_one() {
        let clock = Clock {
            start_cycles: 12_345,
            cycles_per_second: 2_893_202_000,
        };
        let rate = Rate::new(clock);
        for seconds in [0u64, 1, 60, 3600] {
            let cycles = 12_345 + seconds * clock.cycles_per_second;
            let difference = rate.instant(cycles).0.abs_diff(clock.instant(cycles).0);
            assert!(difference < 3000, "{difference} ns after {seconds} s");
        }
        assert_eq!(rate.cycles(Duration::from_secs(1)), clock.cycles_per_second);
    }
}
