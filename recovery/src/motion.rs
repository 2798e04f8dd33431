//! A number that a cell raises while it is healthy, as seen from here: whether it moves.
//!
//! # Invariants
//! 1. It stood still for a span only if it did not move in that time *and* this cell looked often
//!    enough ([`crate::timing`], invariant 1).
//! 2. What was read before a probe began proves nothing in that probe. What is read first in it,
//!    and differs, does: it moved since it was last read, perhaps before the probe began, so that a
//!    cell which died in between is found alive once more.

use core::time::Duration;

use crate::timing::{Moment, Timing};

/// What is known of one such number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Motion {
    value: u64,
    /// When it last moved.
    moved: Moment,
    /// Whether it moved since the probe began.
    proven: bool,
}

impl Motion {
    /// A number that was never seen.
    pub(crate) const UNSEEN: Self = Self::starting(
        0,
        Moment {
            at: cell::Instant(0),
            ticks: 0,
        },
    );

    /// A number that is seen for the first time.
    pub(crate) const fn starting(value: u64, now: Moment) -> Self {
        Self {
            value,
            moved: now,
            proven: false,
        }
    }

    /// What it showed last.
    pub(crate) const fn value(&self) -> u64 {
        self.value
    }

    /// Takes what it shows now. Whether that is another number than before.
    pub(crate) fn observe(&mut self, value: u64, now: Moment) -> bool {
        if value == self.value {
            return false;
        }
        *self = Self {
            value,
            moved: now,
            proven: true,
        };
        true
    }

    /// How long ago it moved.
    pub(crate) fn age(&self, now: Moment) -> Duration {
        now.at.since(self.moved.at)
    }

    /// Whether it stood still for `span` (invariant 1).
    pub(crate) fn stood(&self, span: Duration, now: Moment, timing: &Timing) -> bool {
        timing.expired(self.moved, now, span)
    }

    /// From here on, movement counts as proof of life.
    pub(crate) fn begin_probe(&mut self) {
        self.proven = false;
    }

    /// Whether it moved since the probe began.
    pub(crate) const fn is_proven(&self) -> bool {
        self.proven
    }
}
