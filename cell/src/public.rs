//! The public area: the first 2 MiB of a cell's memory, which the other cells and the runner read.
//!
//! Only the cell itself writes it (one page excepted: the host writes the fault request). Others
//! reach it by careful reference and treat every word of it as the word of a possibly sick cell.
//!
//! ```text
//! offset      size        part
//! 0x00_0000   4 KiB       header: type tag, incarnation, clock words
//! 0x00_1000   4 KiB       recovery record: what this cell says in agreement and at the barriers
//! 0x00_2000   4 KiB       epitaph
//! 0x00_3000   4 KiB       fault request, written by the host
//! 0x00_4000   16 KiB      workload record
//! 0x00_8000   32 KiB      bench record
//! 0x01_0000   704 KiB     rings to every other cell
//! 0x10_0000   1 MiB       trace ring; survives the reboot of the cell
//! 0x20_0000               end
//! ```

use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::address::PhysicalAddress;
use crate::id::CPUS_MAX;
use crate::trace::TraceRing;

/// Bytes of the public area.
pub const PUBLIC_SIZE: u64 = 2 << 20;
/// Offset of the [`PublicHeader`].
pub const HEADER_OFFSET: u64 = 0;
/// Offset of the recovery record (`recovery` crate).
pub const RECOVERY_OFFSET: u64 = 0x1000;
/// Offset of the [`Epitaph`].
pub const EPITAPH_OFFSET: u64 = 0x2000;
/// Offset of the fault request ([`crate::fault::FaultRequest`]).
pub const FAULT_OFFSET: u64 = 0x3000;
/// Offset of the workload record ([`crate::workload::WorkloadRecord`]).
pub const WORKLOAD_OFFSET: u64 = 0x4000;
/// Offset of the bench record ([`BenchRecord`]).
pub const BENCH_OFFSET: u64 = 0x8000;
/// Offset of the rings (`rpc` crate).
pub const RINGS_OFFSET: u64 = 0x1_0000;
/// Bytes set aside for the rings.
pub const RINGS_SIZE: u64 = 0xb_0000;
/// Offset of the trace ring.
pub const TRACE_OFFSET: u64 = 0x10_0000;
/// Records in a cell's trace ring.
pub const TRACE_RECORDS: usize = 0xf_0000 / 32;

/// A cell's trace ring.
pub type CellTrace = TraceRing<TRACE_RECORDS>;

/// The type tag of a public header that is in use: "HIVECELL" (careful reference, step 4).
pub const HEADER_TAG: u64 = u64::from_be_bytes(*b"HIVECELL");

/// What a cell says of itself.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublicState {
    /// Not serving yet.
    Booting = 1,
    /// It answers calls.
    Serving = 2,
    /// It stopped itself.
    Panicked = 3,
}

/// The first page of the public area.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct PublicHeader {
    /// [`HEADER_TAG`] while the kernel runs; removed by a panic.
    pub tag: AtomicU64,
    /// The life that wrote this header.
    pub incarnation: AtomicU32,
    /// A [`PublicState`].
    pub state: AtomicU32,
    /// The cell's own number.
    pub cell: AtomicU32,
    /// CPUs that take part; clock words beyond are not used.
    pub cpus_up: AtomicU32,
    /// 1 while nobody in the cell polls its rings: a sender then rings the doorbell.
    pub asleep: AtomicU32,
    /// Timer ticks per second that every clock word is meant to make.
    pub ticks_per_second: AtomicU32,
    /// One word per CPU of the cell, by index within the cell, raised at each of its timer ticks.
    pub clock_words: [AtomicU64; CPUS_MAX],
    /// The time of the cell's newest timer tick, in nanoseconds of [`crate::Instant`]: from it the
    /// runner learns how the machine's clock and the host's compare.
    pub now: AtomicU64,
    /// The stall, in nanoseconds, that this cell reckons with: how late its timer ticks came
    /// lately.
    pub stall: AtomicU64,
    /// A word that a measurement bounces between two cells.
    pub bounce: AtomicU64,
    /// How many threads waited for a CPU at the newest timer tick.
    pub load: AtomicU64,
}

/// Bytes of epitaph text.
pub const EPITAPH_BYTES: usize = 1024;

/// Why a kernel stopped itself. A binary interface to the runner.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Epitaph {
    /// 1 once the text is complete.
    pub written: AtomicU32,
    /// Bytes of text.
    pub length: AtomicU32,
    /// The life that ended.
    pub incarnation: AtomicU32,
    /// The CPU on which it ended.
    pub cpu: AtomicU32,
    /// When, in nanoseconds.
    pub at: AtomicU64,
    /// UTF-8.
    pub text: [u8; EPITAPH_BYTES],
}

/// Results that one bench run can hold.
pub const BENCH_RESULTS_MAX: usize = 64;
/// Samples kept per bench result.
pub const BENCH_SAMPLES: usize = 32;

/// Results of the benchmark that a cell ran, for the runner. A binary interface.
#[repr(C)]
#[derive(Debug)]
pub struct BenchRecord {
    /// Raised by the host to ask for a run; the kernel answers in `done`.
    pub requested: AtomicU32,
    /// The value of `requested` that was last carried out.
    pub done: AtomicU32,
    /// How many results.
    pub results_count: AtomicU32,
    /// Explicit padding.
    pub reserved: u32,
    /// The results.
    pub results: [BenchResult; BENCH_RESULTS_MAX],
}

/// One measured operation.
#[repr(C)]
#[derive(Debug)]
pub struct BenchResult {
    /// Name, UTF-8, zero-padded.
    pub name: [u8; 40],
    /// How many samples are valid.
    pub samples_count: AtomicU64,
    /// Time-stamp counter cycles per operation, one per batch.
    pub samples: [AtomicU64; BENCH_SAMPLES],
}

/// The address of a part of the public area of the cell whose region starts at `region`.
pub const fn part(region: PhysicalAddress, offset: u64) -> PhysicalAddress {
    PhysicalAddress(region.0 + offset)
}

const _: () = {
    assert!(size_of::<PublicHeader>() == 4096);
    assert!(core::mem::offset_of!(PublicHeader, clock_words) == 32);
    assert!(size_of::<Epitaph>() == 4096);
    assert!(BENCH_OFFSET + size_of::<BenchRecord>() as u64 <= RINGS_OFFSET);
    assert!(TRACE_OFFSET + size_of::<CellTrace>() as u64 <= PUBLIC_SIZE);
    assert!(RINGS_OFFSET + RINGS_SIZE <= TRACE_OFFSET);
};
