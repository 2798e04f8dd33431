//! The sequence of operations.
//!
//! One worker is one kernel thread that calls [`Worker::step`] for ever and lets the scheduler run
//! in between. Each step begins and ends one operation, of well under a millisecond unless a peer
//! does not answer.
//!
//! # Invariants
//! 1. A step waits for one peer at most, and no longer than a call may take (contract of
//!    [`Services`]).
//! 2. Every step raises `attempted` once and one of `verified`, `lost`, `refused` once, or raises a
//!    doubt that will raise `lost` or `wrong`.
//! 3. A peer that failed is left alone for a while, so that waiting for it takes a small part of
//!    the time.
//! 4. No worker waits for another: they share nothing but counters.

use core::time::Duration;

use cell::trace::Event;
use cell::workload::Operation;
use cell::{CELLS_MAX, CellId, CellSet, Epoch, Incarnation, Instant};

use crate::account;
use crate::borrow::{HeldLoan, hold_loan};
use crate::call;
use crate::compute::Buffer;
use crate::fate::{Doubts, Mismatch, Source};
use crate::pattern::{Generator, Pattern, Purpose};
use crate::services::{Reason, Services, WorkError};
use crate::share::{Sharer, check_own_page};

/// How long a peer that did not answer is left alone.
const AVOID_SILENT: Duration = Duration::from_millis(20);
/// How long a peer that was too busy is left alone.
const AVOID_BUSY: Duration = Duration::from_millis(2);

/// Who a worker is, and what it is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerSettings {
    /// The seed of the whole run, the same for all cells.
    pub seed: u64,
    /// The worker's cell.
    pub cell: CellId,
    /// The cell's life.
    pub life: Incarnation,
    /// The worker's number in its cell, below [`crate::lane::WORKERS_MAX`].
    pub worker: usize,
    /// How long unexpected bytes may wait for a death that explains them.
    pub doubt: Duration,
}

impl WorkerSettings {
    /// How long unexpected bytes wait where nothing else is said: far above detection and recovery
    /// together.
    pub const DOUBT: Duration = Duration::from_secs(2);

    /// What the worker's patterns for `purpose` have in common.
    pub(crate) fn pattern(&self, purpose: Purpose) -> Pattern {
        let name = (self.worker as u64) << 8 | self.cell.index() as u64;
        Pattern::new(self.seed, purpose)
            .of(name)
            .of(u64::from(self.life.0))
    }
}

/// How an operation ended, if not with every byte as expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// A service failed.
    Error(WorkError),
    /// Bytes were not as expected.
    Mismatch(Mismatch),
}

impl From<WorkError> for Failure {
    fn from(error: WorkError) -> Self {
        Self::Error(error)
    }
}

/// A worker.
#[derive(Debug)]
pub struct Worker<S: Services> {
    settings: WorkerSettings,
    choices: Generator,
    sequence: u64,
    buffer: Buffer,
    sharer: Sharer<S::Page>,
    loan: Option<HeldLoan<S::Loan>>,
    doubts: Doubts,
    avoid: [Instant; CELLS_MAX],
}

impl<S: Services> Worker<S> {
    /// A worker at its beginning. It is some 16 KiB; the kernel keeps it on its heap.
    ///
    /// # Panics
    /// If the worker's number is too high for its lanes: the kernel's own mistake.
    pub fn new(settings: WorkerSettings) -> Self {
        assert!(
            settings.worker < crate::lane::WORKERS_MAX,
            "no lane for this worker"
        );
        Self {
            settings,
            choices: Generator::new(settings.pattern(Purpose::Choice)),
            sequence: 0,
            buffer: Buffer::new(settings.pattern(Purpose::Private)),
            sharer: Sharer::new(settings),
            loan: None,
            doubts: Doubts::new(settings.doubt, settings.cell),
            avoid: [Instant(0); CELLS_MAX],
        }
    }

    /// Unexpected bytes that wait for an explanation.
    pub fn doubts(&self) -> usize {
        self.doubts.len()
    }

    /// Does one operation.
    pub fn step(&mut self, services: &mut S) {
        self.doubts.settle(services);
        self.sequence += 1;
        let (epoch, live) = services.live();
        let (operation, peer) = self.choose(live, services.now());
        account::attempted(services.account(), operation);
        let outcome = match operation {
            Operation::Compute => self.compute(),
            Operation::Call => self.call(peer, services),
            Operation::Share if peer == self.settings.cell => {
                check_own_page(&self.settings, &mut self.choices, live, services)
            }
            Operation::Share => self.sharer.step(peer, &mut self.choices, services),
            Operation::Borrow => self.borrow(peer, services),
        };
        self.finish(operation, outcome, epoch, services);
    }

