//! The registers of a guest that the processor leaves to the monitor, and how they are switched.
//!
//! Both hardware back ends enter their guests by a naked function of their own, made with
//! `switch_asm`, which names the offsets of [`GuestRegisters`], and out of `save_host`,
//! `load_guest`, `save_guest` and `restore_host`.
//!
//! The x87 registers stay the guest's all the while, for a CPU runs one guest only. Neither
//! `FXSAVE` nor `FXRSTOR`: QEMU's TCG (7.2) executes `FXRSTOR` and `FNINIT` of any CPU by a change
//! of the *first* CPU's flags that is not atomic, and so undoes a `VMRUN` or `STGI` that the first
//! CPU makes at that moment.

/// The SSE control register after reset: every exception masked.
pub(crate) const MXCSR_RESET: u32 = 0x1f80;

/// The guest registers that an entry does not load. RSP never is here; RAX is where the control
/// structure does not hold it.
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct GuestRegisters {
    pub(crate) xmm: [u128; 16],
    pub(crate) mxcsr: u32,
    pub(crate) rax: u64,
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
            rax: 0,
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

/// Pushes the registers that a function has to keep.
macro_rules! save_host {
    () => {
        ".irp register, rbp, rbx, r12, r13, r14, r15\npush \\register\n.endr\n"
    };
}

/// Pops what `save_host` pushed.
macro_rules! restore_host {
    () => {
        ".irp register, r15, r14, r13, r12, rbx, rbp\npop \\register\n.endr\n"
    };
}

/// Loads every register from where RSI points, but RSI, RSP and RAX.
macro_rules! load_guest {
    () => {
        concat!(
            ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n",
            "movaps xmm\\i, [rsi + {xmm} + 16 * \\i]\n",
            ".endr\n",
            "ldmxcsr [rsi + {guest_mxcsr}]\n",
            "mov rbx, [rsi + {rbx}]\n",
            "mov rcx, [rsi + {rcx}]\n",
            "mov rdx, [rsi + {rdx}]\n",
            "mov rdi, [rsi + {rdi}]\n",
            "mov rbp, [rsi + {rbp}]\n",
            "mov r8, [rsi + {r8}]\n",
            "mov r9, [rsi + {r9}]\n",
            "mov r10, [rsi + {r10}]\n",
            "mov r11, [rsi + {r11}]\n",
            "mov r12, [rsi + {r12}]\n",
            "mov r13, [rsi + {r13}]\n",
            "mov r14, [rsi + {r14}]\n",
            "mov r15, [rsi + {r15}]\n",
        )
    };
}

/// Right after an exit: stores every register but RSP and RAX, and makes the SSE control register
/// the monitor's. RDI points to the registers; the guest's RDI is on top of the stack, and is taken
/// from there.
macro_rules! save_guest {
    () => {
        concat!(
            "mov [rdi + {rbx}], rbx\n",
            "mov [rdi + {rcx}], rcx\n",
            "mov [rdi + {rdx}], rdx\n",
            "mov [rdi + {rsi}], rsi\n",
            "mov [rdi + {rbp}], rbp\n",
            "mov [rdi + {r8}], r8\n",
            "mov [rdi + {r9}], r9\n",
            "mov [rdi + {r10}], r10\n",
            "mov [rdi + {r11}], r11\n",
            "mov [rdi + {r12}], r12\n",
            "mov [rdi + {r13}], r13\n",
            "mov [rdi + {r14}], r14\n",
            "mov [rdi + {r15}], r15\n",
            "pop rax\n",
            "mov [rdi + {rdi}], rax\n",
            ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n",
            "movaps [rdi + {xmm} + 16 * \\i], xmm\\i\n",
            ".endr\n",
            "stmxcsr [rdi + {guest_mxcsr}]\n",
            "push {mxcsr}\n",
            "ldmxcsr [rsp]\n",
            "add rsp, 8\n",
        )
    };
}

/// `naked_asm!` with the offsets of [`GuestRegisters`] as operands, named as its fields are,
/// without RAX, which not every user needs.
macro_rules! switch_asm {
    ({ $($line:tt)* } $($operand:tt)*) => {
        core::arch::naked_asm!(
            $($line)*
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
            mxcsr = const $crate::machine::registers::MXCSR_RESET,
            $($operand)*
        )
    };
}

pub(crate) use {load_guest, restore_host, save_guest, save_host, switch_asm};
