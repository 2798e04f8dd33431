//! In which cells no threads run, though interrupts are served.
//!
//! Clock words are raised by timer interrupts, so they go on in a kernel whose scheduler is broken
//! or whose threads wait for each other for ever. What goes on there only with the threads is the
//! progress word of the cell's record ([`crate::record`]), raised at every tick by a thread of the
//! kernel's own, the pulse. Every cell watches those of all others, as it does the clocks.
//!
//! # Invariants
//! 1. A pulse that stood still for [`PULSE_HINTS`] times as long as a clock may is a hint: a thread
//!    waits for its turn, and an interrupt does not.
//!
//! # Not guaranteed
//! That every thread of a cell runs: the pulse is one, on one CPU at a time.

use cell::{CellId, CellSet};

use crate::motion::Motion;
use crate::timing::{Moment, Timing};

/// How many times longer than a clock a pulse may stand still.
pub const PULSE_HINTS: u32 = 2;

/// What is known of all pulses.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PulseMonitor<const CELLS: usize> {
    pulses: [Option<Motion>; CELLS],
}

impl<const CELLS: usize> PulseMonitor<CELLS> {
    /// No pulse seen yet.
    pub(crate) const fn new() -> Self {
        Self {
            pulses: [None; CELLS],
        }
    }

    /// Takes the newest progress word of `cell`.
    pub(crate) fn observe(&mut self, cell: CellId, progress: u64, now: Moment) {
        let pulse = &mut self.pulses[cell.index()];
        pulse
            .get_or_insert(Motion::starting(progress, now))
            .observe(progress, now);
    }

    /// The cells of `watched` whose pulse stood still for so many times as a clock may.
    pub(crate) fn still(
        &self,
        watched: CellSet,
        times: u32,
        now: Moment,
        timing: &Timing,
    ) -> CellSet {
        let span = timing.hint.saturating_mul(times);
        let is_still = |pulse: &Motion| pulse.stood(span, now, timing);
        let is_found = |cell: &CellId| self.pulses[cell.index()].as_ref().is_some_and(is_still);
        watched.iter().filter(is_found).collect()
    }

    /// From here on, movement counts as proof of life.
    pub(crate) fn begin_probe(&mut self) {
        let seen = self.pulses.iter_mut().flatten();
        seen.for_each(Motion::begin_probe);
    }

    /// Whether the pulse of `cell` moved since the probe began.
    pub(crate) fn is_proven(&self, cell: CellId) -> bool {
        self.pulses[cell.index()]
            .as_ref()
            .is_some_and(Motion::is_proven)
    }

    /// Forgets a cell: it is gone, or begins a new life.
    pub(crate) fn forget(&mut self, cell: CellId) {
        self.pulses[cell.index()] = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a broken assumption")]
mod tests {
    use super::*;
    use cell::parameters::Parameters;

    /// Looks at the pulse of cell 1 at every tick; it moved last after 10 ms. Whether it stood
    /// still then for so long.
    fn is_still_after(milliseconds: u64) -> bool {
        let timing = Timing::from_settings(&Parameters::DEFAULT.settings);
        let cell = CellId::new(1).unwrap();
        let mut monitor = PulseMonitor::<2>::new();
        let mut now = Moment::default();
        for tick in 0..=milliseconds / 2 {
            monitor.observe(cell, tick.min(5), now);
            now.at.0 += 2_000_000;
            now.ticks += 1;
        }
        let still = monitor.still(CellSet::first(2), PULSE_HINTS, now, &timing);
        assert!(still.is_subset_of(CellSet::only(cell)), "no other was seen");
        still.contains(cell)
    }

    #[test]
    fn a_pulse_that_stops_is_found_after_twice_the_time_of_a_clock() {
        assert!(!is_still_after(10));
        assert!(!is_still_after(22));
        assert!(is_still_after(26));
    }

    #[test]
    fn only_what_moves_in_the_probe_proves_life() {
        let cell = CellId::new(0).unwrap();
        let mut monitor = PulseMonitor::<2>::new();
        for progress in [7, 8] {
            monitor.observe(cell, progress, Moment::default());
        }
        assert!(monitor.is_proven(cell));
        monitor.begin_probe();
        monitor.observe(cell, 8, Moment::default());
        assert!(!monitor.is_proven(cell));
        monitor.observe(cell, 9, Moment::default());
        assert!(monitor.is_proven(cell));
        monitor.forget(cell);
        assert!(!monitor.is_proven(cell));
    }
}
