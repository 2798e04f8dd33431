//! Unexpected bytes whose explanation is still to come.
//!
//! Between a wild write and the expulsion of the cell that made it lies time, in which others read
//! what it wrote. So unexpected bytes are a doubt at first. If the cell that they came from dies,
//! or the page that they were read from is discarded, they were `suspect`; if nothing of that
//! happens within a bound, they are `wrong`.
//!
//! That the *discard of that very page* is what acquits is deliberate: a discard which forgets a
//! page that a dead cell wrote is a bug of the system, and shows as wrong bytes.
//!
//! # Invariants
//! 1. Every doubt ends, as suspect or as wrong, within twice the bound that the worker was given.
//! 2. A full table holds the worker back from work with other cells; it never drops a doubt.

use core::time::Duration;

use cell::trace::Event;
use cell::workload::Operation;
use cell::{CellId, Epoch, Instant};

use crate::account;
use crate::services::{Reason, Services, WorkError};

/// Doubts that a worker can have at a time.
const DOUBTS_MAX: usize = 8;

/// How long to wait between two looks at one doubt.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Where unexpected bytes came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// From a cell: a reply, or frames that it lent.
    Cell(CellId),
    /// From a page of `home`, at `generation`.
    Page {
        /// The cell that owns the page.
        home: CellId,
        /// The page.
        page: u32,
        /// The generation of its content.
        generation: u64,
    },
}

impl Source {
    const fn cell(self) -> CellId {
        match self {
            Self::Cell(cell) | Self::Page { home: cell, .. } => cell,
        }
    }
}

/// Unexpected bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mismatch {
    /// How many.
    pub(crate) bytes: u64,
    /// Whence.
    pub(crate) source: Source,
}

#[derive(Clone, Copy, Debug)]
struct Doubt {
    operation: Operation,
    mismatch: Mismatch,
    /// The epoch before the one in which the operation began: the death may have been decided, and
    /// the discard not done.
    epoch: Epoch,
    since: Instant,
    look_at: Instant,
}

enum Explanation {
    Death(CellId),
    None,
    NotYet,
}

/// The doubts of one worker.
#[derive(Debug)]
pub(crate) struct Doubts {
    open: [Option<Doubt>; DOUBTS_MAX],
    span: Duration,
    own: CellId,
}

impl Doubts {
    /// No doubts; each is to end after about `span`.
    pub(crate) const fn new(span: Duration, own: CellId) -> Self {
        Self {
            open: [None; DOUBTS_MAX],
            span,
            own,
        }
    }

    /// Whether no more doubts have room. One operation can raise two.
    pub(crate) fn is_full(&self) -> bool {
        self.open.iter().filter(|doubt| doubt.is_none()).count() < 2
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.open.iter().flatten().count()
    }

    /// Notes unexpected bytes of an operation that began in `epoch`.
    pub(crate) fn raise(
        &mut self,
        operation: Operation,
        mismatch: Mismatch,
        epoch: Epoch,
        now: Instant,
    ) {
        let doubt = Doubt {
            operation,
            mismatch,
            epoch: Epoch(epoch.0.saturating_sub(1)),
            since: now,
            look_at: now + LOOK_EVERY,
        };
        let free = self.open.iter_mut().find(|slot| slot.is_none());
        *free.expect("a worker whose doubts are full begins nothing that can raise one") =
            Some(doubt);
    }

    /// Ends the doubts that can be ended.
    pub(crate) fn settle<S: Services>(&mut self, services: &mut S) {
        for slot in 0..DOUBTS_MAX {
            let Some(doubt) = self.open[slot] else {
                continue;
            };
            let now = services.now();
            if now < doubt.look_at {
                continue;
            }
            self.open[slot] = match self.explain(&doubt, services, now) {
                Explanation::NotYet => Some(Doubt {
                    look_at: now + LOOK_EVERY,
                    ..doubt
                }),
                Explanation::Death(cell) => {
                    acquit(&doubt, cell, services);
                    None
                }
                Explanation::None => {
                    condemn(&doubt, services);
                    None
                }
            };
        }
    }

    fn explain<S: Services>(&self, doubt: &Doubt, services: &mut S, now: Instant) -> Explanation {
        let source = doubt.mismatch.source;
        let expelled = services.expelled_since(doubt.epoch);
        if expelled.contains(source.cell()) {
            return Explanation::Death(source.cell());
        }
        let is_over = now.since(doubt.since) >= self.span;
        if !is_over && expelled.is_empty() {
            return Explanation::NotYet;
        }
        let Source::Page {
            home,
            page,
            generation,
        } = source
        else {
            return if is_over {
                Explanation::None
            } else {
                Explanation::NotYet
            };
        };
        match self.generation_of(home, page, services) {
            Ok(current) if current != generation => {
                Explanation::Death(expelled.lowest().unwrap_or(home))
            }
            Err(WorkError {
                cell,
                reason: Reason::Gone,
            }) if cell == home => Explanation::Death(home),
            Ok(_) if is_over => Explanation::None,
            Err(_) if now.since(doubt.since) >= self.span * 2 => Explanation::None,
            Ok(_) | Err(_) => Explanation::NotYet,
        }
    }

    /// Asks which generation a page has now.
    fn generation_of<S: Services>(
        &self,
        home: CellId,
        page: u32,
        services: &mut S,
    ) -> Result<u64, WorkError> {
        if home == self.own {
            return services.read_own(page, 0, &mut []);
        }
        let import = services.import(home, page)?;
        let generation = services.generation(&import);
        // Whether the release goes through does not matter here: the kernel sees to it.
        let _ = services.release(import);
        Ok(generation)
    }
}

fn acquit<S: Services>(doubt: &Doubt, cell: CellId, services: &S) {
    account::suspect(services.account(), doubt.operation, doubt.mismatch.bytes);
    account::lost(services.account(), doubt.operation, cell);
    services.trace(Event::WorkLost, [cell.index() as u64, 1]);
}

fn condemn<S: Services>(doubt: &Doubt, services: &S) {
    account::wrong(services.account(), doubt.operation, doubt.mismatch.bytes);
    let cell = doubt.mismatch.source.cell().index() as u64;
    services.trace(Event::WrongByte, [cell, doubt.operation as u64]);
}
