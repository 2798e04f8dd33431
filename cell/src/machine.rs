//! The monitor's record of the machine: which cells there are, how they fare, and why.
//!
//! One record in monitor memory, mapped read-only into every cell, and found by the runner through
//! the symbol [`SYMBOL`] of the monitor image. Only the monitor writes it, each word by atomic
//! stores, so that a reader needs neither lock nor careful reference.
//!
//! # Invariants
//! 1. `region`, `cell` and `apic_id` do not change after boot.
//! 2. `incarnation` of a cell only grows; `state` is stored after `incarnation`, so a reader that
//!    sees [`CellState::Live`] sees the incarnation that is live, or a later one.
//! 3. Evidence is stored before `evidence_count` is raised. A later record may overwrite an unread
//!    one; the count tells how many there were, and the monitor's trace has them all.
//! 4. What evidence is read with a life was published in that life or later: an end of a life is
//!    never held against the next.

use core::fmt;

use crate::address::{Frame, FrameRange, PhysicalAddress};
use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::id::{CELLS_MAX, CPUS_MAX, CellId, CellSet, CpuId, Incarnation};
use crate::membership::{Membership, WITNESS_SPAN};
use crate::standing::Standing;
use crate::standstill::Standstill;
use crate::time::{Clock, Instant};
use crate::trace::TraceRing;

/// The symbol of the monitor image at which the record lies.
pub const SYMBOL: &str = "HIVE_MACHINE";

/// Says that the record is set up: "HIVEMACH".
pub const MAGIC: u64 = u64::from_be_bytes(*b"HIVEMACH");

/// Raised whenever a layout in this crate changes.
pub const VERSION: u32 = 4;

/// How the firewall is enforced.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackEnd {
    /// AMD SVM with nested page tables.
    Npt = 1,
    /// Page tables that the monitor write-protects; weaker, no virtualization.
    Paging = 2,
    /// Not at all: page tables in which every cell may write what all of them have.
    Off = 3,
    /// Intel VMX with extended page tables.
    Ept = 4,
}

impl BackEnd {
    /// Decodes a stored back end.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Npt),
            2 => Some(Self::Paging),
            3 => Some(Self::Off),
            4 => Some(Self::Ept),
            _ => None,
        }
    }

    /// The word for it in boot parameters and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Npt => "npt",
            Self::Paging => "paging",
            Self::Off => "off",
            Self::Ept => "ept",
        }
    }

    /// Whether the processor walks tables of the monitor's behind each cell's own.
    pub const fn has_nested_paging(self) -> bool {
        matches!(self, Self::Npt | Self::Ept)
    }
}

/// What the monitor knows of a cell.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CellState {
    /// No such cell.
    Absent = 0,
    /// Its image is being loaded, or it runs and has not joined yet.
    Booting = 1,
    /// In the live set.
    Live = 2,
    /// It stopped, by panic or because the monitor stopped it; not yet voted out.
    Stopped = 3,
    /// Voted out: its nested tables are empty, its CPUs are fenced.
    Expelled = 4,
}

impl CellState {
    /// Decodes a stored state; anything unknown reads as absent.
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Booting,
            2 => Self::Live,
            3 => Self::Stopped,
            4 => Self::Expelled,
            _ => Self::Absent,
        }
    }
}

/// Why the monitor holds something against a cell.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EvidenceKind {
    /// Nothing.
    None = 0,
    /// A store to a frame that the cell may not write.
    WriteDenied = 1,
    /// A load from, or a fetch of, memory that is absent for the cell.
    ReadDenied = 2,
    /// An access to an I/O port that is not the cell's.
    PortDenied = 3,
    /// An access to a model-specific register that is not the cell's.
    MsrDenied = 4,
    /// A privileged instruction of the monitor's (VMRUN, CLGI, ...).
    InstructionDenied = 5,
    /// A hypercall that the cell had no right to make.
    HypercallDenied = 6,
    /// Triple fault.
    Shutdown = 7,
    /// A guest state that the processor refused to enter.
    EntryRefused = 8,
    /// An uncorrected machine check on one of its CPUs.
    MachineCheck = 9,
    /// The cell's own kernel stopped it (panic).
    Panic = 10,
    /// A CPU of the cell left its life by INIT.
    Reset = 11,
    /// A table of the monitor's that the processor could not use: no fault of the cell's.
    MonitorFault = 12,
}

