//! In which cells no threads run, though interrupts are served.
//!
//! Clock words are raised by timer interrupts, so they go on in a kernel whose scheduler is broken
//! or whose threads wait for each other for ever. What goes on there only with the threads is the
//! progress word of the cell's record ([`crate::record`]), raised every few ticks by a thread of
//! the kernel's own, the pulse. Every cell watches all pulses, its own included, as it does the
//! clocks.
//!
//! # Invariants
//! 1. A pulse that never beat (0, or no record to read it from) has the time of a boot for its
//!    first beat: a cell of one CPU that boots on a slow machine runs other threads first. In a
//!    probe it counts as any other that does not move.
//!
//! # Not guaranteed
//! That every thread of a cell runs: the pulse is one, on one CPU at a time. That a cell means it:
//! whatever raises the word passes for threads.

use core::time::Duration;

use cell::{CellId, CellSet};

use crate::motion::Motion;
use crate::timing::{BEYOND_DOUBT, Moment, Timing};

/// What is known of all pulses.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PulseMonitor<const CELLS: usize> {
    pulses: [Option<Motion>; CELLS],
}

/// What one look at all pulses showed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PulseFindings {
    /// Cells whose pulse stands still.
    pub still: CellSet,
    /// Cells whose pulse stands still beyond doubt.
    pub long_still: CellSet,
    /// Cells whose pulse stood still for half of what a hint needs, or still does.
    pub unsteady: CellSet,
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
        self.pulse_of(cell, now).observe(progress, now);
    }

    /// Judges the pulses of `watched`.
    pub(crate) fn judge(
        &mut self,
        watched: CellSet,
        now: Moment,
        timing: &Timing,
    ) -> PulseFindings {
        let mut findings = PulseFindings::default();
        for cell in watched.iter() {
            let pulse = self.pulse_of(cell, now);
            let span = span_of(pulse, timing);
            if pulse.age(now) < span / 2 {
                continue;
            }
            findings.unsteady = findings.unsteady.with(cell);
            if pulse.stood(span, now, timing) {
                findings.still = findings.still.with(cell);
            }
            if pulse.stood(span.saturating_mul(BEYOND_DOUBT), now, timing) {
                findings.long_still = findings.long_still.with(cell);
            }
        }
        findings
    }

    /// Whether the pulse of `cell` stands still.
    pub(crate) fn is_still(&self, cell: CellId, now: Moment, timing: &Timing) -> bool {
        let pulse = self.pulses[cell.index()].as_ref();
        pulse.is_some_and(|pulse| pulse.stood(span_of(pulse, timing), now, timing))
    }

    /// From here on, movement counts as proof of life.
    pub(crate) fn begin_probe(&mut self) {
        let seen = self.pulses.iter_mut().flatten();
        seen.for_each(Motion::begin_probe);
    }

    /// Whether the pulse of `cell` moved since the probe began.
    pub fn is_proven(&self, cell: CellId) -> bool {
        self.pulses[cell.index()]
            .as_ref()
            .is_some_and(Motion::is_proven)
    }

    /// Forgets a cell: it is gone, or begins a new life.
    pub(crate) fn forget(&mut self, cell: CellId) {
        self.pulses[cell.index()] = None;
    }

    /// What is known of the pulse of `cell`; from now on, if nothing was.
    fn pulse_of(&mut self, cell: CellId, now: Moment) -> &mut Motion {
        self.pulses[cell.index()].get_or_insert(Motion::starting(0, now))
    }
}

