//! Stacks with guard pages.
//!
//! Behind NPT the kernel owns its page tables and maps each stack into an area of its own, with a
//! page below that is not mapped: an overflow faults, the fault is taken on an entry stack, and the
//! cell ends with an epitaph.
//!
//! # Not guaranteed
//! Guard pages where the monitor's page tables are the firewall: the kernel cannot change them.
//! Stacks are then rows of frames in the window, and the scheduler checks the stack pointer of each
//! thread that it interrupts, which finds an overflow late.

use cell::machine::BackEnd;
use cell::{Frame, PAGE_SIZE, PhysicalAddress};
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
    Translate,
};
use x86_64::{PhysAddr, VirtAddr};

use crate::lock::Lock;
use crate::memory::frames::FrameUse;
use crate::memory::{pool, window};
use crate::own::own;

/// Where mapped stacks begin: an entry of the topmost table that nothing else uses.
const AREA_START: u64 = 0xffff_ff00_0000_0000;

/// Bytes of that area.
const AREA_BYTES: u64 = 1 << 39;

/// The lowest address of the next stack's guard page.
static NEXT: Lock<u64> = Lock::new(AREA_START);

/// A stack: addresses from `bottom` up to, and without, `top`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stack {
    bottom: u64,
    top: u64,
}

impl Stack {
    /// The lowest address.
    pub const fn bottom(self) -> u64 {
        self.bottom
    }

    /// The address behind the highest: the initial stack pointer.
    pub const fn top(self) -> u64 {
        self.top
    }
}

/// Allocates a stack of `bytes`, a multiple of the page size. Stacks are never given back.
pub fn allocate(bytes: u64) -> Option<Stack> {
    match own().back_end {
        BackEnd::Npt | BackEnd::Ept => map(bytes),
        BackEnd::Paging | BackEnd::Off => {
            let row = pool::allocate_row(bytes / PAGE_SIZE, 1, FrameUse::Kernel)?;
            let bottom = window::pointer::<u8>(row.start.start()).addr() as u64;
            Some(Stack {
                bottom,
                top: bottom + bytes,
            })
        }
    }
}

/// Whether `address` lies in the area of mapped stacks, all of which is mapped but for guard pages.
pub fn is_guard(address: u64) -> bool {
    // Not under the lock: whoever asks may have died with it.
    (AREA_START..AREA_START + AREA_BYTES).contains(&address)
}

/// Whether a stack pointer at `address` can be followed: it lies in a mapped stack or in own memory
/// in the window.
pub fn is_readable(address: u64) -> bool {
    let mapped = || {
        let (root, _) = Cr3::read();
        let root = window::pointer::<PageTable>(PhysicalAddress(root.start_address().as_u64()));
        // SAFETY: as in `map_page`; the tables are only read, and entries of stacks never change
        // once they are set.
        let tables = unsafe { OffsetPageTable::new(&mut *root, VirtAddr::new(window::START)) };
        tables
            .translate_addr(VirtAddr::new_truncate(address))
            .is_some()
    };
    match window::physical(address) {
        Some(physical) => own().region.contains_bytes(physical, 8),
        None => is_guard(address) && mapped(),
    }
}

/// Maps a stack above a page that stays unmapped.
fn map(bytes: u64) -> Option<Stack> {
    let mut next = NEXT.lock();
    let bottom = *next + PAGE_SIZE;
    let top = bottom + bytes;
    for address in (bottom..top).step_by(PAGE_SIZE as usize) {
        map_page(address)?;
    }
    *next = top;
    Some(Stack { bottom, top })
}

fn map_page(address: u64) -> Option<()> {
    let (root, _) = Cr3::read();
    let root = window::pointer::<PageTable>(PhysicalAddress(root.start_address().as_u64()));
    // SAFETY: CR3 names the cell's own topmost table, all tables are reached through the window,
    // and the caller holds the lock of the only code that changes them.
    let mut tables = unsafe { OffsetPageTable::new(&mut *root, VirtAddr::new(window::START)) };
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new(address));
    let frame = pool::allocate(FrameUse::Kernel)?;
    let frame = PhysFrame::containing_address(PhysAddr::new(frame.start().0));
    let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
    // SAFETY: the frame was free and is this stack's alone; the page was never mapped, so nothing
    // else lies there.
    match unsafe { tables.map_to(page, frame, flags, &mut KernelFrames) } {
        Ok(flush) => {
            // A page that was not mapped is in no translation cache.
            flush.ignore();
            Some(())
        }
        Err(MapToError::FrameAllocationFailed) => None,
        Err(error) => panic!("stack page {address:#x}: {error:?}"),
    }
}

/// Frames for page tables.
struct KernelFrames;

// SAFETY: each frame was free and is the kernel's from then on; it is handed out once.
unsafe impl FrameAllocator<Size4KiB> for KernelFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let frame: Frame = pool::allocate(FrameUse::Kernel)?;
        Some(PhysFrame::containing_address(PhysAddr::new(
            frame.start().0,
        )))
    }
}
