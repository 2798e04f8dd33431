//! The way into the guest and back, for SVM.
//!
//! # Entry
//! True on entry: host mode, EFER.SVME set, the host save area named, GIF clear, RFLAGS.IF clear,
//! identity-mapped stack of this CPU. Phases: (1) save the host's callee-saved registers; (2) load
//! the guest's FP state and general registers; (3) `VMRUN`; (4) save the guest's registers and FP
//! state; (5) open the global interrupt flag for one instruction, so that
//! the NMI that caused the exit, or one that came since, is taken (and dismissed) here on a stack
//! that no red zone is in use of; (6) restore the host.
//!
//! The processor saves and restores RAX, RSP, RIP, RFLAGS, CS, SS, CR0, CR3, CR4, EFER, GDTR, IDTR
//! of the host (APM volume 2, rev. 3.41, 15.5.1). **Not** saved: the host's FS, GS, TR, LDTR and
//! SSE state, which the monitor does not rely on across an entry; debug registers DR0 to DR3, which
//! the monitor does not use. The x87 registers stay the guest's all the while; so do FS, GS, TR,
//! LDTR and the system call registers, for a CPU runs one guest only: [`load_rest`] loads them when
//! a life begins, and no exit needs `VMSAVE` and `VMLOAD`. The monitor's interrupt gates use no
//! stack of a TSS, which would be the guest's.
//!
//! Neither `FXSAVE` nor `FXRSTOR`: QEMU's TCG (7.2) executes `FXRSTOR` and `FNINIT` of any CPU by a
//! change of the *first* CPU's flags that is not atomic, and so undoes a `VMRUN` or `STGI` that the
//! first CPU makes at that moment.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

/// The SSE control register after reset: every exception masked.
const MXCSR_RESET: u32 = 0x1f80;

/// The guest registers that `VMRUN` does not load (RAX and RSP are in the VMCB).
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct GuestRegisters {
    pub(crate) xmm: [u128; 16],
    pub(crate) mxcsr: u32,
    pub(crate) rbx: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
    pub(crate) rbp: u64,
    pub(crate) r8: u64,
    pub(crate) r9: u64,
    pub(crate) r10: u64,
    pub(crate) r11: u64,
    pub(crate) r12: u64,
    pub(crate) r13: u64,
    pub(crate) r14: u64,
    pub(crate) r15: u64,
}

impl GuestRegisters {
    /// All zero, but for the SSE control register, which is as after reset.
    pub(crate) const fn new() -> Self {
        Self {
            xmm: [0; 16],
            mxcsr: MXCSR_RESET,
            rbx: 0,
            rcx: 0,
            rdx: 0,
            rsi: 0,
            rdi: 0,
            rbp: 0,
            r8: 0,
            r9: 0,
            r10: 0,
            r11: 0,
            r12: 0,
            r13: 0,
            r14: 0,
            r15: 0,
        }
    }
}

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
    naked_asm!(
        // (1)
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rsi",
        // (2)
        "mov rax, rdi",
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movaps xmm\\i, [rsi + {xmm} + 16 * \\i]",
        ".endr",
        "ldmxcsr [rsi + {guest_mxcsr}]",
        "mov rbx, [rsi + {rbx}]",
        "mov rcx, [rsi + {rcx}]",
        "mov rdx, [rsi + {rdx}]",
        "mov rdi, [rsi + {rdi}]",
        "mov rbp, [rsi + {rbp}]",
        "mov r8, [rsi + {r8}]",
        "mov r9, [rsi + {r9}]",
        "mov r10, [rsi + {r10}]",
        "mov r11, [rsi + {r11}]",
        "mov r12, [rsi + {r12}]",
        "mov r13, [rsi + {r13}]",
        "mov r14, [rsi + {r14}]",
        "mov r15, [rsi + {r15}]",
        "mov rsi, [rsi + {rsi}]",
        // (3) RAX: the VMCB
        "vmrun rax",
        // (4) the pointer to the registers is on top of the stack; put the guest's RDI there
        // instead
        "xchg rdi, [rsp]",
        "mov [rdi + {rbx}], rbx",
        "mov [rdi + {rcx}], rcx",
        "mov [rdi + {rdx}], rdx",
        "mov [rdi + {rsi}], rsi",
        "mov [rdi + {rbp}], rbp",
        "mov [rdi + {r8}], r8",
        "mov [rdi + {r9}], r9",
        "mov [rdi + {r10}], r10",
        "mov [rdi + {r11}], r11",
        "mov [rdi + {r12}], r12",
        "mov [rdi + {r13}], r13",
        "mov [rdi + {r14}], r14",
        "mov [rdi + {r15}], r15",
        "pop rax",
        "mov [rdi + {rdi}], rax",
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movaps [rdi + {xmm} + 16 * \\i], xmm\\i",
        ".endr",
        "stmxcsr [rdi + {guest_mxcsr}]",
        "push {mxcsr}",
        "ldmxcsr [rsp]",
        "add rsp, 8",
        // (5)
        "stgi",
        "nop",
        "clgi",
        // (6)
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        xmm = const offset_of!(GuestRegisters, xmm),
        guest_mxcsr = const offset_of!(GuestRegisters, mxcsr),
        rbx = const offset_of!(GuestRegisters, rbx),
        rcx = const offset_of!(GuestRegisters, rcx),
        rdx = const offset_of!(GuestRegisters, rdx),
        rsi = const offset_of!(GuestRegisters, rsi),
        rdi = const offset_of!(GuestRegisters, rdi),
        rbp = const offset_of!(GuestRegisters, rbp),
        r8 = const offset_of!(GuestRegisters, r8),
        r9 = const offset_of!(GuestRegisters, r9),
        r10 = const offset_of!(GuestRegisters, r10),
        r11 = const offset_of!(GuestRegisters, r11),
        r12 = const offset_of!(GuestRegisters, r12),
        r13 = const offset_of!(GuestRegisters, r13),
        r14 = const offset_of!(GuestRegisters, r14),
        r15 = const offset_of!(GuestRegisters, r15),
        mxcsr = const MXCSR_RESET,
    );
}
