//! Reads the capability registers and settles the plan, once.

use core::arch::x86_64::__cpuid;

use spin::Once;
use x86_64::registers::control::{Cr0, Cr4};
use x86_64::registers::model_specific::Msr;

use super::capabilities::{Fixed, Plan, Refusal, Registers};
use super::set_up::{GUEST_CR0, GUEST_CR4};
use crate::nested::LargestPage;

/// IA32_FEATURE_CONTROL.
pub(super) const MSR_FEATURE_CONTROL: u32 = 0x3a;
const MSR_BASIC: u32 = 0x480;
/// Pin-based, primary, exit, entry; the TRUE ones beside them (A.3 to A.5).
const MSR_CONTROLS: [u32; 4] = [0x481, 0x482, 0x483, 0x484];
const MSR_TRUE_CONTROLS: [u32; 4] = [0x48d, 0x48e, 0x48f, 0x490];
const MSR_CR0_ONES: u32 = 0x486;
const MSR_CR4_ONES: u32 = 0x488;
const MSR_SECONDARY: u32 = 0x48b;
const MSR_EPT_VPID: u32 = 0x48c;
/// IA32_VMX_BASIC: there are TRUE registers.
const HAS_TRUE_CONTROLS: u64 = 1 << 55;
/// High half of the primary controls' capability: secondary controls may be used.
const MAY_HAVE_SECONDARY: u64 = 1 << 63;
/// High half of the secondary ones': EPT, VPID. With either, there is MSR_EPT_VPID.
const MAY_HAVE_EPT_OR_VPID: u64 = (1 << 33) | (1 << 37);

static PLAN: Once<Plan> = Once::new();

/// Whether the executing CPU has VMX with all that the back end needs, and why not. The other CPUs
/// are taken to be like it.
///
/// # Errors
/// Says what is missing.
pub fn is_supported() -> Result<(), Refusal> {
    const VMX: u32 = 1 << 5;
    if __cpuid(1).ecx & VMX == 0 {
        return Err(Refusal::NoVmx);
    }
    let plan = Plan::new(&registers())?;
    let fits = |fixed: Fixed, values: [u64; 2]| {
        let forbids = |value| fixed.settle(value).is_none();
        !values.into_iter().any(forbids)
    };
    if !fits(plan.cr0, [Cr0::read_raw(), GUEST_CR0]) {
        return Err(Refusal::ControlRegister("CR0"));
    }
    if !fits(plan.cr4, [Cr4::read_raw(), GUEST_CR4]) {
        return Err(Refusal::ControlRegister("CR4"));
    }
    PLAN.call_once(|| plan);
    Ok(())
}

/// The plan that [`is_supported`] settled.
pub(super) fn plan() -> &'static Plan {
    PLAN.get()
        .expect("this back end is chosen after is_supported")
}

/// Whether the tables of this back end record stores.
pub(super) fn keeps_dirty_bits() -> bool {
    PLAN.get().is_some_and(|plan| plan.keeps_dirty_bits)
}

/// The largest page that extended tables can have.
pub(super) fn largest_page() -> LargestPage {
    PLAN.get()
        .map_or(LargestPage::Stretch, |plan| plan.largest_page)
}

/// Reads what there is.
fn registers() -> Registers {
    // SAFETY: CPUID shows VMX, which brings every register that is read here: the TRUE ones where
    // the basic one says so (A.2), the others as the capabilities before them say (A.3.3, A.10).
    // Reading them changes nothing.
    let read = |register| unsafe { Msr::new(register).read() };
    let basic = read(MSR_BASIC);
    let controls = if basic & HAS_TRUE_CONTROLS != 0 {
        MSR_TRUE_CONTROLS
    } else {
        MSR_CONTROLS
    };
    let [pin, primary, exit, entry] = controls.map(read);
    let read_if = |condition: bool, register| if condition { read(register) } else { 0 };
    let secondary = read_if(primary & MAY_HAVE_SECONDARY != 0, MSR_SECONDARY);
    let ept_vpid = read_if(secondary & MAY_HAVE_EPT_OR_VPID != 0, MSR_EPT_VPID);
    let fixed = |first| Fixed {
        ones: read(first),
        allowed: read(first + 1),
    };
    Registers {
        feature_control: read(MSR_FEATURE_CONTROL),
        basic,
        pin,
        primary,
        secondary,
        exit,
        entry,
        ept_vpid,
        cr0: fixed(MSR_CR0_ONES),
        cr4: fixed(MSR_CR4_ONES),
    }
}
