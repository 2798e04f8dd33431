//! What the kernel has to provide.
//!
//! Everything is non-blocking: the state machine is stepped from a timer interrupt. What takes long
//! (the discard) is asked for again at each step until it is done.
//!
//! # What the kernel answers for
//! 1. Reads of other cells' memory go through the careful reference; a failure comes back as
//!    [`ReadFailure`].
//! 2. What concerns the machine record (membership, states, incarnations, evidence) is read from
//!    the monitor's memory, which is trusted.
//! 3. Every action may be asked for again; asking twice is the same as asking once.

use cell::machine::{CellState, Evidence};
use cell::parameters::Discard;
use cell::trace::Event;
use cell::{CellId, CellSet, CpuId, Epoch, Incarnation, Instant};

use crate::discard::DiscardCounts;
use crate::hint::Hint;
use crate::record::{Part, RecordCopy, RecordError};

/// Why another cell's memory could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReadFailure {
    /// The load ended in a bus error: the memory is cut off, or gone.
    BusError,
    /// A check of the careful reference failed.
    CheckFailed,
}

/// What became of a vote.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VoteAnswer {
    /// The epoch is sealed; [`Surroundings::sealed`] tells with which live set.
    Sealed,
    /// It counts, and others are missing. Ask again.
    Missing,
    /// It does not count: another epoch is next by now, or no epoch is left.
    Refused,
}

/// What became of a request to reboot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RebootAnswer {
    /// It will be done, or is being done.
    Asked,
    /// Not now; ask again.
    Busy,
}

/// The world around one cell's state machine.
pub trait Surroundings<const CELLS: usize> {
    /// The time.
    fn now(&self) -> Instant;
    /// The newest sealed epoch and its live set.
    fn membership(&self) -> (Epoch, CellSet);
    /// The live set of an epoch, once sealed.
    fn sealed(&self, epoch: Epoch) -> Option<CellSet>;
    /// The current or last life of a cell.
    fn incarnation(&self, cell: CellId) -> Incarnation;
    /// What the monitor knows of a cell.
    fn cell_state(&self, cell: CellId) -> CellState;
    /// The newest evidence against a cell, and how much there was.
    fn evidence(&self, cell: CellId) -> Option<(u64, Evidence)>;

    /// Shows the clock word of each running CPU of `cell`, with the CPU's number in the machine.
    ///
    /// # Errors
    /// [`ReadFailure`], if the words of another cell cannot be read.
    fn clock_words(
        &mut self,
        cell: CellId,
        show: &mut dyn FnMut(CpuId, u64),
    ) -> Result<(), ReadFailure>;

    /// Copies a part of another cell's record, by [`RecordCopy::read`].
    ///
    /// # Errors
    /// See [`RecordError`].
    fn read_record(
        &mut self,
        cell: CellId,
        part: Part,
        into: &mut RecordCopy<CELLS>,
    ) -> Result<(), RecordError>;

    /// A number that a *thread* of this cell raises every few ticks while the cell is healthy; 0
    /// until it first runs.
    fn progress(&mut self) -> u64;
    /// The next hint of the kernel's own; usually [`crate::HintBox::take`].
    fn take_hint(&mut self) -> Option<Hint>;

    /// Stores the record into the own public area, by [`crate::RecoveryRecord::store`].
    fn publish(&mut self, record: &RecordCopy<CELLS>);
    /// Makes other cells step soon.
    fn doorbell(&mut self, cells: CellSet);
    /// Casts this cell's vote, in place of an earlier one in the same epoch.
    fn vote(&mut self, epoch: Epoch, proposal: CellSet) -> VoteAnswer;
    /// Takes back this cell's vote, if it has one.
    fn withdraw_vote(&mut self, epoch: Epoch);
    /// Closes the own frames to a suspect's writes and accuses it before the monitor.
    fn quarantine(&mut self, suspect: CellId);
    /// Ends that.
    fn unquarantine(&mut self, cell: CellId);

    /// Holds all work that concerns other cells. Returns at once; what is under way ends in errors
    /// of its own.
    fn hold_work(&mut self);
    /// Lets it go on.
    fn resume_work(&mut self);
    /// Revokes what `dead` could write, discards under `policy`, and cleans up. `None`: not done,
    /// ask again.
    fn discard(&mut self, dead: CellSet, policy: Discard) -> Option<DiscardCounts>;
    /// Whether the fence holds for a dead cell.
    fn is_drained(&mut self, dead: CellId) -> bool;
    /// Gives up, for this life, all own frames that `dead` could write, because its fence never
    /// came to hold.
    fn abandon_frames(&mut self, dead: CellId);
    /// Asks the monitor to reboot a cell whose life `ended` is over.
    fn reboot(&mut self, cell: CellId, ended: Incarnation) -> RebootAnswer;
    /// Begins anew with a cell that joined: rings, calls, grants.
    fn admit(&mut self, cell: CellId, incarnation: Incarnation);
    /// Stops this cell: it was voted out, or found itself crippled. May return only in a model.
    fn stop_self(&mut self);

    /// Adds a record to the cell's trace.
    fn trace(&mut self, event: Event, arguments: [u64; 2]);
}
