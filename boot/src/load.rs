//! Puts a pristine kernel into a cell's memory.
//!
//! Called at boot and at every reboot of a cell, by a CPU of that cell, in the monitor.
//!
//! ```text
//! region start                                                                        region end
//! | public area | image copy | page tables | information | stack | bus error slots | free ...  |
//! ```
//! # Entry contract of a kernel
//! Long mode, ring 0, the tables below; SSE on; CR0.WP, EFER.NXE, CR4.MCE set; interrupts off,
//! direction flag clear; code selector 08h, data selector 10h, to be replaced at once: the
//! descriptor table behind them is not the kernel's. RDI points to a `bootloader_api::BootInfo`
//! whose RAM disk is a [`Handover`]; the stack is [`STACK_BYTES`], as after a call. The image is
//! mapped at its link address with the rights of its segments, all physical memory at [`WINDOW`].
//!
//! # Invariants
//! 1. The pristine image (the boot module) is never written.
//! 2. Only the cell's own region is written, while none of its CPUs runs it (`monitor::life`,
//!    invariant 1).
//! 3. Of the public area the epitaph and the trace are kept: they tell of the life before.

use core::ptr;

use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind, MemoryRegions, Optional};
use cell::address::{LARGE_PAGE_SIZE, PAGE_SIZE};
use cell::handover::{self, Handover, Settings};
use cell::machine::{BackEnd, MachineRecord};
use cell::public::{self, PUBLIC_SIZE};
use cell::{CellId, Frame, FrameRange, Incarnation, PhysicalAddress};
use firewall::machine::paging;
use firewall::monitor::{LoadError, Loader, Start};
use firewall::nested::NestedTable;

use crate::image::{IMAGE_BASE, IMAGE_SPAN_MAX, Image};
use crate::tables::{GIB, LARGE, PRESENT, WRITABLE};

/// Where physical memory appears in a kernel's address space.
pub const WINDOW: u64 = 0xffff_8000_0000_0000;
/// Bytes of the first stack.
pub const STACK_BYTES: u64 = 256 << 10;

const ENTRIES: u64 = 512;
const NO_EXECUTE: u64 = 1 << 63;
/// Root entry of the window, and of the image.
const WINDOW_SLOT: u64 = WINDOW >> 39 & (ENTRIES - 1);
const IMAGE_SLOT: u64 = IMAGE_BASE >> 39 & (ENTRIES - 1);
const IMAGE_UPPER_SLOT: u64 = IMAGE_BASE >> 30 & (ENTRIES - 1);

const PAGE_WORDS: usize = PAGE_SIZE as usize / size_of::<u64>();
/// A page of an image.
type PageWords = [u64; PAGE_WORDS];

/// Regions in the memory map of a kernel: used, free.
const REGIONS: usize = 2;

/// What lies in the information page.
#[repr(C)]
struct InformationPage {
    boot: BootInfo,
    handover: Handover,
    regions: [MemoryRegion; REGIONS],
}

/// The loader of cell kernels.
#[derive(Debug)]
pub struct KernelLoader {
    image: Image<'static>,
    machine: &'static MachineRecord,
    nested: &'static [NestedTable],
    back_end: BackEnd,
    /// What the kernels' windows span, in GiB.
    window_gibibytes: u64,
    hypercall_entry: u64,
    rsdp: u64,
    settings: Settings,
}

/// What a loader needs to know about the machine.
#[derive(Debug)]
pub struct Surroundings {
    /// The machine record.
    pub machine: &'static MachineRecord,
    /// The nested tables, which are the windows where there is no nested paging.
    pub nested: &'static [NestedTable],
    /// The back end in use.
    pub back_end: BackEnd,
    /// The end of what the cells can reach.
    pub reach_end: PhysicalAddress,
    /// The address of the hypercall entry; 0 for the instruction.
    pub hypercall_entry: u64,
    /// The firmware's root table.
    pub rsdp: u64,
    /// Boot parameters for the kernels.
    pub settings: Settings,
}

