//! Strikes: who cried wolf.
//!
//! A cell that raises the same alert (same suspect, same reason) twice within [`Timing::window`],
//! is voted down both times, and whom nobody could confirm, is itself taken for corrupt (Hive,
//! SOSP'95, 4.3). Strikes are counted from the opinions that the flooding spread, so that all cells
//! count the same; where they do not, the majority of *their* opinions decides.
//!
//! # What counts
//! An alert of cell `a` about cell `s` counts when an attempt ends with `s` in the live set and all
//! of this holds among the opinions:
//! - nobody but `a` found `s` dead, and nobody but `a` has `s` among its suspects;
//! - in particular not `s` itself: a cell that was off its CPU for half the hint threshold
//!   confesses;
//! - at least one cell that is neither `a` nor `s` testified, and it was not away itself.
//!
//! So a standstill of 5 to 20 ms on a busy host does not count: whoever looked saw it (suspicion is
//! noted at half the threshold), whoever was away says so, and the late cell confesses. With two
//! cells nothing ever counts.
//!
//! # What an honest cell does
//! It counts its own alerts by the same rule and holds an alert back for twice the window after it
//! was voted down unconfirmed (`watch`). Only code that is not this code raises it twice.
//!
//! # Invariants
//! 1. Two alerts that end less than [`Timing::vote`] apart count as one: the attempts of one run
//!    may be closed at different attempts by different cells.
//!
//! 2. A conviction lasts while both alerts are within the window, whether or not the others share
//!    it yet. (They may count a little later; the model checker found a liar that survived because
//!    each cell in turn convicted it alone, was voted down and forgave.)
//!
//! # Not guaranteed
//! A liar that never repeats itself within the window costs some probes now and then and is never
//! found out.

use core::time::Duration;

use cell::{CellId, CellSet, Instant};

use crate::flooding::Flooding;
use crate::opinion::Alert;
use crate::timing::Timing;

/// Alerts remembered per accuser.
const ALERTS_KEPT: usize = 4;

/// The same alert so often within the window is a conviction.
pub const STRIKES_MAX: usize = 2;

/// An alert that was voted down, with nobody to confirm it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct VotedDown {
    alert: Alert,
    at: Instant,
}

/// The alerts of all cells that were voted down.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Strikes<const CELLS: usize> {
    alerts: [[Option<VotedDown>; ALERTS_KEPT]; CELLS],
    /// Those of whom an alert is kept.
    accusers: CellSet,
}

impl<const CELLS: usize> Strikes<CELLS> {
    /// Nobody cried wolf.
    pub(crate) const fn new() -> Self {
        Self {
            alerts: [[None; ALERTS_KEPT]; CELLS],
            accusers: CellSet::EMPTY,
        }
    }

    /// The cells that cried wolf.
    pub fn convicted(&self, now: Instant, window: Duration) -> CellSet {
        let is_convicted = |accuser: &CellId| {
            let alerts = self.alerts[accuser.index()].iter().flatten();
            let mut counts = alerts.map(|old| self.strikes(*accuser, old.alert, now, window));
            counts.any(|strikes| strikes >= STRIKES_MAX)
        };
        self.accusers.iter().filter(is_convicted).collect()
    }

    /// Counts the alerts of an attempt that ended with `live`. Returns the accusers whose alert
    /// counted.
    pub(crate) fn count(
        &mut self,
        flooding: &Flooding<CELLS>,
        live: CellSet,
        now: Instant,
        timing: &Timing,
    ) -> CellSet {
        let voters = flooding.known.intersection(live);
        let mut counted = CellSet::EMPTY;
        for accuser in voters.iter() {
            let Some(alert) = flooding.opinions[accuser.index()].alert else {
                continue;
            };
            let stands = live.contains(alert.suspect) && alert.suspect != accuser;
            if stands && is_unconfirmed(flooding, voters, accuser, alert.suspect) {
                self.note(accuser, VotedDown { alert, at: now }, timing);
                counted = counted.with(accuser);
            }
        }
        counted
    }

    /// How often `accuser` raised `alert` in vain within the window.
    pub fn strikes(&self, accuser: CellId, alert: Alert, now: Instant, window: Duration) -> usize {
        let alerts = self.alerts[accuser.index()].iter().flatten();
        alerts
            .filter(|old| old.alert == alert && now.since(old.at) <= window)
            .count()
    }

    /// Forgets what is held against a cell: it begins a new life.
    pub(crate) fn forgive(&mut self, cell: CellId) {
        self.alerts[cell.index()] = [None; ALERTS_KEPT];
        self.accusers = self.accusers.without(cell);
    }

