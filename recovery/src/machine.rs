//! The driver: one step of a cell's state machine.
//!
//! A step reads the membership, the records and clocks of the other live cells, makes the
//! transitions that are due, and publishes what changed. It never waits. Agreement and recovery run
//! side by side: a death during recovery is agreed upon while the recovery of the earlier one
//! stands still at its barrier.
//!
//! # Invariants
//! 1. Membership is followed epoch by epoch, before anything else in a step; a cell that finds
//!    itself voted out, or in another life, stops and does nothing more.
//! 2. The record is published at the end of a step, after the actions that it tells of.
//!
//! # Use
//! [`Recovery::new`] is `const`, for a static; [`Recovery::start`] when the cell has joined; then
//! [`Recovery::step`] under a try-lock on any CPU, at each tick and doorbell, again while it
//! answers [`Pace::Advanced`] (a few times at most).

use cell::machine::CellState;
use cell::parameters::Discard;
use cell::trace::Event;
use cell::{CELLS_MAX, CPUS_MAX, CellId, CellSet, Epoch, Incarnation};

use crate::agreement::Agreement;
use crate::barrier::Barriers;
use crate::clock_monitor::ClockMonitor;
use crate::pulse_monitor::PulseMonitor;
use crate::record::{Ballot, Phase, RecordCopy, Stage};
use crate::reintegration::Returns;
use crate::strike::Strikes;
use crate::surroundings::Surroundings;
use crate::timing::{Moment, OwnClock, Timing};
use crate::watch::Watch;

/// Transitions that one step may make; the next step makes the rest.
const TRANSITIONS_MAX: usize = 8;

/// A state machine for all cells and CPUs that a machine can have.
pub type CellRecovery = Recovery<CELLS_MAX, CPUS_MAX>;

/// What a cell knows when its state machine starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Which cell this is.
    pub cell: CellId,
    /// Which life.
    pub incarnation: Incarnation,
    /// The epoch in which it joined, as the monitor answered.
    pub joined: Epoch,
    /// How long to wait.
    pub timing: Timing,
    /// What to discard.
    pub policy: Discard,
}

/// How soon the next step is worth while.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Pace {
    /// At the next tick.
    Idle,
    /// At the next tick or doorbell; something is going on.
    Waiting,
    /// At once: something changed.
    Advanced,
}

/// Whether the machine runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Life {
    Unstarted,
    Running,
    Stopped,
}

/// The parts of the record for whose change others wait.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Shown {
    phase: Phase,
    ballot: Ballot,
    round: u32,
    recovery: (Epoch, Stage),
    recovered: Epoch,
}

/// What the records of the other live cells show in one step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Sightings {
    /// Who reached our round of flooding, or is final.
    pub(crate) reached: CellSet,
    /// Whose opinions are final.
    pub(crate) finished: CellSet,
    /// Who moved on to a newer attempt than ours.
    pub(crate) left: CellSet,
    /// Who is still at it in an attempt that we closed.
    pub(crate) lagging: CellSet,
    /// The two most advanced newer attempts, each at another cell.
    pub(crate) attempts: [Option<u32>; 2],
    /// Who reached the barriers of our recovery.
    pub(crate) at_barrier1: CellSet,
    pub(crate) at_barrier2: CellSet,
    /// Who has nothing left to recover.
    pub(crate) recovered: CellSet,
    /// Whose record could be read.
    pub(crate) read: CellSet,
    /// Whose memory gave bus errors, and whose record made no sense.
    pub(crate) unreachable: CellSet,
    pub(crate) garbled: CellSet,
}

/// The state machine of one cell.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Recovery<const CELLS: usize, const CPUS: usize> {
    life: Life,
    pub(crate) me: CellId,
    incarnation: Incarnation,
    pub(crate) timing: Timing,
    pub(crate) policy: Discard,
    pub(crate) own_clock: OwnClock,
    started: Moment,
    /// The newest epoch that was followed, and its live set.
    pub(crate) seen: Epoch,
    pub(crate) live: CellSet,
    /// The newest epoch after which nothing is left to recover here.
    recovered: Epoch,
    pub(crate) clocks: ClockMonitor<CELLS, CPUS>,
    pub(crate) pulses: PulseMonitor<CELLS>,
    pub(crate) watch: Watch<CELLS>,
    pub(crate) strikes: Strikes<CELLS>,
    pub(crate) agreement: Agreement<CELLS>,
    pub(crate) quarantined: CellSet,
    pub(crate) barriers: Barriers,
    pub(crate) returns: Returns<CELLS>,
    /// What was published last of the things that others wait for.
    shown: Option<Shown>,
}