/// For which a pulse may stand still (invariant 1).
fn span_of(pulse: &Motion, timing: &Timing) -> Duration {
    if pulse.value() == 0 {
        timing.boot
    } else {
        timing.pulse
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a broken assumption")]
mod tests {
    use super::*;
    use cell::parameters::Parameters;

    struct Watch {
        monitor: PulseMonitor<2>,
        now: Moment,
        cell: CellId,
    }

    impl Watch {
        fn new() -> Self {
            Self {
                monitor: PulseMonitor::new(),
                now: Moment::default(),
                cell: CellId::new(1).unwrap(),
            }
        }

        /// Lets `milliseconds` pass in which this cell looks `looks` times and finds `progress`.
        fn pass(&mut self, milliseconds: u64, looks: u64, progress: u64) -> PulseFindings {
            for _ in 0..looks {
                self.now.at.0 += milliseconds * 1_000_000 / looks;
                self.now.ticks += 1;
                self.monitor.observe(self.cell, progress, self.now);
            }
            let timing = Timing::from_settings(&Parameters::DEFAULT.settings);
            let watched = CellSet::only(self.cell);
            self.monitor.judge(watched, self.now, &timing)
        }
    }

    #[test]
    fn a_pulse_that_stops_is_found_after_its_time() {
        let mut watch = Watch::new();
        let only = CellSet::only(watch.cell);
        watch.pass(2, 1, 1);
        let quiet = PulseFindings::default();
        assert_eq!(watch.pass(38, 19, 1), quiet);
        let unsteady = PulseFindings {
            unsteady: only,
            ..quiet
        };
        assert_eq!(watch.pass(40, 20, 1), unsteady);
        let still = PulseFindings {
            still: only,
            ..unsteady
        };
        assert_eq!(watch.pass(2, 1, 1), still);
        assert_eq!(watch.pass(240, 120, 1).long_still, only);
        assert_eq!(watch.pass(2, 1, 2), quiet);
    }

    #[test]
    fn the_first_beat_may_take_as_long_as_a_boot() {
        let mut watch = Watch::new();
        watch.pass(2, 1, 0);
        assert_eq!(watch.pass(1498, 749, 0), PulseFindings::default());
        assert!(watch.pass(1500, 750, 0).still.is_empty());
        assert_eq!(watch.pass(2, 1, 0).still, CellSet::only(watch.cell));
        assert!(watch.pass(2, 1, 1).still.is_empty());
        assert_eq!(watch.pass(82, 41, 1).still, CellSet::only(watch.cell));
    }

    #[test]
    fn a_cell_that_shows_no_pulse_is_found_as_well() {
        let mut watch = Watch::new();
        let timing = Timing::from_settings(&Parameters::DEFAULT.settings);
        let silent = CellSet::only(CellId::FIRST);
        let mut still_after = |milliseconds, progress| {
            watch.pass(milliseconds, milliseconds / 2, progress);
            watch.monitor.judge(silent, watch.now, &timing).still
        };
        assert_eq!(still_after(4000, 1), CellSet::EMPTY, "the first look");
        assert_eq!(still_after(2900, 2), CellSet::EMPTY);
        assert_eq!(still_after(100, 3), silent);
    }

    #[test]
    fn the_first_beat_in_a_probe_proves_life() {
        let mut watch = Watch::new();
        watch.pass(2, 1, 0);
        watch.monitor.begin_probe();
        watch.pass(2, 1, 0);
        assert!(!watch.monitor.is_proven(watch.cell));
        watch.pass(2, 1, 1);
        assert!(watch.monitor.is_proven(watch.cell));
    }

    #[test]
    fn a_watcher_that_was_away_accuses_nobody() {
        let mut watch = Watch::new();
        watch.pass(2, 1, 1);
        let found = watch.pass(50, 1, 1);
        assert!(found.still.is_empty());
        assert_eq!(found.unsteady, CellSet::only(watch.cell), "but it noted it");
    }

    #[test]
    fn only_what_moves_in_the_probe_proves_life() {
        let mut watch = Watch::new();
        watch.pass(2, 1, 7);
        watch.pass(2, 1, 8);
        assert!(watch.monitor.is_proven(watch.cell));
        watch.monitor.begin_probe();
        watch.pass(2, 1, 8);
        assert!(!watch.monitor.is_proven(watch.cell));
        watch.pass(2, 1, 9);
        assert!(watch.monitor.is_proven(watch.cell));
        watch.monitor.forget(watch.cell);
        assert!(!watch.monitor.is_proven(watch.cell));
    }
}
