//! Which clocks stand still, run backward or run too fast.
//!
//! Every cell watches the clock words of *all* live cells, its own included, at every step. A ring
//! (each watches its neighbour, as in Hive) would read fewer words, but when a watcher dies with
//! its neighbour nobody sees the second death, and in a ring an accuser is always alone: the strike
//! rule needs others who looked. The words of the default machine (4 cells, 8 CPUs) fill 4 cache
//! lines.
//!
//! # Invariants
//! 1. A clock stands still when it did not move for [`Timing::hint`] *and* this cell looked often
//!    enough in that time ([`crate::timing`], invariant 1).
//! 2. A CPU that is no longer shown, or cannot be read, counts as one whose word does not move.
//! 3. Nonsense is remembered for [`Timing::memory`], so that the probe that it causes can testify
//!    to it.

use cell::{CPUS_MAX, CellId, CellSet, CpuId, Instant};

use crate::motion::Motion;
use crate::timing::{BEYOND_DOUBT, Moment, Timing, nanoseconds};

/// How many times faster than its ticks a clock may run before it is nonsense.
const RATE_MAX: u64 = 4;

/// Ticks on top of that: what a CPU may catch up on after it was away.
const RATE_SLACK: u64 = 8;

/// What is known of one CPU's clock word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Track {
    /// The cell that it belongs to, once seen.
    cell: Option<CellId>,
    word: Motion,
    /// Start of the span over which the rate is measured, and the word then.
    rate_since: Instant,
    rate_word: u64,
}

/// What is known of all clock words.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClockMonitor<const CELLS: usize, const CPUS: usize> {
    tracks: [Track; CPUS],
    /// Tracks from here on were never seen: there is room for far more CPUs than most machines
    /// have.
    used: usize,
    /// Until when each cell's clock counts as nonsense.
    nonsense_until: [Instant; CELLS],
}

/// What one look at all clocks showed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ClockFindings {
    /// Cells with a clock word that stands still.
    pub still: CellSet,
    /// Cells with a clock word that stood still for half of that, or still does.
    pub unsteady: CellSet,
    /// Cells whose clock words are nonsense.
    pub nonsense: CellSet,
}

impl<const CELLS: usize, const CPUS: usize> ClockMonitor<CELLS, CPUS> {
    const UNSEEN: Track = Track {
        cell: None,
        word: Motion::UNSEEN,
        rate_since: Instant(0),
        rate_word: 0,
    };

    /// No clock seen yet.
    pub(crate) const fn new() -> Self {
        const { assert!(CPUS <= CPUS_MAX) };
        Self {
            tracks: [Self::UNSEEN; CPUS],
            used: 0,
            nonsense_until: [Instant(0); CELLS],
        }
    }

    fn seen(&self) -> impl Iterator<Item = &Track> {
        self.tracks[..self.used].iter()
    }

    /// Takes the newest clock word of a CPU of `cell`.
    pub(crate) fn observe(&mut self, cell: CellId, cpu: CpuId, word: u64, now: Moment) {
        let Some(track) = self.tracks.get_mut(cpu.index()) else {
            return;
        };
        self.used = self.used.max(cpu.index() + 1);
        if track.cell != Some(cell) {
            let (rate_since, rate_word) = (now.at, word);
            *track = Track {
                cell: Some(cell),
                word: Motion::starting(word, now),
                rate_since,
                rate_word,
            };
        }
        let before = track.word.value();
        if track.word.observe(word, now) && word < before {
            // Counted as a rate that no clock can have; `judge` finds it at once.
            track.rate_word = word;
            track.rate_since = Instant(u64::MAX);
        }
    }

    /// Judges the clocks of `watched`.
    pub(crate) fn judge(
        &mut self,
        watched: CellSet,
        now: Moment,
        timing: &Timing,
    ) -> ClockFindings {
        let mut findings = ClockFindings::default();
        let half = timing.hint / 2;
        for track in &mut self.tracks[..self.used] {
            let Some(cell) = track.cell.filter(|&cell| watched.contains(cell)) else {
                continue;
            };
            if track.word.stood(timing.hint, now, timing) {
                findings.still = findings.still.with(cell);
            }
            if track.word.age(now) >= half {
                findings.unsteady = findings.unsteady.with(cell);
            }
            if track.is_nonsense(now.at, timing) {
                self.nonsense_until[cell.index()] = now.at + timing.memory;
            }
        }
        findings.nonsense = self.nonsense(watched, now.at);
        findings
    }

    /// The cells of `watched` whose clock words are, or lately were, nonsense.
    pub fn nonsense(&self, watched: CellSet, now: Instant) -> CellSet {
        watched
            .iter()
            .filter(|cell| now < self.nonsense_until[cell.index()])
            .collect()
    }

    /// Cells of `watched` with a word that stood still beyond doubt.
    pub(crate) fn long_still(&self, watched: CellSet, now: Moment, timing: &Timing) -> CellSet {
        let long = timing.hint * BEYOND_DOUBT;
        let is_long = |track: &Track| track.word.stood(long, now, timing);
        let of_watched = |track: &Track| track.cell.filter(|&cell| watched.contains(cell));
        let cells = self
            .seen()
            .filter_map(|track| of_watched(track).filter(|_| is_long(track)));
        cells.collect()
    }

    /// From here on, movement counts as proof of life.
    pub(crate) fn begin_probe(&mut self) {
        for track in &mut self.tracks[..self.used] {
            track.word.begin_probe();
        }
    }

