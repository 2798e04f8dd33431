//! What was seen of one run: plain data, from which all reports are made.

use std::collections::BTreeMap;
use std::time::Duration;

use cell::fault::InnerFault;
use cell::machine::CellState;
use cell::trace::Event;
use cell::{CellSet, id::CellId};
use serde::Serialize;
use userland::Account;

use crate::fault::catalogue::{Expectation, Fault};
use crate::guest::difference::Difference;
use crate::guest::integrity::Spoilt;
use crate::guest::trace::{Observed, Source};

/// By how much the host's reckoning of the guest's time may be wrong, in nanoseconds.
const CLOCK_SLACK: u64 = 50_000_000;

/// Something that the runner did to the machine.
#[derive(Clone, Debug)]
pub struct Injected {
    /// The fault.
    pub fault: Fault,
    /// The cell.
    pub cell: usize,
    /// What must come of it.
    pub expectation: Expectation,
    /// The guest's time, in nanoseconds.
    pub at: u64,
    /// What exactly was done.
    pub detail: String,
}

/// A fault that a cell was asked for and did not do: it was dead, or too sick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missed {
    /// The fault.
    pub fault: Fault,
    /// The cell.
    pub cell: usize,
}

/// Something else that happened on the host.
#[derive(Clone, Debug)]
pub struct Note {
    /// The guest's time, in nanoseconds.
    pub at: u64,
    /// What happened.
    pub text: String,
}

/// A cell at one moment.
#[derive(Clone, Debug)]
pub struct CellSnapshot {
    /// What the monitor says.
    pub state: CellState,
    /// Its current or last life, by the monitor.
    pub incarnation: u32,
    /// Whether it answers calls in that life.
    pub serves: bool,
    /// The account of its workers.
    pub account: Account,
}

/// A store that its cell had no right to.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
pub struct StrayStore {
    /// The CPU.
    pub cpu: usize,
    /// The cell of the CPU.
    pub cell: Option<usize>,
    /// The cell whose memory it went to; none if it is the monitor's.
    pub home: Option<usize>,
    /// The physical address.
    pub address: u64,
}

/// What a watch on stores saw.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Debug)]
pub struct Watched {
    /// Stretches of memory that were watched from the fault on.
    pub stretches: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Stores of cells to memory of their own.
    pub own: u64,
    /// Stores under a grant.
    pub granted: u64,
    /// Stores that nothing allowed.
    pub strays_count: u64,
    /// The first of them.
    pub strays: Vec<StrayStore>,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// A cell died, came back, and everybody works.
    Settled,
    /// Nobody died, and everybody works.
    Quiet,
    /// The bound was reached in another state.
    Bound,
    /// The machine went down.
    SystemDown(String),
    /// No CPU comes to where it could stand still any more, in the deterministic mode.
    Silence,
}

/// How far a run came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// Not to its fault: the machine ended before, or did not get over a rehearsal.
    Work,
    /// To its fault, or to what a control has in its place.
    Fault,
}

/// What was seen of one run.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Host time until every cell served.
    pub boot_time: Duration,
    /// What was injected, in order; where a rehearsal was the end, its panic.
    pub injected: Vec<Injected>,
    /// How far it came.
    pub reached: Reached,
    /// When a control that injects nothing began to be judged, in nanoseconds.
    pub control_from: Option<u64>,
    /// When the run ended, in nanoseconds of the guest's time.
    pub ended_at: u64,
    /// What else happened on the host.
    pub notes: Vec<Note>,
    /// Faults of the plan that never struck, because their event did not happen.
    pub not_triggered: Vec<Fault>,
    /// Faults that their cell was asked for and did not do.
    pub not_carried_out: Vec<Missed>,
    /// Faults after the first whose target was gone when they were due.
    pub left_out: Vec<Missed>,
    /// The records of all rings, by time.
    pub records: Vec<Observed>,
    /// Records that were lost.
    pub records_lost: u64,
    /// Each cell just before the first fault.
    pub before: Vec<CellSnapshot>,
    /// Each cell at the end.
    pub after: Vec<CellSnapshot>,
    /// Which cells made progress at the end.
    pub progressing: Vec<bool>,
    /// The newest account of each life of each cell.
    pub lives: BTreeMap<(usize, u32), Account>,
    /// What dead kernels said, by cell and life.
    pub epitaphs: BTreeMap<(usize, u32), String>,
    /// The monitor's live set at the end.
    pub live_set: CellSet,
    /// What a watch on stores saw, where the emulator has one and the fault is one of stores.
    pub watched: Option<Watched>,
    /// Whether the cells have workers.
    pub works: bool,
    /// Whose code or constants are not what they were, of those that no fault was injected into.
    pub spoilt: Vec<Spoilt>,
    /// The SHA-256 of all memory at the end, in the deterministic mode; `None` if the machine did
    /// not stand still then.
    pub ram_sha256: Option<String>,
    /// How memory differs from the control's, if that was compared.
    pub difference: Option<Difference>,
    /// How it ended.
    pub end: End,
}

impl Observation {
    /// When the first fault struck, or would have in a control, in nanoseconds; 0 if none did.
    pub fn start(&self) -> u64 {
        let struck = self.injected.first().map(|injected| injected.at);
        struck.or(self.control_from).unwrap_or(0)
    }

    /// The cells that faults were injected into.
    pub fn targets(&self) -> CellSet {
        self.injected
            .iter()
            .filter_map(|injected| CellId::new(injected.cell))
            .collect()
    }

