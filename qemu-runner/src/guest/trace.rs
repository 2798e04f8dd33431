//! Trace rings, followed while they are written.
//!
//! # Invariants
//! 1. One call reads at most one ring's worth of slots, whatever the ring says about itself.
//! 2. A record is attributed to the ring in which it lies, not to the cell that it names: a sick
//!    cell can write any name into its own ring, and no other.

use cell::PhysicalAddress;
use cell::machine::MONITOR_TRACE_RECORDS;
use cell::public::{CellTrace, TRACE_OFFSET, TRACE_RECORDS, part};
use cell::trace::{Event, TraceRecord, TraceRing};

use super::machine::MachineView;
use super::memory::{GuestMemory, field};
use crate::error::Result;

const SLOT_BYTES: usize = 32;
/// Slots read at once.
const CHUNK: u64 = 256;
/// Calls for which an unfinished record is waited for before it is given up.
const PATIENCE: u32 = 50;

/// Who wrote a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// The runner.
    Host,
    /// The monitor.
    Monitor,
    /// A cell, by number.
    Cell(usize),
}

/// A record of a known event, and who wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observed {
    /// When, in nanoseconds of the guest's clock.
    pub at: u64,
    /// Who wrote it.
    pub source: Source,
    /// On which CPU.
    pub cpu: u8,
    /// What happened.
    pub event: Event,
    /// See [`Event`].
    pub arguments: [u64; 2],
}

/// Follows one ring.
#[derive(Debug)]
struct RingReader {
    source: Source,
    written: PhysicalAddress,
    slots: PhysicalAddress,
    records: u64,
    next: u64,
    waited: u32,
    lost: u64,
}

impl RingReader {
    const fn cell(cell: usize, public: PhysicalAddress) -> Self {
        let ring = part(public, TRACE_OFFSET);
        let (written, slots) = (CellTrace::WRITTEN_OFFSET, CellTrace::SLOTS_OFFSET);
        Self::new(
            Source::Cell(cell),
            field(ring, written),
            field(ring, slots),
            TRACE_RECORDS,
        )
    }

    const fn monitor(ring: PhysicalAddress) -> Self {
        type Ring = TraceRing<MONITOR_TRACE_RECORDS>;
        let (written, slots) = (
            field(ring, Ring::WRITTEN_OFFSET),
            field(ring, Ring::SLOTS_OFFSET),
        );
        Self::new(Source::Monitor, written, slots, MONITOR_TRACE_RECORDS)
    }

    const fn new(
        source: Source,
        written: PhysicalAddress,
        slots: PhysicalAddress,
        records: usize,
    ) -> Self {
        Self {
            source,
            written,
            slots,
            records: records as u64,
            next: 0,
            waited: 0,
            lost: 0,
        }
    }

    fn poll(&mut self, memory: &GuestMemory, out: &mut Vec<Observed>) -> Result<()> {
        let written = memory.read_u64(self.written)?;
        if written < self.next {
            // The count fell: the ring was cleared, or spoilt.
            self.next = written.saturating_sub(self.records);
        }
        if written - self.next > self.records {
            // Counts of a sick cell add up to anything.
            let missed = written - self.next - self.records;
            self.lost = self.lost.saturating_add(missed);
            self.next = written - self.records;
        }
        while self.next < written {
            let slot = self.next % self.records;
            let count = CHUNK.min(written - self.next).min(self.records - slot);
            let mut bytes = [0; CHUNK as usize * SLOT_BYTES];
            let bytes = &mut bytes[..count as usize * SLOT_BYTES];
            memory.read(field(self.slots, slot as usize * SLOT_BYTES), bytes)?;
            for slot in bytes.chunks_exact(SLOT_BYTES) {
                if !self.take(slot, out) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes one slot; `false` if its record is not finished yet and worth waiting for.
    fn take(&mut self, slot: &[u8], out: &mut Vec<Observed>) -> bool {
        let record = TraceRecord::decode(words(slot), self.next);
        if record.is_none() && self.waited < PATIENCE {
            self.waited += 1;
            return false;
        }
        self.waited = 0;
        self.next += 1;
        let known = record.and_then(|record| Some((record, Event::from_raw(record.event)?)));
        match known {
            Some((record, event)) => out.push(Observed {
                at: record.at.0,
                source: self.source,
                cpu: record.cpu,
                event,
                arguments: record.arguments,
            }),
            None => self.lost = self.lost.saturating_add(1),
        }
        true
    }
}

fn words(slot: &[u8]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(slot.chunks_exact(8)) {
        *word = bytes
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    }
    words
}

/// Follows the rings of all cells and of the monitor.
#[derive(Debug)]
pub struct TraceReader {
    rings: Vec<RingReader>,
}

impl TraceReader {
    /// Starts at the oldest records there are.
    pub fn new(machine: &MachineView) -> Self {
        let cells = (0..machine.cells()).map(|cell| RingReader::cell(cell, machine.public(cell)));
        let monitor = RingReader::monitor(machine.monitor_trace());
        Self {
            rings: cells.chain([monitor]).collect(),
        }
    }

    /// The records written since the last call, by time.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn poll(&mut self, memory: &GuestMemory) -> Result<Vec<Observed>> {
        let mut records = Vec::new();
        for ring in &mut self.rings {
            ring.poll(memory, &mut records)?;
        }
        records.sort_by_key(|record| record.at);
        Ok(records)
    }

    /// Records that were overwritten, unfinished or unknown.
    pub fn lost(&self) -> u64 {
        let lost = self.rings.iter().map(|ring| ring.lost);
        lost.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::memory::tests::memory;

    const PUBLIC: PhysicalAddress = PhysicalAddress(0);

    fn put(memory: &GuestMemory, number: u64, event: u16) {
        let ring = part(PUBLIC, TRACE_OFFSET);
        let slot = (number % TRACE_RECORDS as u64) as usize * SLOT_BYTES;
        let slot = field(ring, CellTrace::SLOTS_OFFSET + slot);
        memory.write_u64(slot, number * 100).unwrap();
        // The cell that it names is not the one whose ring it lies in.
        let head = u64::from(event) | 7 << 16 | 9 << 24 | (number + 1) << 32;
        memory.write_u64(field(slot, 8), head).unwrap();
        memory
            .write_u64(field(ring, CellTrace::WRITTEN_OFFSET), number + 1)
            .unwrap();
    }

    fn poll(reader: &mut RingReader, memory: &GuestMemory) -> Vec<Observed> {
        let mut records = Vec::new();
        reader.poll(memory, &mut records).unwrap();
        records
    }

    #[test]
    fn records_are_read_once_and_attributed_to_their_ring() {
        let memory = memory(4 << 20);
        let mut reader = RingReader::cell(2, PUBLIC);
        put(&memory, 0, Event::Hint as u16);
        let records = poll(&mut reader, &memory);
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].source, records[0].cpu), (Source::Cell(2), 7));
        assert!(poll(&mut reader, &memory).is_empty());
    }

