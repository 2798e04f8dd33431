//! Instants on the machine's one clock, and the conversion from the time-stamp counter.
//!
//! All CPUs read one synchronized counter; the monitor measures its rate once and hands every cell
//! the same [`Clock`], so that times in one cell's records can be laid beside another's.
//!
//! # Not guaranteed
//! A sick cell's clock words and time stamps are what that cell wrote; only the monitor's are
//! trusted.

use core::ops::Add;
use core::time::Duration;

/// Nanoseconds since the monitor started.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The time from `earlier` to this instant; zero if `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// The conversion from time-stamp counter cycles to [`Instant`]s.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    /// The counter when the monitor started.
    pub start_cycles: u64,
    /// Counter cycles per second.
    pub cycles_per_second: u64,
}

impl Clock {
    /// The instant at which the counter read `cycles`. A clock that was never set up reads 0.
    pub const fn instant(self, cycles: u64) -> Instant {
        Instant(self.nanoseconds(cycles.saturating_sub(self.start_cycles)))
    }

    /// How long `cycles` counter cycles last, in nanoseconds.
    pub const fn nanoseconds(self, cycles: u64) -> u64 {
        if self.cycles_per_second == 0 {
            return 0;
        }
        (cycles as u128 * 1_000_000_000 / self.cycles_per_second as u128) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversion_does_not_overflow_in_a_century() {
        let clock = Clock {
            start_cycles: 5,
            cycles_per_second: 5_000_000_000,
        };
        let century = 100 * 366 * 86_400u64;
        assert_eq!(
            clock.instant(5 + 5_000_000_000 * century).0,
            century * 1_000_000_000
        );
    }

    #[test]
    fn time_before_the_start_is_zero() {
        let clock = Clock {
            start_cycles: 100,
            cycles_per_second: 1_000,
        };
        assert_eq!(clock.instant(7), Instant(0));
        assert_eq!(Instant(3).since(Instant(9)), Duration::ZERO);
    }
}
