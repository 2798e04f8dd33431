//! How long to wait, in time and in own ticks.
//!
//! A host that takes a virtual CPU away for 20 ms makes everybody else look 20 ms late to it when
//! it comes back. So no wait for another cell ends by time alone: the waiter must also have looked
//! often enough itself, in ticks spread over the span.
//!
//! # Invariants
//! 1. A wait over a span ends only when the span has passed **and** this cell counted at least half
//!    of the ticks that fit into it (and at least [`TICKS_MIN`]).
//! 2. Steps closer together than half a tick (doorbells) count as one tick.

use core::time::Duration;

use cell::Instant;
use cell::handover::Settings;
use cell::membership::WITNESS_SPAN;

/// The least number of own ticks in any wait.
pub const TICKS_MIN: u64 = 2;

/// A standstill of so many times what a hint needs has been seen by everybody who was there.
pub(crate) const BEYOND_DOUBT: u32 = 4;

/// The spans of the state machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timing {
    /// Between two timer ticks of a CPU.
    pub tick: Duration,
    /// For which a clock may stand still before it is a hint.
    pub hint: Duration,
    /// For which the pulse of a cell's threads may stand still before it is a hint: longer than
    /// any probe, for a thread waits for its turn, on a slow machine for tens of milliseconds.
    pub pulse: Duration,
    /// Over which the rate of a clock is measured.
    pub rate: Duration,
    /// For which a suspect, or a round of flooding, may take.
    pub probe: Duration,
    /// For which votes may be missing before the next attempt. Longer than the monitor needs to
    /// testify.
    pub vote: Duration,
    /// For which a cell may be missing at a barrier before it is a hint; twice that, and it is
    /// thought dead.
    pub barrier: Duration,
    /// For which the fence may take before the frames in question are given up for good.
    pub drain: Duration,
    /// For which a cell may take to boot and join.
    pub boot: Duration,
    /// For which anything odd about a cell is remembered and testified.
    pub memory: Duration,
    /// Within which two alerts that were voted down make a strike. An honest cell holds its own
    /// back for twice as long.
    pub window: Duration,
}

impl Timing {
    /// Spans that follow from the boot parameters.
    pub const fn from_settings(settings: &Settings) -> Self {
        let probe = Duration::from_millis(settings.probe_milliseconds as u64);
        let witness = Duration::from_nanos(WITNESS_SPAN.as_nanos() as u64 * 2);
        Self {
            tick: Duration::from_micros(settings.tick_microseconds as u64),
            hint: Duration::from_millis(settings.hint_milliseconds as u64),
            pulse: Duration::from_millis(settings.probe_milliseconds as u64 * 2),
            rate: Duration::from_millis(settings.hint_milliseconds as u64 * 2),
            probe,
            vote: if probe.as_nanos() > witness.as_nanos() {
                probe
            } else {
                witness
            },
            barrier: Duration::from_millis(settings.probe_milliseconds as u64 * 4),
            drain: Duration::from_millis(settings.probe_milliseconds as u64 * 10),
            boot: Duration::from_secs(3),
            memory: Duration::from_millis(settings.probe_milliseconds as u64 * 5),
            window: Duration::from_secs(2),
        }
    }

    /// A timing of which nothing ever expires; for a machine that has not started.
    pub(crate) const NEVER: Self = Self {
        tick: Duration::MAX,
        hint: Duration::MAX,
        pulse: Duration::MAX,
        rate: Duration::MAX,
        probe: Duration::MAX,
        vote: Duration::MAX,
        barrier: Duration::MAX,
        drain: Duration::MAX,
        boot: Duration::MAX,
        memory: Duration::MAX,
        window: Duration::MAX,
    };

    /// The own ticks without which a wait over `span` does not end.
    pub fn ticks(&self, span: Duration) -> u64 {
        (nanoseconds(span) / nanoseconds(self.tick).max(1) / 2).max(TICKS_MIN)
    }

    /// Whether a wait over `span` that began at `since` is over at `now` (invariant 1).
    pub fn expired(&self, since: Moment, now: Moment, span: Duration) -> bool {
        now.at.since(since.at) >= span && now.ticks.saturating_sub(since.ticks) >= self.ticks(span)
    }
}

/// A span in a width that processors divide; some 584 years and more count as that.
pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A point in this cell's own life: the time, and how often the cell had looked by then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Moment {
    /// When.
    pub at: Instant,
    /// Own ticks since the start.
    pub ticks: u64,
}

/// Counts own ticks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct OwnClock {
    now: Moment,
    counted: Instant,
}

impl OwnClock {
    /// A clock that starts at `now`.
    pub const fn starting(now: Instant) -> Self {
        Self {
            now: Moment { at: now, ticks: 0 },
            counted: now,
        }
    }

    /// The newest step.
    pub const fn now(&self) -> Moment {
        self.now
    }

    /// Notes a step at `now`. Returns the time since the previous one: how long this cell was away.
    pub fn step(&mut self, now: Instant, timing: &Timing) -> Duration {
        let away = now.since(self.now.at);
        self.now.at = self.now.at.max(now);
        if now.since(self.counted) >= timing.tick / 2 {
            self.now.ticks += 1;
            self.counted = now;
        }
        away
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cell::parameters::Parameters;

    fn moment(milliseconds: u64, ticks: u64) -> Moment {
        Moment {
            at: Instant(milliseconds * 1_000_000),
            ticks,
        }
    }

    #[test]
    fn a_wait_needs_time_and_own_ticks() {
        let timing = Timing::from_settings(&Parameters::DEFAULT.settings);
        let since = moment(100, 50);
        assert!(
            !timing.expired(since, moment(139, 90), timing.probe),
            "too early"
        );
        assert!(
            !timing.expired(since, moment(200, 51), timing.probe),
            "away all the time"
        );
        assert!(timing.expired(since, moment(140, 60), timing.probe));
    }

    #[test]
    fn doorbells_are_not_ticks() {
        let timing = Timing::from_settings(&Parameters::DEFAULT.settings);
        let mut clock = OwnClock::starting(Instant(0));
        for step in 1..=10 {
            clock.step(Instant(step * 100_000), &timing);
        }
        assert_eq!(
            clock.now(),
            Moment {
                at: Instant(1_000_000),
                ticks: 1
            }
        );
        assert_eq!(
            clock.step(Instant(21_000_000), &timing),
            Duration::from_millis(20)
        );
        assert_eq!(clock.now().ticks, 2);
    }
}