/// Where the parts of one cell's first memory lie.
#[derive(Clone, Copy, Debug)]
struct Plan {
    image: PhysicalAddress,
    tables: PhysicalAddress,
    information: PhysicalAddress,
    stack: PhysicalAddress,
    bus_error_slots: PhysicalAddress,
    end: PhysicalAddress,
}

impl KernelLoader {
    /// A loader for `image`.
    pub fn new(image: Image<'static>, surroundings: &Surroundings) -> Self {
        Self {
            image,
            machine: surroundings.machine,
            nested: surroundings.nested,
            back_end: surroundings.back_end,
            window_gibibytes: surroundings.reach_end.0.div_ceil(GIB),
            hypercall_entry: surroundings.hypercall_entry,
            rsdp: surroundings.rsdp,
            settings: surroundings.settings,
        }
    }

    fn plan(&self, region: FrameRange) -> Result<Plan, LoadError> {
        // Root, two levels and the leaves of the image; one level and the large pages of the
        // window.
        let image_leaves = IMAGE_SPAN_MAX.div_ceil(LARGE_PAGE_SIZE);
        // At most: the levels below the root, twice a leaf, for the hypercall entry.
        let tables_bytes = (3 + image_leaves + 1 + self.window_gibibytes + 4) * PAGE_SIZE;
        let image = public::part(region.start.start(), PUBLIC_SIZE);
        let tables = PhysicalAddress(image.0 + self.image.span);
        let information = PhysicalAddress(tables.0 + tables_bytes);
        let stack = PhysicalAddress(information.0 + PAGE_SIZE);
        let bus_error_slots = PhysicalAddress(stack.0 + STACK_BYTES);
        let end = PhysicalAddress(bus_error_slots.0 + PAGE_SIZE);
        let fits = end.frame() < region.end;
        fits.then_some(Plan {
            image,
            tables,
            information,
            stack,
            bus_error_slots,
            end,
        })
        .ok_or(LoadError::TooLarge)
    }

    /// Makes the copy equal to the pristine image, page by page, and leaves pages alone that are:
    /// on a reboot that is most of them, and an emulator need not translate the code on them again.
    fn copy_image(&self, plan: &Plan) {
        for page in 0..self.image.span / PAGE_SIZE {
            let pristine = self.pristine_page(page * PAGE_SIZE);
            let copy = (plan.image.0 + page * PAGE_SIZE) as *mut PageWords;
            // SAFETY: the plan lies in the region (invariant 2), identity-mapped, and pages are
            // aligned; nobody else uses it.
            let copy = unsafe { &mut *copy };
            if pristine
                .iter()
                .zip(copy.iter())
                .any(|(one, other)| one != other)
            {
                *copy = pristine;
            }
        }
    }

    /// The image's page at `offset`: bytes from the file where a segment has some, else zeroes.
    fn pristine_page(&self, offset: u64) -> PageWords {
        let mut page = [0; PAGE_WORDS];
        for segment in self.image.segments() {
            let Some(skip) = offset.checked_sub(segment.offset) else {
                continue;
            };
            let bytes = segment.bytes.get(skip as usize..).unwrap_or(&[]);
            for (word, chunk) in page.iter_mut().zip(bytes.chunks(size_of::<u64>())) {
                let mut filled = [0; size_of::<u64>()];
                filled[..chunk.len()].copy_from_slice(chunk);
                *word = u64::from_le_bytes(filled);
            }
        }
        page
    }

