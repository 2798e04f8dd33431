//! What a worker asks of this kernel: pages, frames and calls.

use core::time::Duration;

use cell::trace::Event;
use cell::workload::WorkloadRecord;
use cell::{CellId, CellSet, Epoch, Instant, PhysicalAddress};
use recovery::HintReason;
use rpc::message::ReplyStatus;
use rpc::operation::Access;
use rpc::{Operation, Outcome, Payload};
use userland::{CALL_WORDS, PAGE_WORDS, Reason, Services, WorkError};

use super::workers;
use crate::memory::guarded::{self, WriteError};
use crate::own::own;
use crate::sharing::{Borrowed, Import, PageIndex, Refusal, SharingError};
use crate::{calls, clock, hints, pages, trace};

const WORD_BYTES: usize = size_of::<u64>();

/// How often a store that meets a quarantine is tried, and how long the worker rests in between:
/// the gate's pass is given back meanwhile.
const QUARANTINE_TRIES: usize = 60;
const QUARANTINE_REST: Duration = Duration::from_millis(2);

/// This kernel, as a worker sees it.
#[derive(Debug)]
pub struct KernelServices;

fn work_error(home: CellId, error: SharingError) -> WorkError {
    let reason = match error {
        SharingError::PeerGone(_) | SharingError::StaleLife => Reason::Gone,
        SharingError::StaleGeneration { .. } => Reason::Stale,
        SharingError::Refused(Refusal::Busy) => Reason::Held,
        SharingError::TimedOut => Reason::TimedOut,
        SharingError::Answered(status) => reason_of(status),
        SharingError::TableFull
        | SharingError::OutOfFrames
        | SharingError::QuotaExceeded
        | SharingError::Refused(Refusal::Exhausted) => Reason::Exhausted,
        SharingError::InTransit
        | SharingError::OldLifeHolds
        | SharingError::Discarded
        | SharingError::Refused(_) => Reason::Busy,
        SharingError::NoSuchPage
        | SharingError::NotLent
        | SharingError::BadCount
        | SharingError::OutsideRegion
        | SharingError::FrameTwice => Reason::Malformed,
    };
    WorkError { cell: home, reason }
}

const fn reason_of(status: ReplyStatus) -> Reason {
    match status {
        ReplyStatus::Gone => Reason::Gone,
        ReplyStatus::Exhausted => Reason::Exhausted,
        ReplyStatus::BadArgument | ReplyStatus::Denied => Reason::Malformed,
        ReplyStatus::Done | ReplyStatus::Busy => Reason::Busy,
    }
}

/// An access to another cell's memory that did not go through: a hint, unless it passes.
fn access_error(home: CellId, error: WriteError) -> WorkError {
    let reason = match error {
        WriteError::Quarantined(_) => Reason::Held,
        // The right was taken back while the store was on its way: a recovery of the home is about
        // to say so.
        WriteError::Denied(_) => Reason::Stale,
        WriteError::Unreachable(_) => {
            hints::raise(home, HintReason::BusError);
            Reason::Unreachable
        }
    };
    WorkError { cell: home, reason }
}

fn at(page: PhysicalAddress, first: usize, words: usize) -> PhysicalAddress {
    assert!(
        first + words <= PAGE_WORDS,
        "a worker's own words, within a page"
    );
    PhysicalAddress(page.0 + (first * WORD_BYTES) as u64)
}