    /// Draws an operation and a peer. Without a peer to be had, the worker works by itself: it
    /// computes, or looks at its own cell's pages.
    fn choose(&mut self, live: CellSet, now: Instant) -> (Operation, CellId) {
        let own = self.settings.cell;
        let operation = Operation::ALL[self.choices.below(Operation::ALL.len())];
        let open = |cell: &CellId| *cell != own && self.avoid[cell.index()] <= now;
        let peers: CellSet = live.iter().filter(open).collect();
        if operation == Operation::Compute || self.doubts.is_full() {
            return (Operation::Compute, own);
        }
        if operation == Operation::Share && self.choices.below(4) == 0 {
            return (Operation::Share, own);
        }
        let drawn = (!peers.is_empty()).then(|| self.choices.below(peers.len()));
        match drawn.and_then(|number| peers.iter().nth(number)) {
            Some(peer) => (operation, peer),
            None if operation == Operation::Share => (Operation::Share, own),
            None => (Operation::Compute, own),
        }
    }

    fn compute(&mut self) -> Result<(), Failure> {
        unless_differing(self.buffer.step(), Source::Cell(self.settings.cell))
    }

    fn call(&mut self, peer: CellId, services: &mut S) -> Result<(), Failure> {
        let WorkerSettings {
            seed,
            cell,
            life,
            worker,
            ..
        } = self.settings;
        let request = call::request(seed, cell, worker, life, self.sequence);
        let bytes = match services.call(peer, &request) {
            Ok(reply) => call::check(seed, peer, &request, &reply),
            // The request was sound when it left, so its bytes changed on the way.
            Err(WorkError {
                reason: Reason::Malformed,
                ..
            }) => size_of_val(&request) as u64,
            Err(error) => return Err(error.into()),
        };
        unless_differing(bytes, Source::Cell(peer))
    }

    fn borrow(&mut self, peer: CellId, services: &mut S) -> Result<(), Failure> {
        if let Some(held) = self.loan.take() {
            let keep = self.choices.below(2) == 0;
            self.loan = held.step(keep, services)?;
        } else {
            let pattern = self.settings.pattern(Purpose::Frame).of(self.sequence);
            let count = 1 + self.choices.below(2);
            self.loan = Some(hold_loan(peer, count, pattern, services)?);
        }
        Ok(())
    }

    fn finish(
        &mut self,
        operation: Operation,
        outcome: Result<(), Failure>,
        epoch: Epoch,
        services: &mut S,
    ) {
        let now = services.now();
        match outcome {
            Ok(()) => account::verified(services.account(), operation, now),
            Err(Failure::Mismatch(mismatch)) => {
                self.doubts.raise(operation, mismatch, epoch, now);
            }
            Err(Failure::Error(error)) => self.fail(operation, error, epoch, services),
        }
    }

    fn fail(&mut self, operation: Operation, error: WorkError, epoch: Epoch, services: &mut S) {
        match who_is_dead(error, epoch, services) {
            Some(cell) => {
                account::lost(services.account(), operation, cell);
                services.trace(Event::WorkLost, [cell.index() as u64, 1]);
            }
            None => account::refused(services.account(), operation),
        }
        let pause = match error.reason {
            Reason::Stale => return,
            Reason::Gone | Reason::TimedOut | Reason::Unreachable => AVOID_SILENT,
            Reason::Busy | Reason::Exhausted | Reason::Held | Reason::Malformed => AVOID_BUSY,
        };
        self.avoid[error.cell.index()] = services.now() + pause;
    }
}

/// The dead cell, if there is one, that an operation which began in `epoch` failed with.
fn who_is_dead<S: Services>(error: WorkError, epoch: Epoch, services: &S) -> Option<CellId> {
    // The expulsion may have been decided just before the operation began.
    let expelled = services.expelled_since(Epoch(epoch.0.saturating_sub(1)));
    let named = expelled.contains(error.cell) || !services.live().1.contains(error.cell);
    match error.reason {
        Reason::Gone => Some(error.cell),
        _ if named => Some(error.cell),
        // A live home discarded the page because of somebody else's death.
        Reason::Stale => expelled.lowest(),
        _ => None,
    }
}

/// An operation whose bytes from `source` were as expected but for `bytes` of them.
pub(crate) const fn unless_differing(bytes: u64, source: Source) -> Result<(), Failure> {
    if bytes == 0 {
        Ok(())
    } else {
        Err(Failure::Mismatch(Mismatch { bytes, source }))
    }
}
