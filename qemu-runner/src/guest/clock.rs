//! The guest's time, as seen from outside.
//!
//! Every cell publishes the time of its newest tick. A tick is seen outside some time after it
//! happened, never before; so of many differences "emulator's clock less guest time" the smallest
//! is the best, and it is off by no more than the shortest time between a tick and a look at it.
//! Each cell gives one estimate; the lower median of them counts, so that a cell whose clock runs
//! fast is not believed.
//!
//! # Not guaranteed
//! While the machine is stopped (gdb) the guest's time stands still; what was learnt before is
//! forgotten after [`WINDOW`].

use std::collections::VecDeque;
use std::time::Duration;

use crate::pace::Moment;

/// Looks older than this are forgotten, so that a rate that is off by 1 in 1000 costs no more than
/// 0.2 ms.
pub const WINDOW: Duration = Duration::from_millis(200);

/// What was learnt from one cell's ticks.
#[derive(Debug, Default)]
struct Tracker {
    newest: u64,
    /// When looked, and the emulator's nanoseconds less the guest's.
    differences: VecDeque<(Moment, i128)>,
}

/// What was learnt about the guest's clock.
#[derive(Debug)]
pub struct GuestClock {
    cells: Vec<Tracker>,
}

impl GuestClock {
    /// Nothing learnt yet, of `cells` cells.
    pub fn new(cells: usize) -> Self {
        let cells = (0..cells).map(|_| Tracker::default()).collect();
        Self { cells }
    }

    /// Learns from the newest tick times of the cells, read at `now` of the emulator's clock.
    pub fn observe(&mut self, now: Moment, ticks: impl IntoIterator<Item = u64>) {
        let elapsed = now.nanoseconds().cast_signed();
        for (cell, tick) in self.cells.iter_mut().zip(ticks) {
            let old = |at: Moment| now.since(at) > WINDOW;
            while cell.differences.front().is_some_and(|&(at, _)| old(at)) {
                cell.differences.pop_front();
            }
            if tick != cell.newest && tick != 0 {
                cell.newest = tick;
                cell.differences
                    .push_back((now, elapsed - i128::from(tick)));
            }
        }
    }

    /// Forgets what was learnt, because the machine stood still.
    pub fn forget(&mut self) {
        for cell in &mut self.cells {
            cell.differences.clear();
        }
    }

    /// The guest's time at `now` of the emulator's clock, in nanoseconds; the newest tick if
    /// nothing else is known.
    pub fn at(&self, now: Moment) -> u64 {
        let elapsed = now.nanoseconds().cast_signed();
        let least = |cell: &Tracker| {
            cell.differences
                .iter()
                .map(|&(_, difference)| difference)
                .min()
        };
        let estimates = self.cells.iter().filter_map(least);
        let estimates = estimates.map(|least| u64::try_from(elapsed - least).unwrap_or(0));
        lower_median(estimates.collect())
            .or_else(|| lower_median(self.cells.iter().map(|cell| cell.newest).collect()))
            .unwrap_or(0)
    }
}

fn lower_median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    let middle = values.len().checked_sub(1)? / 2;
    values.get(middle).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_delay_wins() {
        let mut clock = GuestClock::new(1);
        let after = |time| Moment::after(Duration::from_micros(time));
        // The guest started 5 ms after the host began to look; looks come 900, 100 and 1500 us
        // late.
        clock.observe(after(7900), [2_000_000]);
        clock.observe(after(9100), [4_000_000]);
        clock.observe(after(12_500), [6_000_000]);
        assert_eq!(clock.at(after(15_000)), 9_900_000);
    }

    #[test]
    fn a_cell_whose_clock_runs_fast_is_not_believed() {
        let mut clock = GuestClock::new(3);
        let host = Moment::after(Duration::from_millis(10));
        clock.observe(host, [8_000_000, 9_000_000_000, 8_000_000]);
        assert_eq!(clock.at(host), 8_000_000);
        let mut clock = GuestClock::new(2);
        clock.observe(host, [9_000_000_000, 8_000_000]);
        assert_eq!(clock.at(host), 8_000_000);
    }

    #[test]
    fn the_newest_tick_counts_when_nothing_else_is_known() {
        let mut clock = GuestClock::new(2);
        let host = Moment::after(Duration::from_millis(1));
        clock.observe(host, [70_000_000, 70_000_000]);
        clock.forget();
        assert_eq!(clock.at(host), 70_000_000);
    }
}
