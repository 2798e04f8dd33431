//! The model: what the checker may do to the small machine, and when a run is over.

pub(crate) mod view;
pub(crate) mod world;

use cell::{CellId, CellSet, Incarnation};
use stateright::{Model, Property};

use world::{Character, Health, Violation, World};

/// Effects of a step before which a crash in the middle of it is tried.
const CRASH_EFFECTS: [u32; 3] = [1, 2, 4];

/// Slots after which any fault has been noticed, if it ever will be.
const NOTICED_SLOTS: u32 = 8;

/// In which orders the cells take their steps within a slot: up to (not including) this slot in
/// every order, then upward in even slots and downward in odd ones. The sooner, the fewer states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AllOrdersUntil(pub(crate) u32);

/// How a cell dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Death {
    /// Its CPU halts; nobody is told.
    Halt,
    /// It panics; the monitor publishes evidence.
    Panic,
}

/// How a run has to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// Everybody who runs is back to ordinary work with everybody else who runs.
    Settled,
    /// The same, and nobody is missing.
    Complete,
    /// Everybody is back to ordinary work, and the live set never changes.
    Unchanged,
    /// With the live set as it was and the liar at it: nobody can tell it from its victim.
    Open,
}

/// What may happen in a run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario<const N: usize> {
    pub(crate) characters: [Character; N],
    pub(crate) orders: AllOrdersUntil,
    pub(crate) death: Death,
    /// Cells that may die, at most; the first before slot 4, the others until `last_fault`.
    pub(crate) deaths: u8,
    /// Stalls, at most, and slots that a cell misses in each.
    pub(crate) stalls: u8,
    pub(crate) stall_slots: u32,
    /// Cells whose threads stop to run, at most, and for how many slots.
    pub(crate) thread_stalls: u8,
    pub(crate) thread_stall_slots: u32,
    /// Slots after which the threads of a cell run that joins again, in its lives up to this one.
    pub(crate) first_beat: u32,
    pub(crate) last_late: Incarnation,
    /// Steps that the discard of the last cell takes beyond the first.
    pub(crate) discard_steps: u32,
    /// Reads that may fail, at most.
    pub(crate) missed_reads: u8,
    /// After this slot nothing bad happens any more.
    pub(crate) last_fault: u32,
    /// At this slot the run must have come to its ending.
    pub(crate) horizon: u32,
    pub(crate) ending: Ending,
}

impl<const N: usize> Scenario<N> {
    /// Nothing happens.
    pub(crate) fn calm() -> Self {
        Self {
            characters: [Character::Honest; N],
            orders: AllOrdersUntil(u32::MAX),
            death: Death::Halt,
            deaths: 0,
            stalls: 0,
            stall_slots: 1,
            thread_stalls: 0,
            thread_stall_slots: 1,
            first_beat: 0,
            last_late: Incarnation(2),
            discard_steps: 0,
            missed_reads: 0,
            last_fault: 0,
            horizon: 60,
            ending: Ending::Settled,
        }
    }
}

/// A machine and what may still happen to it.
#[derive(Clone, PartialEq, Hash, Debug)]
pub(crate) struct State<const N: usize> {
    pub(crate) world: World<N>,
    deaths: u8,
    stalls: u8,
    thread_stalls: u8,
    missed_reads: u8,
    /// The slot of the newest fault.
    disturbed: Option<u32>,
}

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Action {
    /// The next slot begins.
    Tick,
    /// A cell makes its step.
    Step(CellId),
    /// A cell makes its step and cannot read one other cell.
    StepBlind(CellId, CellId),
    /// A cell misses steps.
    Stall(CellId),
    /// The threads of a cell stop to run; then it makes its step.
    HoldThreads(CellId),
    /// A cell dies instead of its step.
    Die(CellId),
    /// A cell dies in the middle of its step, after so many effects.
    DieAfter(CellId, u32),
}

impl<const N: usize> Scenario<N> {
    /// The cells whose turn it can be.
    fn candidates(&self, world: &World<N>) -> CellSet {
        let left = world.up().minus(world.done);
        let first = if world.slot < self.orders.0 {
            return left;
        } else if world.slot.is_multiple_of(2) {
            left.lowest()
        } else {
            left.iter().last()
        };
        first.map_or(left, CellSet::only)
    }

    fn has_settled(&self, world: &World<N>) -> bool {
        let is_complete = world.live() == CellSet::first(N);
        world.is_settled() && (is_complete || self.ending != Ending::Complete)
    }

    fn is_over(&self, state: &State<N>) -> bool {
        let world = &state.world;
        let is_quiet = self.has_settled(world) && world.done.is_empty();
        let is_honest = world
            .cells
            .iter()
            .all(|it| it.character == Character::Honest);
        let is_noticed = state
            .disturbed
            .is_none_or(|fault| world.slot > fault + NOTICED_SLOTS);
        let stalls_left = u16::from(state.stalls) + u16::from(state.thread_stalls);
        let none_left = state.deaths == 0 && stalls_left == 0 && state.missed_reads == 0;
        let no_more = is_honest && (none_left || world.slot > self.last_fault);
        world.violation.is_some() || world.slot >= self.horizon || is_quiet && is_noticed && no_more
    }

