//! The hypercalls that the tables need, as a trait.
//!
//! The kernel implements it by hypercalls, the tests by a table that remembers who may write what.

use cell::{CellId, FrameRange};

use super::claim::Peer;

/// Why the monitor did not do what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Not now.
    Busy,
    /// This cell had no right to ask: its own tables are wrong.
    Denied,
    /// The cell named is not live in the life named.
    Stale,
    /// The monitor ran out of tables.
    Exhausted,
}

/// What a home asks of the monitor. Every range lies in the caller's own region.
pub trait Firewall {
    /// Lets `writer` write `frames`.
    ///
    /// # Errors
    /// See [`Refusal`]; the writer sets are then unchanged.
    fn grant(&mut self, frames: FrameRange, writer: Peer) -> Result<(), Refusal>;

    /// Ends what `grant` began. The frames are protected only once [`Self::drained`] holds for
    /// `writer`.
    ///
    /// # Errors
    /// See [`Refusal`]; the caller must then assume that `writer` still writes.
    fn revoke(&mut self, frames: FrameRange, writer: CellId) -> Result<(), Refusal>;

    /// Whether `writer` holds no translation from before its newest revoke; for an expelled cell,
    /// whether the fence holds.
    fn drained(&mut self, writer: CellId) -> bool;

    /// Whether `writer` wrote any of `frames` since it was granted them. Answers yes where it
    /// cannot be known.
    fn written(&mut self, frames: FrameRange, writer: CellId) -> bool;

    /// Makes sure that nobody but the home may write `frames` any more, before they are used again.
    ///
    /// # Errors
    /// See [`Refusal`]; the frames must then not be used.
    fn reclaim(&mut self, frames: FrameRange) -> Result<(), Refusal>;
}
