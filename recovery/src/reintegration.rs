//! Reboot of expelled cells by the recovery master, and their return.
//!
//! The master is the lowest-numbered live cell; nobody elects it, everybody can tell. Who is to be
//! rebooted follows from the machine record (an expelled cell is one), so a master that dies leaves
//! nothing that its successor would have to be told.
//!
//! # Invariants
//! 1. No reboot before every live cell showed that nothing is left to recover there: the new life
//!    must not meet a discard that was meant for the old one.
//! 2. After [`REBOOTS_MAX`] reboots of a cell that does not stay up, its failure is recorded and it
//!    rests before the next one, each time for twice as long, up to [`RESTS_DOUBLED`] times. So
//!    what never works costs the others ever less, and being struck in quick succession costs no
//!    cell for good.

use cell::machine::CellState;
use cell::trace::Event;
use cell::{CellId, CellSet};

use crate::hint::HintReason;
use crate::machine::{Pace, Recovery, Sightings};
use crate::surroundings::{RebootAnswer, Surroundings};
use crate::timing::Moment;

/// Reboots of a cell that fails again within [`SETTLED_BOOTS`] times [`crate::Timing::boot`].
pub const REBOOTS_MAX: u8 = 5;

/// After so many boot spans a cell counts as settled, and its reboots are forgotten. The first rest
/// is as long.
pub const SETTLED_BOOTS: u32 = 4;

/// How often a rest is twice as long as the one before: from 12 s to 13 minutes.
pub const RESTS_DOUBLED: u8 = 6;

/// What is known of one cell's returns.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Return {
    /// Reboots since it last was settled, or rested.
    reboots: u8,
    /// Rests since it last was settled.
    rests: u8,
    /// Since when it rests.
    resting: Option<Moment>,
    /// When we asked last; `None` if nothing is under way.
    asked: Option<Moment>,
    /// When it last joined, or was last seen in its first boot; `None` if it was here before.
    joined: Option<Moment>,
}

/// What is known of all cells' returns.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Returns<const CELLS: usize> {
    cells: [Return; CELLS],
}

impl<const CELLS: usize> Returns<CELLS> {
    /// Nobody ever left.
    pub(crate) const fn new() -> Self {
        Self {
            cells: [Return {
                reboots: 0,
                rests: 0,
                resting: None,
                asked: None,
                joined: None,
            }; CELLS],
        }
    }
}

impl<const CELLS: usize, const CPUS: usize> Recovery<CELLS, CPUS> {
    /// Notes that `cell` was expelled.
    pub(crate) fn note_expelled(&mut self, cell: CellId) {
        let settled = self.timing.boot * SETTLED_BOOTS;
        let (now, timing) = (self.now(), self.timing);
        let entry = &mut self.returns.cells[cell.index()];
        entry.asked = None;
        let was_up = |joined| timing.expired(joined, now, settled);
        if entry.joined.is_none_or(was_up) {
            (entry.reboots, entry.rests) = (0, 0);
        }
    }

    /// Notes that `cell` joined, or is about to for the first time.
    pub(crate) fn note_joined(&mut self, cell: CellId) {
        let now = self.now();
        let entry = &mut self.returns.cells[cell.index()];
        entry.asked = None;
        entry.joined = Some(now);
        // Another master's reboot may have ended the rest that we counted.
        entry.resting = None;
    }

    /// Whether `cell` joined so lately that its threads may not have run yet. They have some other
    /// things to do first, on a slow machine for longer than a probe takes.
    pub(crate) fn is_new(&self, cell: CellId) -> bool {
        let (now, span) = (self.now().at, self.timing.pulse * 2);
        let joined = self.returns.cells[cell.index()].joined;
        joined.is_some_and(|joined| now.since(joined.at) < span)
    }

    /// Does the master's duty, if it is ours and nothing else is going on.
    pub(crate) fn reintegrate<S: Surroundings<CELLS>>(
        &mut self,
        s: &mut S,
        sightings: &Sightings,
    ) -> Pace {
        let ready = self.is_recovered()
            && !self.agreement.phase.is_active()
            && self.live.lowest() == Some(self.me)
            && self.live.without(self.me).is_subset_of(sightings.recovered);
        if !ready {
            return Pace::Idle;
        }
        let mut pace = Pace::Idle;
        for cell in CellSet::first(CELLS).minus(self.live).iter() {
            let is_due = match s.cell_state(cell) {
                CellState::Absent | CellState::Live => false,
                CellState::Booting | CellState::Stopped | CellState::Expelled => true,
            };
            if is_due {
                pace = pace.max(self.bring_back(s, cell));
            }
        }
        pace
    }

    fn bring_back<S: Surroundings<CELLS>>(&mut self, s: &mut S, cell: CellId) -> Pace {
        let now = self.now();
        let entry = &mut self.returns.cells[cell.index()];
        let state = s.cell_state(cell);
        let is_under_way = match entry.asked {
            Some(asked) => !self.timing.expired(asked, now, self.timing.boot),
            // The previous master asked: give it as long as if we had.
            None if state == CellState::Booting => {
                entry.asked = Some(now);
                true
            }
            None => false,
        };
        if !is_under_way && !self.rests(s, cell) {
            self.ask_for_reboot(s, cell);
        }
        Pace::Waiting
    }

    /// Whether `cell` has to wait for its next reboot (invariant 2).
    fn rests<S: Surroundings<CELLS>>(&mut self, s: &mut S, cell: CellId) -> bool {
        let (now, timing) = (self.now(), self.timing);
        let entry = &mut self.returns.cells[cell.index()];
        if entry.reboots < REBOOTS_MAX {
            return false;
        }
        let Some(since) = entry.resting else {
            entry.resting = Some(now);
            let reason = u64::from(HintReason::ReintegrationFailed.code());
            s.trace(Event::Hint, [cell.index() as u64, reason]);
            return true;
        };
        let span = timing.boot * SETTLED_BOOTS * (1 << entry.rests);
        if !timing.expired(since, now, span) {
            return true;
        }
        entry.resting = None;
        entry.reboots = 0;
        entry.rests = (entry.rests + 1).min(RESTS_DOUBLED);
        false
    }

    fn ask_for_reboot<S: Surroundings<CELLS>>(&mut self, s: &mut S, cell: CellId) {
        let now = self.now();
        let entry = &mut self.returns.cells[cell.index()];
        let ended = s.incarnation(cell);
        if s.reboot(cell, ended) == RebootAnswer::Asked {
            entry.reboots += 1;
            entry.asked = Some(now);
            s.trace(
                Event::Reboot,
                [cell.index() as u64, u64::from(ended.next().0)],
            );
        }
    }
}