    fn faults(&self, state: &State<N>, cell: CellId, actions: &mut Vec<Action>) {
        let world = &state.world;
        let entry = &world.cells[cell.index()];
        let is_joining = !world.live().contains(cell);
        let in_time =
            world.slot <= self.last_fault && (state.disturbed.is_some() || world.slot <= 3);
        if !in_time || is_joining || entry.character != Character::Honest {
            return;
        }
        if state.deaths > 0 {
            actions.push(Action::Die(cell));
            actions.extend(CRASH_EFFECTS.map(|effects| Action::DieAfter(cell, effects)));
        }
        if state.stalls > 0 {
            actions.push(Action::Stall(cell));
        }
        if state.thread_stalls > 0 {
            actions.push(Action::HoldThreads(cell));
        }
        if state.missed_reads > 0 {
            let others = world.live().without(cell).iter();
            actions.extend(others.map(|other| Action::StepBlind(cell, other)));
        }
    }
}

impl<const N: usize> Model for Scenario<N> {
    type State = State<N>;
    type Action = Action;

    fn init_states(&self) -> Vec<Self::State> {
        let mut world = World::new(self.characters);
        world.cells[N - 1].discard_steps = self.discard_steps;
        (world.first_beat, world.last_late) = (self.first_beat, self.last_late);
        let disturbed = None;
        vec![State {
            world,
            deaths: self.deaths,
            stalls: self.stalls,
            thread_stalls: self.thread_stalls,
            missed_reads: self.missed_reads,
            disturbed,
        }]
    }

    fn actions(&self, state: &Self::State, actions: &mut Vec<Self::Action>) {
        if self.is_over(state) {
            return;
        }
        let candidates = self.candidates(&state.world);
        if candidates.is_empty() {
            actions.push(Action::Tick);
        }
        for cell in candidates.iter() {
            actions.push(Action::Step(cell));
            self.faults(state, cell, actions);
        }
    }

    fn next_state(&self, last: &Self::State, action: Self::Action) -> Option<Self::State> {
        let mut state = last.clone();
        let world = &mut state.world;
        match action {
            Action::Tick => world.tick(),
            Action::Step(cell) => world.step(cell, CellSet::EMPTY, None),
            Action::StepBlind(cell, hidden) => {
                world.step(cell, CellSet::only(hidden), None);
                state.missed_reads -= 1;
            }
            Action::Stall(cell) => {
                world.stall(cell, self.stall_slots);
                state.stalls -= 1;
            }
            Action::HoldThreads(cell) => {
                world.hold_threads(cell, self.thread_stall_slots);
                world.step(cell, CellSet::EMPTY, None);
                state.thread_stalls -= 1;
            }
            Action::Die(cell) => {
                match self.death {
                    Death::Halt => world.halt(cell),
                    Death::Panic => world.panic(cell),
                }
                state.deaths -= 1;
            }
            Action::DieAfter(cell, effects) => {
                world.step(cell, CellSet::EMPTY, Some(effects));
                if self.death == Death::Panic && world.live().contains(cell) {
                    world.panic(cell);
                }
                state.deaths -= 1;
            }
        }
        if !matches!(action, Action::Tick | Action::Step(_)) {
            state.disturbed = Some(state.world.slot);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "nobody resumes before all survivors are ready",
                |_: &Self, state: &State<N>| state.world.violation != Some(Violation::ResumedEarly),
            ),
            Property::always(
                "no new life before all are done with the old one",
                |_: &Self, state: &State<N>| state.world.violation != Some(Violation::JoinedEarly),
            ),
            Property::always(
                "no healthy cell is expelled",
                |_: &Self, state: &State<N>| {
                    state.world.violation != Some(Violation::ExpelledHealthy)
                },
            ),
            Property::always(
                "no healthy cell stops itself",
                |_: &Self, state: &State<N>| {
                    state.world.violation != Some(Violation::StoppedHealthy)
                },
            ),
            Property::always(
                "work is held and let go in turn",
                |_: &Self, state: &State<N>| {
                    state.world.violation != Some(Violation::WorkOutOfStep)
                },
            ),
            Property::always(
                "all cells see one live set per epoch",
                |_: &Self, state: &State<N>| sees_history(&state.world),
            ),
            Property::always(
                "everything has settled at the horizon",
                |model: &Self, state: &State<N>| {
                    model.ending == Ending::Open
                        || state.world.slot < model.horizon
                        || model.has_settled(&state.world)
                },
            ),
            Property::always(
                "the live set changes only where it should",
                |model: &Self, state: &State<N>| {
                    matches!(model.ending, Ending::Settled | Ending::Complete)
                        || state.world.history.len() == 1
                },
            ),
            Property::sometimes(
                "the run comes to its ending",
                |model: &Self, state: &State<N>| {
                    let (world, over) = (&state.world, model.is_over(state));
                    match model.ending {
                        Ending::Unchanged => world.false_alarms && world.is_settled(),
                        Ending::Settled | Ending::Complete => {
                            world.history.len() > 1 && model.has_settled(world)
                        }
                        Ending::Open => over && world.false_alarms,
                    }
                },
            ),
        ]
    }
}

fn sees_history<const N: usize>(world: &World<N>) -> bool {
    world.up().iter().all(|cell| {
        let entry = &world.cells[cell.index()];
        let (epoch, live) = entry.machine.membership();
        entry.health == Health::Down
            || entry.state == cell::machine::CellState::Booting
            || world.history.get(epoch.0 as usize) == Some(&live)
    })
}
