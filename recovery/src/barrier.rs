//! The recovery after a seal: the double global barrier.
//!
//! ```text
//!  sealed, smaller ─► hold work ─► barrier 1 ─► discard ─► fence holds ─► barrier 2 ─► resume
//! ```
//! Barrier 1 tells everybody that no store to another cell's memory is under way any more; barrier
//! 2 that everybody discarded what the dead could have spoilt (HIVE 5.8). The participants are the
//! live set that the seal made, no more: a cell that joins later has nothing to recover.
//!
//! A further death is a hint like any other, starts the next epoch, and its seal restarts the
//! recovery at barrier 1 with the cells that are left. Every step may therefore run again.
//!
//! # Invariants
//! 1. Work with other cells goes on only after every participant showed that its discard is done
//!    and the fence holds.
//! 2. A dead cell leaves `dead` when *our* discard of what it could write is done, and before
//!    barrier 2. It joins again only after every participant passed there; so its new life is never
//!    discarded.
//!
//! # Bounds
//! A cell missing at a barrier is a hint after [`crate::Timing::barrier`], and after twice that is
//! thought dead whatever its probe shows: its interrupts run, its recovery does not. A fence that
//! does not hold after [`crate::Timing::drain`] costs the frames concerned: they are never used
//! again.
//!
//! # Not guaranteed
//! Of two survivors, when one never reaches the barrier though all its clocks run, neither has a
//! majority: work stays held.

use cell::trace::Event;
use cell::{CellSet, Epoch};

use crate::discard::DiscardCounts;
use crate::machine::{Pace, Recovery, Sightings};
use crate::record::Stage;
use crate::surroundings::Surroundings;
use crate::timing::Moment;

/// What recovery is at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Task {
    /// Nothing to recover.
    None,
    /// It waits at barrier 1.
    Barrier1,
    /// It discards.
    Discard,
    /// It waits for the fence around the dead.
    Fence,
    /// It waits at barrier 2.
    Barrier2,
}

/// The state of recovery in one cell.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Barriers {
    pub(crate) task: Task,
    /// The epoch whose seal made the recovery necessary.
    pub(crate) epoch: Epoch,
    /// What the others are told.
    pub(crate) stage: Stage,
    participants: CellSet,
    /// Whose traces are not discarded yet.
    dead: CellSet,
    since: Moment,
    /// Participants that are missing for longer than they may be.
    pub(crate) late: CellSet,
    /// Participants that are missing for twice that.
    pub(crate) overdue: CellSet,
}

impl Barriers {
    /// Nothing to recover.
    pub(crate) const fn new() -> Self {
        Self {
            task: Task::None,
            epoch: Epoch(0),
            stage: Stage::None,
            participants: CellSet::EMPTY,
            dead: CellSet::EMPTY,
            since: Moment {
                at: cell::Instant(0),
                ticks: 0,
            },
            late: CellSet::EMPTY,
            overdue: CellSet::EMPTY,
        }
    }

    fn enter(&mut self, task: Task, now: Moment) {
        self.task = task;
        self.since = now;
        self.late = CellSet::EMPTY;
        self.overdue = CellSet::EMPTY;
    }
}

impl<const CELLS: usize, const CPUS: usize> Recovery<CELLS, CPUS> {
    /// Starts recovery, or starts it over, because `epoch` was sealed without `dead`.
    pub(crate) fn begin_recovery<S: Surroundings<CELLS>>(
        &mut self,
        s: &mut S,
        epoch: Epoch,
        dead: CellSet,
    ) {
        if self.barriers.task == Task::None {
            s.hold_work();
        }
        s.trace(Event::RecoveryBegin, [u64::from(epoch.0), self.live.0]);
        self.barriers.enter(Task::Barrier1, self.now());
        self.barriers.epoch = epoch;
        self.barriers.stage = Stage::Barrier1;
        self.barriers.participants = self.live;
        self.barriers.dead = self.barriers.dead.union(dead);
    }

    /// Whether all recovery that this cell knows of is done.
    pub(crate) fn is_recovered(&self) -> bool {
        self.barriers.task == Task::None
    }

    /// Makes one transition of recovery, if one is due.
    pub(crate) fn advance_recovery<S: Surroundings<CELLS>>(
        &mut self,
        s: &mut S,
        sightings: &Sightings,
    ) -> Pace {
        let epoch = u64::from(self.barriers.epoch.0);
        match self.barriers.task {
            Task::None => Pace::Idle,
            Task::Barrier1 if self.is_passed(sightings.at_barrier1) => {
                s.trace(Event::Barrier1, [epoch, 0]);
                self.barriers.enter(Task::Discard, self.now());
                Pace::Advanced
            }
            Task::Discard => self.advance_discard(s),
            Task::Fence => self.advance_fence(s),
            Task::Barrier2 if self.is_passed(sightings.at_barrier2) => {
                s.trace(Event::Barrier2, [epoch, 0]);
                self.barriers.enter(Task::None, self.now());
                self.barriers.stage = Stage::Resumed;
                s.resume_work();
                s.trace(Event::Resume, [epoch, 0]);
                Pace::Advanced
            }
            Task::Barrier1 => self.wait_at_barrier(sightings.at_barrier1),
            Task::Barrier2 => self.wait_at_barrier(sightings.at_barrier2),
        }
    }

    fn missing_at_barrier(&self, arrived: CellSet) -> CellSet {
        self.barriers.participants.without(self.me).minus(arrived)
    }

    fn is_passed(&self, arrived: CellSet) -> bool {
        self.missing_at_barrier(arrived).is_empty()
    }

    fn wait_at_barrier(&mut self, arrived: CellSet) -> Pace {
        let missing = self.missing_at_barrier(arrived);
        let (now, timing) = (self.now(), self.timing);
        let barriers = &mut self.barriers;
        let is_past = |span| timing.expired(barriers.since, now, span);
        let (late, overdue) = (is_past(timing.barrier), is_past(timing.barrier * 2));
        barriers.late = if late { missing } else { CellSet::EMPTY };
        barriers.overdue = if overdue { missing } else { CellSet::EMPTY };
        Pace::Waiting
    }

    fn advance_discard<S: Surroundings<CELLS>>(&mut self, s: &mut S) -> Pace {
        let Some(DiscardCounts {
            writable, written, ..
        }) = s.discard(self.barriers.dead, self.policy)
        else {
            return Pace::Waiting;
        };
        let sizes = u64::from(writable) << 32 | u64::from(written);
        s.trace(Event::Discard, [u64::from(self.barriers.epoch.0), sizes]);
        self.barriers.enter(Task::Fence, self.now());
        Pace::Advanced
    }

    fn advance_fence<S: Surroundings<CELLS>>(&mut self, s: &mut S) -> Pace {
        let open: CellSet = self
            .barriers
            .dead
            .iter()
            .filter(|&cell| !s.is_drained(cell))
            .collect();
        let expired = self
            .timing
            .expired(self.barriers.since, self.now(), self.timing.drain);
        if !open.is_empty() && !expired {
            return Pace::Waiting;
        }
        for cell in open.iter() {
            s.abandon_frames(cell);
        }
        self.end_quarantine(s, self.barriers.dead);
        self.barriers.dead = CellSet::EMPTY;
        self.barriers.stage = Stage::Barrier2;
        self.barriers.enter(Task::Barrier2, self.now());
        Pace::Advanced
    }
}
