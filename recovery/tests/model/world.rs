//! A small machine for the model checker: cells, a monitor, and time in slots.
//!
//! The state machines in it are the real ones. What is abstract is what lies under them: memory,
//! the monitor, time. Time is a number of slots of one tick each; in each slot every running cell
//! makes one step, in an order that the checker chooses, so that all cells run about equally fast;
//! what is slower is a stall, and stalls are counted.
//!
//! # Assumptions
//! 1. A step is atomic, but for a crash in the middle of it: then its first effects happened and
//!    the others did not.
//! 2. The monitor's part (votes, seals, fences) is that of `cell::membership`, whose atomicity loom
//!    checks.
//! 3. One CPU per cell.

use std::time::Duration;

use cell::machine::CellState;
use cell::membership::WITNESS_SPAN;
use cell::parameters::Discard;
use cell::{CellId, CellSet, Epoch, Incarnation};
use recovery::{HintReason, Pace, RecordCopy, Recovery, Start, Timing};

use super::view::View;

/// One slot: one tick of every cell.
pub(crate) const SLOT: Duration = Duration::from_millis(10);

/// Waits, as short as they can be and still be told apart. Rates are measured only where a scenario
/// has a fast clock: the words at the start of each span would multiply the states.
pub(crate) const TIMING: Timing = Timing {
    tick: SLOT,
    hint: Duration::from_millis(40),
    pulse: Duration::from_millis(60),
    rate: Duration::MAX,
    probe: Duration::from_millis(40),
    vote: Duration::from_millis(60),
    barrier: Duration::from_millis(80),
    drain: Duration::from_millis(80),
    boot: Duration::from_millis(200),
    memory: Duration::from_millis(100),
    window: Duration::from_secs(1),
};

/// Slots from the request to reboot until the new life joins: long enough for another death, and
/// its seal, in between.
pub(crate) const BOOT_SLOTS: u32 = 5;

/// As the first beat of a cell's threads: they never run.
pub(crate) const NEVER: u32 = u32::MAX;

/// What a cell is like, in the whole run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Character {
    /// It does what the code says.
    Honest,
    /// It raises the same alert about the victim, again and again, against the rules.
    CriesWolf(CellId),
    /// It cries wolf, testifies that the victim is dead, and votes for every set without it.
    Slanders(CellId),
    /// Its clock, and all its waits with it, run so many times too fast.
    Fast(u64),
}

/// Whether a cell runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Health {
    /// It runs.
    Up,
    /// Its CPU is gone.
    Down,
}

/// What must never happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Violation {
    /// A cell resumed while a survivor had not discarded what the dead could write.
    ResumedEarly,
    /// A cell joined while a survivor had not finished with its former life.
    JoinedEarly,
    /// A cell that ran all the time was voted out.
    ExpelledHealthy,
    /// A cell that ran all the time stopped itself.
    StoppedHealthy,
    /// Work was held, or let go, twice in a row.
    WorkOutOfStep,
}

/// One cell and what the monitor knows of it.
#[derive(Clone, PartialEq, Hash, Debug)]
pub(crate) struct Cell<const N: usize> {
    pub(crate) character: Character,
    pub(crate) health: Health,
    pub(crate) state: CellState,
    pub(crate) incarnation: Incarnation,
    pub(crate) machine: Recovery<N, N>,
    pub(crate) record: Option<RecordCopy<N>>,
    pub(crate) clock: u64,
    /// When it was accused, and its clock then.
    pub(crate) accused: Option<(u32, u64)>,
    pub(crate) quarantined_by: CellSet,
    pub(crate) panicked: bool,
    pub(crate) expelled_in: u32,
    /// Dead cells whose traces it has not discarded, with the epoch of their expulsion.
    pub(crate) owes: [Option<Epoch>; N],
    pub(crate) discarded: CellSet,
    /// Steps that its discard takes beyond the first, and those that it took.
    pub(crate) discard_steps: u32,
    pub(crate) discard_step: u32,
    pub(crate) holds_work: bool,
    pub(crate) followed: Epoch,
    /// Whether it ever missed a slot in this life.
    pub(crate) faltered: bool,
    /// Until this slot it does not run.
    pub(crate) away_until: u32,
    /// From the first slot to the second its threads do not run, though it does.
    pub(crate) threads_away: (u32, u32),
    /// In this slot its threads run for the first time.
    pub(crate) first_beat: u32,
}

