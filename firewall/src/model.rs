//! The model of the firewall: the home of a frame, and the set of cells that may write it.
//!
//! One 64-bit word per 4 KiB frame names the cells, other than the home, that may write it (Hive,
//! SOSP'95, 4.2). The words lie in monitor memory and every cell can read them; they change only
//! through [`FirewallTable`], at the request of the frame's home. How a decision reaches the
//! processor is the business of a back end ([`crate::nested::NestedTable`]), which this file knows
//! nothing of.
//!
//! # Invariants
//! 1. A frame outside every cell's region has no home, and nobody is granted it.
//! 2. The home is never in the writer set: its own access needs no grant and cannot be revoked.
//! 3. Only the home changes a frame's entry.
//!
//! # Not guaranteed
//! Loads are not checked, as in FLASH. Two CPUs of one home that grant and revoke the same frame at
//! the same moment leave it in one of the two states; the home orders its own requests.

use cell::{CELLS_MAX, CellId, CellSet, Frame, FrameRange};

use crate::atomic::{AtomicU64, Ordering};

/// The regions of the cells, which name every frame's home.
#[derive(Debug)]
pub struct Homes {
    regions: [FrameRange; CELLS_MAX],
    spans: [GrantedSpan; CELLS_MAX],
}

/// Where a home ever granted something: whoever looks for its grants looks no farther. A cell
/// shares few of its frames, and they lie together.
#[derive(Debug)]
struct GrantedSpan {
    start: AtomicU64,
    end: AtomicU64,
}

impl GrantedSpan {
    fn new() -> Self {
        Self {
            start: AtomicU64::new(u64::MAX),
            end: AtomicU64::new(0),
        }
    }

    fn widen(&self, frames: FrameRange) {
        // Most grants widen nothing, and a load costs less than an atomic change.
        if self.start.load(Ordering::SeqCst) > frames.start.0 {
            self.start.fetch_min(frames.start.0, Ordering::SeqCst);
        }
        if self.end.load(Ordering::SeqCst) < frames.end.0 {
            self.end.fetch_max(frames.end.0, Ordering::SeqCst);
        }
    }
}

impl Homes {
    /// Homes by region, in cell order; an empty range for a cell that does not exist.
    pub fn new(regions: [FrameRange; CELLS_MAX]) -> Self {
        Self {
            regions,
            spans: core::array::from_fn(|_| GrantedSpan::new()),
        }
    }

    /// The home of `frame`.
    pub fn of(&self, frame: Frame) -> Option<CellId> {
        (0..CELLS_MAX)
            .find(|&cell| self.regions[cell].contains(frame))
            .and_then(CellId::new)
    }

    /// The region of `cell`.
    pub const fn region(&self, cell: CellId) -> FrameRange {
        self.regions[cell.index()]
    }
}

/// Why an entry may not be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirewallError {
    /// The caller is not the home of every frame named: the caller's fault.
    NotHome,
    /// The cell named is the home itself.
    OwnFrame,
}

/// The writer sets of all frames.
#[derive(Clone, Copy, Debug)]
pub struct FirewallTable<'a> {
    writers: &'a [AtomicU64],
    homes: &'a Homes,
}

impl<'a> FirewallTable<'a> {
    /// A table over `writers`, one word per frame from frame 0 on.
    pub const fn new(writers: &'a [AtomicU64], homes: &'a Homes) -> Self {
        Self { writers, homes }
    }

