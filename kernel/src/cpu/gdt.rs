//! Segments, the task state segment, and the stacks on which interrupts and exceptions are taken.
//!
//! Compiled code keeps data below the stack pointer (the red zone), so nothing may ever be pushed
//! onto an interrupted stack: every gate names a stack of its own.
//!
//! ```text
//! IST 1  interrupts       not a stack: the end of the current thread's context
//! IST 2  exceptions       bus errors, page faults and the rest
//! IST 3  NMI
//! IST 4  double fault
//! IST 5  machine check
//! ```
//!
//! # Invariants
//! 1. IST 1 points to the end of the context of whatever the CPU runs (kept by the scheduler).
//! 2. An exception handler takes no second exception of its own stack, except to end the cell.
//!
//! # References
//! AMD64 Architecture Programmer's Manual, volume 2, 8.9.4 (interrupt stack table), 12.2.5 (64-bit
//! TSS).

use cell::CPUS_MAX;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use crate::cpu::per_cpu::PerCpu;
use crate::lock::Lock;
use crate::memory::stacks::{self, Stack};

/// Selector of the kernel's code segment.
pub const CODE_SELECTOR: u64 = 0x08;
/// Selector of the kernel's data segment.
pub const DATA_SELECTOR: u64 = 0x10;

/// A stack on which the processor enters the kernel, as the index that a gate holds (IST number
/// less one).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryStack {
    /// Interrupts: the current context.
    Interrupt = 0,
    /// Exceptions.
    Exception = 1,
    /// Non-maskable interrupts.
    Nmi = 2,
    /// Double faults.
    DoubleFault = 3,
    /// Machine checks.
    MachineCheck = 4,
}

/// Bytes of the boot CPU's stacks until memory is managed.
const BOOT_STACK_BYTES: usize = 16 << 10;

#[repr(C, align(16))]
struct BootStack([u8; BOOT_STACK_BYTES]);

/// The boot CPU's first exception stacks, in the order of [`EntryStack`] without the first.
static BOOT_STACKS: Lock<[BootStack; 4]> =
    Lock::new([const { BootStack([0; BOOT_STACK_BYTES]) }; 4]);

/// The stacks of a CPU.
#[derive(Clone, Copy, Debug)]
pub struct CpuStacks {
    /// On which interrupts are served.
    pub interrupt: Stack,
    /// IST 2 to 5.
    pub entry: [Stack; 4],
    /// Of the idle thread. The boot CPU's stays the one that the monitor gave it.
    pub idle: Stack,
}

const INTERRUPT_STACK_BYTES: u64 = 64 << 10;
const ENTRY_STACK_BYTES: u64 = 32 << 10;
const IDLE_STACK_BYTES: u64 = 32 << 10;

impl CpuStacks {
    /// Allocates the stacks of one CPU; `None` if memory does not suffice.
    pub fn allocate() -> Option<Self> {
        let entry = || stacks::allocate(ENTRY_STACK_BYTES);
        Some(Self {
            interrupt: stacks::allocate(INTERRUPT_STACK_BYTES)?,
            entry: [entry()?, entry()?, entry()?, entry()?],
            idle: stacks::allocate(IDLE_STACK_BYTES)?,
        })
    }
}

/// The stacks of the cell's CPUs, by index.
static STACKS: Lock<[Option<CpuStacks>; CPUS_MAX]> = Lock::new([None; CPUS_MAX]);

/// Remembers the stacks of a CPU.
pub fn assign_stacks(index: usize, stacks: CpuStacks) {
    STACKS.lock()[index] = Some(stacks);
}

/// The stacks of a CPU, if it has some.
pub fn stacks_of(index: usize) -> Option<CpuStacks> {
    *STACKS.lock().get(index)?
}

/// Builds and loads the descriptor table of the running CPU, with `cpu` its own block.
///
/// The exception stacks are the boot stacks until [`use_stacks`]: fit for the boot CPU; the others
/// call it at once.
pub fn load(cpu: &'static PerCpu) {
    // SAFETY: interrupts are off and this is the block's own CPU (`PerCpu` invariant 1); neither
    // table is loaded yet, so the processor does not read them while they change.
    unsafe {
        let tss = &mut *cpu.tss.get();
        *tss = TaskStateSegment::new();
        for (stack, top) in boot_stack_tops().into_iter().enumerate() {
            tss.interrupt_stack_table[stack + 1] = VirtAddr::new(top);
        }
        tss.interrupt_stack_table[0] = VirtAddr::new(cpu.idle.end());
        let gdt = &mut *cpu.gdt.get();
        *gdt = GlobalDescriptorTable::empty();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let task = gdt.append(Descriptor::tss_segment_unchecked(cpu.tss.get()));
        debug_assert!(u64::from(code.0) == CODE_SELECTOR && u64::from(data.0) == DATA_SELECTOR);
        (*cpu.gdt.get()).load_unsafe();
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(SegmentSelector(0));
        ES::set_reg(SegmentSelector(0));
        load_tss(task);
    }
}

fn boot_stack_tops() -> [u64; 4] {
    let stacks = BOOT_STACKS.lock();
    core::array::from_fn(|number| {
        stacks.as_ptr_range().start.wrapping_add(number + 1).addr() as u64
    })
}

/// Moves the running CPU's interrupt and exception stacks to guarded ones.
pub fn use_stacks(cpu: &'static PerCpu, stacks: &CpuStacks) {
    cpu.set_interrupt_stack(stacks.interrupt.top());
    for (number, stack) in stacks.entry.iter().enumerate() {
        set_entry_stack(cpu, number + 1, stack.top());
    }
}

/// Says where the processor saves what the next interrupt interrupts (invariant 1).
#[inline]
pub fn set_context_end(cpu: &'static PerCpu, end: u64) {
    set_entry_stack(cpu, EntryStack::Interrupt as usize, end);
}

#[inline]
fn set_entry_stack(cpu: &'static PerCpu, number: usize, top: u64) {
    // SAFETY: the block belongs to the running CPU, interrupts are off; the processor reads the
    // entry at the next interrupt or exception, and the volatile store is whole by then.
    unsafe {
        let entry = &raw mut (*cpu.tss.get()).interrupt_stack_table[number];
        entry.write_unaligned(VirtAddr::new_unsafe(top));
    }
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
}
