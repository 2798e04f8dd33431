//! What state each cell was in, from the first fault to the end of a run.
//!
//! # Invariants
//! 1. A lane begins at 0 and its changes ascend; two neighbours differ.
//! 2. A cell that died counts as down from the fault on if the fault itself was the stop, else from
//!    the first word about its death; and as up again only once it both belongs to the live set
//!    and serves.
//! 3. Where two states hold at once, the later in the order of [`Phase`] is shown.
//!
//! # Not guaranteed
//! A cell that is sick and goes on counts as up until somebody says otherwise; so does one that
//! serves on without its programs.

use std::collections::BTreeSet;

use cell::CellSet;
use cell::id::CellId;
use cell::machine::EvidenceKind;
use cell::trace::Event;
use serde::{Deserialize, Serialize};

use super::outcome::stops_by_itself;
use crate::guest::trace::{Observed, Source};
use crate::observation::{End, Observation};
use crate::units::milliseconds_between;

/// What a cell is doing, from the least to the most that keeps its programs from working.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It works.
    Up,
    /// It works, and takes part in settling who lives.
    Agreeing,
    /// It works, or not; another has closed its frames to it.
    Suspected,
    /// Recovery up to barrier 1: its work with others is held.
    Barrier1,
    /// Between the barriers, until it has discarded.
    Discard,
    /// From there until its work goes on.
    Barrier2,
    /// Dead.
    Down,
    /// Its image is loaded afresh, and it does not serve yet.
    Rebooting,
}

/// A phase of the availability of a cell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is wrong with it.
    Up,
    /// Another suspects it.
    Suspected,
    /// Its work with others is held, because another died.
    Recovering,
    /// Dead.
    Down,
    /// On its way back.
    Rebooting,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Up,
        Self::Suspected,
        Self::Recovering,
        Self::Down,
        Self::Rebooting,
    ];

    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspected => "suspected",
            Self::Recovering => "recovering",
            Self::Down => "down",
            Self::Rebooting => "rebooting",
        }
    }

    /// Whether the cell lives.
    pub const fn is_alive(self) -> bool {
        !matches!(self, Self::Down | Self::Rebooting)
    }

    /// Whether its programs work.
    pub const fn is_in_service(self) -> bool {
        matches!(self, Self::Up | Self::Suspected)
    }
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 8] = [
        Self::Up,
        Self::Agreeing,
        Self::Suspected,
        Self::Barrier1,
        Self::Discard,
        Self::Barrier2,
        Self::Down,
        Self::Rebooting,
    ];

    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Up => "works",
            Self::Agreeing => "works, settles who lives",
            Self::Suspected => "suspected",
            Self::Barrier1 => "recovery, to barrier 1",
            Self::Discard => "discard",
            Self::Barrier2 => "to barrier 2, and on",
            Self::Down => "down",
            Self::Rebooting => "rebooting",
        }
    }

    /// Its state.
    pub const fn state(self) -> State {
        match self {
            Self::Up | Self::Agreeing => State::Up,
            Self::Suspected => State::Suspected,
            Self::Barrier1 | Self::Discard | Self::Barrier2 => State::Recovering,
            Self::Down => State::Down,
            Self::Rebooting => State::Rebooting,
        }
    }
}

/// When each phase of a cell began, in milliseconds since the fault.
pub type Lane = Vec<(f64, Phase)>;

/// The phases of a lane as `(from, to, phase)`, up to a time.
pub fn slices(lane: &Lane, until: f64) -> impl Iterator<Item = (f64, f64, Phase)> {
    let ends = lane.iter().skip(1).map(|&(at, _)| at).chain([until]);
    let slices = lane.iter().zip(ends);
    let slices = slices.map(move |(&(from, phase), to)| (from, to.min(until), phase));
    slices.filter(|(from, to, _)| from < to)
}