fn load(from: PhysicalAddress, words: &mut [u64]) -> Result<(), WriteError> {
    for (index, word) in words.iter_mut().enumerate() {
        let mut bytes = [0; WORD_BYTES];
        guarded::read(
            PhysicalAddress(from.0 + (index * WORD_BYTES) as u64),
            &mut bytes,
        )?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(())
}

fn store(to: PhysicalAddress, words: &[u64]) -> Result<(), WriteError> {
    for (index, word) in words.iter().enumerate() {
        let address = PhysicalAddress(to.0 + (index * WORD_BYTES) as u64);
        // SAFETY: a page that its home granted for user data, or a borrowed frame: nobody's Rust
        // object.
        unsafe { guarded::try_write(address, &word.to_le_bytes()) }?;
    }
    Ok(())
}

/// Stores by `attempt` until no quarantine is in the way.
fn persist(
    home: CellId,
    mut attempt: impl FnMut() -> Result<Result<(), WriteError>, SharingError>,
) -> Result<(), WorkError> {
    for _ in 0..QUARANTINE_TRIES {
        match attempt().map_err(|error| work_error(home, error))? {
            Ok(()) => return Ok(()),
            Err(WriteError::Quarantined(_)) => crate::thread::sleep(QUARANTINE_REST),
            Err(error) => return Err(access_error(home, error)),
        }
    }
    Err(WorkError {
        cell: home,
        reason: Reason::Held,
    })
}

impl Services for KernelServices {
    type Page = Import;
    type Loan = Borrowed;

    fn now(&self) -> Instant {
        clock::now()
    }

    fn live(&self) -> (Epoch, CellSet) {
        own().machine.membership.current()
    }

    fn expelled_since(&self, epoch: Epoch) -> CellSet {
        let membership = &own().machine.membership;
        let (newest, _) = membership.current();
        let mut expelled = CellSet::EMPTY;
        let mut before = membership.sealed(epoch).unwrap_or(CellSet::EMPTY);
        for number in epoch.0 + 1..=newest.0 {
            let live = membership.sealed(Epoch(number)).unwrap_or(before);
            expelled = expelled.union(before.minus(live));
            before = live;
        }
        expelled
    }

    fn account(&self) -> &WorkloadRecord {
        workers::record()
    }

    fn trace(&self, event: Event, arguments: [u64; 2]) {
        trace::record(event, arguments[0], arguments[1]);
    }

    fn call(
        &mut self,
        peer: CellId,
        request: &[u64; CALL_WORDS],
    ) -> Result<[u64; CALL_WORDS], WorkError> {
        let error = |reason| WorkError { cell: peer, reason };
        match calls::call(peer, Operation::Work, Payload::from_words(*request)) {
            Outcome::Reply(ReplyStatus::Done, payload) => {
                payload.to_words().ok_or(error(Reason::Malformed))
            }
            Outcome::Reply(status, _) => Err(error(reason_of(status))),
            Outcome::TimedOut | Outcome::Refused => Err(error(Reason::TimedOut)),
            Outcome::PeerGone => Err(error(Reason::Gone)),
        }
    }

    fn import(&mut self, home: CellId, page: u32) -> Result<Import, WorkError> {
        pages::import(home, PageIndex(page), Access::Write).map_err(|error| work_error(home, error))
    }

    fn generation(&self, page: &Import) -> u64 {
        page.generation().raw()
    }

    fn read(&mut self, page: &Import, first: usize, words: &mut [u64]) -> Result<(), WorkError> {
        let home = page.home().cell;
        pages::with_import(page, |start| load(at(start, first, words.len()), words))
            .map_err(|error| work_error(home, error))?
            .map_err(|error| access_error(home, error))
    }

    fn write(&mut self, page: &Import, first: usize, words: &[u64]) -> Result<(), WorkError> {
        persist(page.home().cell, || {
            pages::with_import(page, |start| store(at(start, first, words.len()), words))
        })
    }

    fn release(&mut self, page: Import) -> Result<(), WorkError> {
        pages::release(page);
        Ok(())
    }

    fn read_own(&mut self, page: u32, first: usize, words: &mut [u64]) -> Result<u64, WorkError> {
        let home = own().cell;
        let stale = WorkError {
            cell: home,
            reason: Reason::Stale,
        };
        let read = pages::with_own(PageIndex(page), |start| {
            load(at(start, first, words.len()), words)
        });
        let (loaded, generation) = read.map_err(|_| stale)?;
        loaded.map_err(|error| access_error(home, error))?;
        // The content may have been discarded while it was read.
        match pages::with_own(PageIndex(page), |_| ()) {
            Ok(((), after)) if after == generation => Ok(generation),
            _ => Err(stale),
        }
    }

    fn borrow(&mut self, home: CellId, count: usize) -> Result<Borrowed, WorkError> {
        pages::borrow(home, count).map_err(|error| work_error(home, error))
    }

    fn read_frame(
        &mut self,
        loan: &Borrowed,
        frame: usize,
        first: usize,
        words: &mut [u64],
    ) -> Result<(), WorkError> {
        let home = loan.home().cell;
        pages::with_borrowed(loan, frame as u64, |start| {
            load(at(start, first, words.len()), words)
        })
        .map_err(|error| work_error(home, error))?
        .map_err(|error| access_error(home, error))
    }

    fn write_frame(
        &mut self,
        loan: &Borrowed,
        frame: usize,
        first: usize,
        words: &[u64],
    ) -> Result<(), WorkError> {
        persist(loan.home().cell, || {
            pages::with_borrowed(loan, frame as u64, |start| {
                store(at(start, first, words.len()), words)
            })
        })
    }

    fn give_back(&mut self, loan: Borrowed) -> Result<(), WorkError> {
        pages::give_back(loan);
        Ok(())
    }
}
