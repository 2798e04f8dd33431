//! How long to wait on a host that is busy: detection that adapts to the stalls that it sees.
//!
//! A virtual CPU that its host takes away looks like one that died. How long that lasts depends on
//! what else the host does, and no constant fits: 40 ms is long on an idle host and short on one
//! that compiles. So each cell measures how late its own timer ticks come, and publishes it; all
//! reckon with the longest stall that any live cell reports, lest one still probes when the others
//! have given it up. A dead neighbour makes nobody's ticks late, so a real death is still found as
//! fast as the host allows.
//!
//! # Invariants
//! 1. Spans are never shorter than the boot parameters say, and never longer than
//!    [`STRETCH_MAX`] times that.
//! 2. A stall is forgotten by halves, one every [`HALF_LIFE`].
//!
//! # Not guaranteed
//! Safety rests on the seal, not on these spans: they decide only how often a healthy cell is
//! rebooted for nothing. A sick cell can stretch everybody's, up to that bound.

use core::time::Duration;

use cell::Instant;
use cell::handover::Settings;

use crate::timing::{Timing, nanoseconds};

/// After this long, a stall counts half.
pub const HALF_LIFE: Duration = Duration::from_millis(500);
/// A probe waits for this many stalls of the length seen.
pub const PROBE_STALLS: u32 = 3;
/// A clock that stands still is a hint after one stall divided by this: a hint for nothing costs
/// little, for it pauses no work.
pub const HINT_DIVISOR: u32 = 2;
/// The most by which a span is stretched.
pub const STRETCH_MAX: u32 = 8;

/// The stalls that a cell saw of its own CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    longest: Duration,
    seen: Instant,
}

impl Patience {
    /// No stall was seen.
    pub const fn new() -> Self {
        Self {
            longest: Duration::ZERO,
            seen: Instant(0),
        }
    }

    /// Notes that a CPU of this cell took a tick `late` after it was due.
    pub fn note(&mut self, late: Duration, now: Instant) {
        if late >= self.stall(now) {
            self.longest = late;
            self.seen = now;
        }
    }

    /// The length of stall to reckon with.
    pub fn stall(&self, now: Instant) -> Duration {
        let halvings = nanoseconds(now.since(self.seen)) / nanoseconds(HALF_LIFE);
        let longest = nanoseconds(self.longest);
        let stall = u32::try_from(halvings).map_or(0, |by| longest.checked_shr(by).unwrap_or(0));
        Duration::from_nanos(stall)
    }

    /// The spans to use now, on top of what the boot parameters say, where the other cells report
    /// stalls of up to `others`.
    pub fn timing(&self, settings: &Settings, others: Duration, now: Instant) -> Timing {
        let stall = self.stall(now).max(others);
        let stretch = |milliseconds: u32, wanted: Duration| {
            let wanted = wanted.as_millis();
            let most = milliseconds.saturating_mul(STRETCH_MAX);
            u32::try_from(wanted)
                .unwrap_or(u32::MAX)
                .clamp(milliseconds, most)
        };
        Timing::from_settings(&Settings {
            hint_milliseconds: stretch(settings.hint_milliseconds, stall / HINT_DIVISOR),
            probe_milliseconds: stretch(
                settings.probe_milliseconds,
                stall.saturating_mul(PROBE_STALLS),
            ),
            ..*settings
        })
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cell::parameters::Parameters;

    const SETTINGS: Settings = Parameters::DEFAULT.settings;

    fn after(seconds: u64) -> Instant {
        Instant(1) + Duration::from_secs(seconds)
    }

    #[test]
    fn without_stalls_the_boot_parameters_hold() {
        let timing = Patience::new().timing(&SETTINGS, Duration::ZERO, after(5));
        assert_eq!(timing, Timing::from_settings(&SETTINGS));
    }

    #[test]
    fn a_stall_stretches_and_is_forgotten() {
        let mut patience = Patience::new();
        patience.note(Duration::from_millis(30), after(0));
        patience.note(Duration::from_millis(1), after(0));
        let now = patience.timing(&SETTINGS, Duration::ZERO, after(0));
        assert_eq!(now.hint, Duration::from_millis(15));
        assert_eq!(now.probe, Duration::from_millis(90));
        let later = patience.timing(&SETTINGS, Duration::ZERO, after(60));
        assert_eq!(later, Timing::from_settings(&SETTINGS));
    }

    #[test]
    fn the_longest_stall_of_any_cell_counts() {
        let timing = Patience::new().timing(&SETTINGS, Duration::from_millis(20), after(0));
        assert_eq!(timing.probe, Duration::from_millis(60));
        let absurd = Patience::new().timing(&SETTINGS, Duration::MAX, after(0));
        assert_eq!(absurd.hint, timing.hint.max(Duration::from_millis(64)));
    }

    #[test]
    fn no_stall_stretches_without_bound() {
        let mut patience = Patience::new();
        patience.note(Duration::from_secs(1000), after(0));
        let timing = patience.timing(&SETTINGS, Duration::ZERO, after(0));
        let base = Duration::from_millis(SETTINGS.probe_milliseconds.into());
        assert_eq!(timing.probe, base * STRETCH_MAX);
    }

    #[test]
    fn a_longer_stall_replaces_a_fading_one() {
        let mut patience = Patience::new();
        patience.note(Duration::from_millis(40), after(0));
        patience.note(Duration::from_millis(30), after(1));
        assert_eq!(patience.stall(after(1)), Duration::from_millis(30));
    }
}
