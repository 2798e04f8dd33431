//! Starting the cell's other CPUs, whenever the monitor has them.
//!
//! A CPU that was frozen when the cell rebooted may reach the monitor minutes later: the others
//! look at every tick, and it is admitted then.
//!
//! # Invariants
//! 1. A CPU is asked for at most once in a life unless the monitor answered `Busy` (state word,
//!    compare-and-exchange).
//! 2. A CPU that is asked for has its stacks.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use cell::standing::CpuState;
use cell::trace::Event;
use cell::{CPUS_MAX, Instant};

use crate::cpu::gdt::{self, CpuStacks};
use crate::cpu::{idt, per_cpu, timer};
use crate::own::own;
use crate::thread::idle;
use crate::{clock, hypercall, public_area, trace};

/// Not asked for.
const WAITING: u32 = 0;
/// Asked for, or being asked for.
const ASKED: u32 = 1;

static STATES: [AtomicU32; CPUS_MAX] = [const { AtomicU32::new(WAITING) }; CPUS_MAX];

/// Allocates the stacks of every CPU of the cell, and moves the boot CPU onto its own.
///
/// # Panics
/// If the cell's memory does not suffice even for stacks.
pub fn prepare() {
    let own = own();
    for (index, state) in STATES.iter().enumerate().take(own.cpus_count) {
        let stacks = CpuStacks::allocate().expect("a cell has memory for the stacks of its CPUs");
        gdt::assign_stacks(index, stacks);
        if index == own.boot_cpu_index {
            state.store(ASKED, Ordering::Relaxed);
            gdt::use_stacks(per_cpu::this(), &stacks);
        }
    }
}

/// Between two times that the monitor is reminded of a CPU that does not come.
const REMIND: Duration = Duration::from_millis(100);

static REMINDED: AtomicU64 = AtomicU64::new(0);

/// Asks for every CPU that is in the monitor and not yet asked for, and now and then for those that
/// do not come. Interrupt level; never waits.
pub fn at_tick() {
    let own = own();
    let now = clock::now();
    let remind = now.since(Instant(REMINDED.load(Ordering::Relaxed))) >= REMIND;
    if remind {
        REMINDED.store(now.0, Ordering::Relaxed);
    }
    for (index, cpu) in own.machine.cpus_of(own.cell).enumerate() {
        // Other states are not worth a hypercall that would answer `Busy`.
        let is_due = match own.machine.cpu(cpu).standing.state() {
            CpuState::Parked => true,
            CpuState::Absent | CpuState::Restarting => remind,
            CpuState::Running => false,
        };
        if is_due && STATES[index].load(Ordering::Relaxed) == WAITING {
            ask(index);
        }
    }
}

fn ask(index: usize) {
    let taken = STATES[index]
        .compare_exchange(WAITING, ASKED, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok();
    let Some(stacks) = taken.then(|| gdt::stacks_of(index)).flatten() else {
        return;
    };
    // As after a call instruction: 8 below a multiple of 16.
    let stack_pointer = stacks.idle.top() - 8;
    let entry = enter as extern "C" fn(u64) -> ! as usize as u64;
    if hypercall::start_cpu(index, entry, stack_pointer, index as u64).is_err() {
        STATES[index].store(WAITING, Ordering::Release);
    }
}

/// Where the monitor enters another CPU of the cell: interrupts off, on its idle stack, with the
/// cell's page tables.
extern "C" fn enter(index: u64) -> ! {
    let cpu = per_cpu::set_up(index as usize);
    gdt::load(cpu);
    let stacks = gdt::stacks_of(cpu.index()).expect("a CPU that was asked for has its stacks");
    gdt::use_stacks(cpu, &stacks);
    idt::load();
    public_area::cpu_up(cpu.index());
    trace::record(Event::CpuUp, index, 0);
    timer::start();
    idle::run()
}
