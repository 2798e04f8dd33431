//! The record in which a cell's workers account for every operation they tried.
//!
//! Read by the runner for its verdict: work may be lost only with a dead cell that it depended on,
//! and no byte may ever be wrong. `wrong` therefore counts only bytes that no death explains.
//!
//! # Invariants
//! 1. Each counter is raised by one cell only and never falls within an incarnation.
//! 2. For every kind of operation, `attempted` = `verified` + `lost` + `refused` + those under way
//!    + those that met wrong bytes.

use core::sync::atomic::AtomicU64;

use crate::id::CELLS_MAX;

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Computes on private memory and checks the result.
    Compute = 0,
    /// Calls another cell and checks the reply.
    Call = 1,
    /// Writes a page of another cell under a grant, reads it back and checks it.
    Share = 2,
    /// Borrows frames, fills them, checks them, returns them.
    Borrow = 3,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 4] = [Self::Compute, Self::Call, Self::Share, Self::Borrow];

    /// The operation's name in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Call => "call",
            Self::Share => "share",
            Self::Borrow => "borrow",
        }
    }
}

/// The account of one kind of operation.
#[repr(C)]
#[derive(Debug, Default)]
pub struct OperationAccount {
    /// Begun.
    pub attempted: AtomicU64,
    /// Ended with every byte as expected.
    pub verified: AtomicU64,
    /// Ended with an error that names a cell which is dead or unreachable.
    pub lost: AtomicU64,
    /// Ended with an error of a live cell (busy, timed out, out of frames); tried again later.
    pub refused: AtomicU64,
    /// Bytes that were not as expected, with no dead cell to explain it.
    pub wrong: AtomicU64,
    /// Bytes that were not as expected, on pages that a cell which then died could write.
    pub suspect: AtomicU64,
}

impl OperationAccount {
    /// Nothing attempted.
    pub const fn new() -> Self {
        Self {
            attempted: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            suspect: AtomicU64::new(0),
        }
    }
}

/// The account of a cell's workers.
#[repr(C)]
#[derive(Debug)]
pub struct WorkloadRecord {
    /// The life that the account is of.
    pub incarnation: AtomicU64,
    /// Worker threads.
    pub workers: AtomicU64,
    /// One account per [`Operation`].
    pub operations: [OperationAccount; 4],
    /// Work lost, by the cell that it was lost with.
    pub lost_with: [AtomicU64; CELLS_MAX],
    /// The longest time for which no worker of this cell verified an operation, in nanoseconds,
    /// since the host last set it to 0.
    pub longest_pause: AtomicU64,
    /// When the last operation was verified, in nanoseconds.
    pub last_progress: AtomicU64,
    /// As `longest_pause`, for each [`Operation`] by itself.
    pub longest_pause_of: [AtomicU64; 4],
    /// As `last_progress`, for each [`Operation`] by itself.
    pub last_progress_of: [AtomicU64; 4],
}

impl WorkloadRecord {
    /// The 64-bit words of a record, for readers that have it as bytes.
    pub const WORDS: usize = size_of::<Self>() / 8;

    /// An account in which nothing happened.
    pub const fn new() -> Self {
        Self {
            incarnation: AtomicU64::new(0),
            workers: AtomicU64::new(0),
            operations: [const { OperationAccount::new() }; 4],
            lost_with: [const { AtomicU64::new(0) }; CELLS_MAX],
            longest_pause: AtomicU64::new(0),
            last_progress: AtomicU64::new(0),
            longest_pause_of: [const { AtomicU64::new(0) }; 4],
            last_progress_of: [const { AtomicU64::new(0) }; 4],
        }
    }
}

impl Default for WorkloadRecord {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = {
    assert!(size_of::<OperationAccount>() == 48);
    assert!(size_of::<WorkloadRecord>() <= 0x4000);
};
