//! A watch on a running machine: its records, its time, every account.

use std::collections::BTreeMap;
use std::time::Duration;

use cell::trace::Event;
use userland::Account;

use crate::error::Result;
use crate::guest::cells::{self, Header};
use crate::guest::clock::GuestClock;
use crate::guest::machine::MachineView;
use crate::guest::memory::GuestMemory;
use crate::guest::trace::{Observed, TraceReader};
use crate::observation::{CellSnapshot, matters};
use crate::pace::Moment;
use crate::session::{Session, is_serving};

/// Records of daily work that are kept; older ones are then of no interest.
const DETAIL_MAX: usize = 2_000_000;
/// How often the accounts are read.
const ACCOUNTS_EVERY: Duration = Duration::from_millis(10);

/// How much of the trace is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// What a time line shows.
    Events,
    /// Calls and grants too, for a trace file.
    All,
}

/// What was seen so far.
#[derive(Debug)]
pub struct Watch {
    trace: TraceReader,
    clock: GuestClock,
    detail: Detail,
    /// The records, in the order in which they were seen.
    pub records: Vec<Observed>,
    /// The newest account of each life of each cell.
    pub lives: BTreeMap<(usize, u32), Account>,
    /// What dead kernels said, by cell and life.
    pub epitaphs: BTreeMap<(usize, u32), String>,
    accounts_read: Option<Moment>,
}

impl Watch {
    /// Begins.
    pub fn new(machine: &MachineView, detail: Detail) -> Self {
        Self {
            trace: TraceReader::new(machine),
            clock: GuestClock::new(machine.cells()),
            detail,
            records: Vec::new(),
            lives: BTreeMap::new(),
            epitaphs: BTreeMap::new(),
            accounts_read: None,
        }
    }

    /// Looks once, at the moment `now` of the run; returns where in `records` the new ones begin.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn look(
        &mut self,
        memory: &GuestMemory,
        machine: &MachineView,
        now: Moment,
    ) -> Result<usize> {
        let mut ticks = Vec::with_capacity(machine.cells());
        for cell in 0..machine.cells() {
            ticks.push(Header::read(memory, machine.public(cell))?.now);
        }
        self.clock.observe(now, ticks);
        let new = self.records.len();
        let all = self.detail == Detail::All && new < DETAIL_MAX;
        let records = self.trace.poll(memory)?;
        self.records.extend(
            records
                .into_iter()
                .filter(|record| all || matters(record.event)),
        );
        let is_recent = |read: Moment| now.since(read) < ACCOUNTS_EVERY;
        if !self.accounts_read.is_some_and(is_recent) {
            self.read_accounts(memory, machine)?;
            self.accounts_read = Some(now);
        }
        Ok(new)
    }

    /// Reads the accounts and epitaphs now.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn read_accounts(&mut self, memory: &GuestMemory, machine: &MachineView) -> Result<()> {
        for cell in 0..machine.cells() {
            let public = machine.public(cell);
            let account = cells::account(memory, public)?;
            // A sick cell may say that it lives a life which the monitor never began.
            let lives = 1..=machine.cell(memory, cell)?.incarnation;
            if lives.contains(&account.life.0) {
                self.lives.insert((cell, account.life.0), account);
            }
            if let Some((life, text)) = cells::epitaph(memory, public)? {
                self.epitaphs.insert((cell, life), text);
            }
        }
        Ok(())
    }

    /// The guest's time at the moment `now` of the run, in nanoseconds.
    pub fn time(&self, now: Moment) -> u64 {
        self.clock.at(now)
    }

    /// Forgets how the clocks compare, because the machine stood still.
    pub fn forget_clock(&mut self) {
        self.clock.forget();
    }

    /// Records that were lost.
    pub fn lost(&self) -> u64 {
        self.trace.lost()
    }

    /// How often `event` is among the records from `start` on.
    pub fn count(&self, event: Event, start: u64) -> usize {
        let matching = self.records.iter().filter(|record| record.event == event);
        matching.filter(|record| record.at >= start).count()
    }
}

/// Every cell as it is now.
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn snapshot(session: &Session) -> Result<Vec<CellSnapshot>> {
    let (memory, machine) = (&session.memory, &session.machine);
    (0..machine.cells())
        .map(|cell| {
            let status = machine.cell(memory, cell)?;
            Ok(CellSnapshot {
                state: status.state,
                incarnation: status.incarnation,
                serves: is_serving(memory, machine, cell)?,
                account: cells::account(memory, machine.public(cell))?,
            })
        })
        .collect()
}
