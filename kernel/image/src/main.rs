//! The cell kernel as an image: entry point, allocator, panic handler.
//!
//! Everything that must exist once per image and never in a host test is here; the kernel itself is
//! the `kernel` crate.
//!
//! # Entry contract
//! See `kernel::start`: the monitor enters `_start` with the kernel mapped at its link address.

#![no_std]
#![no_main]
// `runtime` defines the routines that the compiler otherwise recognizes in loops and calls by name.
#![no_builtins]

mod runtime;

use core::panic::PanicInfo;

use kernel::memory::heap::KernelHeap;

bootloader_api::entry_point!(kernel::start::boot_cpu);

/// The allocator of `alloc`, over the cell's own kernel frames.
#[global_allocator]
static HEAP: KernelHeap = KernelHeap;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    kernel::panic::broken_invariant(info)
}
