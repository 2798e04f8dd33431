//! The step of a recovery that drops what a dead cell could have damaged, or was part of.
//!
//! Between barrier 1 and barrier 2, once per survivor, with the gate closed: no access to remote
//! memory is under way and none begins. What had to wait for the fence is finished later, by
//! [`Tables::settle`], while programs run again.
//!
//! # Invariants
//! 1. Idempotent: a death inside a recovery starts the next epoch, which names all the dead again.
//! 2. After [`Tables::recover`], no departed life holds an export or a loan, and nothing of a
//!    departed home is usable.
//!
//! # References
//! Hive, CACM 1996 (recovery, preemptive discard); SOSP'95, section 4.3.

use cell::parameters::Discard;
use cell::{Frame, FrameRange, Incarnation};
use recovery::DiscardCounts;

use super::borrowings::Borrowings;
use super::claim::{PageIndex, Peer};
use super::exports::Exports;
use super::firewall::Firewall;
use super::imports::Imports;
use super::loans::Loans;

/// Pages that a cell can offer.
pub const EXPORTS_MAX: usize = 64;
/// Pages that a cell can hold of others.
pub const IMPORTS_MAX: usize = 256;
/// Frames that a cell can lend.
pub const LOANS_MAX: usize = 256;
/// Runs of frames that a cell can have borrowed.
pub const BORROWINGS_MAX: usize = 128;

/// Everything that this cell shares with others. The kernel keeps one behind a lock.
#[derive(Debug)]
pub struct Tables {
    /// Pages offered.
    pub exports: Exports<EXPORTS_MAX>,
    /// Pages of others.
    pub imports: Imports<IMPORTS_MAX>,
    /// Frames lent.
    pub loans: Loans<LOANS_MAX>,
    /// Frames of others.
    pub borrowings: Borrowings<BORROWINGS_MAX>,
}

/// What a recovery did to the tables of one survivor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// Pages that the dead could write, wrote, and that were discarded.
    pub pages: DiscardCounts,
    /// Pages imported from the dead.
    pub imports_dropped: u32,
    /// Frames lent to the dead, which wait for the fence.
    pub frames_recalled: u32,
    /// Frames borrowed from the dead.
    pub frames_lost: u64,
}

impl Tables {
    /// A cell in its life `life` that lends the frames of `pool` and offers no page yet.
    pub const fn new(life: Incarnation, pool: FrameRange) -> Self {
        Self {
            exports: Exports::new(life),
            imports: Imports::new(),
            loans: Loans::new(pool),
            borrowings: Borrowings::new(),
        }
    }

    /// The step between the barriers.
    pub fn recover(
        &mut self,
        dead: &[Peer],
        policy: Discard,
        firewall: &mut impl Firewall,
    ) -> RecoveryReport {
        RecoveryReport {
            pages: self.exports.discard(dead, policy, firewall),
            imports_dropped: self.imports.drop_departed(dead),
            frames_recalled: self.loans.recall(dead, firewall),
            frames_lost: self.borrowings.drop_departed(dead),
        }
    }

    /// Finishes what waits for a drain or for the fence. Called now and then, in bounded time.
    /// `recreate` fills a discarded page anew; the frame is the owner's alone at that moment.
    pub fn settle(
        &mut self,
        firewall: &mut impl Firewall,
        mut recreate: impl FnMut(PageIndex, Frame),
    ) {
        self.exports.settle(firewall);
        self.loans.settle(firewall);
        for _ in 0..EXPORTS_MAX {
            let Some((page, frame)) = self.exports.restorable(firewall) else {
                break;
            };
            recreate(page, frame);
            self.exports.restored(page);
        }
    }
}