/// What is known of a cell at one time.
#[derive(Clone, Default, Debug)]
struct Now {
    life: Life,
    back: Back,
    recovering: Option<Phase>,
    agreeing: bool,
    /// Who has closed its frames to it.
    suspecting: BTreeSet<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Life {
    #[default]
    Lives,
    Dead,
    Loaded,
}

/// How far a cell that died has come back.
#[derive(Clone, Copy, Default, Debug)]
struct Back {
    joined: bool,
    serves: bool,
}

impl Now {
    fn phase(&self) -> Phase {
        match (self.life, self.recovering) {
            (Life::Loaded, _) => Phase::Rebooting,
            (Life::Dead, _) => Phase::Down,
            (Life::Lives, Some(phase)) => phase,
            (Life::Lives, None) if !self.suspecting.is_empty() => Phase::Suspected,
            (Life::Lives, None) if self.agreeing => Phase::Agreeing,
            (Life::Lives, None) => Phase::Up,
        }
    }

    fn dies(&mut self) {
        *self = Self {
            life: Life::Dead,
            ..Self::default()
        };
    }

    /// It is back once it both belongs to the live set and serves.
    fn comes_back(&mut self) {
        let Back { joined, serves } = self.back;
        if self.life != Life::Lives && joined && serves {
            *self = Self::default();
        }
    }
}

/// The lane of every cell.
pub fn lanes(run: &Observation) -> Vec<Lane> {
    let mut lanes = Lanes {
        now: vec![Now::default(); run.before.len()],
        so_far: vec![vec![(0.0, Phase::Up)]; run.before.len()],
        dead: run.dead(),
    };
    let start = run.start();
    let mut stops: Vec<(u64, usize)> = run
        .injected
        .iter()
        .filter(|one| stops_by_itself(one.fault) && lanes.dies_in_the_run(one.cell as u64))
        .map(|one| (one.at, one.cell))
        .collect();
    stops.sort_unstable();
    let mut stops = stops.into_iter().peekable();
    for record in run.since_start() {
        while let Some((at, cell)) = stops.next_if(|&(at, _)| at <= record.at) {
            lanes.change(milliseconds_between(start, at), |now| now[cell].dies());
        }
        let at = milliseconds_between(start, record.at);
        let dead = lanes.dead;
        lanes.change(at, |now| take(now, record, dead));
    }
    for (at, cell) in stops {
        lanes.change(milliseconds_between(start, at), |now| now[cell].dies());
    }
    if let End::SystemDown(_) | End::Silence = run.end {
        let at = milliseconds_between(start, run.ended_at);
        lanes.change(at, |now| now.iter_mut().for_each(Now::dies));
    }
    lanes.so_far
}

struct Lanes {
    now: Vec<Now>,
    so_far: Vec<Lane>,
    /// Who dies in the run, at some time.
    dead: CellSet,
}

impl Lanes {
    fn dies_in_the_run(&self, cell: u64) -> bool {
        CellId::new(cell as usize).is_some_and(|id| self.dead.contains(id))
    }

