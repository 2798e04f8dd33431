//! The careful reference: reading another cell's memory without being harmed.
//!
//! A direct read costs far less than a call, but the memory may be gone, stale, or written by a
//! sick kernel. The five steps (Hive, SOSP'95, section 4) and where they are here:
//!
//! 1. *careful on*: [`RemoteMemory::copy`] notes that a bus error may come, and from whom;
//! 2. every address is checked for alignment and against the frames of the expected cell;
//! 3. values are copied to local memory before anything else looks at them;
//! 4. structures carry a type tag, which their allocator wrote and their deallocator removes
//!    ([`Tagged`]);
//! 5. *careful off*: the copy returns, and from then on a bus error is the reader's own fault
//!    again.
//!
//! What was copied is still the word of another cell: [`Tagged::from_words`] decodes it like an
//! incoming message.
//!
//! # Invariants
//! 1. No address that another cell named is read unless it lies in the region of the cell that the
//!    reader expects.
//! 2. Whatever the memory holds, each operation here ends after a number of loads that its caller
//!    can tell beforehand.
//! 3. Every failure names the cell and the life that it is about, and the step that failed.
//!
//! # Not guaranteed
//! That a value is true. A well-formed lie passes all five steps.

use core::fmt;
use core::ops::ControlFlow;

use crate::address::{FrameRange, PhysicalAddress};
use crate::id::{CPUS_MAX, CellId, Incarnation};
use crate::public::{HEADER_OFFSET, HEADER_TAG, PublicState};

/// Words of the largest structure that can be read at once.
pub const STRUCTURE_WORDS_MAX: usize = 32;

/// How often a block that is being written is read again before the reader gives up.
pub const BLOCK_TRIES_MAX: u32 = 16;

const WORD_BYTES: u64 = 8;

/// A load that ended in a bus error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusError {
    /// Where.
    pub address: PhysicalAddress,
}

/// The machine's way of copying memory that may not be there (steps 1, 3 and 5).
pub trait RemoteMemory {
    /// Copies words from `from`, which is a multiple of 8, in ascending order. Each word is loaded
    /// once and whole, and no later load or store of the caller takes effect before it.
    ///
    /// # Errors
    /// [`BusError`] if a word could not be loaded; `to` then holds anything.
    fn copy(&self, from: PhysicalAddress, to: &mut [u64]) -> Result<(), BusError>;

    /// Loads one word, like [`RemoteMemory::copy`].
    ///
    /// # Errors
    /// [`BusError`] if the word could not be loaded.
    fn load(&self, from: PhysicalAddress) -> Result<u64, BusError> {
        let mut word = [0];
        self.copy(from, &mut word)?;
        Ok(word[0])
    }
}

/// An address that another cell named. Only a [`CarefulReader`] turns it into a load.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RemoteAddress(u64);

impl RemoteAddress {
    /// Takes an address as it was named; nothing is known of it.
    pub const fn claimed(raw: u64) -> Self {
        Self(raw)
    }

    /// The address `bytes` further on. Past the end of the address space it stays there, where no
    /// region is.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

impl fmt::Debug for RemoteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "claimed {:#x}", self.0)
    }
}

/// What was wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CarefulFailure {
    /// Step 1: the memory is cut off, or gone.
    BusError(PhysicalAddress),
    /// Step 2: not a multiple of the size of what should lie there.
    Misaligned(RemoteAddress),
    /// Step 2: not in the memory of the expected cell.
    OutOfRange(RemoteAddress),
    /// Step 4: the tag is another one.
    Untagged {
        /// Where the tag should be.
        at: RemoteAddress,
        /// What is there.
        found: u64,
    },
    /// The structure has its tag, and a value that no such structure can hold.
    Nonsense(RemoteAddress),
    /// A list did not end within the hops that it may have.
    Endless(RemoteAddress),
    /// A block never stood still for long enough to be copied.
    Torn(RemoteAddress),
    /// The memory belongs to another life of the cell.
    Stale(Incarnation),
}

/// A careful reference that failed: about whom, and at which step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CarefulError {
    /// The cell whose memory was read: the one that a hint is about.
    pub cell: CellId,
    /// The life of it that the reader expected.
    pub incarnation: Incarnation,
    /// What was wrong.
    pub failure: CarefulFailure,
}

impl CarefulError {
    /// Whether the failure speaks against the cell. A name of an older life only speaks against the
    /// name.
    pub const fn blames_cell(&self) -> bool {
        !matches!(self.failure, CarefulFailure::Stale(_))
    }
}

/// A structure in another cell's memory whose first word is a type tag.
pub trait Tagged: Sized {
    /// The tag.
    const TAG: u64;
    /// Words of the structure, tag included; at most [`STRUCTURE_WORDS_MAX`].
    const WORDS: usize;

