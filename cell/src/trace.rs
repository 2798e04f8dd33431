//! The record of what happened: fixed records in a ring that survives its cell.
//!
//! Writers are the CPUs of one cell (or of the monitor); readers are the runner, through the file
//! that backs the guest's memory, and whoever shows a time line. A writer takes a slot by one
//! atomic addition and never waits.
//!
//! # Protocol
//! Record `n` lies in slot `n % RECORDS`. The writer zeroes the slot's `sequence`, fills the slot,
//! and stores `n + 1` to `sequence` last. A reader accepts a slot only if its `sequence` is the
//! same, and right, before and after the copy.
//!
//! # Not guaranteed
//! A writer that is delayed for a whole turn of the ring can spoil one newer record; the sequence
//! number then fails to match and the reader skips it. A sick cell can write anything into its own
//! ring.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::time::Instant;

macro_rules! events {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)+) => {
        /// What a trace record tells.
        #[repr(u16)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Event { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Event {
            /// Every event.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Decodes a stored event.
            pub const fn from_raw(raw: u16) -> Option<Self> {
                match raw { $($number => Some(Self::$name),)+ _ => None }
            }

            /// The event's name in time lines, trace files and campaign files.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

events! {
    /// The kernel was entered. Arguments: incarnation, CPUs.
    Boot = 1, "cell.boot";
    /// A CPU takes part. Arguments: index within the cell.
    CpuUp = 2, "cpu.up";
    /// The cell serves calls. Arguments: incarnation.
    Serving = 3, "cell.serving";
    /// The kernel stopped itself. Arguments: instruction pointer.
    Panic = 4, "cell.panic";
    /// A fault was injected from inside. Arguments: fault code, argument.
    Injected = 5, "fault.injected";
    /// An ordered fault struck some of what passes its hook. Arguments: fault code, how often that
    /// was found so far, for any fault; messages are looked at once a tick. Only powers of two.
    Struck = 7, "fault.struck";
    /// A bus error was taken. Arguments: address, kind.
    BusError = 6, "bus.error";
    /// A suspicion was raised. Arguments: suspect, reason.
    Hint = 10, "hint";
    /// A cell entered an epoch's probe phase. Arguments: epoch, suspects.
    EpochBegin = 11, "epoch.begin";
    /// The cell's own opinion is formed. Arguments: epoch, cells thought alive.
    Opinion = 12, "agreement.opinion";
    /// A flooding round ended. Arguments: epoch, round.
    Round = 13, "agreement.round";
    /// The cell voted. Arguments: epoch, proposed live set.
    Vote = 14, "agreement.vote";
    /// The epoch's live set is known. Arguments: epoch, live set.
    Decided = 15, "agreement.decided";
    /// The epoch ended with nobody expelled. Arguments: epoch, suspects.
    FalseAlarm = 16, "agreement.false_alarm";
    /// Recovery began here: work with other cells is held. Arguments: epoch, live set.
    RecoveryBegin = 20, "recovery.begin";
    /// Barrier 1 was passed. Arguments: epoch.
    Barrier1 = 21, "recovery.barrier1";
    /// The discard is done. Arguments: epoch, frames writable (high 32 bits) and written (low) by
    /// the dead.
    Discard = 22, "recovery.discard";
    /// Barrier 2 was passed. Arguments: epoch.
    Barrier2 = 23, "recovery.barrier2";
    /// Work goes on. Arguments: epoch.
    Resume = 24, "recovery.resume";
    /// The recovery master asked for a reboot. Arguments: cell, new incarnation.
    Reboot = 25, "recovery.reboot";
    /// A rebooted cell was taken back. Arguments: cell, incarnation.
    Reintegrated = 26, "recovery.reintegrated";
    /// A cell was struck for crying wolf. Arguments: cell, strikes.
    Strike = 27, "hint.strike";
    /// A suspect's outside writes were closed. Arguments: suspect.
    Quarantine = 28, "quarantine.begin";
    /// A suspect's outside writes were opened again. Arguments: suspect.
    QuarantineEnd = 29, "quarantine.end";
    /// A request left. Arguments: peer (high 32 bits) and operation, call number.
    RpcSend = 40, "rpc.send";
    /// A request arrived. Arguments: peer (high 32 bits) and operation, call number.
    RpcReceive = 41, "rpc.receive";
    /// A reply left. Arguments: peer (high 32 bits) and status, call number.
    RpcReply = 42, "rpc.reply";
    /// A call ended. Arguments: peer (high 32 bits) and outcome, call number.
    RpcDone = 43, "rpc.done";
    /// A message was refused. Arguments: peer (high 32 bits) and reason, call number.
    RpcRefused = 44, "rpc.refused";
    /// Pages were opened to a cell. Arguments: first frame, cell.
    Grant = 50, "firewall.grant";
    /// Pages were closed to a cell. Arguments: first frame, cell.
    Revoke = 51, "firewall.revoke";
    /// The serial port changed hands. Arguments: new owner, old owner.
    ConsoleAdopted = 52, "console.adopted";
    /// A worker met bytes that it did not expect. Arguments: peer, address.
    WrongByte = 60, "work.wrong";
    /// Work was lost with a dead cell. Arguments: peer, units.
    WorkLost = 61, "work.lost";
    /// The workers of a cell began. Arguments: workers.
    WorkBegin = 62, "work.begin";
    /// The monitor met a denied access or a fatal state. Arguments: evidence kind (high 32 bits)
    /// and cell, address.
    Evidence = 100, "monitor.evidence";
    /// The monitor sealed an epoch. Arguments: epoch, live set.
    Sealed = 101, "monitor.sealed";
    /// The monitor expelled a cell. Arguments: cell, incarnation.
    Expelled = 102, "monitor.expelled";
    /// A CPU of an expelled cell reached the monitor and stays there. Arguments: CPU, cell.
    Parked = 103, "monitor.parked";
    /// An image was loaded afresh. Arguments: cell, incarnation.
    Loaded = 104, "monitor.loaded";
    /// A CPU entered a cell's kernel. Arguments: CPU, cell.
    Entered = 105, "monitor.entered";
    /// A cell joined the live set. Arguments: cell, incarnation.
    Joined = 106, "monitor.joined";
    /// A CPU that does not answer was restarted by INIT. Arguments: CPU, cell.
    Restarted = 107, "monitor.restarted";
    /// An NMI that no monitor sent was given to the guest. Arguments: CPU, cell.
    StrayNmi = 108, "monitor.stray_nmi";
    /// The host did something to the machine; written by the runner, never by the guest. Arguments:
    /// fault, target.
    HostInjected = 200, "host.injected";
}

/// One thing that happened.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceRecord {
    /// When.
    pub at: Instant,
    /// Who saw it: a cell's number, or [`TraceRecord::MONITOR`].
    pub cell: u8,
    /// The CPU's number in the machine.
    pub cpu: u8,
    /// An [`Event`], or something that a sick cell wrote.
    pub event: u16,
    /// See [`Event`].
    pub arguments: [u64; 2],
}