    fn change(&mut self, at: f64, change: impl FnOnce(&mut [Now])) {
        change(&mut self.now);
        for (lane, now) in self.so_far.iter_mut().zip(&self.now) {
            let phase = now.phase();
            match lane.last_mut() {
                Some((_, last)) if *last == phase => {}
                // Several things at one moment are one change.
                Some((then, last)) if *then >= at => *last = phase,
                _ => lane.push((at, phase)),
            }
        }
    }
}

/// Takes a record into account.
fn take(now: &mut [Now], record: &Observed, dead: CellSet) {
    match record.source {
        Source::Cell(by) if by < now.len() => by_cell(now, by, record, dead),
        Source::Monitor => by_monitor(now, record, dead),
        Source::Cell(_) | Source::Host => {}
    }
}

fn by_cell(now: &mut [Now], by: usize, record: &Observed, dead: CellSet) {
    let about = record.arguments[0] as usize;
    let own = &mut now[by];
    match record.event {
        Event::Panic if CellId::new(by).is_some_and(|id| dead.contains(id)) => own.dies(),
        Event::Serving => {
            own.back.serves = true;
            own.comes_back();
        }
        Event::EpochBegin => own.agreeing = true,
        Event::Decided | Event::FalseAlarm => own.agreeing = false,
        Event::RecoveryBegin => own.recovering = Some(Phase::Barrier1),
        Event::Barrier1 => own.recovering = Some(Phase::Discard),
        Event::Discard => own.recovering = Some(Phase::Barrier2),
        Event::Resume => own.recovering = None,
        Event::Quarantine if about < now.len() => {
            now[about].suspecting.insert(by);
        }
        Event::QuarantineEnd if about < now.len() => {
            now[about].suspecting.remove(&by);
        }
        _ => {}
    }
}

fn by_monitor(now: &mut [Now], record: &Observed, dead: CellSet) {
    let [first, _] = record.arguments;
    let cell = (first & 0xffff_ffff) as usize;
    if cell >= now.len() {
        return;
    }
    match record.event {
        Event::Evidence => {
            let kind = EvidenceKind::from_raw((first >> 32) as u32);
            let ends = matches!(
                kind,
                EvidenceKind::Shutdown
                    | EvidenceKind::EntryRefused
                    | EvidenceKind::MachineCheck
                    | EvidenceKind::Panic
            );
            if ends && CellId::new(cell).is_some_and(|id| dead.contains(id)) {
                now[cell].dies();
            }
        }
        Event::Expelled => {
            now[cell].dies();
            for other in now {
                other.suspecting.remove(&cell);
            }
        }
        Event::Loaded => {
            now[cell].dies();
            now[cell].life = Life::Loaded;
        }
        Event::Joined => {
            now[cell].back.joined = true;
            now[cell].comes_back();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::tests::{good_run, record};

    fn of(run: &mut Observation) -> Vec<Lane> {
        run.records.sort_by_key(|record| record.at);
        lanes(run)
    }

    #[test]
    fn a_halted_cell_is_down_from_the_fault_until_it_serves_in_the_live_set() {
        let mut run = good_run();
        run.records.extend([
            record(120, Source::Monitor, Event::Loaded, [1, 2]),
            record(130, Source::Cell(1), Event::Serving, [2, 0]),
            record(140, Source::Monitor, Event::Joined, [1, 2]),
        ]);
        let lanes = of(&mut run);
        assert_eq!(
            lanes[1],
            [
                (0.0, Phase::Down),
                (20.0, Phase::Rebooting),
                (40.0, Phase::Up)
            ]
        );
        assert_eq!(
            lanes[0],
            [(0.0, Phase::Up), (12.0, Phase::Barrier1), (15.0, Phase::Up)]
        );
    }

    #[test]
    fn a_suspicion_that_ends_leaves_the_cell_up() {
        let mut run = good_run();
        run.records.extend([
            record(101, Source::Cell(0), Event::Quarantine, [2, 0]),
            record(102, Source::Cell(1), Event::Quarantine, [2, 0]),
            record(103, Source::Cell(0), Event::QuarantineEnd, [2, 0]),
        ]);
        let lane = &of(&mut run)[2];
        assert_eq!(lane[1], (1.0, Phase::Suspected));
        assert!(
            lane.contains(&(17.0, Phase::Up)),
            "the suspicion of a cell that was voted out ends with it: {lane:?}"
        );
    }

    #[test]
    fn a_machine_that_goes_down_takes_every_cell_along() {
        for end in [End::SystemDown("RESET".into()), End::Silence] {
            let mut run = good_run();
            run.end = end;
            let lanes = of(&mut run);
            let down = |lane: &Lane| lane.last().is_some_and(|&(_, phase)| phase == Phase::Down);
            assert!(lanes.iter().all(down));
        }
    }

    #[test]
    fn slices_end_where_they_are_cut() {
        let lane = vec![(0.0, Phase::Up), (5.0, Phase::Down), (20.0, Phase::Up)];
        let found: Vec<_> = slices(&lane, 10.0).collect();
        assert_eq!(found, [(0.0, 5.0, Phase::Up), (5.0, 10.0, Phase::Down)]);
    }
}