    fn note(&mut self, accuser: CellId, new: VotedDown, timing: &Timing) {
        let alerts = &mut self.alerts[accuser.index()];
        let is_same_run =
            |old: &VotedDown| old.alert == new.alert && new.at.since(old.at) < timing.vote;
        if alerts.iter().flatten().any(is_same_run) {
            return;
        }
        alerts.rotate_right(1);
        alerts[0] = Some(new);
        self.accusers = self.accusers.with(accuser);
    }
}

/// The rule of the module header.
fn is_unconfirmed<const CELLS: usize>(
    flooding: &Flooding<CELLS>,
    voters: CellSet,
    accuser: CellId,
    suspect: CellId,
) -> bool {
    let saw_something = |voter: &CellId| {
        let opinion = flooding.opinions[voter.index()];
        opinion.suspects.contains(suspect) || !opinion.alive.contains(suspect)
    };
    let was_there = |voter: &CellId| !flooding.opinions[voter.index()].suspects.contains(*voter);
    let others = voters.without(accuser);
    !others.iter().any(|voter| saw_something(&voter))
        && others
            .without(suspect)
            .iter()
            .any(|voter| was_there(&voter))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a broken assumption")]
mod tests {
    use super::*;
    use crate::hint::HintReason;
    use crate::opinion::Opinion;
    use cell::parameters::Parameters;

    const ACCUSER: usize = 0;
    const SUSPECT: usize = 1;
    const OTHER: usize = 2;

    fn cell(number: usize) -> CellId {
        CellId::new(number).unwrap()
    }

    fn alert() -> Alert {
        Alert {
            suspect: cell(SUSPECT),
            reason: HintReason::RpcTimedOut,
        }
    }

    fn flooding(cells: usize) -> Flooding<3> {
        let mut flooding = Flooding::new();
        flooding.known = CellSet::first(cells);
        flooding.opinions = [Opinion {
            alive: CellSet::first(cells),
            ..Opinion::NONE
        }; 3];
        flooding.opinions[ACCUSER].alert = Some(alert());
        flooding.opinions[ACCUSER].suspects = CellSet::only(cell(SUSPECT));
        flooding
    }

    /// Lets an alert be voted down at each of `milliseconds`, and tells whether that convicted the
    /// accuser.
    fn convicts(flooding: &Flooding<3>, milliseconds: &[u64]) -> bool {
        let timing = Timing::from_settings(&Parameters::DEFAULT.settings);
        let mut strikes = Strikes::new();
        let now = Instant(milliseconds.iter().max().unwrap() * 1_000_000);
        for at in milliseconds {
            strikes.count(flooding, flooding.known, Instant(at * 1_000_000), &timing);
        }
        strikes.convicted(now, timing.window) == CellSet::only(cell(ACCUSER))
    }

    #[test]
    fn twice_the_same_alert_convicts() {
        assert!(!convicts(&flooding(3), &[100]));
        assert!(convicts(&flooding(3), &[100, 300]));
    }

    #[test]
    fn one_run_counts_once_and_old_alerts_do_not_count() {
        assert!(!convicts(&flooding(3), &[100, 120, 140]));
        assert!(!convicts(&flooding(3), &[100, 2_200]));
    }

    #[test]
    fn an_alert_that_another_cell_confirms_does_not_count() {
        let mut confirmed = flooding(3);
        confirmed.opinions[OTHER].suspects = CellSet::only(cell(SUSPECT));
        assert!(!convicts(&confirmed, &[100, 300]));
        let mut found_dead = flooding(3);
        found_dead.opinions[OTHER].alive = CellSet::first(3).without(cell(SUSPECT));
        assert!(!convicts(&found_dead, &[100, 300]));
    }

    #[test]
    fn an_alert_to_which_the_suspect_confesses_does_not_count() {
        let mut confessed = flooding(3);
        confessed.opinions[SUSPECT].suspects = CellSet::only(cell(SUSPECT));
        assert!(!convicts(&confessed, &[100, 300]));
    }

    #[test]
    fn a_witness_that_was_away_proves_nothing() {
        let mut away = flooding(3);
        away.opinions[OTHER].suspects = CellSet::only(cell(OTHER));
        assert!(!convicts(&away, &[100, 300]));
    }

    #[test]
    fn with_two_cells_nothing_counts() {
        assert!(!convicts(&flooding(2), &[100, 300]));
    }
}