impl EvidenceKind {
    /// Decodes a stored kind; anything unknown reads as none.
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::WriteDenied,
            2 => Self::ReadDenied,
            3 => Self::PortDenied,
            4 => Self::MsrDenied,
            5 => Self::InstructionDenied,
            6 => Self::HypercallDenied,
            7 => Self::Shutdown,
            8 => Self::EntryRefused,
            9 => Self::MachineCheck,
            10 => Self::Panic,
            11 => Self::Reset,
            12 => Self::MonitorFault,
            _ => Self::None,
        }
    }

    /// Whether the cell cannot go on after it. The others leave the cell running, with a bus error.
    pub const fn is_fatal(self) -> bool {
        matches!(
            self,
            Self::Shutdown
                | Self::EntryRefused
                | Self::MachineCheck
                | Self::Panic
                | Self::Reset
                | Self::MonitorFault
        )
    }
}

/// One piece of evidence, as read from a [`CellEntry`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// What happened.
    pub kind: EvidenceKind,
    /// In which life of the cell.
    pub incarnation: Incarnation,
    /// The physical address, port, register or hypercall number concerned.
    pub address: u64,
    /// The instruction pointer.
    pub instruction: u64,
    /// When.
    pub at: Instant,
}

/// One cell, as the monitor sees it.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct CellEntry {
    /// The cell's frames; its public area starts at the first.
    pub region: FrameRange,
    /// The root of its nested table: which frames it ever wrote is seen there.
    pub nested_root: PhysicalAddress,
    /// A [`CellState`].
    pub state: AtomicU32,
    /// The current or last life.
    pub incarnation: AtomicU32,
    /// How much evidence there was since boot.
    pub evidence_count: AtomicU64,
    /// The newest evidence: an [`EvidenceKind`].
    pub evidence_kind: AtomicU32,
    /// The life that the newest evidence is about.
    pub evidence_incarnation: AtomicU32,
    /// See [`Evidence::address`].
    pub evidence_address: AtomicU64,
    /// See [`Evidence::instruction`].
    pub evidence_instruction: AtomicU64,
    /// See [`Evidence::at`], in nanoseconds.
    pub evidence_at: AtomicU64,
    /// Home cells whose frames are closed to this cell while it is under suspicion (a [`CellSet`]).
    pub quarantined_by: AtomicU64,
    /// The life that a survivor asked for by the reboot hypercall.
    pub reboot_requested: AtomicU32,
    /// 1 once the cell cut its own memory off from the others.
    pub cut_off: AtomicU32,
}

impl CellEntry {
    /// An absent cell.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            region: FrameRange {
                start: Frame(0),
                end: Frame(0),
            },
            nested_root: PhysicalAddress(0),
            state: AtomicU32::new(0),
            incarnation: AtomicU32::new(0),
            evidence_count: AtomicU64::new(0),
            evidence_kind: AtomicU32::new(0),
            evidence_incarnation: AtomicU32::new(0),
            evidence_address: AtomicU64::new(0),
            evidence_instruction: AtomicU64::new(0),
            evidence_at: AtomicU64::new(0),
            quarantined_by: AtomicU64::new(0),
            reboot_requested: AtomicU32::new(0),
            cut_off: AtomicU32::new(0),
        }
    }

    /// The cell's state.
    pub fn state(&self) -> CellState {
        CellState::from_raw(self.state.load(Ordering::Acquire))
    }

    /// The cell's current or last life.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.load(Ordering::Acquire))
    }

    /// The newest evidence and how much there was; `None` if there was none yet.
    pub fn evidence(&self) -> Option<(u64, Evidence)> {
        let count = self.evidence_count.load(Ordering::Acquire);
        (count > 0).then(|| {
            // The life first (invariant 4).
            let incarnation = Incarnation(self.evidence_incarnation.load(Ordering::Acquire));
            let evidence = Evidence {
                kind: EvidenceKind::from_raw(self.evidence_kind.load(Ordering::Relaxed)),
                incarnation,
                address: self.evidence_address.load(Ordering::Relaxed),
                instruction: self.evidence_instruction.load(Ordering::Relaxed),
                at: Instant(self.evidence_at.load(Ordering::Relaxed)),
            };
            (count, evidence)
        })
    }

    /// Publishes evidence (invariants 3 and 4). Called by the monitor only.
    pub fn publish_evidence(&self, evidence: Evidence) {
        self.evidence_kind
            .store(evidence.kind as u32, Ordering::Relaxed);
        self.evidence_address
            .store(evidence.address, Ordering::Relaxed);
        self.evidence_instruction
            .store(evidence.instruction, Ordering::Relaxed);
        self.evidence_at.store(evidence.at.0, Ordering::Relaxed);
        self.evidence_incarnation
            .store(evidence.incarnation.0, Ordering::Release);
        self.evidence_count.fetch_add(1, Ordering::Release);
    }
}

