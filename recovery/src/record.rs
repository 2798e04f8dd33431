//! The published record: what a cell says in agreement and at the barriers.
//!
//! Each cell writes one record in its own public area (`cell::public::RECOVERY_OFFSET`) and reads
//! those of the others by careful reference. Nothing is sent: "a message of round `r`" is a record
//! that shows round `r` or a later one, so whoever reads late loses nothing, and no buffer can fill
//! up. A doorbell after each change only saves time.
//!
//! ```text
//! word  0     version: odd while the record is being written, another even number afterwards
//!       1     tag "HIVERCVR"
//!       2     incarnation (high 32 bits), cell (bits 8-31), phase (bits 0-7)
//!       3     ballot: epoch (high 32 bits), attempt
//!       4     round of flooding
//!       5     recovery: epoch (high 32 bits), stage
//!       6     newest epoch after which nothing is left to recover here
//!       7     progress: raised by threads of the cell
//!       8     cells whose opinions follow
//!       9-15  zero
//!       16-   opinions, three words per cell: alive, suspects, alert
//! ```
//!
//! # Invariants
//! 1. Only the cell itself writes its record, one CPU at a time (the kernel steps the state machine
//!    under a lock).
//! 2. A copy is used only if `version` was the same and even before and after; a cell that dies
//!    while it writes leaves an odd version, and its record is torn for ever.
//! 3. A [`RecordCopy`] holds no value that a record cannot hold; whose record it is, and of which
//!    life, is checked by [`RecordCopy::validate`].
//!
//! # Not guaranteed
//! That a well-formed record is true.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use cell::{CELLS_MAX, CellId, CellSet, Epoch, Incarnation};

use crate::opinion::{OPINION_WORDS, Opinion};
use crate::surroundings::ReadFailure;

/// Says that a page is a recovery record: "HIVERCVR".
pub const RECORD_TAG: u64 = u64::from_be_bytes(*b"HIVERCVR");

/// Words of the page.
pub const RECORD_WORDS: usize = 512;

/// How often a record that is being written is read again within one step.
pub const READ_TRIES_MAX: usize = 3;

const HEAD_WORDS: usize = 9;
const OPINIONS_WORD: usize = 16;

/// A record copy for all the cells that a machine can have.
pub type CellRecordCopy = RecordCopy<CELLS_MAX>;

/// Names one attempt to agree: attempts count within the epoch that they try to seal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ballot {
    /// The epoch that is to be sealed.
    pub epoch: Epoch,
    /// The attempt, from 0.
    pub attempt: u32,
}

/// Where a cell is in agreement.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Phase {
    /// It took part in nothing since the newest epoch.
    #[default]
    Idle = 0,
    /// It finds out who is alive.
    Probe = 1,
    /// It exchanges opinions.
    Flood = 2,
    /// It knows its proposal and waits for the seal.
    Vote = 3,
    /// It ended the attempt without a vote; its opinions stay for those who have not.
    Closed = 4,
}

impl Phase {
    const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Idle),
            1 => Some(Self::Probe),
            2 => Some(Self::Flood),
            3 => Some(Self::Vote),
            4 => Some(Self::Closed),
            _ => None,
        }
    }

    /// Whether an attempt is going on.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Probe | Self::Flood | Self::Vote)
    }

    /// Whether the cell's opinions are final, and count as those of every round.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Vote | Self::Closed)
    }
}

/// How far a cell's recovery is. Each stage implies the ones before.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Stage {
    /// No recovery yet in this life.
    #[default]
    None = 0,
    /// Its work with other cells is held.
    Barrier1 = 1,
    /// Its discard is done and the fence holds.
    Barrier2 = 2,
    /// It passed barrier 2: every survivor was ready.
    Resumed = 3,
}

impl Stage {
    const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            0 => Some(Self::None),
            1 => Some(Self::Barrier1),
            2 => Some(Self::Barrier2),
            3 => Some(Self::Resumed),
            _ => None,
        }
    }
}

/// How much of a record is read. They are read at every tick, and opinions are most of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// All but the opinions: the copy says that none is known.
    Head,
    /// All.
    Whole,
}

