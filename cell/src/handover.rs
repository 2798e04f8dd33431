//! What the monitor tells a cell kernel at entry, beyond what `BootInfo` has room for.
//!
//! The block is passed as the RAM disk of the `BootInfo`, so that a kernel which knows nothing of
//! Hive can ignore it.
//!
//! # Invariants
//! 1. All addresses are physical; the kernel reaches them at `BootInfo::physical_memory_offset` +
//!    address.
//! 2. The block lies in the cell's own memory and is the cell's to keep.

use crate::address::{FrameRange, PhysicalAddress};
use crate::machine::BackEnd;

/// Says that a RAM disk is a handover block: "HIVEHAND".
pub const MAGIC: u64 = u64::from_be_bytes(*b"HIVEHAND");

/// The handover block.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    /// [`MAGIC`].
    pub magic: u64,
    /// The cell's number.
    pub cell: u32,
    /// This life.
    pub incarnation: u32,
    /// Index, within the cell, of the CPU that was entered. Usually 0; another one if CPU 0 is not
    /// to be had.
    pub boot_cpu_index: u32,
    /// A [`BackEnd`] value.
    pub back_end: u32,
    /// Where the machine record lies, readable.
    pub machine: PhysicalAddress,
    /// How to make a hypercall: 0 for VMMCALL, else the virtual address of the monitor's entry.
    pub hypercall_entry: u64,
    /// The cell's region; the public area is its first 2 MiB.
    pub region: FrameRange,
    /// The frames of the region that are in use at entry (public area, image, tables, this block,
    /// the first stack).
    pub used: FrameRange,
    /// Boot parameters that concern kernels.
    pub settings: Settings,
}

/// Boot parameters that concern kernels.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Microseconds between timer ticks.
    pub tick_microseconds: u32,
    /// Milliseconds for which a neighbour's clock may stand still before it is a hint.
    pub hint_milliseconds: u32,
    /// Milliseconds for which a suspect may take to prove itself alive.
    pub probe_milliseconds: u32,
    /// Milliseconds for which a call may take.
    pub call_milliseconds: u32,
    /// A [`crate::parameters::Discard`] value.
    pub discard: u32,
    /// Worker threads per cell.
    pub workers: u32,
    /// Microseconds for which a worker rests after each operation.
    pub rest_microseconds: u32,
    /// A [`crate::parameters::Idle`] value.
    pub idle: u32,
    /// Seed of the workload.
    pub seed: u64,
}

impl Handover {
    /// The back end, if the block holds a known one.
    pub const fn back_end(&self) -> Option<BackEnd> {
        BackEnd::from_raw(self.back_end)
    }
}

const _: () = {
    assert!(size_of::<Settings>() == 40);
    assert!(core::mem::offset_of!(Handover, region) == 40);
    assert!(size_of::<Handover>() == 112);
};