    /// Whether every clock word of `cell` moved since the probe began.
    pub fn is_proven(&self, cell: CellId) -> bool {
        let mut tracks = self
            .seen()
            .filter(|track| track.cell == Some(cell))
            .peekable();
        tracks.peek().is_some() && tracks.all(|track| track.word.is_proven())
    }

    /// Forgets a cell: it is gone, or begins a new life.
    pub(crate) fn forget(&mut self, cell: CellId) {
        for track in &mut self.tracks[..self.used] {
            if track.cell == Some(cell) {
                *track = Self::UNSEEN;
            }
        }
        self.nonsense_until[cell.index()] = Instant(0);
    }
}

impl Track {
    /// Whether the word moved farther than any clock can, or backward. Starts a new span when one
    /// is over.
    fn is_nonsense(&mut self, now: Instant, timing: &Timing) -> bool {
        let ran_backward = self.rate_since == Instant(u64::MAX);
        let elapsed = now.since(self.rate_since);
        if !ran_backward && elapsed < timing.rate {
            return false;
        }
        let ticks = nanoseconds(elapsed) / nanoseconds(timing.tick).max(1);
        let possible = ticks.saturating_mul(RATE_MAX);
        let moved = self.word.value().saturating_sub(self.rate_word);
        (self.rate_since, self.rate_word) = (now, self.word.value());
        ran_backward || moved > possible.saturating_add(RATE_SLACK)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a broken assumption")]
mod tests {
    use super::*;
    use cell::parameters::Parameters;
    use proptest::prelude::*;

    struct Watch {
        monitor: ClockMonitor<2, 4>,
        timing: Timing,
        now: Moment,
        cell: CellId,
    }

    impl Watch {
        fn new() -> Self {
            let timing = Timing::from_settings(&Parameters::DEFAULT.settings);
            let cell = CellId::new(1).unwrap();
            Self {
                monitor: ClockMonitor::new(),
                timing,
                now: Moment::default(),
                cell,
            }
        }

        /// Lets `milliseconds` pass in which this cell looks at every tick, and each word moves as
        /// it says.
        fn pass(
            &mut self,
            milliseconds: u64,
            words: &mut [u64],
            per_tick: &[u64],
        ) -> ClockFindings {
            let mut findings = ClockFindings::default();
            for _ in 0..milliseconds / 2 {
                self.now.at.0 += 2_000_000;
                self.now.ticks += 1;
                words
                    .iter_mut()
                    .zip(per_tick)
                    .for_each(|(word, step)| *word += step);
                findings = self.look(words);
            }
            findings
        }

        fn look(&mut self, words: &[u64]) -> ClockFindings {
            for (cpu, &word) in words.iter().enumerate() {
                self.monitor
                    .observe(self.cell, CpuId::new(cpu).unwrap(), word, self.now);
            }
            self.monitor
                .judge(CellSet::only(self.cell), self.now, &self.timing)
        }
    }

    #[test]
    fn one_cpu_that_stands_still_is_enough() {
        let mut watch = Watch::new();
        let mut words = [0, 0];
        assert_eq!(
            watch.pass(20, &mut words, &[1, 1]),
            ClockFindings::default()
        );
        assert!(watch.pass(6, &mut words, &[1, 0]).still.is_empty());
        assert_eq!(
            watch.pass(2, &mut words, &[1, 0]).still,
            CellSet::only(watch.cell)
        );
    }

    #[test]
    fn a_watcher_that_was_away_condemns_nobody() {
        let mut watch = Watch::new();
        let mut words = [0];
        watch.pass(20, &mut words, &[1]);
        watch.now.at.0 += 50_000_000;
        watch.now.ticks += 1;
        let findings = watch.look(&words);
        assert!(findings.still.is_empty());
        assert_eq!(
            findings.unsteady,
            CellSet::only(watch.cell),
            "but it noted something"
        );
    }

    #[test]
    fn a_clock_that_runs_ten_times_too_fast_is_nonsense() {
        let mut watch = Watch::new();
        let mut words = [0];
        assert!(watch.pass(100, &mut words, &[1]).nonsense.is_empty());
        assert_eq!(
            watch.pass(40, &mut words, &[10]).nonsense,
            CellSet::only(watch.cell)
        );
    }

    #[test]
    fn a_clock_that_runs_backward_is_nonsense_at_once() {
        let mut watch = Watch::new();
        let mut words = [1000];
        watch.pass(20, &mut words, &[1]);
        words[0] -= 500;
        assert_eq!(watch.look(&words).nonsense, CellSet::only(watch.cell));
    }

    #[test]
    fn a_probe_needs_movement_of_every_cpu() {
        let mut watch = Watch::new();
        let mut words = [0, 0];
        watch.pass(20, &mut words, &[1, 1]);
        watch.monitor.begin_probe();
        assert!(!watch.monitor.is_proven(watch.cell));
        watch.pass(2, &mut words, &[1, 0]);
        assert!(!watch.monitor.is_proven(watch.cell));
        watch.pass(2, &mut words, &[0, 1]);
        assert!(watch.monitor.is_proven(watch.cell));
        assert!(
            !watch.monitor.is_proven(CellId::new(0).unwrap()),
            "a cell without clocks"
        );
    }

    proptest! {
        #[test]
        fn a_clock_with_stalls_up_to_20_ms_is_never_nonsense(
            gaps in prop::collection::vec(0u64..10, 1..100)
        ) {
            let mut watch = Watch::new();
            let mut words = [0];
            for gap in gaps {
                watch.pass(gap * 2, &mut words, &[0]);
                words[0] += gap.min(1);
                prop_assert!(watch.pass(2, &mut words, &[1]).nonsense.is_empty());
            }
        }
    }
}