#[cfg(not(loom))]
impl Default for CellEntry {
    fn default() -> Self {
        Self::new()
    }
}

/// One CPU, as the monitor sees it.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct CpuEntry {
    /// The number of its cell.
    pub cell: AtomicU32,
    /// Its local APIC's identifier.
    pub apic_id: AtomicU32,
    /// Where the CPU is, and the life of its cell that it runs, or last ran.
    pub standing: Standing,
    /// Kicks (NMIs that ask it to enter the monitor) sent to it.
    pub kicks: AtomicU64,
    /// The value of `kicks` when it last was in the monitor: equal means that it holds no older
    /// translation.
    pub kicks_seen: AtomicU64,
    /// Exits from the guest.
    pub exits: AtomicU64,
    /// Hypercalls made. Every timer interrupt ends with one, so a CPU of a healthy kernel makes
    /// some all the time.
    pub hypercalls: AtomicU64,
    /// Since when the CPU is accused of standing still, in nanoseconds; 0 for never.
    pub accused_since: AtomicU64,
    /// The value of `hypercalls` at that time.
    pub accused_hypercalls: AtomicU64,
    /// The CPU's clock word at that time.
    pub accused_clock: AtomicU64,
}

impl CpuEntry {
    /// A CPU that never started.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            cell: AtomicU32::new(0),
            apic_id: AtomicU32::new(0),
            standing: Standing::new(),
            kicks: AtomicU64::new(0),
            kicks_seen: AtomicU64::new(0),
            exits: AtomicU64::new(0),
            hypercalls: AtomicU64::new(0),
            accused_since: AtomicU64::new(0),
            accused_hypercalls: AtomicU64::new(0),
            accused_clock: AtomicU64::new(0),
        }
    }

    /// Notes that somebody accuses the CPU, whose clock word is `clock`, of standing still. An
    /// accusation runs on while neither the clock word nor the count of hypercalls moves. Called by
    /// the monitor only.
    ///
    /// `now` is asked for the time after everything else was looked at: the executing CPU may be
    /// kept from its host CPU at any point, and must not take that for a standstill of the other.
    pub fn accuse(&self, clock: u64, now: impl FnOnce() -> Instant) {
        if self.accused_since.load(Ordering::SeqCst) != 0 && self.is_unmoved(clock) {
            return;
        }
        self.accused_since.store(0, Ordering::SeqCst);
        self.accused_hypercalls
            .store(self.hypercalls.load(Ordering::SeqCst), Ordering::SeqCst);
        self.accused_clock.store(clock, Ordering::SeqCst);
        self.accused_since.store(now().0.max(1), Ordering::SeqCst);
    }

    /// Whether the CPU was accused at least [`WITNESS_SPAN`] ago and its clock word, or its count
    /// of hypercalls, has stood still since.
    pub fn stands_still(&self, clock: u64, now: Instant) -> bool {
        let since = self.accused_since.load(Ordering::SeqCst);
        since != 0 && now.since(Instant(since)) >= WITNESS_SPAN && self.is_unmoved(clock)
    }

    /// Forgets an accusation: the CPU starts a new life.
    pub fn absolve(&self) {
        self.accused_since.store(0, Ordering::SeqCst);
    }

    fn is_unmoved(&self, clock: u64) -> bool {
        self.accused_clock.load(Ordering::SeqCst) == clock
            || self.accused_hypercalls.load(Ordering::SeqCst)
                == self.hypercalls.load(Ordering::SeqCst)
    }
}

#[cfg(not(loom))]
impl Default for CpuEntry {
    fn default() -> Self {
        Self::new()
    }
}

/// The monitor's record of the machine.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct MachineRecord {
    /// [`MAGIC`], stored last at boot.
    pub magic: AtomicU64,
    /// [`VERSION`], once set up (zero before, so that the record needs no room in the image).
    pub version: u32,
    /// A [`BackEnd`].
    pub back_end: u32,
    /// How many cells.
    pub cells_count: u32,
    /// How many CPUs.
    pub cpus_count: u32,
    /// The rate and origin of time.
    pub clock: Clock,
    /// Frames covered by the firewall table.
    pub frames_count: u64,
    /// Where the firewall table lies: one 64-bit writer set per frame, readable by every cell.
    pub firewall_table: PhysicalAddress,
    /// Memory of the monitor, absent for every cell but for the records it shows them.
    pub monitor: FrameRange,
    /// The number of the cell that owns the serial port.
    pub uart_owner: AtomicU32,
    /// Why the monitor refused to divide the machine; empty if it did not.
    pub refusal: Text,
    /// Boot finished, in nanoseconds; 0 before.
    pub booted_at: AtomicU64,
    /// The cells.
    pub cells: [CellEntry; CELLS_MAX],
    /// The CPUs.
    pub cpus: [CpuEntry; CPUS_MAX],
    /// When the machine stands still for the runner.
    pub standstill: Standstill,
    /// Votes, seals and the live set.
    pub membership: Membership,
    /// What the monitor saw.
    pub trace: TraceRing<MONITOR_TRACE_RECORDS>,
}

