//! Entries in the workload record, and copies of it.
//!
//! The record lies in the public area; all workers of a cell raise its counters, and the runner
//! reads it while they do. A copy is therefore not a snapshot of one moment: `attempted` is read
//! last, so that what it lacks is never taken for an operation that vanished.

use core::sync::atomic::{AtomicU64, Ordering};

use cell::workload::{Operation, OperationAccount, WorkloadRecord};
use cell::{CELLS_MAX, CellId, Incarnation, Instant};

/// Begins the account of a new life.
pub fn open(record: &WorkloadRecord, life: Incarnation, workers: usize, now: Instant) {
    for account in &record.operations {
        for counter in counters(account) {
            counter.store(0, Ordering::Relaxed);
        }
    }
    for counter in record.lost_with.iter().chain(&record.longest_pause_of) {
        counter.store(0, Ordering::Relaxed);
    }
    for progress in record
        .last_progress_of
        .iter()
        .chain([&record.last_progress])
    {
        progress.store(now.0, Ordering::Relaxed);
    }
    record.longest_pause.store(0, Ordering::Relaxed);
    record.workers.store(workers as u64, Ordering::Relaxed);
    record
        .incarnation
        .store(u64::from(life.0), Ordering::Release);
}

/// An operation begins.
pub(crate) fn attempted(record: &WorkloadRecord, operation: Operation) {
    raise(&of(record, operation).attempted, 1);
}

/// An operation ended with every byte as expected.
pub(crate) fn verified(record: &WorkloadRecord, operation: Operation, now: Instant) {
    raise(&of(record, operation).verified, 1);
    progress(&record.last_progress, &record.longest_pause, now);
    let index = operation as usize;
    progress(
        &record.last_progress_of[index],
        &record.longest_pause_of[index],
        now,
    );
}

/// An operation ended because `with` is dead.
pub(crate) fn lost(record: &WorkloadRecord, operation: Operation, with: CellId) {
    raise(&of(record, operation).lost, 1);
    raise(&record.lost_with[with.index()], 1);
}

/// An operation ended with an error of a live cell.
pub(crate) fn refused(record: &WorkloadRecord, operation: Operation) {
    raise(&of(record, operation).refused, 1);
}

/// An operation met `bytes` bytes that no death explains.
pub(crate) fn wrong(record: &WorkloadRecord, operation: Operation, bytes: u64) {
    raise(&of(record, operation).wrong, bytes);
}

/// An operation met `bytes` bytes that a cell which then died could write; the operation itself
/// counts as lost.
pub(crate) fn suspect(record: &WorkloadRecord, operation: Operation, bytes: u64) {
    raise(&of(record, operation).suspect, bytes);
}

const fn of(record: &WorkloadRecord, operation: Operation) -> &OperationAccount {
    &record.operations[operation as usize]
}

const fn counters(account: &OperationAccount) -> [&AtomicU64; 6] {
    [
        &account.attempted,
        &account.verified,
        &account.lost,
        &account.refused,
        &account.wrong,
        &account.suspect,
    ]
}

fn raise(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Release);
}

fn progress(last: &AtomicU64, longest: &AtomicU64, now: Instant) {
    let before = last.fetch_max(now.0, Ordering::Relaxed);
    longest.fetch_max(now.0.saturating_sub(before), Ordering::Relaxed);
}

/// A copy of the account of one kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OperationCounts {
    /// See [`OperationAccount`].
    pub attempted: u64,
    /// See [`OperationAccount`].
    pub verified: u64,
    /// See [`OperationAccount`].
    pub lost: u64,
    /// See [`OperationAccount`].
    pub refused: u64,
    /// See [`OperationAccount`].
    pub wrong: u64,
    /// See [`OperationAccount`].
    pub suspect: u64,
}