impl TraceRecord {
    /// The `cell` of records that the monitor wrote.
    pub const MONITOR: u8 = 255;

    /// Decodes the words of a slot (time, head, two arguments); `None` if they do not hold record
    /// `number` whole.
    pub const fn decode(words: [u64; 4], number: u64) -> Option<Self> {
        let [at, head, first, second] = words;
        if head >> 32 != (number + 1) & 0xffff_ffff {
            return None;
        }
        Some(Self {
            at: Instant(at),
            cell: (head >> 24) as u8,
            cpu: (head >> 16) as u8,
            event: head as u16,
            arguments: [first, second],
        })
    }
}

/// A slot of the ring: a record as words, which may be read while it is written.
#[repr(C)]
#[derive(Debug)]
struct Slot {
    at: AtomicU64,
    /// Bits 0-15 event, 16-23 CPU, 24-31 cell, 32-63 the low half of the record's number plus one.
    head: AtomicU64,
    arguments: [AtomicU64; 2],
}

impl Slot {
    const fn new() -> Self {
        Self {
            at: AtomicU64::new(0),
            head: AtomicU64::new(0),
            arguments: [const { AtomicU64::new(0) }; 2],
        }
    }
}

/// A ring of `RECORDS` trace records.
#[repr(C)]
#[derive(Debug)]
pub struct TraceRing<const RECORDS: usize> {
    /// How many records were ever begun.
    written: AtomicU64,
    /// Keeps the slots on cache-line boundaries.
    reserved: [u64; 3],
    slots: [Slot; RECORDS],
}