    /// Builds the kernel's page tables; returns their root.
    fn build_tables(&self, plan: &Plan, cell: CellId) -> u64 {
        let mut pages = TablePages {
            next: plan.tables.0,
        };
        let root = pages.take();
        let upper = pages.take();
        let directory = pages.take();
        set(root, IMAGE_SLOT, upper | PRESENT | WRITABLE);
        set(upper, IMAGE_UPPER_SLOT, directory | PRESENT | WRITABLE);
        for slot in 0..IMAGE_SPAN_MAX.div_ceil(LARGE_PAGE_SIZE) {
            set(directory, slot, pages.take() | PRESENT | WRITABLE);
        }
        self.map_image(plan, directory);
        if self.back_end.has_nested_paging() {
            set(root, WINDOW_SLOT, self.own_window(&mut pages));
        } else {
            set(root, WINDOW_SLOT, self.nested[cell.index()].branch());
            map_hypercall_entry(&mut pages, root);
        }
        root
    }

    fn map_image(&self, plan: &Plan, directory: u64) {
        for segment in self.image.segments() {
            let mut rights = PRESENT;
            rights |= if segment.is_writable { WRITABLE } else { 0 };
            rights |= if segment.is_executable { 0 } else { NO_EXECUTE };
            for page in 0..segment.span.div_ceil(PAGE_SIZE) {
                let offset = segment.offset + page * PAGE_SIZE;
                let leaf = get(directory, offset / LARGE_PAGE_SIZE) & !(PAGE_SIZE - 1);
                set(
                    leaf,
                    offset / PAGE_SIZE % ENTRIES,
                    (plan.image.0 + offset) | rights,
                );
            }
        }
    }

    /// All of physical memory by large pages: behind nested paging the monitor's table decides.
    fn own_window(&self, pages: &mut TablePages) -> u64 {
        let upper = pages.take();
        for gibibyte in 0..self.window_gibibytes {
            let directory = pages.take();
            set(upper, gibibyte, directory | PRESENT | WRITABLE);
            for slot in 0..ENTRIES {
                let target = gibibyte * GIB + slot * LARGE_PAGE_SIZE;
                set(
                    directory,
                    slot,
                    target | PRESENT | WRITABLE | LARGE | NO_EXECUTE,
                );
            }
        }
        upper | PRESENT | WRITABLE
    }

    fn write_information(&self, plan: &Plan, region: FrameRange, handover: Handover) {
        let page = plan.information.0 as *mut InformationPage;
        // SAFETY: the page is the plan's, large enough (asserted below) and aligned; nobody else
        // uses it (invariant 2).
        let regions = unsafe { &raw mut (*page).regions };
        let kinds = [
            (
                region.start.start().0,
                plan.end.0,
                MemoryRegionKind::Bootloader,
            ),
            (plan.end.0, region.end.start().0, MemoryRegionKind::Usable),
        ];
        // SAFETY: as above.
        unsafe {
            regions.write(kinds.map(|(start, end, kind)| MemoryRegion { start, end, kind }));
        }
        let seen = (WINDOW + regions as u64) as *mut [MemoryRegion; REGIONS];
        // SAFETY: the kernel finds the array at this address of its own space; here it is only a
        // number to be stored.
        let mut boot = BootInfo::new(MemoryRegions::from(unsafe { seen_by_kernel(seen) }));
        boot.physical_memory_offset = Optional::Some(WINDOW);
        boot.rsdp_addr = Optional::Some(self.rsdp);
        // SAFETY: as for `regions`.
        let block = unsafe { &raw mut (*page).handover };
        boot.ramdisk_addr = Optional::Some(WINDOW + block as u64);
        boot.ramdisk_len = size_of::<Handover>() as u64;
        boot.kernel_addr = plan.image.0;
        boot.kernel_len = self.image.span;
        boot.kernel_image_offset = IMAGE_BASE;
        boot.kernel_stack_bottom = WINDOW + plan.stack.0;
        boot.kernel_stack_len = STACK_BYTES;
        // SAFETY: as for `regions`.
        unsafe { block.write(handover) };
        // SAFETY: as for `regions`.
        unsafe { (&raw mut (*page).boot).write(boot) };
    }
}