    /// Decodes a copy of the structure; `None` if a value is impossible. `words` holds
    /// [`Tagged::WORDS`] words.
    fn from_words(words: &[u64]) -> Option<Self>;
}

/// A structure that names the next one of a list.
pub trait Linked: Tagged {
    /// The next one, as the other cell named it; `None` at the end of the list.
    fn next(&self) -> Option<RemoteAddress>;
}

/// What a cell says of itself in its public header, copied and checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderCopy {
    /// Whether it serves.
    pub state: PublicState,
    /// CPUs that take part.
    pub cpus_up: usize,
    /// Timer ticks per second.
    pub ticks_per_second: u32,
}

/// Reads the memory of one life of one cell.
#[derive(Debug)]
pub struct CarefulReader<'m, M: ?Sized> {
    memory: &'m M,
    region: FrameRange,
    cell: CellId,
    incarnation: Incarnation,
}

impl<M: ?Sized> Clone for CarefulReader<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: ?Sized> Copy for CarefulReader<'_, M> {}

impl<'m, M: RemoteMemory + ?Sized> CarefulReader<'m, M> {
    /// A reader of `cell` in its life `incarnation`; `region` is the cell's memory as the *monitor*
    /// tells it.
    pub const fn new(
        memory: &'m M,
        region: FrameRange,
        cell: CellId,
        incarnation: Incarnation,
    ) -> Self {
        Self {
            memory,
            region,
            cell,
            incarnation,
        }
    }

    /// The cell that is read.
    pub const fn cell(&self) -> CellId {
        self.cell
    }

    /// The life of it that is expected.
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The address `offset` bytes into the cell's public area (see [`crate::public`]).
    pub const fn public(&self, offset: u64) -> RemoteAddress {
        RemoteAddress(self.region.start.start().0).plus(offset)
    }

    /// Copies words.
    ///
    /// # Errors
    /// `Misaligned`, `OutOfRange`, `BusError`.
    pub fn copy(&self, from: RemoteAddress, to: &mut [u64]) -> Result<(), CarefulError> {
        let address = self.check(from, WORD_BYTES, to.len() as u64 * WORD_BYTES)?;
        self.memory
            .copy(address, to)
            .map_err(|error| self.bus_error(error))
    }

    /// Copies one word.
    ///
    /// # Errors
    /// `Misaligned`, `OutOfRange`, `BusError`.
    pub fn word(&self, from: RemoteAddress) -> Result<u64, CarefulError> {
        let address = self.check(from, WORD_BYTES, WORD_BYTES)?;
        self.memory
            .load(address)
            .map_err(|error| self.bus_error(error))
    }

    /// Copies half a word, such as an `AtomicU32`.
    ///
    /// # Errors
    /// `Misaligned`, `OutOfRange`, `BusError`.
    pub fn half_word(&self, from: RemoteAddress) -> Result<u32, CarefulError> {
        self.check(from, WORD_BYTES / 2, WORD_BYTES / 2)?;
        let word = self.word(RemoteAddress(from.0 & !(WORD_BYTES - 1)))?;
        let upper = !from.0.is_multiple_of(WORD_BYTES);
        Ok(if upper {
            (word >> 32) as u32
        } else {
            word as u32
        })
    }

    /// Copies a structure and checks its tag, before and after: one that was freed in the meantime
    /// is refused.
    ///
    /// # Errors
    /// `Misaligned`, `OutOfRange`, `BusError`, `Untagged`, `Nonsense`.
    pub fn structure<T: Tagged>(&self, at: RemoteAddress) -> Result<T, CarefulError> {
        const { assert!(T::WORDS > 0 && T::WORDS <= STRUCTURE_WORDS_MAX) };
        let mut buffer = [0; STRUCTURE_WORDS_MAX];
        let words = &mut buffer[..T::WORDS];
        self.copy(at, words)?;
        for found in [words[0], self.word(at)?] {
            if found != T::TAG {
                return Err(self.error(CarefulFailure::Untagged { at, found }));
            }
        }
        T::from_words(words).ok_or(self.error(CarefulFailure::Nonsense(at)))
    }

    /// Follows a list from `first` and shows each structure to `visit`, until that breaks or the
    /// list ends. A list of more than `hops_max` structures is taken for a cycle.
    ///
    /// # Errors
    /// Those of [`CarefulReader::structure`], and `Endless`.
    pub fn walk<T: Linked, B>(
        &self,
        first: Option<RemoteAddress>,
        hops_max: usize,
        mut visit: impl FnMut(T) -> ControlFlow<B>,
    ) -> Result<Option<B>, CarefulError> {
        let mut rest = first;
        for _ in 0..hops_max {
            let Some(at) = rest else { return Ok(None) };
            let structure: T = self.structure(at)?;
            rest = structure.next();
            if let ControlFlow::Break(found) = visit(structure) {
                return Ok(Some(found));
            }
        }
        rest.map_or(Ok(None), |at| Err(self.error(CarefulFailure::Endless(at))))
    }

