//! The way into the guest and back, for SVM.
//!
//! # Entry
//! True on entry: host mode, EFER.SVME set, the host save area named, GIF clear, RFLAGS.IF clear,
//! identity-mapped stack of this CPU. Phases: (1) save the host's callee-saved registers; (2) load
//! the guest's FP state and general registers; (3) `VMRUN`; (4) save the guest's registers and FP
//! state; (5) open the global interrupt flag for one instruction, so that the NMI that caused the
//! exit, or one that came since, is taken (and dismissed) here on a stack that no red zone is in
//! use of; (6) restore the host.
//!
//! The processor saves and restores RAX, RSP, RIP, RFLAGS, CS, SS, CR0, CR3, CR4, EFER, GDTR, IDTR
//! of the host (APM volume 2, rev. 3.41, 15.5.1). **Not** saved: the host's FS, GS, TR, LDTR and
//! SSE state, which the monitor does not rely on across an entry; debug registers DR0 to DR3, which
//! the monitor does not use. The x87 registers stay the guest's all the while; so do FS, GS, TR,
//! LDTR and the system call registers, for a CPU runs one guest only: [`load_rest`] loads them when
//! a life begins, and no exit needs `VMSAVE` and `VMLOAD`. The monitor's interrupt gates use no
//! stack of a TSS, which would be the guest's.

use core::arch::asm;
use core::mem::offset_of;

use crate::machine::registers::{
    GuestRegisters, load_guest, restore_host, save_guest, save_host, switch_asm,
};

/// Loads what neither `VMRUN` nor an exit touches: FS, GS, TR, LDTR, the system call registers.
///
/// # Safety
/// `vmcb` is a valid VMCB of this CPU; GIF and RFLAGS.IF are clear.
pub(crate) unsafe fn load_rest(vmcb: u64) {
    // SAFETY: the monitor uses none of these registers (module header); the caller vouches for the
    // VMCB.
    unsafe { asm!("vmload rax", in("rax") vmcb, options(nostack)) };
}

/// Runs the guest of the VMCB at physical address `vmcb` until it exits.
///
/// # Safety
/// The entry conditions of the module header hold; `vmcb` is a valid VMCB of this CPU whose guest
/// cannot reach monitor memory; `registers` is valid for reads and writes and used by nobody else
/// meanwhile.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn enter(vmcb: u64, registers: *mut GuestRegisters) {
    switch_asm!({
        // (1)
        save_host!(),
        "push rsi",
        // (2)
        "mov rax, rdi",
        load_guest!(),
        "mov rsi, [rsi + {rsi}]",
        // (3) RAX: the VMCB
        "vmrun rax",
        // (4) the pointer to the registers is on top of the stack; put the guest's RDI there
        // instead
        "xchg rdi, [rsp]",
        save_guest!(),
        // (5)
        "stgi",
        "nop",
        "clgi",
        // (6)
        restore_host!(),
        "ret",
    })
}
