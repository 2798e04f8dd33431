//! VMX operation of one CPU, for the time of a life.
//!
//! # Invariants
//! 1. CR4.VMXE is set exactly as long as the CPU is in VMX operation: `cpu::halt_forever` goes by
//!    it.
//!
//! # References
//! SDM 23.7, 23.8; instructions: chapter 30.

use core::arch::asm;

use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

use super::back_end::VmxArea;
use super::capabilities::{FEATURE_LOCKED, FEATURE_VMX, Plan};
use super::detection::MSR_FEATURE_CONTROL;
use super::fields::Current;

/// `INVVPID`: all identifiers.
const INVVPID_ALL: u64 = 2;

/// The executing CPU is in VMX operation, with its control structure current. Ends when dropped.
#[derive(Debug)]
pub(super) struct Operation<'a> {
    pub(super) area: &'a VmxArea,
    pub(super) plan: &'static Plan,
    pub(super) structure: Current,
}

impl<'a> Operation<'a> {
    /// Enters VMX operation, with an empty control structure; `None` if the processor refuses.
    ///
    /// # Safety
    /// The processor has VMX as `plan` says; `area` is the executing CPU's own.
    pub(super) unsafe fn begin(area: &'a VmxArea, plan: &'static Plan) -> Option<Self> {
        // SAFETY: the caller vouches for VMX, which brings the register.
        let control = unsafe { Msr::new(MSR_FEATURE_CONTROL).read() };
        let is_on = control & FEATURE_LOCKED != 0 && control & FEATURE_VMX != 0;
        if !is_on {
            return None;
        }
        area.operation.prepare(plan.revision);
        area.structure.prepare(plan.revision);
        // SAFETY: the bit allows `VMXON`, and changes nothing else.
        unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS)) };
        // SAFETY: VMX is on and allowed; the page is this CPU's own and begins with the revision.
        if !unsafe { vmxon(area.operation.address()) } {
            forbid();
            return None;
        }
        // SAFETY: in VMX operation from here on, until `drop`; the page is this CPU's own, and
        // begins with the revision.
        let structure = unsafe { Current::load(area.structure.address()) };
        let Some(structure) = structure else {
            leave();
            return None;
        };
        Some(Self {
            area,
            plan,
            structure,
        })
    }

    /// Drops the translations that this processor holds through the tables of `ept_pointer`
    /// (28.3.3.1).
    pub(super) fn drop_translations(&self, ept_pointer: u64) {
        let descriptor = [ept_pointer, 0];
        let kind = self.plan.invept as u64;
        let is_done: u8;
        // SAFETY: in VMX operation while `self` lives; the kind is one that the processor has.
        // Dropping translations changes no memory.
        unsafe {
            asm!(
                "invept {kind}, [{descriptor}]",
                "seta {is_done}",
                kind = in(reg) kind,
                descriptor = in(reg) &raw const descriptor,
                is_done = out(reg_byte) is_done,
                options(readonly, nostack),
            );
        }
        assert!(is_done != 0, "translations cannot be dropped");
    }

    /// Drops what this processor holds of the guest's own tables: those of a life before.
    pub(super) fn drop_guest_translations(&self) {
        if !self.plan.has_vpid() {
            return; // every entry and exit does it (28.3.3.1)
        }
        let descriptor = [0_u64; 2];
        let is_done: u8;
        // SAFETY: in VMX operation while `self` lives; identifiers are used only where the
        // processor has this kind. Dropping translations changes no memory.
        unsafe {
            asm!(
                "invvpid {kind}, [{descriptor}]",
                "seta {is_done}",
                kind = in(reg) INVVPID_ALL,
                descriptor = in(reg) &raw const descriptor,
                is_done = out(reg_byte) is_done,
                options(readonly, nostack),
            );
        }
        assert!(is_done != 0, "a guest's translations cannot be dropped");
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.structure.unload();
        leave();
    }
}

/// # Safety
/// CR4.VMXE is set and the firmware allows VMX; `region` is the physical address of a page of this
/// CPU's own that begins with the revision.
unsafe fn vmxon(region: u64) -> bool {
    let is_on: u8;
    // SAFETY: passed on to the caller.
    unsafe {
        asm!(
            "vmxon [{region}]",
            "seta {is_on}",
            region = in(reg) &raw const region,
            is_on = out(reg_byte) is_on,
            options(nostack),
        );
    }
    is_on != 0
}

/// Leaves VMX operation. An INIT that came meanwhile is taken here.
fn leave() {
    // SAFETY: the CPU is in VMX operation (both callers came from a `vmxon` that succeeded), and
    // nothing of it is used afterwards.
    unsafe { asm!("vmxoff", options(nomem, nostack)) };
    forbid();
}

fn forbid() {
    // SAFETY: not in VMX operation, where the bit is fixed.
    unsafe { Cr4::update(|flags| flags.remove(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS)) };
}