/// Maps the code by which a kernel behind page tables reaches the monitor, at its own address.
fn map_hypercall_entry(pages: &mut TablePages, root: u64) {
    let code = paging::mapped_code();
    let first = code.start / PAGE_SIZE;
    for page in first..code.end.div_ceil(PAGE_SIZE) {
        let address = page * PAGE_SIZE;
        let mut table = root;
        for shift in [39, 30, 21] {
            table = branch(pages, table, address >> shift);
        }
        set(table, address >> 12, address | PRESENT);
    }
}

/// The table that the entry at `slot` leads to, made if there is none.
fn branch(pages: &mut TablePages, table: u64, slot: u64) -> u64 {
    let entry = get(table, slot);
    if entry & PRESENT != 0 {
        return entry & !(PAGE_SIZE - 1);
    }
    let below = pages.take();
    set(table, slot, below | PRESENT | WRITABLE);
    below
}

/// # Safety
/// The reference is stored and never followed on this side of the entry.
unsafe fn seen_by_kernel(regions: *mut [MemoryRegion; REGIONS]) -> &'static mut [MemoryRegion] {
    let length = REGIONS;
    // SAFETY: passed on to the caller; a dangling slice of this length would be followed only by
    // its receiver.
    unsafe { core::slice::from_raw_parts_mut(regions.cast(), length) }
}

impl Loader for KernelLoader {
    fn load(
        &self,
        cell: CellId,
        incarnation: Incarnation,
        boot_cpu_index: usize,
    ) -> Result<Start, LoadError> {
        let region = self.machine.cell(cell).region;
        let plan = self.plan(region)?;
        clear_public_area(region.start.start());
        self.copy_image(&plan);
        let page_table_root = self.build_tables(&plan, cell);
        let handover = Handover {
            magic: handover::MAGIC,
            cell: cell.index() as u32,
            incarnation: incarnation.0,
            boot_cpu_index: boot_cpu_index as u32,
            back_end: self.back_end as u32,
            machine: PhysicalAddress(ptr::from_ref(self.machine) as u64),
            hypercall_entry: self.hypercall_entry,
            region,
            used: FrameRange {
                start: region.start,
                end: Frame(plan.end.0 / PAGE_SIZE),
            },
            settings: self.settings,
        };
        self.write_information(&plan, region, handover);
        Ok(Start {
            incarnation,
            entry: self.image.entry,
            stack: WINDOW + plan.bus_error_slots.0 - size_of::<u64>() as u64,
            argument: WINDOW + plan.information.0,
            page_table_root,
            bus_error_slots: plan.bus_error_slots,
        })
    }
}

/// Clears what a new life writes afresh (invariant 3). The rings are the new life's to clear: what
/// they say of the old one is marked as such.
fn clear_public_area(start: PhysicalAddress) {
    let clear = |from: u64, to: u64| {
        let first = public::part(start, from).0 as *mut u8;
        // SAFETY: the public area is the first part of the region, in memory that no CPU uses now
        // (invariant 2).
        unsafe { ptr::write_bytes(first, 0, (to - from) as usize) };
    };
    clear(0, public::EPITAPH_OFFSET);
    clear(public::FAULT_OFFSET, public::RINGS_OFFSET);
}

/// Hands out zeroed pages for tables.
struct TablePages {
    next: u64,
}

impl TablePages {
    fn take(&mut self) -> u64 {
        let page = self.next;
        self.next += PAGE_SIZE;
        // SAFETY: the plan counted the pages, and they lie in the region (invariant 2).
        unsafe { ptr::write_bytes(page as *mut u8, 0, PAGE_SIZE as usize) };
        page
    }
}

fn set(table: u64, slot: u64, entry: u64) {
    // SAFETY: `table` came from `TablePages::take`, and slots are below `ENTRIES`.
    unsafe {
        (table as *mut u64)
            .add((slot % ENTRIES) as usize)
            .write(entry);
    }
}

fn get(table: u64, slot: u64) -> u64 {
    // SAFETY: as in `set`.
    unsafe { (table as *const u64).add((slot % ENTRIES) as usize).read() }
}

const _: () = assert!(size_of::<InformationPage>() <= PAGE_SIZE as usize);
