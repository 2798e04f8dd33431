//! One-instruction wrappers that the monitor needs on every back end.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

use crate::nested::LargestPage;

/// MCG_STATUS: bit 2 is set while a machine check is handled; a second one then resets the machine.
pub const MACHINE_CHECK_STATUS: u32 = 0x17a;

/// The time-stamp counter. Synchronized between CPUs (assumed; QEMU's is one counter).
pub fn cycles() -> u64 {
    // SAFETY: RDTSC reads a counter and touches nothing else; every x86-64 processor has it, and
    // CR4.TSD matters only outside ring 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Waits at least `span` cycles.
pub fn spin(span: u64) {
    let start = cycles();
    while cycles().wrapping_sub(start) < span {
        core::hint::spin_loop();
    }
}

/// Stops the executing CPU for good, with interrupts off. Only INIT brings it back, which VMX root
/// operation would block (Intel SDM volume 3, 325384-070, 23.8): that ends here.
pub fn halt_forever() -> ! {
    if Cr4::read().contains(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS) {
        // SAFETY: the bit is set exactly as long as the CPU is in VMX operation (`vmx::operation`,
        // invariant 1), and nothing of it is used any more.
        unsafe { asm!("vmxoff", options(nomem, nostack)) };
    }
    loop {
        // SAFETY: halting with interrupts off stops only this CPU; nothing is expected to run on it
        // again.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// The largest page of the processor's own tables: CPUID 8000_0001h, EDX bit 26 (APM volume 3, rev.
/// 3.36, E.4.2; SDM volume 2, CPUID). It holds for nested tables of the same format as well.
pub(crate) fn largest_page() -> LargestPage {
    const PAGE_1_GIB: u32 = 1 << 26;
    let extended = core::arch::x86_64::__cpuid(0x8000_0000).eax;
    if extended >= 0x8000_0001 && core::arch::x86_64::__cpuid(0x8000_0001).edx & PAGE_1_GIB != 0 {
        LargestPage::Gibibyte
    } else {
        LargestPage::Stretch
    }
}

/// What CPUID says of the machine check architecture: nothing yet, no, yes. Each CPU may ask; none
/// waits for another that does.
static MACHINE_CHECK: AtomicU8 = AtomicU8::new(NOT_ASKED);
const NOT_ASKED: u8 = 0;
const MISSING: u8 = 1;
const PRESENT: u8 = 2;

/// Whether the processor has the machine check architecture, which brings [`MACHINE_CHECK_STATUS`].
fn has_machine_check() -> bool {
    let mut known = MACHINE_CHECK.load(Ordering::Relaxed);
    if known == NOT_ASKED {
        let features = core::arch::x86_64::__cpuid(1);
        let is_there = features.edx & 1 << 14 != 0;
        known = if is_there { PRESENT } else { MISSING };
        MACHINE_CHECK.store(known, Ordering::Relaxed);
    }
    known == PRESENT
}

/// Whether a machine check was delivered on the executing CPU since [`clear_machine_check`].
pub fn is_machine_check_pending() -> bool {
    const IN_PROGRESS: u64 = 1 << 2;
    // SAFETY: the register exists (checked first); reading it changes nothing.
    has_machine_check() && unsafe { Msr::new(MACHINE_CHECK_STATUS).read() } & IN_PROGRESS != 0
}

/// Makes the executing CPU ready for its next machine check.
pub fn clear_machine_check() {
    if has_machine_check() {
        // SAFETY: the register exists; clearing it touches no memory.
        unsafe { Msr::new(MACHINE_CHECK_STATUS).write(0) };
    }
}
