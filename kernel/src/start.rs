//! From the entry to a serving cell.
//!
//! # Entry contract
//! What is true: long mode, ring 0, interrupts off; the cell's own page tables with the image at
//! its link address and the physical window; SSE enabled; a stack of 64 KiB; the boot information
//! in the first argument, with the handover block as RAM disk.
//!
//! What is not known: GDT, IDT and TSS (they are not in the cell's memory), what the frames hold
//! that were not used at entry, how many of the cell's other CPUs the monitor has.
//!
//! What we are responsible for: everything else, from the descriptor tables on.

use core::time::Duration;

use bootloader_api::BootInfo;
use cell::Epoch;
use cell::handover::Handover;
use cell::trace::Event;

use crate::calls::{incoming, rings, text};
use crate::cpu::{gdt, idt, lapic, per_cpu, secondary, timer};
use crate::liveness::agent;
use crate::memory::{heap, pool, window};
use crate::own::{self, HandoverError, Own};
use crate::thread::{self, Priority, SpawnError, idle};
use crate::{bench, clock, console, faults, hypercall, pages, public_area, trace, work};

/// How often joining the live set is tried, and how long between two tries.
const JOIN_TRIES: u32 = 1000;
const JOIN_RETRY: Duration = Duration::from_millis(2);

/// Runs the cell, on the CPU that the monitor entered first.
pub fn boot_cpu(info: &'static mut BootInfo) -> ! {
    let Ok(own) = take_handover(info) else {
        // There is nobody to tell, and nowhere to write.
        hypercall::stop(0);
        loop {
            x86_64::instructions::hlt();
        }
    };
    clock::set_up(own.machine.clock);
    let cpu = per_cpu::set_up(own.boot_cpu_index);
    gdt::load(cpu);
    idt::load();
    public_area::begin();
    trace::record(Event::Boot, own.incarnation.0.into(), own.cpus_count as u64);
    pool::set_up(own);
    heap::set_up(own.region);
    secondary::prepare();
    console::logger::set_up();
    console::input::set_up();
    faults::set_up();
    bench::set_up();
    rings::set_up();
    pages::set_up(userland::pages_needed(own.machine.cells_count as usize));
    lapic::measure_timer();
    thread::spawn("start", Priority::Recovery, serve).expect("the first thread of a cell");
    public_area::cpu_up(cpu.index());
    trace::record(Event::CpuUp, cpu.index() as u64, 0);
    timer::start();
    idle::run()
}

fn take_handover(info: &BootInfo) -> Result<&'static Own, HandoverError> {
    if info.physical_memory_offset.into_option() != Some(window::START) {
        return Err(HandoverError::Window);
    }
    if info.ramdisk_len != size_of::<Handover>() as u64 {
        return Err(HandoverError::Layout);
    }
    // SAFETY: the RAM disk of the boot information is what the monitor passes, and nothing ran
    // before.
    unsafe { own::take(info.ramdisk_addr.into_option()) }
}

/// Brings the cell to where it serves: the first thread.
fn serve() {
    start_threads().expect("a new cell has slots and memory for its threads");
    let joined = join();
    agent::start(joined).expect("a new cell has slots and memory for its threads");
    public_area::serving();
    work::start();
    let own = own::own();
    trace::record(Event::Serving, own.incarnation.0.into(), 0);
    log::info!("life {} serves, {} CPUs", own.incarnation.0, own.cpus_count);
}

/// Starts the threads that every cell has.
fn start_threads() -> Result<(), SpawnError> {
    incoming::start()?;
    thread::spawn("text", Priority::Worker, || text::run())?;
    thread::spawn("pages", Priority::Server, || pages::run())?;
    thread::spawn("shell", Priority::Background, || console::shell::run())?;
    Ok(())
}

/// Joins the live set. Another seal at the same moment makes it wait for its turn.
fn join() -> Epoch {
    for _ in 0..JOIN_TRIES {
        match hypercall::join() {
            Ok(epoch) => return epoch,
            Err(hypercall::HypercallError::Busy) => thread::sleep(JOIN_RETRY),
            Err(error) => panic!("this life may not join the live set: {error:?}"),
        }
    }
    panic!("the live set never stood still for long enough to join it");
}
