//! The EPT back end as the monitor sees it.
//!
//! # Invariants
//! 1. A CPU's area is used by that CPU only, and by its NMI handler, which stores one word.
//! 2. RFLAGS.IF is clear in the monitor.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;

use cell::machine::{self, EvidenceKind};
use cell::standing::Arrival;
use x86_64::registers::model_specific::Msr;

use super::capabilities::{FEATURE_LOCKED, FEATURE_VMX};
use super::detection::{MSR_FEATURE_CONTROL, keeps_dirty_bits, largest_page, plan};
use super::enter::{Switch, wait_for_nmi};
use super::guest::VmxGuest;
use super::host::HostTables;
use super::operation::Operation;
use crate::format::{Ept, Format};
use crate::machine::run;
use crate::monitor::{BackEnd, Monitor, PerCpu, Start, fence};
use crate::nested::LargestPage;

/// A page that belongs to the processor, but for the revision with which it begins (24.2, 24.11.5).
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct VmxPage(UnsafeCell<[u32; 1024]>);

// SAFETY: used by one CPU only (invariant 1).
unsafe impl Sync for VmxPage {}

impl VmxPage {
    /// An empty page.
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; 1024]))
    }

    pub(super) fn address(&self) -> u64 {
        self.0.get() as u64
    }

    /// Writes the revision.
    pub(super) fn prepare(&self, revision: u32) {
        // SAFETY: the page is this CPU's own (invariant 1), and the processor does not use it now:
        // no structure is current between two lives.
        unsafe { self.0.get().cast::<u32>().write_volatile(revision) };
    }
}

impl Default for VmxPage {
    fn default() -> Self {
        Self::new()
    }
}

/// What VMX needs for one CPU.
#[repr(C)]
#[derive(Debug)]
pub struct VmxArea {
    /// The page of VMX operation itself.
    pub(super) operation: &'static VmxPage,
    /// The control structure.
    pub(super) structure: &'static VmxPage,
    pub(super) host: UnsafeCell<HostTables>,
    pub(super) switch: UnsafeCell<Switch>,
}

// SAFETY: used by one CPU only (invariant 1), whose NMI handler stores to an atomic.
unsafe impl Sync for VmxArea {}

impl VmxArea {
    /// An area with two pages that nobody else has.
    ///
    /// The pages come from outside, so that the area needs no more than ordinary alignment: it is
    /// made on the stack, where rustc 1.95 gets such a frame wrong (a value that is larger and more
    /// aligned than a page, in a function with an early return: the frame pointer is never set up).
    pub const fn new(operation: &'static VmxPage, structure: &'static VmxPage) -> Self {
        Self {
            operation,
            structure,
            host: UnsafeCell::new(HostTables::new()),
            switch: UnsafeCell::new(Switch::new()),
        }
    }

    /// Forgets the NMIs that came; returns whether there were any.
    pub(super) fn take_nmi(&self) -> bool {
        // SAFETY: `nmi_seen` is an atomic and is reached as such by everybody.
        let seen = unsafe { &(*self.switch.get()).nmi_seen };
        seen.swap(0, Ordering::SeqCst) != 0
    }
}

/// The EPT back end.
#[derive(Debug)]
pub struct VmxBackEnd;

impl BackEnd for VmxBackEnd {
    fn kind(&self) -> machine::BackEnd {
        machine::BackEnd::Ept
    }

    fn format(&self) -> &'static dyn Format {
        &Ept
    }

    fn largest_page(&self) -> LargestPage {
        largest_page()
    }

    fn keeps_dirty_bits(&self) -> bool {
        keeps_dirty_bits()
    }

    fn enable(&self, cpu: &PerCpu) {
        let area = cpu.vmx;
        // SAFETY: the executing CPU's own tables and switch (invariant 1), in a `PerCpu` that is
        // never moved; until now the CPU used those of `boot`.
        unsafe { (*area.host.get()).load(area.switch.get()) };
        // SAFETY: CPUID showed VMX (`is_supported`), which brings the register.
        let control = unsafe { Msr::new(MSR_FEATURE_CONTROL).read() };
        if control & FEATURE_LOCKED == 0 {
            // SAFETY: unlocked, so it may be written (23.7); it only switches VMX on.
            unsafe { Msr::new(MSR_FEATURE_CONTROL).write(FEATURE_LOCKED | FEATURE_VMX) };
        }
    }

    fn run(&self, monitor: &Monitor, cpu: &PerCpu, start: Start) -> Arrival {
        // SAFETY: `boot` chose this back end after `is_supported`; the area is this CPU's own
        // (invariant 1), prepared by `enable`.
        let Some(operation) = (unsafe { Operation::begin(cpu.vmx, plan()) }) else {
            // The firmware may have locked VMX off on this CPU alone.
            fence::publish(monitor, cpu, EvidenceKind::EntryRefused, 0, 0);
            return Arrival::Return;
        };
        let root = monitor.nested(cpu.cell).root();
        // SAFETY: no nested table gives a cell monitor memory.
        let mut guest = unsafe { VmxGuest::new(operation, start, root) };
        run::run(monitor, cpu, start, &mut guest)
    }

    fn park(&self, cpu: &PerCpu) {
        // SAFETY: IF is clear (invariant 2), and `enable` loaded this CPU's tables.
        unsafe { wait_for_nmi(cpu.vmx.switch.get()) };
        cpu.vmx.take_nmi();
    }
}
