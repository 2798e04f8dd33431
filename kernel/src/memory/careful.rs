//! Reading other cells' memory: the machine's part of the careful reference.
//!
//! # References
//! `cell::careful` has the five steps; this is steps 1, 3 and 5.

use cell::careful::{BusError, CarefulReader, RemoteMemory};
use cell::{CellId, Incarnation, PhysicalAddress};

use crate::memory::{copy, window};
use crate::own::own;

/// Bytes of a word.
const WORD_BYTES: usize = 8;

/// All memory, through the physical window.
#[derive(Clone, Copy, Debug)]
pub struct WindowMemory;

impl RemoteMemory for WindowMemory {
    fn copy(&self, from: PhysicalAddress, to: &mut [u64]) -> Result<(), BusError> {
        let bytes = to.len() * WORD_BYTES;
        // SAFETY: a slice of words is also one of as many times eight bytes, and any bytes make
        // words.
        let to = unsafe { core::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<u8>(), bytes) };
        // SAFETY: `window::pointer` keeps every address in the window, and the span of a slice
        // cannot leave it before it ends in a page fault on a non-canonical address: no region
        // reaches so far.
        unsafe { copy::load(to, window::pointer(from)) }.map_err(|error| BusError {
            address: PhysicalAddress(error.address),
        })
    }
}

/// A careful reader of `cell` in its life `incarnation`.
pub fn reader(cell: CellId, incarnation: Incarnation) -> CarefulReader<'static, WindowMemory> {
    CarefulReader::new(
        &WindowMemory,
        own().machine.cell(cell).region,
        cell,
        incarnation,
    )
}

/// A careful reader of `cell` in the life that the monitor records now.
pub fn reader_of_current(cell: CellId) -> CarefulReader<'static, WindowMemory> {
    reader(cell, own().machine.cell(cell).incarnation())
}
