//! One-instruction wrappers that the monitor needs on every back end.

use core::arch::asm;

use spin::Once;
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

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

static HAS_MACHINE_CHECK: Once<bool> = Once::new();

/// Whether the processor has the machine check architecture, which brings [`MACHINE_CHECK_STATUS`].
fn has_machine_check() -> bool {
    *HAS_MACHINE_CHECK.call_once(|| {
        let features = core::arch::x86_64::__cpuid(1);
        features.edx & 1 << 14 != 0
    })
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
