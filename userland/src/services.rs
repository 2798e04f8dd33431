//! What a worker asks of its kernel.
//!
//! # Contract
//! 1. Every function returns within the time that a call may take, whatever other cells do.
//! 2. While a recovery holds work with other cells, the functions that need another cell return
//!    [`Reason::Held`] at once: a worker finds something else to do.
//! 3. Words of pages and frames are copied one at a time, in ascending order.
//! 4. A page or loan that was given back is gone for the worker, whatever the answer; what remains
//!    to be done about it (a home that did not answer) is the kernel's business.
//! 5. A kernel that holds no more a page in the generation that was imported says
//!    [`Reason::Stale`]; it never lets a worker access newer content under an old import.

use cell::trace::Event;
use cell::workload::WorkloadRecord;
use cell::{CellId, CellSet, Epoch, Instant};

use crate::call::CALL_WORDS;

/// Why something failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The cell, or the life of it that was meant, is dead.
    Gone,
    /// It did not answer in time.
    TimedOut,
    /// An access to its memory ended in a bus error.
    Unreachable,
    /// It has too much to do.
    Busy,
    /// It has none left to give, or a table is full.
    Exhausted,
    /// A recovery is under way.
    Held,
    /// The page was discarded since it was imported.
    Stale,
    /// It says that the request made no sense.
    Malformed,
}

/// A failure, with the cell to blame for it. That may be the caller's own cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkError {
    /// Whose fault it was.
    pub cell: CellId,
    /// What happened.
    pub reason: Reason,
}

/// What a worker asks of its kernel.
pub trait Services {
    /// A page of another cell, imported and writable.
    type Page;
    /// Frames borrowed from another cell.
    type Loan;

    /// The time.
    fn now(&self) -> Instant;

    /// The live set, and the epoch in which it was decided.
    fn live(&self) -> (Epoch, CellSet);

    /// The cells that were expelled in epochs after `epoch`, whether or not they are back.
    fn expelled_since(&self, epoch: Epoch) -> CellSet;

    /// The account of this cell's workers.
    fn account(&self) -> &WorkloadRecord;

    /// Puts a record into the cell's trace.
    fn trace(&self, event: Event, arguments: [u64; 2]);

    /// Calls `peer`, whose kernel answers with [`crate::call::answer`].
    ///
    /// # Errors
    /// See [`Reason`].
    fn call(
        &mut self,
        peer: CellId,
        request: &[u64; CALL_WORDS],
    ) -> Result<[u64; CALL_WORDS], WorkError>;

    /// Imports page `page` of `home`, writable.
    ///
    /// # Errors
    /// See [`Reason`].
    fn import(&mut self, home: CellId, page: u32) -> Result<Self::Page, WorkError>;

    /// The generation of the content that was imported. Never the same for two contents of a page.
    fn generation(&self, page: &Self::Page) -> u64;

    /// Copies words out of a page, from number `first` on.
    ///
    /// # Errors
    /// See [`Reason`].
    fn read(&mut self, page: &Self::Page, first: usize, words: &mut [u64])
    -> Result<(), WorkError>;

    /// Copies words into a page, from number `first` on.
    ///
    /// # Errors
    /// See [`Reason`]; some of the words may have been stored.
    fn write(&mut self, page: &Self::Page, first: usize, words: &[u64]) -> Result<(), WorkError>;

    /// Gives a page back.
    ///
    /// # Errors
    /// See [`Reason`].
    fn release(&mut self, page: Self::Page) -> Result<(), WorkError>;

    /// Copies words out of page `page` of this cell; returns the generation of the content.
    ///
    /// # Errors
    /// `Stale` while the page is discarded and its content not there yet.
    fn read_own(&mut self, page: u32, first: usize, words: &mut [u64]) -> Result<u64, WorkError>;

    /// Borrows `count` frames from `home`.
    ///
    /// # Errors
    /// See [`Reason`].
    fn borrow(&mut self, home: CellId, count: usize) -> Result<Self::Loan, WorkError>;

    /// Copies words out of frame `frame` of a loan, from number `first` on.
    ///
    /// # Errors
    /// See [`Reason`].
    fn read_frame(
        &mut self,
        loan: &Self::Loan,
        frame: usize,
        first: usize,
        words: &mut [u64],
    ) -> Result<(), WorkError>;

    /// Copies words into frame `frame` of a loan, from number `first` on.
    ///
    /// # Errors
    /// See [`Reason`]; some of the words may have been stored.
    fn write_frame(
        &mut self,
        loan: &Self::Loan,
        frame: usize,
        first: usize,
        words: &[u64],
    ) -> Result<(), WorkError>;

    /// Returns borrowed frames.
    ///
    /// # Errors
    /// See [`Reason`].
    fn give_back(&mut self, loan: Self::Loan) -> Result<(), WorkError>;
}