    /// The cells whose life ended after the first fault: by the monitor's record, or by its trace.
    pub fn dead(&self) -> CellSet {
        let ended = |&(before, after): &(&CellSnapshot, &CellSnapshot)| {
            after.incarnation != before.incarnation
                || matches!(after.state, CellState::Stopped | CellState::Expelled)
        };
        let pairs = self.before.iter().zip(&self.after).enumerate();
        let by_record = pairs
            .filter(|(_, pair)| ended(pair))
            .filter_map(|(cell, _)| CellId::new(cell));
        let expelled = |record: &&Observed| {
            record.source == Source::Monitor && record.event == Event::Expelled
        };
        let by_trace = self.since_start().filter(expelled);
        let by_trace = by_trace.filter_map(|record| CellId::new(record.arguments[0] as usize));
        by_record.chain(by_trace).collect()
    }

    /// The cells that died in a life in which nothing had been injected into them.
    pub fn bystanders(&self) -> CellSet {
        let struck_in_life = |record: &&Observed| {
            let cell = record.arguments[0];
            let joined = |other: &&Observed| {
                other.source == Source::Monitor
                    && other.event == Event::Joined
                    && other.arguments[0] == cell
                    && other.at < record.at
            };
            let begun = self
                .since_start()
                .filter(joined)
                .map(|other| other.at)
                .max();
            let reaches = |injected: &Injected| {
                let in_life = begun.is_none_or(|begun| injected.at + CLOCK_SLACK >= begun);
                injected.cell as u64 == cell
                    && injected.at <= record.at + CLOCK_SLACK
                    && (in_life || injected.fault.outlives_its_cell())
            };
            self.injected.iter().any(reaches)
        };
        let expelled = self
            .since_start()
            .filter(|record| record.source == Source::Monitor && record.event == Event::Expelled);
        let unexplained = expelled.filter(|record| !struck_in_life(record));
        let cells = unexplained.filter_map(|record| CellId::new(record.arguments[0] as usize));
        cells.fold(self.dead().minus(self.targets()), CellSet::with)
    }

    /// The cells whose life did not end.
    pub fn survivors(&self) -> CellSet {
        CellSet::first(self.before.len()).minus(self.dead())
    }

    /// The cells that serve on after programs of theirs were ended by a fault.
    pub fn robbed(&self) -> CellSet {
        let kill = InnerFault::ProgramKill;
        let struck = |record: &&Observed| {
            record.event == Event::Struck && record.arguments[0] == kill as u64
        };
        let struck = self.since_start().filter(struck);
        let cells = struck.filter_map(|record| match record.source {
            Source::Cell(cell) if self.after.get(cell)?.serves => CellId::new(cell),
            _ => None,
        });
        let cells: CellSet = cells.collect();
        cells.minus(self.dead())
    }

    /// Those of them whose programs do no work any more.
    pub fn out_of_work(&self) -> CellSet {
        let idle = |id: &CellId| !self.progressing[id.index()];
        self.robbed().iter().filter(idle).collect()
    }

    /// How often a cell saw an attempt at agreement end with nobody expelled, from the first fault
    /// on.
    pub fn false_alarms(&self) -> usize {
        self.since_start()
            .filter(|record| record.event == Event::FalseAlarm)
            .count()
    }

    /// The faults that a cell was asked to do to itself and did not do, and those that wait at a
    /// hook and struck nothing. A cell that died first had no time for it.
    pub fn undone(&self) -> impl Iterator<Item = &Injected> {
        let dead = self.dead();
        let is_dead = move |cell: usize| dead.iter().any(|one| one.index() == cell);
        self.injected.iter().filter(move |one| {
            let Fault::Inner(fault) = one.fault else {
                return false;
            };
            let sign = if fault.is_hook() {
                Event::Struck
            } else {
                Event::Injected
            };
            let done = |record: &Observed| tells(record, sign, fault, one.cell);
            !is_dead(one.cell) && !self.since_start().any(done)
        })
    }

    /// The records from the first fault on.
    pub fn since_start(&self) -> impl Iterator<Item = &Observed> {
        let start = self.start();
        self.records.iter().filter(move |record| record.at >= start)
    }
}

/// How often a cell said from `start` on that it does a fault to itself.
pub fn carried_out(records: &[Observed], start: u64, fault: Fault, cell: usize) -> usize {
    let Fault::Inner(fault) = fault else { return 0 };
    let says_so =
        |record: &&Observed| tells(record, Event::Injected, fault, cell) && record.at >= start;
    records.iter().filter(says_so).count()
}

/// Whether a cell tells by `event` of a fault that it does to itself.
fn tells(record: &Observed, event: Event, fault: InnerFault, cell: usize) -> bool {
    record.source == Source::Cell(cell)
        && record.event == event
        && record.arguments[0] == u64::from(fault as u32)
}

/// Whether a record of this event matters to a time line and to the end of a run, or is daily work.
pub const fn matters(event: Event) -> bool {
    !matches!(
        event,
        Event::RpcSend
            | Event::RpcReceive
            | Event::RpcReply
            | Event::RpcDone
            | Event::RpcRefused
            | Event::Grant
            | Event::Revoke
            | Event::WorkLost
    )
}

/// Steps on the way to a decision. What comes of them is an event of its own, or nothing.
pub const SUSPICIONS: [Event; 8] = [
    Event::Hint,
    Event::EpochBegin,
    Event::Opinion,
    Event::Round,
    Event::FalseAlarm,
    Event::Quarantine,
    Event::QuarantineEnd,
    Event::BusError,
];
