//! Cells for tests: lanes in one address space, read as if they were remote.

#[cfg(not(loom))]
use cell::Instant;
use cell::careful::{CarefulError, CarefulFailure};
use cell::{CellId, Incarnation, PhysicalAddress};

use crate::CallNumber;
use crate::atomic::{AtomicU32, Ordering};
#[cfg(not(loom))]
use crate::doorbell::Doorbell;
use crate::endpoint::{Endpoint, Link};
use crate::layout::{Lane, Queue, RemoteLane};
use crate::lock::{Lock, Locking};
use crate::message::{Draft, Life, Payload};
use crate::operation::Operation;
#[cfg(not(loom))]
use crate::ring::SendError;

#[cfg(loom)]
use loom::sync::Mutex;
#[cfg(not(loom))]
use std::sync::Mutex;

impl<T> Lock<T> for Mutex<T> {
    fn new(value: T) -> Self {
        Mutex::new(value)
    }

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.lock().expect("no test panics while it holds a lock"))
    }
}

/// Locks of the host.
#[derive(Debug)]
pub(crate) struct HostLocking;

impl Locking for HostLocking {
    type Lock<T> = Mutex<T>;
}

/// What one cell has in memory.
#[derive(Debug)]
pub(crate) struct CellMemory {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) links: Vec<Link<HostLocking>>,
    pub(crate) asleep: AtomicU32,
    /// Reads of this cell's memory end in a bus error.
    pub(crate) cut_off: bool,
}

impl CellMemory {
    pub(crate) fn new(cells: usize) -> Self {
        Self {
            lanes: (0..cells).map(|_| Lane::new()).collect(),
            links: (0..cells).map(|_| Link::new()).collect(),
            asleep: AtomicU32::new(0),
            cut_off: false,
        }
    }

    /// The endpoint of the life `incarnation` of cell `number`.
    pub(crate) fn endpoint(&self, number: usize, incarnation: u32) -> Endpoint<'_, HostLocking> {
        Endpoint::new(
            cell(number),
            Incarnation(incarnation),
            &self.lanes,
            &self.links,
        )
    }

    /// This cell's lane for cell `reader`, as that cell reads it.
    pub(crate) fn lane_for(&self, reader: usize) -> LocalLane<'_> {
        LocalLane {
            memory: self,
            reader,
        }
    }
}

/// A lane in the same address space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalLane<'a> {
    memory: &'a CellMemory,
    reader: usize,
}

impl LocalLane<'_> {
    /// # Errors
    /// A bus error, if the memory is cut off.
    fn lane(&self) -> Result<&Lane, CarefulError> {
        if self.memory.cut_off {
            let failure = CarefulFailure::BusError(PhysicalAddress(0x1000));
            return Err(CarefulError {
                cell: cell(1),
                incarnation: Incarnation(1),
                failure,
            });
        }
        Ok(&self.memory.lanes[self.reader])
    }
}

impl RemoteLane for LocalLane<'_> {
    fn produced(&self) -> Result<[u64; 2], CarefulError> {
        let lane = self.lane()?;
        Ok([Queue::Requests, Queue::Replies].map(|queue| lane.load_produced(queue)))
    }

    fn consumed(&self, queue: Queue) -> Result<u64, CarefulError> {
        Ok(self.lane()?.load_consumed(queue))
    }

    fn copy_slot(
        &self,
        queue: Queue,
        slot: usize,
        first_word: usize,
        to: &mut [u64],
    ) -> Result<(), CarefulError> {
        self.lane()?.copy_slot(queue, slot, first_word, to);
        Ok(())
    }

    fn is_asleep(&self) -> Result<bool, CarefulError> {
        self.lane()?;
        Ok(self.memory.asleep.load(Ordering::Acquire) != 0)
    }
}

pub(crate) fn cell(number: usize) -> CellId {
    CellId::new(number).expect("a small number")
}

pub(crate) fn life(number: usize, incarnation: u32) -> Life {
    Life {
        cell: cell(number),
        incarnation: Incarnation(incarnation),
    }
}

/// A request without arguments.
pub(crate) fn null_request(call: u64) -> Draft {
    Draft {
        queue: Queue::Requests,
        call: CallNumber(call),
        operation: Operation::Null,
        status: 0,
        payload: Payload::EMPTY,
    }
}

/// Sends a null request to cell `to`.
///
/// # Errors
/// See [`SendError`].
#[cfg(not(loom))]
pub(crate) fn send_null(
    endpoint: &Endpoint<'_, HostLocking>,
    to: usize,
    call: u64,
    remote: &impl RemoteLane,
) -> Result<Doorbell, SendError> {
    let request = (Operation::Null, Payload::EMPTY);
    endpoint.send_request(cell(to), CallNumber(call), request, Instant(0), remote)
}
