//! The ways between kernel and monitor, for the paging back end.
//!
//! [`hypercall`] and [`enter`] run partly on the kernel's tables, so their section is mapped there
//! at its own address.
//!
//! # Entry of `hypercall`
//! True on entry: ring 0, the kernel's own tables; RAX, RDI, RSI, RDX, RCX as [`crate::hypercall`]
//! says; 1 KiB of stack. Not known: whether interrupts are on. Phases: (1) save the kernel's
//! registers and SSE state on its stack; (2) save its descriptor table registers; (3) switch
//! tables, stack and descriptor tables to the monitor's; (4) answer; (5) the same way back. **Not**
//! saved: the task register (the monitor uses no interrupt stack) and the x87 registers (it does
//! not touch them; why not by `FXSAVE` is said in `registers`).

use core::arch::naked_asm;
use core::mem::offset_of;
use core::ops::Range;

use super::back_end::{PagingArea, answer};
use crate::monitor::PerCpu;

/// SYSENTER_ESP and SYSENTER_EIP: no kernel here is entered by SYSENTER.
pub(super) const MSR_PER_CPU: u32 = 0x175;
/// See [`MSR_PER_CPU`].
pub(super) const MSR_ROOT: u32 = 0x176;

/// More than either routine of the section is long.
const ROUTINE_BYTES_MAX: u64 = 1024;

/// Position of each register in what `hypercall` pushes, in bytes from the lowest address.
mod frame {
    pub(super) const RAX: usize = 0;
    pub(super) const RDI: usize = 8;
    pub(super) const RSI: usize = 16;
    pub(super) const RDX: usize = 24;
    pub(super) const RCX: usize = 32;
    /// RBX, RBP, R8 to R15 and RFLAGS lie between.
    pub(super) const RETURN_ADDRESS: usize = 128;
}

/// The addresses of this section's code, rounded outwards by its caller to pages.
pub fn mapped_code() -> Range<u64> {
    let routines = [hypercall as *const () as u64, enter as *const () as u64];
    let start = routines[0].min(routines[1]);
    start..routines[0].max(routines[1]) + ROUTINE_BYTES_MAX
}

/// Makes a hypercall.
///
/// # Safety
/// The entry conditions of the module header hold.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.paging")]
pub(super) unsafe extern "C" fn hypercall() {
    naked_asm!(
        // (1)
        "pushfq",
        "cli",
        ".irp register, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rbx, rcx, rdx, rsi, rdi, rax",
        "push \\register",
        ".endr",
        "mov rbp, rsp",
        // (2) RBX: descriptor tables, R12: SSE state, R13: root
        "sub rsp, 32",
        "sgdt [rsp]",
        "sidt [rsp + 16]",
        "mov rbx, rsp",
        "and rsp, -16",
        "sub rsp, 272",
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movaps [rsp + 16 * \\i], xmm\\i",
        ".endr",
        "stmxcsr [rsp + 256]",
        "mov r12, rsp",
        "mov r13, cr3",
        // (3) the request goes by registers: the kernel's stack goes out of sight
        "mov r8, [rbp + {rax}]",
        "mov r9, [rbp + {rdi}]",
        "mov r10, [rbp + {rsi}]",
        "mov r11, [rbp + {rdx}]",
        "mov r14, [rbp + {rcx}]",
        "mov r15, [rbp + {return_address}]",
        "mov ecx, {root}",
        "rdmsr",
        "mov esi, eax",
        "mov ecx, {per_cpu}",
        "rdmsr",
        "mov edi, eax",
        "mov cr3, rsi",
        "mov rsp, [rdi + {stack_top}]",
        "lgdt [rdi + {descriptors}]",
        "lidt [rdi + {interrupts}]",
        // (4) RDI: the CPU, RSI: number, four arguments, instruction
        "push r15",
        "push r14",
        "push r11",
        "push r10",
        "push r9",
        "push r8",
        "mov rsi, rsp",
        "push {mxcsr}",
        "ldmxcsr [rsp]",
        "push 0",
        "call {answer}",
        // (5) RAX: status, RDX: value
        "mov cr3, r13",
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movaps xmm\\i, [r12 + 16 * \\i]",
        ".endr",
        "ldmxcsr [r12 + 256]",
        "lgdt [rbx]",
        "lidt [rbx + 16]",
        "mov rsp, rbp",
        "mov [rsp + {rax}], rax",
        "mov [rsp + {rdx}], rdx",
        ".irp register, rax, rdi, rsi, rdx, rcx, rbx, rbp, r8, r9, r10, r11, r12, r13, r14, r15",
        "pop \\register",
        ".endr",
        "popfq",
        "ret",
        rax = const frame::RAX,
        rdi = const frame::RDI,
        rsi = const frame::RSI,
        rdx = const frame::RDX,
        rcx = const frame::RCX,
        return_address = const frame::RETURN_ADDRESS,
        root = const MSR_ROOT,
        per_cpu = const MSR_PER_CPU,
        stack_top = const offset_of!(PerCpu, stack_top),
        descriptors = const offset_of!(PerCpu, paging) + offset_of!(PagingArea, descriptors),
        interrupts = const offset_of!(PerCpu, paging) + offset_of!(PagingArea, interrupts),
        answer = sym answer,
        mxcsr = const 0x1f80,
    )
}

/// Enters a kernel: tables `root`, instruction pointer `entry`, stack `stack`, RDI `argument`.
/// Never returns.
///
/// # Safety
/// The tables map this section, and are a kernel's as `boot::load` builds them; interrupts are off.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.paging")]
pub(super) unsafe extern "sysv64" fn enter(root: u64, entry: u64, stack: u64, argument: u64) -> ! {
    naked_asm!(
        "mov cr3, rdi",
        "mov rsp, rdx",
        "mov rdi, rcx",
        "xor ebp, ebp",
        "push 2",
        "popfq",
        "jmp rsi",
    )
}

/// Halts with interrupts on until one came.
///
/// An interrupt cannot come between `STI` and `HLT` (APM volume 3, STI), so none is missed.
///
/// # Safety
/// The monitor's descriptor tables are loaded; their gates from 20h on lead to [`host_interrupt`].
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn wait() {
    naked_asm!("sti", "hlt", "cli", "ret")
}

/// The host's handler of every interrupt: ends it. What it was for is read from memory.
///
/// # Safety
/// Entered by the processor only, out of [`wait`].
#[unsafe(naked)]
pub unsafe extern "C" fn host_interrupt() {
    naked_asm!(
        "push rax",
        "mov eax, {end_of_interrupt}",
        "mov dword ptr [rax], 0",
        "pop rax",
        "iretq",
        end_of_interrupt = const crate::machine::lapic::END_OF_INTERRUPT_ADDRESS,
    )
}