    /// Copies a block that its writer guards by a sequence word at `sequence`: odd while the block
    /// changes, another even number after each change. Gives back the sequence number.
    ///
    /// # Errors
    /// `Misaligned`, `OutOfRange`, `BusError`, `Torn`.
    pub fn consistent_block(
        &self,
        sequence: RemoteAddress,
        block: RemoteAddress,
        to: &mut [u64],
    ) -> Result<u64, CarefulError> {
        for _ in 0..BLOCK_TRIES_MAX {
            let before = self.word(sequence)?;
            if before.is_multiple_of(2) {
                self.copy(block, to)?;
                if self.word(sequence)? == before {
                    return Ok(before);
                }
            }
            core::hint::spin_loop();
        }
        Err(self.error(CarefulFailure::Torn(block)))
    }

    /// Copies and checks the public header.
    ///
    /// # Errors
    /// `BusError`, `Untagged`, `Nonsense` (another cell's number, an impossible state or CPU
    /// count), `Stale`.
    pub fn header(&self) -> Result<HeaderCopy, CarefulError> {
        let at = self.public(HEADER_OFFSET);
        let words: HeaderWords = self.structure(at)?;
        if words.cell as usize != self.cell.index() {
            return Err(self.error(CarefulFailure::Nonsense(at)));
        }
        if words.incarnation != self.incarnation {
            return Err(self.error(CarefulFailure::Stale(words.incarnation)));
        }
        Ok(words.copy)
    }

    /// The clock word of the CPU with `index` within the cell; `index` is below [`CPUS_MAX`].
    ///
    /// # Errors
    /// `BusError`.
    pub fn clock_word(&self, index: usize) -> Result<u64, CarefulError> {
        assert!(index < CPUS_MAX, "own index of a clock word out of range");
        let offset = core::mem::offset_of!(crate::public::PublicHeader, clock_words) as u64;
        self.word(self.public(HEADER_OFFSET + offset + index as u64 * WORD_BYTES))
    }

    /// A failure about the cell that is read, for checks that only the caller can make.
    pub const fn error(&self, failure: CarefulFailure) -> CarefulError {
        CarefulError {
            cell: self.cell,
            incarnation: self.incarnation,
            failure,
        }
    }

    /// Step 2.
    ///
    /// # Errors
    /// `Misaligned`, `OutOfRange`.
    fn check(
        &self,
        from: RemoteAddress,
        alignment: u64,
        bytes: u64,
    ) -> Result<PhysicalAddress, CarefulError> {
        let address = PhysicalAddress(from.0);
        if !address.is_aligned(alignment) {
            return Err(self.error(CarefulFailure::Misaligned(from)));
        }
        if !self.region.contains_bytes(address, bytes) {
            return Err(self.error(CarefulFailure::OutOfRange(from)));
        }
        Ok(address)
    }

    fn bus_error(&self, error: BusError) -> CarefulError {
        self.error(CarefulFailure::BusError(error.address))
    }
}

/// The head of a [`crate::public::PublicHeader`], without its clock words.
struct HeaderWords {
    incarnation: Incarnation,
    cell: u32,
    copy: HeaderCopy,
}

impl Tagged for HeaderWords {
    const TAG: u64 = HEADER_TAG;
    const WORDS: usize = 4;

    fn from_words(words: &[u64]) -> Option<Self> {
        let &[_, life, place, pace] = words else {
            return None;
        };
        let cpus_up = (place >> 32) as usize;
        let copy = HeaderCopy {
            state: state_from_raw((life >> 32) as u32)?,
            cpus_up: (cpus_up <= CPUS_MAX).then_some(cpus_up)?,
            ticks_per_second: (pace >> 32) as u32,
        };
        Some(Self {
            incarnation: Incarnation(life as u32),
            cell: place as u32,
            copy,
        })
    }
}

fn state_from_raw(raw: u32) -> Option<PublicState> {
    [
        PublicState::Booting,
        PublicState::Serving,
        PublicState::Panicked,
    ]
    .into_iter()
    .find(|&state| state as u32 == raw)
}

// The words of the header are picked apart above.
const _: () = {
    use crate::public::PublicHeader;
    use core::mem::offset_of;
    assert!(offset_of!(PublicHeader, tag) == 0);
    assert!(offset_of!(PublicHeader, incarnation) == 8 && offset_of!(PublicHeader, state) == 12);
    assert!(offset_of!(PublicHeader, cell) == 16 && offset_of!(PublicHeader, cpus_up) == 20);
    assert!(offset_of!(PublicHeader, ticks_per_second) == 28);
};

#[cfg(test)]
mod tests;
