//! What can go wrong between two cells that share memory, and whose fault it was.
//!
//! # Invariants
//! 1. Every error has one [`Blame`]. [`Blame::Peer`] is reason enough for a hint; the others are
//!    not.
//! 2. An error that a later try can cure says so ([`SharingError::is_passing`]); no other is worth
//!    a retry.

use cell::CellId;
use rpc::ReplyStatus;

use super::claim::Generation;
use super::firewall::Refusal;

/// Whose fault an error was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blame {
    /// This cell, or nobody: too much at once, or too early.
    Local,
    /// The cell at the other end, which is not known to be dead: it said or asked for something
    /// impossible, or nothing.
    Peer,
    /// A cell that is dead.
    Departed,
}

/// Why a request about shared memory failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SharingError {
    /// The client named a page that is not offered.
    NoSuchPage,
    /// The borrower returned a frame that is never lent.
    NotLent,
    /// The number of frames is zero or above the limit.
    BadCount,
    /// The borrower holds its share of the pool already.
    QuotaExceeded,
    /// The peer named frames outside its own memory, or inside its public area.
    OutsideRegion,
    /// The peer named one frame for two different things.
    FrameTwice,
    /// The request speaks for a life that is over.
    StaleLife,
    /// The life before still holds something here: this cell's recovery is not through yet.
    OldLifeHolds,
    /// The page was discarded since; what the holder knew of it is void.
    StaleGeneration {
        /// The generation that holds now.
        current: Generation,
    },
    /// The page is discarded and its content not yet created again.
    Discarded,
    /// The cell that the page or frame belongs to is dead, and the page or frame with it.
    PeerGone(CellId),
    /// An earlier request about the same page is under way.
    InTransit,
    /// A table of this cell is full.
    TableFull,
    /// The memory home has no run of free frames of that length.
    OutOfFrames,
    /// The monitor did not do what this cell asked of it.
    Refused(Refusal),
    /// The home answered, but not by doing it.
    Answered(ReplyStatus),
    /// The home did not answer in time. It may have done what it was asked.
    TimedOut,
}

impl SharingError {
    /// Whose fault it was.
    pub const fn blame(self) -> Blame {
        match self {
            Self::NoSuchPage
            | Self::NotLent
            | Self::BadCount
            | Self::QuotaExceeded
            | Self::OutsideRegion
            | Self::FrameTwice
            | Self::StaleLife
            | Self::TimedOut => Blame::Peer,
            Self::StaleGeneration { .. } | Self::Discarded | Self::PeerGone(_) => Blame::Departed,
            Self::OldLifeHolds
            | Self::InTransit
            | Self::TableFull
            | Self::OutOfFrames
            | Self::Answered(_)
            | Self::Refused(_) => Blame::Local,
        }
    }

    /// Whether the same request can succeed later.
    pub const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::OldLifeHolds
                | Self::Discarded
                | Self::InTransit
                | Self::TableFull
                | Self::OutOfFrames
                | Self::QuotaExceeded
                | Self::Refused(Refusal::Busy)
                | Self::Answered(ReplyStatus::Busy | ReplyStatus::Exhausted)
                | Self::TimedOut
        )
    }
}

impl From<Refusal> for SharingError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