/// The whole machine.
#[derive(Clone, PartialEq, Hash, Debug)]
pub(crate) struct World<const N: usize> {
    pub(crate) timing: Timing,
    /// As in the scenario.
    pub(crate) first_beat: u32,
    pub(crate) last_late: Incarnation,
    pub(crate) slot: u32,
    /// Cells that had their step in this slot.
    pub(crate) done: CellSet,
    pub(crate) cells: [Cell<N>; N],
    /// The live set of each epoch.
    pub(crate) history: Vec<CellSet>,
    pub(crate) votes: [Option<(Epoch, CellSet)>; N],
    pub(crate) violation: Option<Violation>,
    pub(crate) false_alarms: bool,
}

pub(crate) fn cell<const N: usize>(number: usize) -> CellId {
    assert!(number < N);
    CellId::new(number).unwrap()
}

impl<const N: usize> World<N> {
    /// All cells have booted and joined.
    pub(crate) fn new(characters: [Character; N]) -> Self {
        let cells = characters.map(|character| Cell {
            character,
            health: Health::Up,
            state: CellState::Live,
            incarnation: Incarnation(1),
            machine: Recovery::new(),
            record: None,
            clock: 0,
            accused: None,
            quarantined_by: CellSet::EMPTY,
            panicked: false,
            expelled_in: 0,
            owes: [None; N],
            discarded: CellSet::EMPTY,
            discard_steps: 0,
            discard_step: 0,
            holds_work: false,
            followed: Epoch(0),
            faltered: false,
            away_until: 0,
            threads_away: (0, 0),
            first_beat: 0,
        });
        let is_fast = |character: &Character| matches!(character, Character::Fast(_));
        let rate = if characters.iter().any(is_fast) {
            TIMING.hint * 2
        } else {
            TIMING.rate
        };
        let mut world = Self {
            timing: Timing { rate, ..TIMING },
            first_beat: 0,
            last_late: Incarnation(2),
            slot: 1,
            done: CellSet::EMPTY,
            cells,
            history: vec![CellSet::first(N)],
            votes: [None; N],
            violation: None,
            false_alarms: false,
        };
        CellSet::first(N).iter().for_each(|cell| world.start(cell));
        // The first looks at the clocks, in one order.
        CellSet::first(N)
            .iter()
            .for_each(|cell| world.step(cell, CellSet::EMPTY, None));
        world.tick();
        world
    }

