//! The way in and out of every interrupt and exception.
//!
//! # Phases
//! 1. The processor switches to the stack that the gate names and pushes SS, RSP, RFLAGS, CS, RIP
//!    (and an error code).
//! 2. The vector's stub pushes a zero where there is no error code, and the vector.
//! 3. The common entry pushes the general registers and the vector registers: a
//!    [`Context`](crate::thread::context::Context) is complete.
//! 4. Interrupts: the stack that phase 1 used **is** the context of the current thread, so the
//!    handler runs on the CPU's interrupt stack, and answers with the context to resume.
//!    Exceptions: the handler runs on the same stack, below the context, and always resumes it.
//! 5. The vector registers, the general registers and IRETQ bring back what was interrupted.
//!
//! # What is not saved
//! The x87 state: the kernel has no x87 code, so no thread has any. It is left out for a reason: in
//! QEMU's emulation up to 7.2 at least, `FXRSTOR`, `FNINIT` and their kin on *any* CPU read, change
//! and write back a flag word of the boot CPU without a lock (they lower IGNNE#), and so now and
//! then undo a change that this CPU makes to the global interrupt flag in `VMRUN` or at an exit: it
//! then sleeps for ever, or runs on in a mixture of guest and host. Also not: debug registers, AVX
//! state (never enabled), segment registers other than CS and SS, FS and GS base (fixed).
//!
//! # References
//! AMD64 Architecture Programmer's Manual, volume 2, 8.9 (long-mode interrupt control transfers).

use core::arch::naked_asm;

use firewall::hypercall::{
    VECTOR_DOORBELL, VECTOR_KICK, VECTOR_SPURIOUS, VECTOR_TIMER, VECTOR_WAKE,
};

use crate::cpu::exceptions;
use crate::cpu::interrupts::{self, VECTOR_SWITCH, VECTOR_UNEXPECTED};
use crate::cpu::per_cpu::PerCpu;
use crate::thread::context::{CONTROL_OFFSET, VECTORS_BYTES};

/// Phase 3: from the vector's stub to a complete context, RSP at its start.
macro_rules! save {
    () => {
        "push rax
         push rbx
         push rcx
         push rdx
         push rsi
         push rdi
         push rbp
         push r8
         push r9
         push r10
         push r11
         push r12
         push r13
         push r14
         push r15
         sub rsp, {vectors}
         movaps [rsp + 0x00], xmm0
         movaps [rsp + 0x10], xmm1
         movaps [rsp + 0x20], xmm2
         movaps [rsp + 0x30], xmm3
         movaps [rsp + 0x40], xmm4
         movaps [rsp + 0x50], xmm5
         movaps [rsp + 0x60], xmm6
         movaps [rsp + 0x70], xmm7
         movaps [rsp + 0x80], xmm8
         movaps [rsp + 0x90], xmm9
         movaps [rsp + 0xa0], xmm10
         movaps [rsp + 0xb0], xmm11
         movaps [rsp + 0xc0], xmm12
         movaps [rsp + 0xd0], xmm13
         movaps [rsp + 0xe0], xmm14
         movaps [rsp + 0xf0], xmm15
         stmxcsr [rsp + {control}]
         cld"
    };
}

/// Phase 5: from RSP at the start of a context to what it interrupted.
macro_rules! restore {
    () => {
        "movaps xmm0, [rsp + 0x00]
         movaps xmm1, [rsp + 0x10]
         movaps xmm2, [rsp + 0x20]
         movaps xmm3, [rsp + 0x30]
         movaps xmm4, [rsp + 0x40]
         movaps xmm5, [rsp + 0x50]
         movaps xmm6, [rsp + 0x60]
         movaps xmm7, [rsp + 0x70]
         movaps xmm8, [rsp + 0x80]
         movaps xmm9, [rsp + 0x90]
         movaps xmm10, [rsp + 0xa0]
         movaps xmm11, [rsp + 0xb0]
         movaps xmm12, [rsp + 0xc0]
         movaps xmm13, [rsp + 0xd0]
         movaps xmm14, [rsp + 0xe0]
         movaps xmm15, [rsp + 0xf0]
         ldmxcsr [rsp + {control}]
         add rsp, {vectors}
         pop r15
         pop r14
         pop r13
         pop r12
         pop r11
         pop r10
         pop r9
         pop r8
         pop rbp
         pop rdi
         pop rsi
         pop rdx
         pop rcx
         pop rbx
         pop rax
         add rsp, 16
         iretq"
    };
}

