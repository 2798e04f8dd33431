//! The cell's view of the machine's one clock.
//!
//! # Not guaranteed
//! That the clock is right: an injected fault can make this cell's go [`Wrong`], from that moment
//! on. The other cells are not touched by it.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// How a clock goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// It runs so many times too fast (`sw.fast_clock`).
    Fast(u64),
    /// It runs so many times too slowly (`clock.slow`).
    Slow(u64),
    /// It stands still for so long, and is right again after it (`clock.stall`).
    Stalled(Duration),
    /// It jumps ahead (`clock.skew`).
    Ahead(Duration),
}

/// The clock was right so far.
static IS_RIGHT: AtomicBool = AtomicBool::new(true);
/// When it went wrong, and what it showed then.
static RIGHT_THEN: AtomicU64 = AtomicU64::new(0);
static SHOWN_THEN: AtomicU64 = AtomicU64::new(0);
/// How many times too fast it runs since, and how many times too slowly.
static TIMES: AtomicU64 = AtomicU64::new(1);
static PARTS: AtomicU64 = AtomicU64::new(1);
/// Until when it stands still, by the right time.
static STILL_UNTIL: AtomicU64 = AtomicU64::new(0);

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
    let right = right();
    if IS_RIGHT.load(Ordering::Acquire) {
        right
    } else {
        wrong(right)
    }
}

fn right() -> Instant {
    RATE.get().map_or(Instant(0), |rate| rate.instant(cycles()))
}

/// What a clock that went wrong shows instead of the right time.
#[cold]
fn wrong(right: Instant) -> Instant {
    let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let shown = load(&SHOWN_THEN);
    if right.0 < load(&STILL_UNTIL) {
        return Instant(shown);
    }
    let since = u128::from(right.0.saturating_sub(load(&RIGHT_THEN)));
    let since = since * u128::from(load(&TIMES)) / u128::from(load(&PARTS));
    Instant(shown.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)))
}

/// How many counter cycles `span` lasts.
pub fn cycles_of(span: Duration) -> u64 {
    RATE.get().map_or(0, |rate| rate.cycles(span))
}

/// A span of this cell's clock by the right one: ticks keep to the clock of their cell.
pub fn by_the_right_one(span: Duration) -> Duration {
    if IS_RIGHT.load(Ordering::Acquire) {
        return span;
    }
    let (times, parts) = (TIMES.load(Ordering::Relaxed), PARTS.load(Ordering::Relaxed));
    let small = |factor: u64| u32::try_from(factor).unwrap_or(u32::MAX);
    (span / small(times)).saturating_mul(small(parts))
}

/// Makes the clock go wrong from now on.
pub fn go_wrong(how: Wrong) {
    let (right, shown) = (right().0, now().0);
    let nanoseconds = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let (mut times, mut parts, mut still, mut ahead) = (1, 1, 0, 0);
    match how {
        Wrong::Fast(factor) => times = factor.max(1),
        Wrong::Slow(factor) => parts = factor.max(1),
        Wrong::Stalled(span) => still = right.saturating_add(nanoseconds(span)),
        Wrong::Ahead(span) => ahead = nanoseconds(span),
    }
    RIGHT_THEN.store(right, Ordering::Relaxed);
    SHOWN_THEN.store(shown.saturating_add(ahead), Ordering::Relaxed);
    TIMES.store(times, Ordering::Relaxed);
    PARTS.store(parts, Ordering::Relaxed);
    STILL_UNTIL.store(still, Ordering::Relaxed);
    IS_RIGHT.store(false, Ordering::Release);
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
