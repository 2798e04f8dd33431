//! What one cell says to another about shared memory, as types that say what was checked.
//!
//! A number from a message is nothing until it went through a function of this file or of the table
//! that it is about.
//!
//! # References
//! Hive, SOSP'95, section 4.1 (sanity checks on what comes from another cell).

use cell::public::PUBLIC_SIZE;
use cell::{CellId, Frame, FrameRange, Incarnation, PAGE_SIZE};
use rpc::operation::FrameList;

use super::error::SharingError;

/// A life of a cell. The transport vouches for both parts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Peer {
    /// The cell.
    pub cell: CellId,
    /// Its life.
    pub incarnation: Incarnation,
}

impl Peer {
    /// Whether this is the life `other` of the same cell, or one before it.
    pub(super) fn is_at_most(self, other: Self) -> bool {
        self.cell == other.cell && self.incarnation <= other.incarnation
    }
}

/// The number of a page that a cell offers; the offering cell alone can say whether there is one.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageIndex(pub u32);

/// How often the content of a page was lost: raised at each discard, so that a holder of the old
/// content finds out.
///
/// The life of the home is part of it. A rebooted home therefore issues none that it issued before.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(u64);

impl Generation {
    /// The first generation in a life of the home.
    pub const fn first(life: Incarnation) -> Self {
        Self((life.0 as u64) << 32)
    }

    /// The generation after a discard.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// A generation as it came in a message. Any number is one; it only ever gets compared.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The number, for messages.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// Checks that `frames`, named by the cell whose region is `region`, can be that cell's to share.
///
/// # Errors
/// `BadCount` for no frames, `OutsideRegion` for frames elsewhere or in the public area, which is
/// never shared.
pub const fn frames_of(region: FrameRange, frames: FrameRange) -> Result<(), SharingError> {
    if frames.is_empty() {
        return Err(SharingError::BadCount);
    }
    let shareable = FrameRange {
        start: Frame(region.start.0 + PUBLIC_SIZE / PAGE_SIZE),
        end: region.end,
    };
    if shareable.contains_range(frames) {
        Ok(())
    } else {
        Err(SharingError::OutsideRegion)
    }
}

/// The run of frames that `list`, from the cell whose region is `region`, names. Every memory home
/// lends runs.
///
/// # Errors
/// `OutsideRegion` as for [`frames_of`], and for frames that do not follow each other; `BadCount`
/// for none.
pub fn run_of(list: &FrameList, region: FrameRange) -> Result<FrameRange, SharingError> {
    let mut frames = list.as_slice().iter().map(|claimed| claimed.within(region));
    let first = frames
        .next()
        .ok_or(SharingError::BadCount)?
        .ok_or(SharingError::OutsideRegion)?;
    let mut run = FrameRange::single(first);
    for frame in frames {
        if frame != Some(run.end) {
            return Err(SharingError::OutsideRegion);
        }
        run.end = Frame(run.end.0 + 1);
    }
    frames_of(region, run)?;
    Ok(run)
}

/// Whether two ranges have a frame in common.
pub(super) const fn overlap(one: FrameRange, other: FrameRange) -> bool {
    one.start.0 < other.end.0 && other.start.0 < one.end.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_can_share_only_what_is_its_own_and_not_public() {
        let region = FrameRange {
            start: Frame(0x1000),
            end: Frame(0x2000),
        };
        let range = |start, end| FrameRange {
            start: Frame(start),
            end: Frame(end),
        };
        assert_eq!(frames_of(region, range(0x1200, 0x1201)), Ok(()));
        assert_eq!(frames_of(region, range(0x1fff, 0x2000)), Ok(()));
        assert_eq!(
            frames_of(region, range(0x11ff, 0x1200)),
            Err(SharingError::OutsideRegion)
        );
        assert_eq!(
            frames_of(region, range(0x1fff, 0x2001)),
            Err(SharingError::OutsideRegion)
        );
        assert_eq!(
            frames_of(region, range(0x200, 0x201)),
            Err(SharingError::OutsideRegion)
        );
        assert_eq!(
            frames_of(region, range(0x1300, 0x1300)),
            Err(SharingError::BadCount)
        );
    }

    #[test]
    fn a_rebooted_home_issues_no_generation_twice() {
        let mut old = Generation::first(Incarnation(1));
        for _ in 0..1000 {
            old = old.next();
            assert!(old < Generation::first(Incarnation(2)));
        }
    }
}