impl<const CELLS: usize, const CPUS: usize> Recovery<CELLS, CPUS> {
    /// A state machine that does nothing until it is started.
    pub const fn new() -> Self {
        let Some(me) = CellId::new(0) else {
            unreachable!()
        };
        Self {
            life: Life::Unstarted,
            me,
            incarnation: Incarnation(0),
            timing: Timing::NEVER,
            policy: Discard::Writable,
            own_clock: OwnClock::starting(cell::Instant(0)),
            started: Moment {
                at: cell::Instant(0),
                ticks: 0,
            },
            seen: Epoch(0),
            live: CellSet::EMPTY,
            recovered: Epoch(0),
            clocks: ClockMonitor::new(),
            pulses: PulseMonitor::new(),
            watch: Watch::new(),
            strikes: Strikes::new(),
            agreement: Agreement::new(),
            quarantined: CellSet::EMPTY,
            barriers: Barriers::new(),
            returns: Returns::new(),
            shown: None,
        }
    }

    /// Starts the machine of a cell that has joined, and publishes its first record.
    pub fn start<S: Surroundings<CELLS>>(&mut self, start: Start, s: &mut S) {
        *self = Self {
            life: Life::Running,
            me: start.cell,
            incarnation: start.incarnation,
            timing: start.timing,
            policy: start.policy,
            own_clock: OwnClock::starting(s.now()),
            started: Moment {
                at: s.now(),
                ticks: 0,
            },
            seen: start.joined,
            live: s.sealed(start.joined).unwrap_or(CellSet::EMPTY),
            recovered: start.joined,
            ..Self::new()
        };
        self.publish(s);
    }

    /// Makes the transitions that are due.
    pub fn step<S: Surroundings<CELLS>>(&mut self, s: &mut S) -> Pace {
        if self.life != Life::Running {
            return Pace::Idle;
        }
        let away = self.own_clock.step(s.now(), &self.timing);
        if away >= self.timing.hint / 2 {
            self.watch
                .notice(self.me, self.now().at + self.timing.memory);
        }
        self.follow_membership(s);
        if self.life != Life::Running {
            return Pace::Idle;
        }
        let mut sightings = self.look_around(s);
        self.collect_hints(s, &sightings);
        let mut pace = self.agree(s, &mut sightings);
        if self.life != Life::Running {
            return Pace::Idle;
        }
        for _ in 0..TRANSITIONS_MAX {
            let one = self.advance_recovery(s, &sightings);
            pace = pace.max(one);
            if one != Pace::Advanced {
                break;
            }
        }
        if self.is_recovered() {
            self.recovered = self.seen;
        }
        pace = pace.max(self.reintegrate(s, &sightings));
        self.publish(s);
        pace
    }

    /// Waits for other spans from now on ([`crate::Patience`]).
    pub fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// The newest epoch that this cell followed, and its live set.
    pub const fn membership(&self) -> (Epoch, CellSet) {
        (self.seen, self.live)
    }

    /// Whether work with other cells is held.
    pub fn holds_work(&self) -> bool {
        !self.is_recovered()
    }

    /// Whether neither agreement nor recovery is going on.
    pub fn is_at_rest(&self) -> bool {
        self.is_recovered() && !self.agreement.phase.is_active()
    }

    /// Whether this cell found that it has to stop.
    pub fn is_stopped(&self) -> bool {
        self.life == Life::Stopped
    }

    pub(crate) const fn now(&self) -> Moment {
        self.own_clock.now()
    }

    pub(crate) fn stop<S: Surroundings<CELLS>>(&mut self, s: &mut S) {
        self.life = Life::Stopped;
        s.stop_self();
    }

    fn follow_membership<S: Surroundings<CELLS>>(&mut self, s: &mut S) {
        let (newest, _) = s.membership();
        while self.seen < newest {
            let next = self.seen.next();
            // Seals come in order, so there is one; a record that says otherwise is looked at again
            // at the next step.
            let Some(live) = s.sealed(next) else { break };
            self.enter_epoch(s, next, live);
        }
        if !self.live.contains(self.me) || s.incarnation(self.me) != self.incarnation {
            self.stop(s);
        }
    }

    fn enter_epoch<S: Surroundings<CELLS>>(&mut self, s: &mut S, epoch: Epoch, live: CellSet) {
        let (expelled, joined) = (self.live.minus(live), live.minus(self.live));
        self.seen = epoch;
        self.live = live;
        s.trace(Event::Decided, [u64::from(epoch.0), live.0]);
        self.end_agreement(s, joined);
        for cell in expelled.union(joined).iter() {
            self.clocks.forget(cell);
            self.pulses.forget(cell);
            self.watch.forget(cell);
            self.strikes.forgive(cell);
        }
        for cell in expelled.iter() {
            self.note_expelled(cell);
        }
        if !expelled.is_empty() && live.contains(self.me) {
            self.begin_recovery(s, epoch, expelled);
        }
        for cell in joined.iter() {
            let incarnation = s.incarnation(cell);
            self.note_joined(cell);
            s.admit(cell, incarnation);
            s.trace(
                Event::Reintegrated,
                [cell.index() as u64, u64::from(incarnation.0)],
            );
        }
    }

