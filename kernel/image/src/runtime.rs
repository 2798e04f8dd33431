//! What compiled code expects of every image: memory routines and unwinder symbols.
//!
//! The compiler emits calls to these by name, and the prebuilt `core` refers to the unwinder
//! although nothing unwinds here.
//!
//! # Invariants
//! 1. No routine may be compiled into a call of itself, so the copies are string instructions.
//! 2. Quadwords are moved wherever there are eight bytes left: `rep movsb` takes one emulated step
//!    per byte.

use core::arch::asm;
use core::ffi::{c_char, c_int, c_void};

/// Copies `bytes` bytes that do not overlap.
///
/// # Safety
/// As for the function of the same name in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(
    destination: *mut c_void,
    source: *const c_void,
    bytes: usize,
) -> *mut c_void {
    // SAFETY: the caller vouches for both areas; quadwords and rest together are exactly `bytes`,
    // and the direction flag is clear by the calling convention.
    unsafe {
        asm!(
            "rep movsq",
            "mov rcx, {rest}",
            "rep movsb",
            rest = in(reg) bytes & 7,
            inout("rcx") bytes >> 3 => _,
            inout("rdi") destination => _,
            inout("rsi") source => _,
            options(nostack, preserves_flags),
        );
    }
    destination
}

/// Copies `bytes` bytes that may overlap.
///
/// # Safety
/// As for the function of the same name in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(
    destination: *mut c_void,
    source: *const c_void,
    bytes: usize,
) -> *mut c_void {
    let distance = (destination as usize).wrapping_sub(source as usize);
    if distance >= bytes {
        // SAFETY: the destination does not start inside the source, so an ascending copy reads each
        // byte before it is overwritten.
        return unsafe { memcpy(destination, source, bytes) };
    }
    // SAFETY: the caller vouches for both areas. The rest, at the end, goes first by bytes, then
    // the quadwords before it; a descending copy reads each byte before it is overwritten. The
    // direction flag is clear again at the end.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "sub rdi, 7",
            "sub rsi, 7",
            "mov rcx, {words}",
            "rep movsq",
            "cld",
            words = in(reg) bytes >> 3,
            inout("rcx") bytes & 7 => _,
            inout("rdi") destination.cast::<u8>().wrapping_add(bytes).wrapping_sub(1) => _,
            inout("rsi") source.cast::<u8>().wrapping_add(bytes).wrapping_sub(1) => _,
            options(nostack),
        );
    }
    destination
}

/// Fills `bytes` bytes with the low byte of `value`.
///
/// # Safety
/// As for the function of the same name in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(destination: *mut c_void, value: c_int, bytes: usize) -> *mut c_void {
    let pattern = u64::from(value.to_le_bytes()[0]) * 0x0101_0101_0101_0101;
    // SAFETY: as for `memcpy`, with one area.
    unsafe {
        asm!(
            "rep stosq",
            "mov rcx, {rest}",
            "rep stosb",
            rest = in(reg) bytes & 7,
            inout("rcx") bytes >> 3 => _,
            inout("rdi") destination => _,
            in("rax") pattern,
            options(nostack, preserves_flags),
        );
    }
    destination
}

/// Compares `bytes` bytes.
///
/// # Safety
/// As for the function of the same name in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const c_void, right: *const c_void, bytes: usize) -> c_int {
    let (left, right) = (left.cast::<u8>(), right.cast::<u8>());
    let mut at = 0;
    // Equal quadwords are skipped first; the bytes decide.
    while at + 8 <= bytes {
        // SAFETY: eight bytes from `at` lie inside both areas; the loads need no alignment.
        let same = unsafe {
            left.add(at).cast::<u64>().read_unaligned()
                == right.add(at).cast::<u64>().read_unaligned()
        };
        if !same {
            break;
        }
        at += 8;
    }
    while at < bytes {
        // SAFETY: `at` is below `bytes`, so both bytes lie inside the areas that the caller vouches
        // for.
        let (a, b) = unsafe { (left.add(at).read(), right.add(at).read()) };
        if a != b {
            return c_int::from(a) - c_int::from(b);
        }
        at += 1;
    }
    0
}

/// Whether two areas differ.
///
/// # Safety
/// As for `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const c_void, right: *const c_void, bytes: usize) -> c_int {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, bytes) }
}

/// Counts the bytes before the first zero.
///
/// # Safety
/// As for the function of the same name in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let mut length = 0;
    // SAFETY: the caller vouches for every byte up to and with the first zero, and the loop ends
    // there.
    while unsafe { text.add(length).read() } != 0 {
        length += 1;
    }
    length
}

/// Named by the prebuilt `core`; never called, since a panic does not unwind.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Named by the prebuilt `core`; never called, since a panic does not unwind.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    panic!("an unwind in an image that cannot unwind")
}
