//! The kernel heap: `linked_list_allocator` over own frames.
//!
//! # Invariants
//! 1. The heap is one row of own kernel frames; borrowed frames never get into it.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use cell::{FrameRange, PAGE_SIZE};
use linked_list_allocator::Heap;

use crate::lock::Lock;
use crate::memory::frames::FrameUse;
use crate::memory::{pool, window};

/// The heap is this fraction of the cell's region, within the bounds below.
const SHARE: u64 = 16;
const FRAMES_MIN: u64 = (2 << 20) / PAGE_SIZE;
const FRAMES_MAX: u64 = (16 << 20) / PAGE_SIZE;

static HEAP: Lock<Heap> = Lock::new(Heap::empty());

/// Takes the heap's frames. Boot CPU, once, before the first allocation.
pub fn set_up(region: FrameRange) {
    let count = (region.len() / SHARE).clamp(FRAMES_MIN, FRAMES_MAX);
    let row =
        pool::allocate_row(count, 1, FrameUse::Kernel).expect("a new cell has a heap's frames");
    // SAFETY: the frames were free, are the kernel's from now on, lie in a row, and are mapped in
    // the window for as long as the cell lives.
    unsafe {
        HEAP.lock().init(
            window::pointer(row.start.start()),
            (count * PAGE_SIZE) as usize,
        );
    };
}

/// Bytes that are allocated, and bytes of the heap.
pub fn usage() -> (usize, usize) {
    let heap = HEAP.lock();
    (heap.used(), heap.size())
}

/// The kernel's heap as the allocator of an image.
#[derive(Debug)]
pub struct KernelHeap;

// SAFETY: every block comes from the one heap under its lock, which hands out no byte twice and
// keeps alignment.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.lock()
            .allocate_first_fit(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller got the block from `alloc` with the same layout.
            unsafe { HEAP.lock().deallocate(block, layout) };
        }
    }
}