/// Why a record is not used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RecordError {
    /// It could not be read. Speaks against the cell.
    Unreadable(ReadFailure),
    /// It was being written at every try. Speaks against nobody; if it stays so, its owner's pulse
    /// stands still.
    Torn,
    /// There is no record (yet). Speaks against nobody.
    Absent,
    /// It is another life's. Speaks against nobody: the new life has not published yet.
    Stale(Incarnation),
    /// It says that it belongs to another cell. Speaks against the cell.
    WrongCell,
    /// It holds values that no record can hold. Speaks against the cell.
    Nonsense,
}

/// A record, copied and decoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RecordCopy<const CELLS: usize> {
    /// Whose.
    pub cell: CellId,
    /// Of which life.
    pub incarnation: Incarnation,
    /// See [`Phase`].
    pub phase: Phase,
    /// The attempt that `phase`, `round` and the opinions are about.
    pub ballot: Ballot,
    /// The round of flooding, from 1.
    pub round: u32,
    /// The epoch whose recovery `stage` is about.
    pub recovery: Epoch,
    /// See [`Stage`].
    pub stage: Stage,
    /// The newest epoch after which nothing is left to recover there.
    pub recovered: Epoch,
    /// Raised by threads of the cell, not by interrupt handlers.
    pub progress: u64,
    /// The cells whose opinions are known.
    pub known: CellSet,
    /// The opinions; only those of `known` mean anything.
    pub opinions: [Opinion; CELLS],
}

impl<const CELLS: usize> RecordCopy<CELLS> {
    /// A copy of nothing, to read into.
    pub const EMPTY: Self = Self {
        cell: CellId::FIRST,
        incarnation: Incarnation(0),
        phase: Phase::Idle,
        ballot: Ballot {
            epoch: Epoch(0),
            attempt: 0,
        },
        round: 0,
        recovery: Epoch(0),
        stage: Stage::None,
        recovered: Epoch(0),
        progress: 0,
        known: CellSet::EMPTY,
        opinions: [Opinion::NONE; CELLS],
    };

    /// Copies `part` of a record into this one. `copy_words` copies words of the page from the
    /// given index on, by careful reference. In place, for most of a copy is room for opinions that
    /// nobody has.
    ///
    /// # Errors
    /// See [`RecordError`]; whose record it is, is not checked here. What this copy holds after an
    /// error means nothing.
    pub fn read(
        &mut self,
        part: Part,
        mut copy_words: impl FnMut(usize, &mut [u64]) -> Result<(), ReadFailure>,
    ) -> Result<(), RecordError> {
        for _ in 0..READ_TRIES_MAX {
            let mut head = [0; HEAD_WORDS];
            copy_words(0, &mut head).map_err(RecordError::Unreadable)?;
            let version = head[0];
            if version == 0 {
                return Err(RecordError::Absent);
            }
            let opinions = match part {
                Part::Head => Some(()),
                Part::Whole => self.read_opinions(CellSet(head[8]), &mut copy_words)?,
            };
            // The copy is complete before the version is looked at again (invariant 2).
            fence(Ordering::Acquire);
            let mut again = [0];
            copy_words(0, &mut again).map_err(RecordError::Unreadable)?;
            if version.is_multiple_of(2) && again[0] == version {
                let decoded = opinions.and_then(|()| self.decode_head(&head));
                if part == Part::Head {
                    self.known = CellSet::EMPTY;
                }
                return decoded.ok_or(RecordError::Nonsense);
            }
        }
        Err(RecordError::Torn)
    }

    /// Checks that the record is that of `cell` in its life `incarnation`.
    ///
    /// # Errors
    /// `WrongCell`, `Stale`.
    pub fn validate(&self, cell: CellId, incarnation: Incarnation) -> Result<(), RecordError> {
        if self.cell != cell {
            return Err(RecordError::WrongCell);
        }
        if self.incarnation != incarnation {
            return Err(RecordError::Stale(self.incarnation));
        }
        Ok(())
    }

    /// Copies the opinions of `known`; `None` inside if one is none that a cell can have. The words
    /// may be torn: that is for the caller to find first.
    fn read_opinions(
        &mut self,
        known: CellSet,
        copy_words: &mut impl FnMut(usize, &mut [u64]) -> Result<(), ReadFailure>,
    ) -> Result<Option<()>, RecordError> {
        let mut decoded = Some(());
        // Cells beyond the machine are refused when the head is decoded; here they only must not be
        // an index.
        for cell in known.intersection(CellSet::first(CELLS)).iter() {
            let mut words = [0; OPINION_WORDS];
            copy_words(OPINIONS_WORD + cell.index() * OPINION_WORDS, &mut words)
                .map_err(RecordError::Unreadable)?;
            match Opinion::from_words(words, CELLS) {
                Some(opinion) => self.opinions[cell.index()] = opinion,
                None => decoded = None,
            }
        }
        Ok(decoded)
    }