    pub(crate) fn live(&self) -> CellSet {
        self.history[self.history.len() - 1]
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.history.len() as u32 - 1)
    }

    /// The cells that run.
    pub(crate) fn up(&self) -> CellSet {
        let all = CellSet::first(N).iter();
        all.filter(|cell| self.cells[cell.index()].health == Health::Up)
            .collect()
    }

    /// Whether everybody is back to ordinary work with everybody who runs, or nobody is left.
    pub(crate) fn is_settled(&self) -> bool {
        let is_calm = |cell: CellId| {
            let cell = &self.cells[cell.index()];
            cell.machine.is_at_rest()
                && !cell.holds_work
                && cell.quarantined_by.intersection(self.live()).is_empty()
                && cell.first_beat != NEVER
                && cell.machine.membership() == (self.epoch(), self.live())
        };
        self.up().is_empty() || self.live() == self.up() && self.live().iter().all(is_calm)
    }

    /// One line per cell, for reading counterexamples.
    pub(crate) fn summary(&self) -> String {
        let line = |entry: &Cell<N>| {
            let shown = entry.record.map(|record| {
                let ballot = (record.ballot.epoch.0, record.ballot.attempt);
                (
                    record.phase,
                    ballot,
                    record.round,
                    record.known,
                    record.stage,
                )
            });
            format!("\n      {:?} {:?} {shown:?}", entry.health, entry.state)
        };
        self.cells.iter().map(line).collect()
    }

    /// The next slot begins.
    pub(crate) fn tick(&mut self) {
        self.slot += 1;
        let is_away = |cell: &CellId| self.cells[cell.index()].away_until > self.slot;
        self.done = self.up().iter().filter(is_away).collect();
    }

    /// A cell loses its CPU.
    pub(crate) fn halt(&mut self, cell: CellId) {
        self.cells[cell.index()].health = Health::Down;
        self.cells[cell.index()].faltered = true;
    }

    /// A cell stops itself with a panic, which the monitor sees.
    pub(crate) fn panic(&mut self, cell: CellId) {
        self.halt(cell);
        self.cells[cell.index()].panicked = true;
        self.cells[cell.index()].state = CellState::Stopped;
    }

    /// A cell is away for `slots` slots, this one included.
    pub(crate) fn stall(&mut self, cell: CellId, slots: u32) {
        self.done = self.done.with(cell);
        self.cells[cell.index()].faltered = true;
        self.cells[cell.index()].away_until = self.slot + slots;
    }

    /// The threads of a cell do not run for `slots` slots, from this one on.
    pub(crate) fn hold_threads(&mut self, cell: CellId, slots: u32) {
        self.cells[cell.index()].faltered = true;
        self.cells[cell.index()].threads_away = (self.slot, self.slot.saturating_add(slots));
    }

    /// A cell makes its step of this slot. It cannot read `hidden`; after `effects` it has no CPU
    /// any more.
    pub(crate) fn step(&mut self, me: CellId, hidden: CellSet, effects: Option<u32>) {
        self.done = self.done.with(me);
        let entry = &mut self.cells[me.index()];
        if entry.state == CellState::Booting {
            self.join(me);
            return;
        }
        entry.clock += match entry.character {
            Character::Fast(times) => times,
            _ => 1,
        };
        let mut machine = entry.machine.clone();
        if let Character::CriesWolf(victim) | Character::Slanders(victim) = entry.character {
            machine.cry_wolf(victim, HintReason::RpcTimedOut);
        }
        let mut view = View {
            world: self,
            me,
            hidden,
            effects,
        };
        // The kernel steps again while something changes; a few times at most.
        for _ in 0..3 {
            if machine.step(&mut view) != Pace::Advanced {
                break;
            }
        }
        self.cells[me.index()].machine = machine;
        if effects.is_some() {
            self.halt(me);
        }
    }

    fn start(&mut self, cell: CellId) {
        let joined = self.epoch();
        let incarnation = self.cells[cell.index()].incarnation;
        let start = Start {
            cell,
            incarnation,
            joined,
            timing: self.timing,
            policy: Discard::Written,
        };
        let mut machine = Recovery::new();
        let hidden = CellSet::EMPTY;
        machine.start(
            start,
            &mut View {
                world: self,
                me: cell,
                hidden,
                effects: None,
            },
        );
        self.cells[cell.index()].machine = machine;
        self.cells[cell.index()].followed = joined;
    }

    /// A rebooted cell joins the live set.
    fn join(&mut self, cell: CellId) {
        let owed = self
            .live()
            .iter()
            .any(|survivor| self.cells[survivor.index()].owes[cell.index()].is_some());
        if owed {
            self.violation = Some(Violation::JoinedEarly);
        }
        self.history.push(self.live().with(cell));
        let entry = &mut self.cells[cell.index()];
        let beat_after = if entry.incarnation <= self.last_late {
            self.first_beat
        } else {
            0
        };
        entry.state = CellState::Live;
        entry.clock = 1;
        entry.accused = None;
        entry.quarantined_by = CellSet::EMPTY;
        entry.owes = [None; N];
        entry.discarded = CellSet::EMPTY;
        entry.holds_work = false;
        entry.faltered = beat_after == NEVER;
        entry.threads_away = (0, 0);
        entry.first_beat = self.slot.saturating_add(beat_after);
        self.start(cell);
    }

    pub(crate) fn seal(&mut self, proposal: CellSet) {
        let expelled = self.live().minus(proposal);
        self.history.push(proposal);
        let epoch = self.epoch();
        for dead in expelled.iter() {
            let entry = &mut self.cells[dead.index()];
            let is_healthy = entry.character == Character::Honest && !entry.faltered;
            if is_healthy && self.violation.is_none() {
                self.violation = Some(Violation::ExpelledHealthy);
            }
            entry.health = Health::Down;
            entry.away_until = 0;
            entry.state = CellState::Expelled;
            entry.expelled_in = self.slot;
            for survivor in proposal.iter() {
                // The quarantines of a home end with it.
                let quarantined_by = &mut self.cells[survivor.index()].quarantined_by;
                *quarantined_by = quarantined_by.without(dead);
                self.cells[survivor.index()].owes[dead.index()] = Some(epoch);
            }
        }
    }

    pub(crate) fn discredited(&self) -> CellSet {
        let is_discredited = |cell: &CellId| {
            let entry = &self.cells[cell.index()];
            let stood_still = entry.accused.is_some_and(|(since, clock)| {
                SLOT * (self.slot - since) >= WITNESS_SPAN && clock == entry.clock
            });
            entry.state == CellState::Stopped || stood_still
        };
        self.live().iter().filter(is_discredited).collect()
    }
}