    /// The homes.
    pub const fn homes(&self) -> &'a Homes {
        self.homes
    }

    /// The cells, other than the home, that may write `frame`.
    pub fn writers(&self, frame: Frame) -> CellSet {
        self.writers
            .get(frame.index())
            .map_or(CellSet::EMPTY, |set| CellSet(set.load(Ordering::SeqCst)))
    }

    /// Whether `cell` may write `frame`.
    pub fn may_write(&self, cell: CellId, frame: Frame) -> bool {
        self.homes.of(frame) == Some(cell) || self.writers(frame).contains(cell)
    }

    /// Checks that `caller` may change the entries of `frames` for `writer`.
    ///
    /// # Errors
    /// See [`FirewallError`].
    pub fn check(
        &self,
        caller: CellId,
        frames: FrameRange,
        writer: CellId,
    ) -> Result<(), FirewallError> {
        let inside = self.homes.region(caller).contains_range(frames)
            && frames.end.index() <= self.writers.len();
        if !inside {
            return Err(FirewallError::NotHome);
        }
        if caller == writer {
            return Err(FirewallError::OwnFrame);
        }
        Ok(())
    }

    /// The frames of `home` outside of which it never granted any.
    pub fn ever_granted(&self, home: CellId) -> FrameRange {
        let span = &self.homes.spans[home.index()];
        let (start, end) = (
            span.start.load(Ordering::SeqCst),
            span.end.load(Ordering::SeqCst),
        );
        FrameRange {
            start: Frame(start.min(end)),
            end: Frame(end),
        }
    }

    /// Adds `writer` to the set of each frame. The caller has been through [`Self::check`].
    pub fn grant(&self, frames: FrameRange, writer: CellId) {
        // Before the sets: a quarantine that does not see the span yet is seen by the grant.
        if let Some(home) = self.homes.of(frames.start) {
            self.homes.spans[home.index()].widen(frames);
        }
        for frame in frames.iter() {
            self.writers[frame.index()].fetch_or(CellSet::only(writer).0, Ordering::SeqCst);
        }
    }

    /// Removes `writer` from the set of each frame. The caller has been through [`Self::check`].
    pub fn revoke(&self, frames: FrameRange, writer: CellId) {
        for frame in frames.iter() {
            let set = &self.writers[frame.index()];
            // Most sets are empty, and a load costs less than an atomic change.
            if CellSet(set.load(Ordering::SeqCst)).contains(writer) {
                set.fetch_and(!CellSet::only(writer).0, Ordering::SeqCst);
            }
        }
    }

    /// The frames of `home` that `writer` may write.
    pub fn granted(&self, home: CellId, writer: CellId) -> impl Iterator<Item = Frame> {
        self.ever_granted(home)
            .iter()
            .filter(move |&frame| self.writers(frame).contains(writer))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAMES: u64 = 32;

    fn cell(number: usize) -> CellId {
        CellId::new(number).expect("below the limit")
    }

    /// Four cells of eight frames each.
    fn homes() -> Homes {
        let mut regions = [FrameRange::default(); CELLS_MAX];
        for (index, region) in regions.iter_mut().take(4).enumerate() {
            let start = index as u64 * 8;
            *region = FrameRange {
                start: Frame(start),
                end: Frame(start + 8),
            };
        }
        Homes::new(regions)
    }

    fn words() -> Vec<AtomicU64> {
        (0..FRAMES).map(|_| AtomicU64::new(0)).collect()
    }

    fn frames(start: u64, count: u64) -> FrameRange {
        FrameRange::new(Frame(start), count).expect("small")
    }

    #[test]
    fn only_the_home_changes_an_entry() {
        let (words, homes) = (words(), homes());
        let table = FirewallTable::new(&words, &homes);
        assert_eq!(table.check(cell(0), frames(0, 8), cell(1)), Ok(()));
        assert_eq!(
            table.check(cell(1), frames(0, 8), cell(1)),
            Err(FirewallError::NotHome)
        );
        assert_eq!(
            table.check(cell(0), frames(7, 2), cell(1)),
            Err(FirewallError::NotHome)
        );
        assert_eq!(
            table.check(cell(0), frames(0, 1), cell(0)),
            Err(FirewallError::OwnFrame)
        );
        assert_eq!(
            table.check(cell(9), frames(0, 1), cell(0)),
            Err(FirewallError::NotHome)
        );
    }

    #[test]
    fn a_frame_without_home_is_nobodys() {
        let (words, homes) = (words(), homes());
        let table = FirewallTable::new(&words, &homes);
        assert_eq!(homes.of(Frame(FRAMES)), None);
        assert!((0..CELLS_MAX).all(|number| !table.may_write(cell(number), Frame(FRAMES))));
    }

    proptest! {
        /// After any sequence of checked requests, a cell may write a frame exactly if it is the
        /// frame's home or its last accepted request for the frame was a grant.
        #[test]
        fn the_last_accepted_request_counts(
            requests in prop::collection::vec(
                (0usize..5, 0u64..FRAMES, 1u64..4, 0usize..4, any::<bool>()), 0..60
            )
        ) {
            let (words, homes) = (words(), homes());
            let table = FirewallTable::new(&words, &homes);
            let mut expected = std::collections::HashSet::new();
            for (caller, start, count, writer, is_grant) in requests {
                let range = frames(start, count);
                if table.check(cell(caller), range, cell(writer)).is_err() {
                    continue;
                }
                if is_grant {
                    table.grant(range, cell(writer));
                    expected.extend(range.iter().map(|frame| (writer, frame)));
                } else {
                    table.revoke(range, cell(writer));
                    expected.retain(|&(who, frame)| who != writer || !range.contains(frame));
                }
            }
            for frame in frames(0, FRAMES).iter() {
                for writer in 0..4 {
                    let is_home = homes.of(frame) == Some(cell(writer));
                    prop_assert_eq!(
                        table.may_write(cell(writer), frame),
                        is_home || expected.contains(&(writer, frame))
                    );
                }
            }
        }
    }

    #[test]
    fn no_arguments_of_a_hypercall_reach_beyond_the_callers_frames() {
        let valid = [fuzz::bytes(&[0, 8, 1]), fuzz::bytes(&[24, 1, 2])];
        let (words, homes) = (words(), homes());
        let table = FirewallTable::new(&words, &homes);
        fuzz::cases(&[&valid[0], &valid[1]], |bytes| {
            let [first, count, writer] = fuzz::words(bytes)[..] else {
                return;
            };
            let frames = FrameRange::new(Frame(first), count);
            let writer = usize::try_from(writer).ok().and_then(CellId::new);
            let (Some(frames), Some(writer)) = (frames, writer) else {
                return;
            };
            for caller in (0..5).map(cell) {
                if table.check(caller, frames, writer).is_ok() {
                    table.grant(frames, writer);
                    assert!(frames.iter().all(|frame| homes.of(frame) == Some(caller)));
                    table.revoke(frames, writer);
                }
            }
        });
        assert!(words.iter().all(|word| word.load(Ordering::SeqCst) == 0));
    }
}