    /// Ends the attempt for an epoch that is sealed by now. If a cell joined instead, the question
    /// stays open.
    fn end_agreement<S: Surroundings<CELLS>>(&mut self, s: &mut S, joined: CellSet) {
        if !self.agreement.phase.is_active() || joined.is_empty() {
            self.conclude(s);
        } else {
            self.postpone(s);
        }
    }

    /// Looks at the own pulse, and reads the records of all other live cells.
    fn look_around<S: Surroundings<CELLS>>(&mut self, s: &mut S) -> Sightings {
        let mut sightings = Sightings::default();
        let own = self.newer_than();
        self.pulses.observe(self.me, s.progress(), self.now());
        let part = self.agreement.needed();
        let mut record = RecordCopy::EMPTY;
        for peer in self.live.without(self.me).iter() {
            let incarnation = s.incarnation(peer);
            let read = s
                .read_record(peer, part, &mut record)
                .and_then(|()| record.validate(peer, incarnation));
            match read {
                Ok(()) => self.look_at(own, peer, &record, &mut sightings),
                Err(error) => Self::note_record_error(&mut sightings, peer, error),
            }
        }
        sightings
    }

    fn look_at(
        &mut self,
        own: Ballot,
        peer: CellId,
        record: &RecordCopy<CELLS>,
        sightings: &mut Sightings,
    ) {
        sightings.note_attempt(own, record);
        sightings.read = sightings.read.with(peer);
        self.pulses.observe(peer, record.progress, self.now());
        self.agreement.look_at(self.me, peer, record, sightings);
        if record.recovered >= self.seen {
            sightings.recovered = sightings.recovered.with(peer);
        }
        if record.recovery != self.barriers.epoch {
            return;
        }
        if record.stage >= Stage::Barrier1 {
            sightings.at_barrier1 = sightings.at_barrier1.with(peer);
        }
        if record.stage >= Stage::Barrier2 {
            sightings.at_barrier2 = sightings.at_barrier2.with(peer);
        }
    }

    /// Advances agreement, as far as what was read allows.
    fn agree<S: Surroundings<CELLS>>(&mut self, s: &mut S, sightings: &mut Sightings) -> Pace {
        let booting = self.booting(s);
        for cell in booting.iter() {
            self.note_joined(cell);
        }
        if self.live.len() < 2 || !booting.is_empty() {
            return Pace::Idle;
        }
        let mut pace = self.follow_attempts(s, sightings);
        pace = pace.max(self.take_up_hints(s, sightings));
        if pace == Pace::Advanced {
            // What was read is about an older attempt.
            return pace;
        }
        let ballot = self.agreement.ballot;
        for _ in 0..TRANSITIONS_MAX {
            let one = self.advance_agreement(s, sightings);
            pace = pace.max(one);
            let is_over = self.agreement.ballot != ballot || s.membership().0 > self.seen;
            if one != Pace::Advanced || is_over {
                break;
            }
        }
        pace
    }

    /// The live cells that have not finished the first boot of the machine yet, and may still. They
    /// could not take part.
    fn booting<S: Surroundings<CELLS>>(&self, s: &S) -> CellSet {
        let booting: CellSet = self.live.iter().filter(|&cell| !is_up(s, cell)).collect();
        let timing = &self.timing;
        if booting.is_empty() || timing.expired(self.started, self.now(), timing.boot) {
            return CellSet::EMPTY;
        }
        booting
    }

    fn publish<S: Surroundings<CELLS>>(&mut self, s: &mut S) {
        let shown = Shown {
            phase: self.agreement.phase,
            ballot: self.agreement.ballot,
            round: self.agreement.flooding.round,
            recovery: (self.barriers.epoch, self.barriers.stage),
            recovered: self.recovered,
        };
        let record = RecordCopy {
            cell: self.me,
            incarnation: self.incarnation,
            phase: shown.phase,
            ballot: shown.ballot,
            round: shown.round,
            recovery: self.barriers.epoch,
            stage: self.barriers.stage,
            recovered: self.recovered,
            progress: s.progress(),
            known: self.agreement.flooding.known,
            opinions: self.agreement.flooding.opinions,
        };
        s.publish(&record);
        if self.shown.replace(shown) != Some(shown) {
            s.doorbell(self.live.without(self.me));
        }
    }
}

/// Whether a live cell has finished its first boot; before, it neither ticks nor shows a record.
pub(crate) fn is_up<const CELLS: usize, S: Surroundings<CELLS>>(s: &S, cell: CellId) -> bool {
    s.cell_state(cell) != CellState::Booting
}

impl<const CELLS: usize, const CPUS: usize> Default for Recovery<CELLS, CPUS> {
    fn default() -> Self {
        Self::new()
    }
}
