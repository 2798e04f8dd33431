//! The copy routine that survives a bus error.
//!
//! # Protocol
//! `exceptions` sends a bus error (or, without nested tables, a page fault on the window) whose
//! instruction lies between the routine's start and end symbols to its landing pad, with the kind
//! in RAX and the address in RDX. Nothing else is undone: the bytes before the error are copied.
//!
//! # Invariants
//! 1. Between the two symbols the routine holds nothing that a jump to the landing pad would leak:
//!    no stack, no lock.
//! 2. Aligned words are loaded and stored whole, in ascending order.

use core::arch::naked_asm;

use firewall::hypercall::{BusError, BusErrorKind};

/// How a copy ended: kind of the bus error, or 0, and its address.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Outcome {
    kind: u64,
    address: u64,
}

unsafe extern "C" {
    /// The first instruction at which a bus error lands.
    static kernel_copy_start: u8;
    /// The first one behind it at which it does not.
    static kernel_copy_end: u8;
    /// Where it lands.
    static kernel_copy_landing: u8;
}

/// Copies bytes: quadwords first, then the rest.
///
/// # Safety
/// One of the two areas is the caller's own memory. The other may end in a bus error, but where it
/// does not, it may be read or written as the caller does.
#[unsafe(naked)]
unsafe extern "C" fn copy(destination: *mut u8, source: *const u8, bytes: usize) -> Outcome {
    naked_asm!(
        "xor ecx, ecx",
        "mov r8, rdx",
        "and r8, -8",
        ".globl kernel_copy_start",
        "kernel_copy_start:",
        "2:",
        "cmp rcx, r8",
        "jae 3f",
        "mov rax, [rsi + rcx]",
        "mov [rdi + rcx], rax",
        "add rcx, 8",
        "jmp 2b",
        "3:",
        "cmp rcx, rdx",
        "jae 4f",
        "mov al, [rsi + rcx]",
        "mov [rdi + rcx], al",
        "inc rcx",
        "jmp 3b",
        ".globl kernel_copy_end",
        "kernel_copy_end:",
        "4:",
        "xor eax, eax",
        ".globl kernel_copy_landing",
        "kernel_copy_landing:",
        "ret",
    );
}

/// Where an exception at `instruction` resumes, if it lies in the routine.
pub fn landing_pad(instruction: u64) -> Option<u64> {
    let address = |symbol: *const u8| symbol.addr() as u64;
    let start = address(&raw const kernel_copy_start);
    let end = address(&raw const kernel_copy_end);
    (start..end)
        .contains(&instruction)
        .then(|| address(&raw const kernel_copy_landing))
}

fn result(outcome: Outcome) -> Result<(), BusError> {
    match outcome {
        Outcome { kind: 0, .. } => Ok(()),
        Outcome { kind, address } => Err(BusError { address, kind }),
    }
}

/// Copies from memory that may end in a bus error.
///
/// # Errors
/// The bus error; `to` then holds anything.
///
/// # Safety
/// `from` and the `to.len()` bytes behind it lie in the physical window.
pub unsafe fn load(to: &mut [u8], from: *const u8) -> Result<(), BusError> {
    // SAFETY: `to` is the caller's; loads from the window are plain reads of memory, whoever writes
    // it meanwhile, and the bytes are not looked at before the routine has ended.
    result(unsafe { copy(to.as_mut_ptr(), from, to.len()) })
}

/// Copies into memory that may end in a bus error.
///
/// # Errors
/// The bus error; a part may be stored.
///
/// # Safety
/// `to` and the `from.len()` bytes behind it lie in the physical window, and in no memory that Rust
/// code of this cell holds a reference to.
pub unsafe fn store(to: *mut u8, from: &[u8]) -> Result<(), BusError> {
    // SAFETY: the caller vouches for the destination; the firewall decides whether the store
    // happens.
    result(unsafe { copy(to, from.as_ptr(), from.len()) })
}

/// The kind of a bus error; a kind that the monitor does not know counts as memory that is gone.
pub fn kind(error: BusError) -> BusErrorKind {
    BusErrorKind::from_raw(error.kind).unwrap_or(BusErrorKind::Read)
}

#[cfg(test)]
#[allow(
    clippy::undocumented_unsafe_blocks,
    reason = "both areas are arrays of the test"
)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_exact_at_every_length() {
        let source: Vec<u8> = (0..40).collect();
        for length in 0..source.len() {
            let mut target = [0xff; 48];
            // SAFETY: the target is longer than every length tried, and nothing else uses it.
            unsafe { store(target.as_mut_ptr(), &source[..length]) }.unwrap();
            assert_eq!(target[..length], source[..length]);
            assert!(target[length..].iter().all(|&byte| byte == 0xff));
        }
    }

    #[test]
    fn only_the_routine_has_a_landing_pad() {
        let start = (&raw const kernel_copy_start).addr() as u64;
        let end = (&raw const kernel_copy_end).addr() as u64;
        let pad = landing_pad(start).unwrap();
        assert!(pad >= end, "the landing pad itself must not land on itself");
        assert!(landing_pad(end - 1).is_some());
        assert!(landing_pad(end).is_none());
        assert!(landing_pad(start - 1).is_none());
    }
}
