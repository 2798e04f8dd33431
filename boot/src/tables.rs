//! The monitor's own page tables and interrupt descriptors.
//!
//! Everything is mapped at its own address, by large pages: the first 4 GiB by the image's entry,
//! in 32-bit mode, the rest of the memory in use by [`map_up_to`].
//!
//! Behind NPT two interrupts can reach the monitor: an NMI, when `svm::enter` or `svm::park` opens
//! the global interrupt flag, and a machine check there. Behind EPT they can come at any time, and
//! each CPU gets tables of its own, with stacks for them (`vmx::host`). Behind page tables,
//! ordinary interrupts reach it while it waits. All are dismissed; what they mean is read from
//! memory afterwards. Any exception is the monitor's own bug: it is reported and this CPU stops,
//! the others go on.
//!
//! # Not guaranteed
//! The handlers run on the stack that is in use. That is sound where the flag is opened (see
//! there), not in the middle of Rust code, whose red zone they would overwrite; an exception never
//! returns, so it does not matter there.

use core::arch::{asm, naked_asm};
use core::fmt::Write;
use core::sync::atomic::Ordering;

use cell::PhysicalAddress;
use cell::address::LARGE_PAGE_SIZE;
use firewall::machine::{cpu, paging, svm};
use firewall::nested::TablePage;
use spin::Once;
use x86_64::registers::control::Cr3;

use crate::memory::{MonitorMemory, OutOfMemory};
use crate::serial::Serial;

const CODE_SELECTOR: u16 = 0x08;
const EXCEPTIONS: usize = 32;
const VECTORS: usize = 256;
const NMI: usize = 2;
const MACHINE_CHECK: usize = 18;

/// A 64-bit interrupt gate (AMD64 APM volume 2, rev. 3.41, 4.8.4).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

impl Gate {
    const INTERRUPT: u8 = 0x8e;

    fn new(handler: u64) -> Self {
        Self {
            offset_low: handler as u16,
            selector: CODE_SELECTOR,
            stack: 0,
            kind: Self::INTERRUPT,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const PRESENT: u64 = 1 << 0;
pub(crate) const WRITABLE: u64 = 1 << 1;
pub(crate) const LARGE: u64 = 1 << 7;
/// What the image's entry mapped.
const MAPPED_BY_ENTRY: u64 = 4 * GIB;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Maps memory up to `end`, at most `REACH_MAX`. By the boot CPU, before the others start:
/// all use the same tables.
///
/// # Errors
/// [`OutOfMemory`].
pub fn map_up_to(end: PhysicalAddress, memory: &mut MonitorMemory) -> Result<(), OutOfMemory> {
    let (first, count) = (MAPPED_BY_ENTRY / GIB, end.0.div_ceil(GIB));
    let missing = count.saturating_sub(first) as usize;
    let directories: &'static [TablePage] = memory.slice(missing, |_| TablePage::new())?;
    let root = Cr3::read().0.start_address().as_u64();
    // SAFETY: the root that this CPU walks now, a page of the image, mapped at its own address.
    let root = unsafe { &*(root as *const TablePage) };
    let upper = root.entry(0).load(Ordering::Relaxed) & ADDRESS;
    // SAFETY: as above; the entry set this branch for the addresses that this very code runs at.
    let upper = unsafe { &*(upper as *const TablePage) };
    for (gibibyte, directory) in (first..).zip(directories) {
        for (slot, address) in (gibibyte * GIB..)
            .step_by(LARGE_PAGE_SIZE as usize)
            .enumerate()
            .take(512)
        {
            directory
                .entry(slot)
                .store(address | LARGE | PRESENT | WRITABLE, Ordering::Relaxed);
        }
        let branch = directory.address().0 | PRESENT | WRITABLE;
        upper
            .entry(gibibyte as usize)
            .store(branch, Ordering::SeqCst);
    }
    Ok(())
}

static DESCRIPTORS: Once<[Gate; VECTORS]> = Once::new();

/// Loads the monitor's interrupt descriptors on the executing CPU.
pub fn load_descriptors() {
    let gates = DESCRIPTORS.call_once(|| {
        let mut gates = [Gate::new(exception as *const () as u64); VECTORS];
        let interrupt = Gate::new(paging::host_interrupt as *const () as u64);
        gates[EXCEPTIONS..].fill(interrupt);
        gates[NMI] = Gate::new(svm::host_nmi as *const () as u64);
        gates[MACHINE_CHECK] = Gate::new(machine_check as *const () as u64);
        gates
    });
    let pointer = x86_64::structures::DescriptorTablePointer {
        limit: (size_of::<[Gate; VECTORS]>() - 1) as u16,
        base: x86_64::VirtAddr::new(gates.as_ptr() as u64),
    };
    // SAFETY: the table is static, its gates lead to handlers of this image, and the code selector
    // is the one that the image's entry loaded.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) };
}

/// Goes on. The status register remembers the machine check: the monitor looks there after every
/// exit.
///
/// # Safety
/// Entered by the processor only.
#[unsafe(naked)]
unsafe extern "C" fn machine_check() {
    naked_asm!("iretq")
}

/// # Safety
/// Entered by the processor only.
#[unsafe(naked)]
unsafe extern "C" fn exception() {
    // The frame may or may not start with an error code; both words are shown.
    naked_asm!(
        "mov rdi, [rsp]",
        "mov rsi, [rsp + 8]",
        "mov rdx, cr2",
        "and rsp, -16",
        "call {report}",
        "ud2",
        report = sym report_exception,
    )
}

extern "C" fn report_exception(first: u64, second: u64, address: u64) -> ! {
    let _ = writeln!(
        Serial,
        "hive: the monitor's own exception: stack {first:#x} {second:#x}, address {address:#x}"
    );
    cpu::halt_forever()
}

const _: () = assert!(size_of::<Gate>() == 16);