impl<const RECORDS: usize> TraceRing<RECORDS> {
    /// Offset of the count of records ever begun, for the runner.
    pub const WRITTEN_OFFSET: usize = core::mem::offset_of!(Self, written);
    /// Offset of the slots, 32 bytes each, for the runner.
    pub const SLOTS_OFFSET: usize = core::mem::offset_of!(Self, slots);

    /// An empty ring.
    pub const fn new() -> Self {
        Self {
            written: AtomicU64::new(0),
            reserved: [0; 3],
            slots: [const { Slot::new() }; RECORDS],
        }
    }

    /// Adds a record, over the oldest if the ring is full.
    pub fn record(&self, record: TraceRecord) {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let slot = &self.slots[(number % RECORDS as u64) as usize];
        slot.head.store(0, Ordering::Release);
        slot.at.store(record.at.0, Ordering::Relaxed);
        slot.arguments[0].store(record.arguments[0], Ordering::Relaxed);
        slot.arguments[1].store(record.arguments[1], Ordering::Relaxed);
        let head = u64::from(record.event)
            | u64::from(record.cpu) << 16
            | u64::from(record.cell) << 24
            | (number + 1) << 32;
        slot.head.store(head, Ordering::Release);
    }

    /// How many records were ever begun; those before `written() - RECORDS` are gone.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Record `number`, or `None` if it is gone, unfinished or spoilt.
    pub fn get(&self, number: u64) -> Option<TraceRecord> {
        let slot = &self.slots[(number % RECORDS as u64) as usize];
        let head = slot.head.load(Ordering::Acquire);
        let words = [
            slot.at.load(Ordering::Relaxed),
            head,
            slot.arguments[0].load(Ordering::Relaxed),
            slot.arguments[1].load(Ordering::Relaxed),
        ];
        core::sync::atomic::fence(Ordering::Acquire);
        let unchanged = slot.head.load(Ordering::Relaxed) == head;
        if unchanged {
            TraceRecord::decode(words, number)
        } else {
            None
        }
    }
}

impl<const RECORDS: usize> Default for TraceRing<RECORDS> {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = {
    assert!(size_of::<Slot>() == 32);
    assert!(core::mem::offset_of!(TraceRing<4>, slots) == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn record(argument: u64) -> TraceRecord {
        TraceRecord {
            at: Instant(argument * 10),
            cell: 2,
            cpu: 5,
            event: Event::Hint as u16,
            arguments: [argument, 0],
        }
    }

    #[test]
    fn a_full_ring_keeps_the_newest() {
        let ring = TraceRing::<4>::new();
        for argument in 0..6 {
            ring.record(record(argument));
        }
        assert_eq!(ring.written(), 6);
        assert_eq!(ring.get(0), None);
        assert_eq!(ring.get(1), None);
        assert_eq!(
            (2..6).map(|number| ring.get(number)).collect::<Vec<_>>(),
            [
                Some(record(2)),
                Some(record(3)),
                Some(record(4)),
                Some(record(5))
            ]
        );
        assert_eq!(ring.get(6), None, "not yet written");
    }

    #[test]
    fn every_event_decodes_to_itself() {
        for &event in Event::ALL {
            assert_eq!(Event::from_raw(event as u16), Some(event));
        }
        assert_eq!(Event::from_raw(0), None);
    }

    #[test]
    fn spoilt_slots_are_no_records_or_the_one_asked_for() {
        let head = Event::Hint as u64 | 5 << 16 | 2 << 24 | 8 << 32;
        let valid = fuzz::bytes(&[70, head, 1, 2]);
        fuzz::cases(&[&valid], |bytes| {
            if let [at, head, first, second] = fuzz::words(bytes)[..] {
                let record = TraceRecord::decode([at, head, first, second], 7);
                assert_eq!(record.is_some(), head >> 32 == 8);
                let _ = record.map(|record| Event::from_raw(record.event));
            }
        });
    }
}
