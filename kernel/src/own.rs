//! What this cell knows of itself, fixed for the life of the kernel.
//!
//! Taken from the monitor's handover block at entry, before anything else runs.
//!
//! # Invariants
//! 1. [`own`] is set once, by the boot CPU, before interrupts are on and before another CPU starts.
//! 2. `machine` points to the monitor's record: readable, never written by a cell, alive as long as
//!    the machine.

use cell::handover::{Handover, MAGIC, Settings};
use cell::machine::{BackEnd, MachineRecord};
use cell::public::PublicHeader;
use cell::{CellId, CpuId, FrameRange, Incarnation, PhysicalAddress};
use spin::Once;

use crate::memory::window;

/// What this cell knows of itself.
#[derive(Debug)]
pub struct Own {
    /// The cell.
    pub cell: CellId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Index, within the cell, of the CPU that was entered first.
    pub boot_cpu_index: usize,
    /// How the firewall is enforced.
    pub back_end: BackEnd,
    /// The monitor's record of all cells.
    pub machine: &'static MachineRecord,
    /// The monitor's hypercall entry; 0 for VMMCALL.
    pub hypercall_entry: u64,
    /// The cell's frames.
    pub region: FrameRange,
    /// Those of them that were in use at entry.
    pub used: FrameRange,
    /// Boot parameters that concern kernels.
    pub settings: Settings,
    /// How many CPUs the cell has, up or not.
    pub cpus_count: usize,
}

static OWN: Once<Own> = Once::new();

/// Why a kernel cannot run on what it was handed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandoverError {
    /// There is no handover block.
    Missing,
    /// It has another size: monitor and kernel are of different builds.
    Layout,
    /// It does not start with the magic number.
    Magic,
    /// It names a cell or a back end that cannot be.
    Impossible,
    /// The physical window is not where this kernel expects it.
    Window,
}

impl Own {
    /// Checks a handover block and the machine record that it names.
    fn check(handover: &Handover) -> Result<Self, HandoverError> {
        if handover.magic != MAGIC {
            return Err(HandoverError::Magic);
        }
        let cell = CellId::new(handover.cell as usize).ok_or(HandoverError::Impossible)?;
        let back_end = handover.back_end().ok_or(HandoverError::Impossible)?;
        // SAFETY: the monitor's record is mapped readable at the address that the monitor itself
        // handed over, is never moved, and changes by atomic stores only (`MachineRecord`).
        let machine = unsafe { &*window::pointer::<MachineRecord>(handover.machine) };
        Ok(Self {
            cell,
            incarnation: Incarnation(handover.incarnation),
            boot_cpu_index: handover.boot_cpu_index as usize,
            back_end,
            machine,
            hypercall_entry: handover.hypercall_entry,
            region: handover.region,
            used: handover.used,
            settings: handover.settings,
            cpus_count: machine.cpus_of(cell).count(),
        })
    }

    /// The number, in the machine, of the cell's CPU with this index.
    pub fn cpu(&self, index: usize) -> Option<CpuId> {
        self.machine.cpus_of(self.cell).nth(index)
    }

    /// Where a part of the cell's own public area lies.
    pub fn public(&self, offset: u64) -> PhysicalAddress {
        cell::public::part(self.region.start.start(), offset)
    }

    /// The cell's own public header.
    pub fn header(&self) -> &'static PublicHeader {
        // SAFETY: the public area is the first 2 MiB of the cell's own region, mapped for as long
        // as the cell lives, and the header is made of atomics that any bit pattern fits.
        unsafe { &*window::pointer(self.public(cell::public::HEADER_OFFSET)) }
    }
}

/// Takes the handover block at `address` in the physical window (invariant 1).
///
/// # Errors
/// What is wrong with the block; the kernel cannot run then.
///
/// # Safety
/// `address` is what the monitor passed as RAM disk, and this is the first Rust code that the cell
/// runs.
pub unsafe fn take(address: Option<u64>) -> Result<&'static Own, HandoverError> {
    let address = address.ok_or(HandoverError::Missing)?;
    if address < window::START || !address.is_multiple_of(8) {
        return Err(HandoverError::Missing);
    }
    // SAFETY: the caller vouches for the address; alignment was checked, and every bit pattern is a
    // `Handover`.
    let handover = unsafe { *(address as *const Handover) };
    let own = Own::check(&handover)?;
    Ok(OWN.call_once(|| own))
}

/// What this cell knows of itself.
///
/// # Panics
/// Before [`take`], which no code runs before.
pub fn own() -> &'static Own {
    OWN.get().expect("the handover block is taken first")
}

/// What this cell knows of itself, if it is known already. For the panic path only.
pub fn known() -> Option<&'static Own> {
    OWN.get()
}