/// A copy of the account of a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    /// The life that it is of.
    pub life: Incarnation,
    /// Worker threads.
    pub workers: u64,
    /// By [`Operation`].
    pub operations: [OperationCounts; 4],
    /// Work lost, by the cell that it was lost with.
    pub lost_with: [u64; CELLS_MAX],
    /// In nanoseconds.
    pub longest_pause: u64,
    /// In nanoseconds, by [`Operation`].
    pub longest_pause_of: [u64; 4],
    /// In nanoseconds.
    pub last_progress: u64,
}

impl Account {
    /// Copies a record.
    pub fn read(record: &WorkloadRecord) -> Self {
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let counts = |account: &OperationAccount| OperationCounts {
            verified: load(&account.verified),
            lost: load(&account.lost),
            refused: load(&account.refused),
            wrong: load(&account.wrong),
            suspect: load(&account.suspect),
            attempted: load(&account.attempted),
        };
        Self {
            life: Incarnation(load(&record.incarnation) as u32),
            workers: load(&record.workers),
            operations: record.operations.each_ref().map(counts),
            lost_with: record.lost_with.each_ref().map(load),
            longest_pause: load(&record.longest_pause),
            longest_pause_of: record.longest_pause_of.each_ref().map(load),
            last_progress: load(&record.last_progress),
        }
    }

    /// Copies a record that the caller has as words, as in the file that backs the guest's memory;
    /// `None` if they are too few.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let record = WorkloadRecord::new();
        if words.len() < WorkloadRecord::WORDS {
            return None;
        }
        let mut words = words.iter();
        let mut fill = |counter: &AtomicU64| {
            counter.store(words.next().copied().unwrap_or(0), Ordering::Relaxed);
        };
        fill(&record.incarnation);
        fill(&record.workers);
        record
            .operations
            .iter()
            .flat_map(counters)
            .for_each(&mut fill);
        record.lost_with.iter().for_each(&mut fill);
        fill(&record.longest_pause);
        fill(&record.last_progress);
        record.longest_pause_of.iter().for_each(&mut fill);
        record.last_progress_of.iter().for_each(&mut fill);
        Some(Self::read(&record))
    }

    /// The counts of one kind of operation.
    pub const fn of(&self, operation: Operation) -> &OperationCounts {
        &self.operations[operation as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn words_are_read_in_the_order_of_the_record() {
        let words: Vec<u64> = (1..=WorkloadRecord::WORDS as u64).collect();
        let account = Account::from_words(&words).expect("enough words");
        let at = |offset: usize| (offset / 8 + 1) as u64;
        assert_eq!(
            u64::from(account.life.0),
            at(offset_of!(WorkloadRecord, incarnation))
        );
        assert_eq!(account.workers, at(offset_of!(WorkloadRecord, workers)));
        let borrow = offset_of!(WorkloadRecord, operations) + 3 * size_of::<OperationAccount>();
        let suspect = borrow + offset_of!(OperationAccount, suspect);
        assert_eq!(account.of(Operation::Borrow).suspect, at(suspect));
        assert_eq!(
            account.lost_with[5],
            at(offset_of!(WorkloadRecord, lost_with) + 40)
        );
        assert_eq!(
            account.last_progress,
            at(offset_of!(WorkloadRecord, last_progress))
        );
        assert_eq!(
            account.longest_pause_of[3],
            at(offset_of!(WorkloadRecord, longest_pause_of) + 24)
        );
        assert!(Account::from_words(&words[1..]).is_none());
    }

    #[test]
    fn the_longest_pause_is_kept() {
        let record = WorkloadRecord::new();
        open(&record, Incarnation(1), 2, Instant(100));
        verified(&record, Operation::Call, Instant(150));
        verified(&record, Operation::Compute, Instant(170));
        verified(&record, Operation::Call, Instant(175));
        let account = Account::read(&record);
        assert_eq!(account.longest_pause, 50);
        assert_eq!(account.longest_pause_of, [70, 50, 0, 0]);
        assert_eq!(account.last_progress, 175);
    }
}
