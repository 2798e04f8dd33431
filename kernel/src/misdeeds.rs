//! What a sick kernel does: the acts behind the injected faults.
//!
//! # Not guaranteed
//! Anything about this cell afterwards. That nothing outside it is harmed is the monitor's part,
//! and the point.

use core::hint::{black_box, spin_loop};

use cell::fault::InnerFault;
use cell::random::Random;
use cell::{PAGE_SIZE, PhysicalAddress};

use crate::cpu::{interrupts, port};
use crate::faults::Injection;
use crate::hypercall;
use crate::memory::guarded;
use crate::own::own;

/// Registers of the local APIC by which one CPU interrupts another.
const COMMAND_LOW: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
/// Where they lie in physical memory.
const LAPIC_BASE: u64 = 0xfee0_0000;

/// Commands that a storm sends: an interrupt of some vector, an NMI, an INIT.
const COMMANDS: [u32; 3] = [0x0000_4030, 0x0000_4400, 0x0000_4500];

/// Ports, and values for them, that reset the machine: keyboard controller, system control port A,
/// reset control.
const RESETS: [(u16, u8); 4] = [(0x64, 0xfe), (0x92, 0x01), (0xcf9, 0x02), (0xcf9, 0x06)];

/// Loops for ever with interrupts off.
pub fn stop_this_cpu() -> ! {
    interrupts::disable();
    loop {
        spin_loop();
    }
}

/// Does what `injection` says, in a thread of its own.
pub fn commit(injection: Injection) {
    match injection.fault {
        InnerFault::Loop => loop {
            spin_loop();
        },
        InnerFault::StackOverflow => {
            recurse(black_box(1));
        }
        InnerFault::WildWrite => write_wildly(injection),
        InnerFault::IpiStorm => storm(injection.argument),
        InnerFault::PortReset => reset_machine(),
        _ => unreachable!("{} is not an act of this module", injection.fault.name()),
    }
}

/// Recurses until the stack ends.
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    if depth == 0 {
        return 0;
    }
    recurse(black_box(depth + 1)) + frame[(depth % 32) as usize]
}

/// Stores to random addresses all over physical memory, then does what a kernel does after a bus
/// error.
fn write_wildly(injection: Injection) {
    let mut random = Random::new(injection.seed);
    let words = own().machine.frames_count * PAGE_SIZE / 8;
    let mut denied = 0;
    for _ in 0..injection.argument {
        let address = PhysicalAddress(random.below(words) * 8);
        let value = random.next();
        // SAFETY: none. A wild write is a wild write: where it hits this cell's own memory, this
        // cell may do anything after it, and that is what is injected. Elsewhere the firewall
        // stands.
        let outcome = unsafe { guarded::try_write(address, &value.to_le_bytes()) };
        denied += u64::from(outcome.is_err());
    }
    assert!(
        denied == 0,
        "bus error: {denied} of {} wild writes denied",
        injection.argument
    );
}

/// Tries to interrupt CPUs of other cells: by the interface of the monitor, past it, and by the
/// doorbell.
fn storm(count: u64) {
    let own = own();
    let targets = || own.machine.all_cells().without(own.cell).iter();
    for number in 0..count {
        let command = COMMANDS[(number % COMMANDS.len() as u64) as usize];
        for cell in targets() {
            for cpu in own.machine.cpus_of(cell) {
                let apic_id = &own.machine.cpu(cpu).apic_id;
                let destination = apic_id.load(core::sync::atomic::Ordering::Relaxed) << 24;
                let _ = hypercall::lapic_write(COMMAND_HIGH, destination);
                let _ = hypercall::lapic_write(COMMAND_LOW, command);
                store_register(COMMAND_HIGH, destination);
                store_register(COMMAND_LOW, command);
            }
            let _ = hypercall::doorbell(cell);
        }
    }
}

fn store_register(offset: u32, value: u32) {
    let register = PhysicalAddress(LAPIC_BASE + u64::from(offset));
    // SAFETY: a register of a device is nobody's Rust object. The store is meant to be denied.
    let _ = unsafe { guarded::try_write(register, &value.to_le_bytes()) };
}

/// Tries every way to reset the machine, then does what a kernel does after a bus error.
fn reset_machine() {
    let mut denied = 0;
    for (number, value) in RESETS {
        // SAFETY: the value would reset the machine; the monitor is meant to deny it.
        denied += u64::from(unsafe { port::try_write(number, value) }.is_err());
    }
    assert!(
        denied == 0,
        "bus error: {denied} of {} port writes denied",
        RESETS.len()
    );
}
