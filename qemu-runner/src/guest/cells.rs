//! The public areas of the cells: state, account of the work, epitaph.

use std::mem::offset_of;

use cell::PhysicalAddress;
use cell::public::{
    EPITAPH_BYTES, EPITAPH_OFFSET, Epitaph, HEADER_TAG, PublicHeader, PublicState, WORKLOAD_OFFSET,
    part,
};
use cell::workload::{Operation, OperationAccount, WorkloadRecord};
use serde::Serialize;

use super::memory::{GuestMemory, field};
use crate::error::Result;

/// What a cell says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whether the type tag is there.
    pub tagged: bool,
    /// The life that wrote it.
    pub incarnation: u32,
    /// A [`PublicState`], or what a sick cell wrote.
    pub state: u32,
    /// The time of its newest tick, in nanoseconds.
    pub now: u64,
}

impl Header {
    /// Reads the header of the cell whose public area starts at `public`.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn read(memory: &GuestMemory, public: PhysicalAddress) -> Result<Self> {
        Ok(Self {
            tagged: memory.read_u64(field(public, offset_of!(PublicHeader, tag)))? == HEADER_TAG,
            incarnation: memory.read_u32(field(public, offset_of!(PublicHeader, incarnation)))?,
            state: memory.read_u32(field(public, offset_of!(PublicHeader, state)))?,
            now: memory.read_u64(field(public, offset_of!(PublicHeader, now)))?,
        })
    }

    /// Whether the cell answers calls.
    pub const fn serves(&self) -> bool {
        self.tagged && self.state == PublicState::Serving as u32
    }
}

/// The account of one kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Debug)]
pub struct Account {
    /// Begun.
    pub attempted: u64,
    /// Ended with every byte as expected.
    pub verified: u64,
    /// Lost with a dead cell.
    pub lost: u64,
    /// Refused by a live cell.
    pub refused: u64,
    /// Bytes that were wrong with no dead cell to explain it.
    pub wrong: u64,
    /// Bytes that were wrong where a dead cell explains it.
    pub suspect: u64,
}

/// The account of a cell's workers in one life.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Debug)]
pub struct Workload {
    /// The life.
    pub incarnation: u64,
    /// Worker threads.
    pub workers: u64,
    /// By operation, in the order of [`Operation::ALL`].
    pub operations: [Account; 4],
    /// Work lost, by the cell that it was lost with; only cells of the machine.
    pub lost_with: Vec<u64>,
    /// The longest time without progress, in nanoseconds.
    pub longest_pause: u64,
    /// When the last operation finished, in nanoseconds.
    pub last_progress: u64,
}

impl Workload {
    /// Reads the account of the cell whose public area starts at `public`, in a machine of `cells` cells.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn read(memory: &GuestMemory, public: PhysicalAddress, cells: usize) -> Result<Self> {
        let mut bytes = [0; size_of::<WorkloadRecord>()];
        memory.read(part(public, WORKLOAD_OFFSET), &mut bytes)?;
        let word = |offset: usize| {
            let word = bytes[offset..].first_chunk::<8>();
            u64::from_le_bytes(*word.expect("every offset below is inside the record"))
        };
        let account = |operation: Operation| {
            let base = offset_of!(WorkloadRecord, operations)
                + operation as usize * size_of::<OperationAccount>();
            Account {
                attempted: word(base + offset_of!(OperationAccount, attempted)),
                verified: word(base + offset_of!(OperationAccount, verified)),
                lost: word(base + offset_of!(OperationAccount, lost)),
                refused: word(base + offset_of!(OperationAccount, refused)),
                wrong: word(base + offset_of!(OperationAccount, wrong)),
                suspect: word(base + offset_of!(OperationAccount, suspect)),
            }
        };
        let lost_with = offset_of!(WorkloadRecord, lost_with);
        Ok(Self {
            incarnation: word(offset_of!(WorkloadRecord, incarnation)),
            workers: word(offset_of!(WorkloadRecord, workers)),
            operations: Operation::ALL.map(account),
            lost_with: (0..cells).map(|cell| word(lost_with + cell * 8)).collect(),
            longest_pause: word(offset_of!(WorkloadRecord, longest_pause)),
            last_progress: word(offset_of!(WorkloadRecord, last_progress)),
        })
    }

    /// Operations that ended well.
    pub fn verified(&self) -> u64 {
        self.sum(|account| account.verified)
    }

    /// Bytes that were wrong with no dead cell to explain it.
    pub fn wrong(&self) -> u64 {
        self.sum(|account| account.wrong)
    }

    /// Operations lost with a dead cell.
    pub fn lost(&self) -> u64 {
        self.sum(|account| account.lost)
    }

    fn sum(&self, part: impl Fn(&Account) -> u64) -> u64 {
        self.operations
            .iter()
            .map(part)
            .fold(0, u64::saturating_add)
    }
}

/// Sets the longest pause of a cell to 0, as the host may.
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn reset_pause(memory: &GuestMemory, public: PhysicalAddress) -> Result<()> {
    let record = part(public, WORKLOAD_OFFSET);
    memory.write_u64(field(record, offset_of!(WorkloadRecord, longest_pause)), 0)
}

/// Why a cell's kernel stopped itself, if it said so.
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn epitaph(memory: &GuestMemory, public: PhysicalAddress) -> Result<Option<(u32, String)>> {
    let epitaph = part(public, EPITAPH_OFFSET);
    let word = |offset| memory.read_u32(field(epitaph, offset));
    if word(offset_of!(Epitaph, written))? != 1 {
        return Ok(None);
    }
    let length = (word(offset_of!(Epitaph, length))? as usize).min(EPITAPH_BYTES);
    let mut text = vec![0; length];
    memory.read(field(epitaph, offset_of!(Epitaph, text)), &mut text)?;
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let text = String::from_utf8_lossy(&text)
        .chars()
        .map(printable)
        .collect();
    Ok(Some((word(offset_of!(Epitaph, incarnation))?, text)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::memory::tests::memory;

    const PUBLIC: PhysicalAddress = PhysicalAddress(0);

    #[test]
    fn an_epitaph_with_a_mad_length_is_cut() {
        let memory = memory(4 << 20);
        let at = part(PUBLIC, EPITAPH_OFFSET);
        assert_eq!(epitaph(&memory, PUBLIC).unwrap(), None);
        memory.write_u32(at, 1).unwrap();
        memory
            .write_u32(field(at, offset_of!(Epitaph, length)), u32::MAX)
            .unwrap();
        memory
            .write(field(at, offset_of!(Epitaph, text)), b"out\nof")
            .unwrap();
        let (_, text) = epitaph(&memory, PUBLIC).unwrap().unwrap();
        assert_eq!(text.len(), EPITAPH_BYTES);
        assert!(text.starts_with("out of"));
    }

    #[test]
    fn accounts_are_summed_over_operations() {
        let memory = memory(4 << 20);
        let record = part(PUBLIC, WORKLOAD_OFFSET);
        let operations = field(record, offset_of!(WorkloadRecord, operations));
        for operation in 0..4 {
            let account = field(operations, operation * size_of::<OperationAccount>());
            let verified = field(account, offset_of!(OperationAccount, verified));
            memory.write_u64(verified, 10).unwrap();
        }
        let workload = Workload::read(&memory, PUBLIC, 4).unwrap();
        assert_eq!((workload.verified(), workload.wrong()), (40, 0));
        assert_eq!(workload.lost_with.len(), 4);
    }
}
