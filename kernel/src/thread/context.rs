//! The context of a thread: everything of it that a CPU holds while it runs.
//!
//! While a thread runs, IST 1 of its CPU points to the end of its context, so that the processor's
//! own pushes at an interrupt are the first part of saving it (`cpu::stubs`).
//!
//! # Invariants
//! 1. A context is written only by the CPU that runs the thread, and read only by the one that
//!    resumes it; the scheduler's lock lies between the two.

use core::cell::UnsafeCell;
use core::fmt;

use crate::cpu::gdt::{CODE_SELECTOR, DATA_SELECTOR};

/// Offset, in a context, of the control and status word of the vector unit (MXCSR), behind sixteen
/// vector registers.
pub const CONTROL_OFFSET: usize = 16 * 16;
/// Bytes of vector registers and control word, with what keeps the rest aligned.
pub const VECTORS_BYTES: usize = CONTROL_OFFSET + 16;

/// MXCSR at reset: every exception masked.
const CONTROL: u32 = 0x1f80;

/// RFLAGS of a new thread: interrupts on, and the bit that is always set.
const FLAGS: u64 = 1 << 9 | 1 << 1;

/// Registers in the order in which the entry stubs leave them.
#[repr(C, align(16))]
#[derive(Clone, Debug)]
pub struct Context {
    vectors: [u8; VECTORS_BYTES],
    /// General registers.
    pub r15: u64,
    /// General register.
    pub r14: u64,
    /// General register.
    pub r13: u64,
    /// General register.
    pub r12: u64,
    /// General register.
    pub r11: u64,
    /// General register.
    pub r10: u64,
    /// General register.
    pub r9: u64,
    /// General register.
    pub r8: u64,
    /// General register.
    pub rbp: u64,
    /// General register.
    pub rdi: u64,
    /// General register.
    pub rsi: u64,
    /// General register.
    pub rdx: u64,
    /// General register.
    pub rcx: u64,
    /// General register.
    pub rbx: u64,
    /// General register.
    pub rax: u64,
    /// The vector by which the kernel was entered.
    pub vector: u64,
    /// The error code, or 0.
    pub error: u64,
    /// Where it was.
    pub rip: u64,
    /// Code segment.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
}

impl Context {
    /// A context of nothing.
    const fn zero() -> Self {
        Self {
            vectors: [0; VECTORS_BYTES],
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rbp: 0,
            rdi: 0,
            rsi: 0,
            rdx: 0,
            rcx: 0,
            rbx: 0,
            rax: 0,
            vector: 0,
            error: 0,
            rip: 0,
            cs: 0,
            rflags: 0,
            rsp: 0,
            ss: 0,
        }
    }

    /// The context of a thread that is about to call `entry` with `argument` on a stack that ends
    /// at `stack_top`.
    pub fn start(entry: extern "C" fn(u64) -> !, argument: u64, stack_top: u64) -> Self {
        let mut context = Self::zero();
        context.vectors[CONTROL_OFFSET..CONTROL_OFFSET + 4].copy_from_slice(&CONTROL.to_le_bytes());
        context.rip = entry as usize as u64;
        context.cs = CODE_SELECTOR;
        context.rflags = FLAGS;
        // As after a call instruction: 8 below a multiple of 16.
        context.rsp = stack_top - 8;
        context.ss = DATA_SELECTOR;
        context.rdi = argument;
        context
    }
}

/// Room for a context that the processor and the entry stubs write.
pub struct ContextCell(UnsafeCell<Context>);

// SAFETY: invariant 1.
unsafe impl Sync for ContextCell {}

impl ContextCell {
    /// Room for a context.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(Context::zero()))
    }

    /// Where the context lies.
    pub const fn get(&self) -> *mut Context {
        self.0.get()
    }

    /// Where it ends: what IST 1 holds while its thread runs.
    pub fn end(&self) -> u64 {
        self.0.get().wrapping_add(1).addr() as u64
    }
}

impl Default for ContextCell {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ContextCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ContextCell").field(&self.0.get()).finish()
    }
}

// The stubs push 22 words above the vector registers; the processor aligns IST stacks to 16 bytes.
const _: () = {
    assert!(size_of::<Context>() == VECTORS_BYTES + 22 * 8);
    assert!(size_of::<Context>().is_multiple_of(16));
    assert!(core::mem::offset_of!(Context, r15) == VECTORS_BYTES);
    assert!(core::mem::offset_of!(Context, rax) == VECTORS_BYTES + 14 * 8);
    assert!(core::mem::offset_of!(Context, rip) == VECTORS_BYTES + 17 * 8);
    assert!(align_of::<ContextCell>() == 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn entry(_: u64) -> ! {
        std::process::abort()
    }

    #[test]
    fn a_new_thread_starts_like_a_called_function() {
        let context = Context::start(entry, 7, 0x10_0000);
        assert_eq!(context.rsp % 16, 8);
        assert_eq!(context.rdi, 7);
        assert_eq!(context.rip, entry as *const () as u64);
        assert_eq!(
            u32::from_le_bytes(
                context.vectors[CONTROL_OFFSET..CONTROL_OFFSET + 4]
                    .try_into()
                    .unwrap()
            ),
            0x1f80
        );
    }
}