    fn decode_head(&mut self, head: &[u64; HEAD_WORDS]) -> Option<()> {
        let &[
            _,
            tag,
            name,
            ballot,
            round,
            recovery,
            recovered,
            progress,
            known,
        ] = head;
        self.known = CellSet(known);
        if tag != RECORD_TAG || !self.known.is_subset_of(CellSet::first(CELLS)) {
            return None;
        }
        self.cell = CellId::new((name >> 8) as usize & 0xff_ffff)?;
        self.incarnation = Incarnation((name >> 32) as u32);
        self.phase = Phase::from_raw(name as u8)?;
        self.ballot = Ballot {
            epoch: Epoch((ballot >> 32) as u32),
            attempt: ballot as u32,
        };
        self.round = u32::try_from(round).ok()?;
        self.recovery = Epoch((recovery >> 32) as u32);
        self.stage = Stage::from_raw(recovery as u32)?;
        self.recovered = Epoch(u32::try_from(recovered).ok()?);
        self.progress = progress;
        Some(())
    }

    fn head(&self) -> [u64; HEAD_WORDS - 1] {
        let name = u64::from(self.incarnation.0) << 32
            | (self.cell.index() as u64) << 8
            | self.phase as u64;
        let ballot = u64::from(self.ballot.epoch.0) << 32 | u64::from(self.ballot.attempt);
        let recovery = u64::from(self.recovery.0) << 32 | self.stage as u64;
        let recovered = u64::from(self.recovered.0);
        let round = u64::from(self.round);
        [
            RECORD_TAG,
            name,
            ballot,
            round,
            recovery,
            recovered,
            self.progress,
            self.known.0,
        ]
    }
}

/// The record of one cell, in its public area.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct RecoveryRecord {
    words: [AtomicU64; RECORD_WORDS],
}

impl RecoveryRecord {
    /// A record that was never written.
    pub const fn new() -> Self {
        Self {
            words: [const { AtomicU64::new(0) }; RECORD_WORDS],
        }
    }

    /// Writes the record (invariant 1).
    pub fn store<const CELLS: usize>(&self, copy: &RecordCopy<CELLS>) {
        // A predecessor's torn record in the same frame must not make this one look torn: round up
        // to odd.
        let writing = self.words[0].load(Ordering::Relaxed) | 1;
        self.words[0].store(writing, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in self.words[1..].iter().zip(copy.head()) {
            word.store(value, Ordering::Relaxed);
        }
        for cell in copy.known.iter() {
            let first = OPINIONS_WORD + cell.index() * OPINION_WORDS;
            let values = copy.opinions[cell.index()].to_words();
            for (word, value) in self.words[first..].iter().zip(values) {
                word.store(value, Ordering::Relaxed);
            }
        }
        self.words[0].store(writing.wrapping_add(1), Ordering::Release);
    }

    /// Copies words as another cell would; for tests, and for a kernel that reads its own record.
    pub fn copy_words(&self, first: usize, to: &mut [u64]) {
        for (value, word) in to.iter_mut().zip(&self.words[first..]) {
            *value = word.load(Ordering::Acquire);
        }
    }
}

impl Default for RecoveryRecord {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = {
    assert!(size_of::<RecoveryRecord>() == 4096);
    assert!(OPINIONS_WORD + CELLS_MAX * OPINION_WORDS <= RECORD_WORDS);
    assert!(HEAD_WORDS <= OPINIONS_WORD);
};

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a broken assumption")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(number: u32) -> RecordCopy<4> {
        let mut opinions = [Opinion::NONE; 4];
        let known = CellSet(0b0101);
        for cell in known.iter() {
            opinions[cell.index()].alive = CellSet(u64::from(number) & 0xf);
        }
        RecordCopy {
            cell: CellId::new(2).unwrap(),
            incarnation: Incarnation(7),
            phase: Phase::Flood,
            ballot: Ballot {
                epoch: Epoch(number),
                attempt: number,
            },
            round: number,
            recovery: Epoch(number),
            stage: Stage::Barrier1,
            recovered: Epoch(number),
            progress: u64::from(number),
            known,
            opinions,
        }
    }

