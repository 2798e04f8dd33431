//! The public areas of the cells: state, account of the work, epitaph.

use std::mem::offset_of;

use cell::PhysicalAddress;
use cell::public::{
    EPITAPH_BYTES, EPITAPH_OFFSET, Epitaph, HEADER_TAG, PublicHeader, PublicState, WORKLOAD_OFFSET,
    part,
};
use cell::workload::WorkloadRecord;
use userland::account::{Account, OperationCounts};

use super::memory::{GuestMemory, field};
use crate::error::{Error, Result};

/// The most that a count of a cell is taken for. A sick cell's may be anything; with this bound,
/// those of all lives of all cells can be added up.
const COUNT_MAX: u64 = 1 << 48;

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

/// How many threads of a cell waited for a CPU at its newest tick, by its own word.
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn load(memory: &GuestMemory, public: PhysicalAddress) -> Result<u64> {
    memory.read_u64(field(public, offset_of!(PublicHeader, load)))
}

/// The account of the workers of the cell whose public area starts at `public`, no count in it
/// greater than [`COUNT_MAX`].
///
/// # Errors
/// See [`GuestMemory::read`].
pub fn account(memory: &GuestMemory, public: PhysicalAddress) -> Result<Account> {
    let mut bytes = [0; size_of::<WorkloadRecord>()];
    memory.read(part(public, WORKLOAD_OFFSET), &mut bytes)?;
    let word = |bytes: &[u8]| {
        bytes
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes).min(COUNT_MAX))
    };
    let words: Vec<u64> = bytes.chunks_exact(8).map(word).collect();
    let short = || Error::Guest("a workload record that is too short".into());
    Account::from_words(&words).ok_or_else(short)
}

/// One count of an account, over all kinds of operation.
pub fn total(account: &Account, count: impl Fn(&OperationCounts) -> u64) -> u64 {
    account
        .operations
        .iter()
        .map(count)
        .fold(0, u64::saturating_add)
}

/// Operations that ended well.
pub fn verified(account: &Account) -> u64 {
    total(account, |counts| counts.verified)
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
    use cell::workload::OperationAccount;

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
            let counts = field(operations, operation * size_of::<OperationAccount>());
            let at = field(counts, offset_of!(OperationAccount, verified));
            memory.write_u64(at, 10).unwrap();
        }
        assert_eq!(verified(&account(&memory, PUBLIC).unwrap()), 40);
    }

    #[test]
    fn counts_of_memory_that_failed_can_be_added_up() {
        let memory = memory(4 << 20);
        let ones = [0xff; size_of::<WorkloadRecord>()];
        memory.write(part(PUBLIC, WORKLOAD_OFFSET), &ones).unwrap();
        let account = account(&memory, PUBLIC).unwrap();
        assert_eq!(verified(&account), 4 * COUNT_MAX);
        assert_eq!(account.lost_with, [COUNT_MAX; cell::CELLS_MAX]);
    }

    #[test]
    fn a_spoilt_public_area_is_read_without_harm() {
        let memory = memory(4 << 20);
        let at = part(PUBLIC, EPITAPH_OFFSET);
        memory.write_u32(at, 1).unwrap();
        memory
            .write(field(at, offset_of!(Epitaph, text)), b"out of frames")
            .unwrap();
        memory
            .write_u32(field(at, offset_of!(Epitaph, length)), 13)
            .unwrap();
        let mut valid = vec![0; offset_of!(Epitaph, text) + 16];
        memory.read(at, &mut valid).unwrap();
        fuzz::cases(&[&valid], |bytes| {
            memory.write(at, bytes).unwrap();
            memory.write(part(PUBLIC, WORKLOAD_OFFSET), bytes).unwrap();
            memory.write(PUBLIC, bytes).unwrap();
            if let Some((_, text)) = epitaph(&memory, PUBLIC).unwrap() {
                assert!(!text.contains(char::is_control));
            }
            let account = account(&memory, PUBLIC).unwrap();
            let sum = total(&account, |counts| counts.verified);
            assert!(
                account
                    .operations
                    .iter()
                    .all(|counts| counts.verified <= sum)
            );
            Header::read(&memory, PUBLIC).unwrap().serves();
        });
    }
}