/// The common entry of interrupts.
#[unsafe(naked)]
extern "C" fn interrupt_entry() {
    naked_asm!(
        save!(),
        "mov rdi, rsp",
        // From here on the context is the scheduler's; the stack pointer is 16-aligned before the
        // call.
        "mov rsp, gs:[{interrupt_stack}]",
        "call {dispatch}",
        "mov rsp, rax",
        restore!(),
        vectors = const VECTORS_BYTES,
        control = const CONTROL_OFFSET,
        interrupt_stack = const PerCpu::INTERRUPT_STACK_OFFSET,
        dispatch = sym interrupts::dispatch,
    );
}

/// The common entry of exceptions.
#[unsafe(naked)]
extern "C" fn exception_entry() {
    naked_asm!(
        save!(),
        // The stack top and the size of a context are multiples of 16, so RSP is one before the
        // call.
        "mov rdi, rsp",
        "call {dispatch}",
        restore!(),
        vectors = const VECTORS_BYTES,
        control = const CONTROL_OFFSET,
        dispatch = sym exceptions::dispatch,
    );
}

/// Phase 2, where the processor pushes no error code.
macro_rules! stub {
    ($($(#[doc = $doc:literal])+ $name:ident, $vector:expr, $entry:ident;)+) => {
        $($(#[doc = $doc])+
        #[unsafe(naked)]
        pub extern "C" fn $name() {
            naked_asm!(
                "push 0",
                "push {vector}",
                "jmp {entry}",
                vector = const $vector as i32,
                entry = sym $entry,
            );
        })+
    };
}

/// Phase 2, where the processor pushes an error code.
macro_rules! stub_with_code {
    ($($(#[doc = $doc:literal])+ $name:ident, $vector:expr;)+) => {
        $($(#[doc = $doc])+
        #[unsafe(naked)]
        pub extern "C" fn $name() {
            naked_asm!(
                "push {vector}",
                "jmp {entry}",
                vector = const $vector as i32,
                entry = sym exception_entry,
            );
        })+
    };
}

stub! {
    /// Vector 0.
    divide_error, 0, exception_entry;
    /// Vector 1.
    debug, 1, exception_entry;
    /// Vector 2.
    nmi, 2, exception_entry;
    /// Vector 3.
    breakpoint, 3, exception_entry;
    /// Vector 4.
    overflow, 4, exception_entry;
    /// Vector 5.
    bound_range, 5, exception_entry;
    /// Vector 6.
    invalid_opcode, 6, exception_entry;
    /// Vector 7.
    device_not_available, 7, exception_entry;
    /// Vector 16.
    x87_error, 16, exception_entry;
    /// Vector 18.
    machine_check, 18, exception_entry;
    /// Vector 19.
    simd_error, 19, exception_entry;
    /// The doorbell.
    doorbell, VECTOR_DOORBELL, interrupt_entry;
    /// A wake-up by another CPU of the cell.
    wake, VECTOR_WAKE, interrupt_entry;
    /// A kick of the monitor, behind page tables.
    kick, VECTOR_KICK, interrupt_entry;
    /// The timer.
    timer, VECTOR_TIMER, interrupt_entry;
    /// A thread gives the CPU away.
    switch, VECTOR_SWITCH, interrupt_entry;
    /// A spurious interrupt of the local APIC.
    spurious, VECTOR_SPURIOUS, interrupt_entry;
    /// Any other vector.
    unexpected, VECTOR_UNEXPECTED, interrupt_entry;
}

stub_with_code! {
    /// Vector 8.
    double_fault, 8;
    /// Vector 10.
    invalid_tss, 10;
    /// Vector 11.
    segment_not_present, 11;
    /// Vector 12.
    stack_segment, 12;
    /// Vector 13.
    general_protection, 13;
    /// Vector 14.
    page_fault, 14;
    /// Vector 17.
    alignment_check, 17;
}