    fn read_part(part: Part, record: &RecoveryRecord) -> Result<RecordCopy<4>, RecordError> {
        let mut copy = RecordCopy::EMPTY;
        copy.read(part, |first, to| {
            record.copy_words(first, to);
            Ok(())
        })?;
        Ok(copy)
    }

    fn read(record: &RecoveryRecord) -> Result<RecordCopy<4>, RecordError> {
        read_part(Part::Whole, record)
    }

    #[test]
    fn what_is_stored_is_read() {
        let record = RecoveryRecord::new();
        assert_eq!(read(&record), Err(RecordError::Absent));
        record.store(&sample(9));
        let copy = read(&record).unwrap();
        assert_eq!(copy, sample(9));
        let (two, three) = (CellId::new(2).unwrap(), CellId::new(3).unwrap());
        assert_eq!(copy.validate(two, Incarnation(7)), Ok(()));
        assert_eq!(
            copy.validate(three, Incarnation(7)),
            Err(RecordError::WrongCell)
        );
        let stale = Err(RecordError::Stale(Incarnation(7)));
        assert_eq!(copy.validate(two, Incarnation(8)), stale);
    }

    #[test]
    fn a_head_has_no_opinions() {
        let record = RecoveryRecord::new();
        record.store(&sample(9));
        let expected = RecordCopy {
            known: CellSet::EMPTY,
            opinions: RecordCopy::EMPTY.opinions,
            ..sample(9)
        };
        assert_eq!(read_part(Part::Head, &record), Ok(expected));
    }

    #[test]
    fn a_record_whose_writer_died_is_torn() {
        let record = RecoveryRecord::new();
        record.store(&sample(1));
        record.words[0].fetch_add(1, Ordering::Relaxed);
        assert_eq!(read(&record), Err(RecordError::Torn));
        record.store(&sample(2));
        assert_eq!(read(&record), Ok(sample(2)), "the next life writes over it");
    }

    #[test]
    fn an_unreadable_record_says_why() {
        let mut copy = RecordCopy::<4>::EMPTY;
        let read = copy.read(Part::Head, |_, _| Err(ReadFailure::BusError));
        assert_eq!(read, Err(RecordError::Unreadable(ReadFailure::BusError)));
    }

    #[test]
    fn copies_are_never_mixed() {
        let record = RecoveryRecord::new();
        record.store(&sample(1));
        std::thread::scope(|scope| {
            scope.spawn(|| (2..20_000).for_each(|number| record.store(&sample(number))));
            for _ in 0..20_000 {
                match read(&record) {
                    Ok(copy) => assert_eq!(copy, sample(copy.round)),
                    Err(error) => assert_eq!(error, RecordError::Torn),
                }
            }
        });
    }

    proptest! {
        #[test]
        fn no_page_makes_the_reader_panic(words in prop::collection::vec(any::<u64>(), 32)) {
            let mut copy = RecordCopy::<4>::EMPTY;
            let _ = copy.read(Part::Whole, |first, to| {
                for (offset, word) in to.iter_mut().enumerate() {
                    *word = words[(first + offset) % words.len()];
                }
                Ok(())
            });
        }

        #[test]
        fn flipped_bits_are_refused_or_decode(word in 1usize..28, bit in 0u32..64) {
            let record = RecoveryRecord::new();
            record.store(&sample(3));
            record.words[word].fetch_xor(1 << bit, Ordering::Relaxed);
            if let Ok(copy) = read(&record) {
                let again = RecoveryRecord::new();
                again.store(&copy);
                prop_assert_eq!(read(&again), Ok(copy));
            }
        }
    }

    #[test]
    fn spoilt_records_are_refused_or_what_a_cell_could_have_stored() {
        let record = RecoveryRecord::new();
        record.store(&sample(3));
        let mut valid = [0; 64];
        record.copy_words(0, &mut valid);
        fuzz::cases(&[&fuzz::bytes(&valid)], |bytes| {
            let words = fuzz::words(bytes);
            let mut copy = RecordCopy::<4>::EMPTY;
            let outcome = copy.read(Part::Whole, |first, to| {
                for (offset, word) in to.iter_mut().enumerate() {
                    *word = words.get(first + offset).copied().unwrap_or(0);
                }
                Ok(())
            });
            if outcome.is_ok() {
                let again = RecoveryRecord::new();
                again.store(&copy);
                assert_eq!(read(&again), Ok(copy));
            }
        });
    }
}