    #[test]
    fn an_unfinished_record_is_waited_for_and_then_skipped() {
        let memory = memory(4 << 20);
        let mut reader = RingReader::cell(0, PUBLIC);
        put(&memory, 1, Event::Hint as u16);
        for _ in 0..PATIENCE {
            assert!(
                poll(&mut reader, &memory).is_empty(),
                "record 0 is not there yet"
            );
        }
        assert_eq!(poll(&mut reader, &memory).len(), 1);
        assert_eq!(reader.lost, 1);
    }

    #[test]
    fn a_mad_count_costs_one_turn_of_the_ring() {
        let memory = memory(4 << 20);
        let mut reader = RingReader::cell(0, PUBLIC);
        let ring = part(PUBLIC, TRACE_OFFSET);
        memory
            .write_u64(field(ring, CellTrace::WRITTEN_OFFSET), u64::MAX)
            .unwrap();
        reader.waited = PATIENCE;
        assert!(poll(&mut reader, &memory).is_empty());
        assert_eq!(reader.next, u64::MAX - TRACE_RECORDS as u64 + 1);
        memory
            .write_u64(field(ring, CellTrace::WRITTEN_OFFSET), 0)
            .unwrap();
        put(&memory, 0, Event::Hint as u16);
        assert_eq!(poll(&mut reader, &memory).len(), 1);
    }

    #[test]
    fn counts_that_jump_to_and_fro_are_survived() {
        let memory = memory(4 << 20);
        let mut reader = RingReader::cell(0, PUBLIC);
        let ring = part(PUBLIC, TRACE_OFFSET);
        for written in [u64::MAX, 0, u64::MAX, 0] {
            memory
                .write_u64(field(ring, CellTrace::WRITTEN_OFFSET), written)
                .unwrap();
            assert!(poll(&mut reader, &memory).is_empty());
        }
        assert_eq!(reader.lost, u64::MAX);
    }

    #[test]
    fn unknown_events_are_counted_not_shown() {
        let memory = memory(4 << 20);
        let mut reader = RingReader::cell(0, PUBLIC);
        put(&memory, 0, 999);
        assert!(poll(&mut reader, &memory).is_empty());
        assert_eq!(reader.lost, 1);
    }

    #[test]
    fn a_spoilt_ring_costs_bounded_time_and_gives_known_events_of_its_own() {
        let memory = memory(4 << 20);
        for number in 0..3 {
            put(&memory, number, Event::Hint as u16);
        }
        let ring = part(PUBLIC, TRACE_OFFSET);
        let mut valid = vec![0; CellTrace::SLOTS_OFFSET + 4 * SLOT_BYTES];
        memory.read(ring, &mut valid).unwrap();
        let length = valid.len();
        let mut reader = RingReader::cell(1, PUBLIC);
        fuzz::cases(&[&valid], |bytes| {
            let mut bytes = bytes.to_vec();
            bytes.resize(length, 0);
            memory.write(ring, &bytes).unwrap();
            let records = poll(&mut reader, &memory);
            assert!(records.len() <= TRACE_RECORDS);
            assert!(
                records
                    .iter()
                    .all(|record| record.source == Source::Cell(1))
            );
        });
    }
}
