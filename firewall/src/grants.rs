//! What one home grants to one writer: the writer sets and the writer's nested table, in step.
//!
//! Several CPUs of a home change them at once: one serves a request for a page while another one
//! suspects the writer. None waits for another; each does its steps in an order that makes the last
//! one to act see what the others did.
//!
//! # Invariants
//! 1. A frame that the nested table opens to the writer is in the writer set, or a grant of it is
//!    under way.
//! 2. Once a quarantine has begun, and no grant is under way, nothing of the home is open to the
//!    writer; once it has ended, everything in the writer set is. Whoever changes an entry looks at
//!    the mark again afterwards ([`Grants::settle`]).
//! 3. What is revoked during a quarantine is not opened by its end.
//!
//! # Not guaranteed
//! A grant and a revoke of the same frame at the same moment may leave it in the writer set and
//! closed; the home orders its own requests. A CPU that was stopped in the middle of a grant or a
//! revocation, and goes on in a later life of the home, may take back what that life granted of the
//! same frame; it leaves nothing open that no set says. One that stops there for good can leave a
//! frame open that is in no set, until the next life of the home
//! ([`NestedTable::write_protect_all`]). A processor may use an entry that it read before a
//! change: see [`crate::nested`].

use cell::{CellId, CellSet, Frame, FrameRange};

use crate::atomic::{AtomicU64, Ordering, fence};
use crate::model::FirewallTable;
use crate::nested::{Exhausted, NestedTable};

/// Why frames were not granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The home granted frames in more stretches than it has a share for.
    Exhausted,
    /// The life of the home or of the writer ended meanwhile. Some frames may have been granted,
    /// which the end of that life takes back.
    Over,
}

impl From<Exhausted> for Refusal {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

/// The grants of one home to one writer.
#[derive(Clone, Copy, Debug)]
pub struct Grants<'a> {
    /// Writer sets and homes.
    pub table: FirewallTable<'a>,
    /// The writer's nested table; `None` where nothing is enforced.
    pub nested: Option<&'a NestedTable>,
    /// The homes that keep the writer in quarantine.
    pub quarantined_by: &'a AtomicU64,
    /// Who grants.
    pub home: CellId,
    /// To whom.
    pub writer: CellId,
}

impl Grants<'_> {
    /// Opens `frames` to the writer. Checked by the caller. `is_on` says whether the lives of both
    /// still go on; it is asked about every frame once that is in the set, where the end of a life
    /// that comes later finds it.
    ///
    /// # Errors
    /// See [`Refusal`]. [`Refusal::Exhausted`]: nothing was granted.
    pub fn grant(&self, frames: FrameRange, is_on: impl Fn() -> bool) -> Result<(), Refusal> {
        // Before anything is granted: what was granted before has to stay if this fails.
        self.nested
            .map_or(Ok(()), |nested| nested.reserve(frames))?;
        for frame in frames.iter() {
            // A set that is in force already keeps its record of what was written.
            if self.table.writers(frame).contains(self.writer) {
                continue;
            }
            self.nested.map_or(Ok(()), |nested| nested.grant(frame))?;
            // In the set before the mark is looked at: a quarantine that begins now goes by the
            // set.
            let single = FrameRange::single(frame);
            self.table.grant(single, self.writer);
            self.settle(frame);
            if !is_on() {
                self.revoke(single);
                return Err(Refusal::Over);
            }
        }
        Ok(())
    }

    /// Closes `frames` to the writer. Its CPUs must be kicked before anybody relies on it.
    pub fn revoke(&self, frames: FrameRange) {
        self.table.revoke(frames, self.writer);
        for frame in frames.iter() {
            self.change(|nested| nested.write_protect(frame));
        }
    }

    /// Whether the home keeps the writer in quarantine.
    pub fn is_quarantined(&self) -> bool {
        CellSet(self.quarantined_by.load(Ordering::SeqCst)).contains(self.home)
    }

    /// Closes all frames of the home to the writer, writer sets unchanged.
    pub fn quarantine(&self) {
        let home = CellSet::only(self.home).0;
        self.quarantined_by.fetch_or(home, Ordering::SeqCst);
        self.settle_all();
    }

    /// Ends what [`Self::quarantine`] began.
    pub fn unquarantine(&self) {
        // Opened before the mark goes, so that no store in between looks denied; and again after
        // it, for what was granted under the mark meanwhile.
        for frame in self.table.granted(self.home, self.writer) {
            self.change(|nested| nested.give_back(frame));
        }
        let home = CellSet::only(self.home).0;
        self.quarantined_by.fetch_and(!home, Ordering::SeqCst);
        self.settle_all();
    }

    fn change(&self, change: impl FnOnce(&NestedTable)) {
        if let Some(nested) = self.nested {
            change(nested);
        }
    }

    fn settle_all(&self) {
        // The mark before the set: see `grant`.
        fence(Ordering::SeqCst);
        for frame in self.table.granted(self.home, self.writer) {
            self.settle(frame);
        }
    }

    /// Makes the entry of a granted frame say what the mark says, until the mark has not changed
    /// meanwhile.
    fn settle(&self, frame: Frame) {
        loop {
            // What was changed before the mark is read, here and below. Fences say so to the model
            // checker too, which takes every other access for weaker than it is.
            fence(Ordering::SeqCst);
            let is_quarantined = self.is_quarantined();
            if is_quarantined {
                self.change(|nested| nested.withhold(frame));
            } else {
                self.change(|nested| nested.give_back(frame));
            }
            fence(Ordering::SeqCst);
            if self.is_quarantined() == is_quarantined {
                return;
            }
        }
    }
}
