//! One block per CPU of the cell, found through the GS base.
//!
//! # Invariants
//! 1. A block is written by its own CPU only, interrupts off; the counters may be read by all.
//! 2. GS base of a running CPU points to its block from its first instructions on.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use cell::{CPUS_MAX, Instant};
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;
use x86_64::structures::gdt::GlobalDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

use crate::own::own;
use crate::thread::context::ContextCell;
use crate::thread::run_queue::Intent;

/// Entries of a global descriptor table: null, code, data, and two for the task state segment.
const GDT_ENTRIES: usize = 5;

/// [`PerCpu::current`] while the CPU runs its idle thread.
pub const IDLE: u32 = u32::MAX;

/// What a CPU keeps for itself.
#[repr(C, align(64))]
pub struct PerCpu {
    /// The block's own address, so that one load through GS finds it.
    address: AtomicUsize,
    /// Top of the stack on which interrupts are served; read by the entry stub.
    interrupt_stack: AtomicU64,
    /// Index within the cell.
    index: AtomicUsize,
    /// Number in the machine.
    number: AtomicUsize,
    /// Whether the CPU was ever set up in this life.
    pub(crate) is_up: AtomicBool,
    /// The slot of the thread that runs, or [`IDLE`].
    pub(crate) current: AtomicU32,
    /// 1 while an interrupt is served.
    pub(crate) interrupt_level: AtomicU32,
    /// What the current thread asks of the scheduler with the next software interrupt.
    intent: UnsafeCell<Intent>,
    /// The context of the idle thread.
    pub(crate) idle: ContextCell,
    /// Global descriptor table and task state segment; see `gdt`.
    pub(crate) gdt: UnsafeCell<GlobalDescriptorTable<GDT_ENTRIES>>,
    pub(crate) tss: UnsafeCell<TaskStateSegment>,
    /// The time between two ticks, in nanoseconds, for which the timer was last started; 0 before
    /// the first tick.
    pub(crate) timer_period: AtomicU64,
    /// When the last tick was taken, in nanoseconds; 0 before the first.
    pub last_tick: AtomicU64,
    /// Timer ticks taken.
    pub ticks: AtomicU64,
    /// Ticks that found the CPU idle.
    pub idle_ticks: AtomicU64,
    /// Non-maskable interrupts that somebody outside sent.
    pub stray_nmis: AtomicU64,
    /// Interrupts on vectors that nothing here uses.
    pub unexpected_interrupts: AtomicU64,
    /// Bus errors taken.
    pub bus_errors: AtomicU64,
    /// Changes from one thread to another.
    pub switches: AtomicU64,
}

// SAFETY: invariant 1: what is not atomic is reached by the own CPU with interrupts off only.
unsafe impl Sync for PerCpu {}

impl fmt::Debug for PerCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpu")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl PerCpu {
    /// Where the entry stub finds the interrupt stack, from the GS base.
    pub const INTERRUPT_STACK_OFFSET: usize = offset_of!(Self, interrupt_stack);

    const fn new() -> Self {
        Self {
            address: AtomicUsize::new(0),
            interrupt_stack: AtomicU64::new(0),
            index: AtomicUsize::new(0),
            number: AtomicUsize::new(0),
            is_up: AtomicBool::new(false),
            current: AtomicU32::new(IDLE),
            interrupt_level: AtomicU32::new(0),
            intent: UnsafeCell::new(Intent::Continue),
            idle: ContextCell::new(),
            gdt: UnsafeCell::new(GlobalDescriptorTable::empty()),
            tss: UnsafeCell::new(TaskStateSegment::new()),
            timer_period: AtomicU64::new(0),
            last_tick: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            idle_ticks: AtomicU64::new(0),
            stray_nmis: AtomicU64::new(0),
            unexpected_interrupts: AtomicU64::new(0),
            bus_errors: AtomicU64::new(0),
            switches: AtomicU64::new(0),
        }
    }

    /// Index within the cell.
    pub fn index(&self) -> usize {
        self.index.load(Ordering::Relaxed)
    }

    /// Number in the machine.
    pub fn number(&self) -> usize {
        self.number.load(Ordering::Relaxed)
    }

    /// Whether the CPU takes part in this life.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Sets the stack on which interrupts are served. Own CPU, before interrupts are on.
    pub(crate) fn set_interrupt_stack(&self, top: u64) {
        self.interrupt_stack.store(top, Ordering::Relaxed);
    }

    /// Says what the current thread asks for. Own CPU, interrupts off until the software interrupt.
    pub(crate) fn set_intent(&self, intent: Intent) {
        // SAFETY: invariant 1; interrupts are off, so `take_intent` cannot run in between.
        unsafe { *self.intent.get() = intent };
    }

    /// Takes what the current thread asked for.
    pub(crate) fn take_intent(&self) -> Intent {
        // SAFETY: invariant 1; called from the dispatcher of the own CPU, interrupts off.
        unsafe { core::mem::replace(&mut *self.intent.get(), Intent::Continue) }
    }

    /// Raises this CPU's clock word in the public header, and says when.
    pub(crate) fn publish_tick(&self, now: Instant) {
        let header = own().header();
        header.clock_words[self.index()].fetch_add(1, Ordering::Release);
        header.now.store(now.0, Ordering::Relaxed);
    }
}

static BLOCKS: [PerCpu; CPUS_MAX] = [const { PerCpu::new() }; CPUS_MAX];

/// The block of the CPU with this index within the cell.
pub fn block(index: usize) -> Option<&'static PerCpu> {
    BLOCKS.get(index)
}

/// Makes the running CPU the one with `index`: names it in its block and points the GS base there.
///
/// # Panics
/// If the monitor named a CPU that the cell cannot have.
pub fn set_up(index: usize) -> &'static PerCpu {
    let block = block(index).expect("the index of a CPU within its cell is below CPUS_MAX");
    let address = core::ptr::from_ref(block).addr();
    block.address.store(address, Ordering::Relaxed);
    block.index.store(index, Ordering::Relaxed);
    let number = own().cpu(index).map_or(index, cell::CpuId::index);
    block.number.store(number, Ordering::Relaxed);
    GsBase::write(VirtAddr::new(address as u64));
    block.is_up.store(true, Ordering::Release);
    block
}

/// The block of the running CPU.
#[inline]
pub fn this() -> &'static PerCpu {
    let address: usize;
    // SAFETY: invariant 2: the GS base points to this CPU's block, whose first word is its own
    // address.
    unsafe {
        core::arch::asm!(
            "mov {}, gs:[{offset}]",
            out(reg) address,
            offset = const offset_of!(PerCpu, address),
            options(nostack, preserves_flags, readonly, pure),
        );
        &*(address as *const PerCpu)
    }
}

/// The number, in the machine, of the running CPU; 0 before its block is set up. Fit for every
/// context.
pub fn cpu_number() -> usize {
    if BLOCKS.iter().any(PerCpu::is_up) {
        this().number()
    } else {
        0
    }
}

/// The blocks of the CPUs that take part.
pub fn all() -> impl Iterator<Item = &'static PerCpu> {
    BLOCKS.iter().filter(|block| block.is_up())
}