/// The port of QEMU's exit device, as the runner sets it up.
pub const EXIT_PORT: u16 = 0xf4;
/// What the monitor writes there when it refuses the machine; QEMU's exit code is then twice that
/// plus one.
pub const EXIT_REFUSED: u32 = 0x31;

/// Bytes that a [`Text`] can hold.
pub const TEXT_BYTES: usize = 248;

/// A short text in memory that others read.
#[repr(C)]
#[derive(Debug)]
pub struct Text {
    /// Bytes in use.
    length: u64,
    bytes: [u8; TEXT_BYTES],
}

impl Text {
    /// No text.
    pub const fn new() -> Self {
        Self {
            length: 0,
            bytes: [0; TEXT_BYTES],
        }
    }

    /// The text; what is not UTF-8 reads as nothing.
    pub fn as_str(&self) -> &str {
        let length = (self.length as usize).min(TEXT_BYTES);
        core::str::from_utf8(&self.bytes[..length]).unwrap_or("")
    }

    /// Appends; what does not fit is cut off at a character.
    pub fn writer(&mut self) -> impl fmt::Write + '_ {
        TextWriter(self)
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::new()
    }
}

struct TextWriter<'a>(&'a mut Text);

impl fmt::Write for TextWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Text { length, bytes } = &mut *self.0;
        for character in text.chars() {
            let room = &mut bytes[*length as usize..];
            if room.len() < character.len_utf8() {
                return Err(fmt::Error);
            }
            *length += character.encode_utf8(room).len() as u64;
        }
        Ok(())
    }
}

/// Records in the monitor's own trace.
pub const MONITOR_TRACE_RECORDS: usize = 8192;

impl MachineRecord {
    /// A record of an empty machine.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            magic: AtomicU64::new(0),
            version: 0,
            back_end: 0,
            cells_count: 0,
            cpus_count: 0,
            clock: Clock {
                start_cycles: 0,
                cycles_per_second: 0,
            },
            frames_count: 0,
            firewall_table: PhysicalAddress(0),
            monitor: FrameRange {
                start: Frame(0),
                end: Frame(0),
            },
            uart_owner: AtomicU32::new(0),
            refusal: Text::new(),
            booted_at: AtomicU64::new(0),
            cells: [const { CellEntry::new() }; CELLS_MAX],
            cpus: [const { CpuEntry::new() }; CPUS_MAX],
            standstill: Standstill::new(),
            membership: Membership::new(),
            trace: TraceRing::new(),
        }
    }

    /// The entry of `cell`.
    pub fn cell(&self, cell: CellId) -> &CellEntry {
        &self.cells[cell.index()]
    }

    /// The entry of `cpu`.
    pub fn cpu(&self, cpu: CpuId) -> &CpuEntry {
        &self.cpus[cpu.index()]
    }

    /// The cells of the machine, dead or alive.
    pub fn all_cells(&self) -> CellSet {
        CellSet::first(self.cells_count as usize)
    }

    /// The CPUs of `cell`, in ascending order; the position in it is the CPU's index within the
    /// cell.
    pub fn cpus_of(&self, cell: CellId) -> impl Iterator<Item = CpuId> {
        (0..(self.cpus_count as usize).min(CPUS_MAX))
            .filter(move |&cpu| {
                self.cpus[cpu].cell.load(Ordering::Relaxed) as usize == cell.index()
            })
            .filter_map(CpuId::new)
    }

    /// The cell whose region holds `frame`: its home.
    pub fn home_of(&self, frame: Frame) -> Option<CellId> {
        self.all_cells()
            .iter()
            .find(|&cell| self.cell(cell).region.contains(frame))
    }
}

#[cfg(not(loom))]
impl Default for MachineRecord {
    fn default() -> Self {
        Self::new()
    }
}

// The runner, the monitor and every cell read this memory.
const _: () = {
    assert!(size_of::<CellEntry>() == 128);
    assert!(size_of::<CpuEntry>() == 128);
    assert!(core::mem::offset_of!(MachineRecord, clock) == 24);
    assert!(size_of::<MachineRecord>().is_multiple_of(4096));
};

#[cfg(all(test, loom))]
mod interleavings;
#[cfg(all(test, not(loom)))]
mod tests;
