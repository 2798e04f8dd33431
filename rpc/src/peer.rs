//! The rings of another cell, reached by careful reference.
//!
//! Made for each use, from what the monitor tells of the cell; holds no state.

use cell::CellId;
use cell::careful::{CarefulError, CarefulReader, RemoteAddress, RemoteMemory};
use cell::public::{HEADER_OFFSET, PublicHeader, RINGS_OFFSET};

use crate::layout::{
    Lane, Queue, RemoteLane, SLOT_WORDS, SLOTS, consumed_offset, produced_offset, slot_offset,
};

/// The lane of another cell for the own cell.
#[derive(Debug)]
pub struct PeerLane<'m, M: ?Sized> {
    reader: CarefulReader<'m, M>,
    lane: RemoteAddress,
}

impl<'m, M: RemoteMemory + ?Sized> PeerLane<'m, M> {
    /// The lane for `own` in the memory that `reader` reads.
    pub const fn new(reader: CarefulReader<'m, M>, own: CellId) -> Self {
        let lane = reader.public(RINGS_OFFSET + (own.index() * size_of::<Lane>()) as u64);
        Self { reader, lane }
    }
}

impl<M: RemoteMemory + ?Sized> RemoteLane for PeerLane<'_, M> {
    fn produced(&self) -> Result<[u64; 2], CarefulError> {
        let mut words = [0; 2];
        const { assert!(produced_offset(Queue::Replies) == produced_offset(Queue::Requests) + 8) };
        let first = self.lane.plus(produced_offset(Queue::Requests));
        self.reader.copy(first, &mut words).map(|()| words)
    }

    fn consumed(&self, queue: Queue) -> Result<u64, CarefulError> {
        self.reader.word(self.lane.plus(consumed_offset(queue)))
    }

    fn copy_slot(
        &self,
        queue: Queue,
        slot: usize,
        first_word: usize,
        to: &mut [u64],
    ) -> Result<(), CarefulError> {
        let fits = slot < SLOTS as usize && first_word + to.len() <= SLOT_WORDS;
        assert!(fits, "own index of a slot out of range");
        if to.is_empty() {
            return Ok(());
        }
        self.reader.copy(
            self.lane
                .plus(slot_offset(queue, slot) + first_word as u64 * 8),
            to,
        )
    }

    fn is_asleep(&self) -> Result<bool, CarefulError> {
        let offset = core::mem::offset_of!(PublicHeader, asleep) as u64;
        Ok(self
            .reader
            .half_word(self.reader.public(HEADER_OFFSET + offset))?
            != 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use cell::careful::{BusError, CarefulFailure};
    use cell::{Frame, FrameRange, Incarnation, PhysicalAddress};

    /// Memory in which each word holds its own offset from the region.
    struct Offsets;

    const REGION: FrameRange = FrameRange {
        start: Frame(0x1000),
        end: Frame(0x1200),
    };

    impl RemoteMemory for Offsets {
        fn copy(&self, from: PhysicalAddress, to: &mut [u64]) -> Result<(), BusError> {
            for (position, word) in to.iter_mut().enumerate() {
                *word = from.0 + position as u64 * 8 - REGION.start.start().0;
            }
            Ok(())
        }
    }

    fn lane(region: FrameRange) -> PeerLane<'static, Offsets> {
        let cell = CellId::new(2).unwrap();
        let reader = CarefulReader::new(&Offsets, region, cell, Incarnation(1));
        PeerLane::new(reader, CellId::new(3).unwrap())
    }

    #[test]
    fn every_part_lies_where_the_layout_says() {
        let lane = lane(REGION);
        let start = RINGS_OFFSET + 3 * 0x2080;
        assert_eq!(lane.produced(), Ok([start, start + 8]));
        assert_eq!(lane.consumed(Queue::Requests), Ok(start + 0x40));
        let mut words = [0; 2];
        assert_eq!(lane.copy_slot(Queue::Replies, 31, 5, &mut words), Ok(()));
        assert_eq!(words[1], start + 0x1080 + 31 * 128 + 48);
        assert_eq!(lane.copy_slot(Queue::Requests, 0, 16, &mut []), Ok(()));
        assert_eq!(lane.is_asleep(), Ok(true));
    }

    #[test]
    fn a_region_without_rings_is_an_error_not_a_load() {
        let small = FrameRange {
            start: Frame(0x1000),
            end: Frame(0x1001),
        };
        let error = lane(small).produced().unwrap_err();
        assert!(matches!(error.failure, CarefulFailure::OutOfRange(_)));
    }
}
