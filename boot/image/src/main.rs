//! The monitor as a multiboot image: entry point and panic handler.
//!
//! Everything that must exist once per image and never in a host test is here; the start is the
//! `boot` crate, the rest is `firewall`.

#![no_std]
#![no_main]
// `runtime` defines the routines that the compiler otherwise recognizes in loops and calls by name.
#![no_builtins]

#[path = "../../../kernel/image/src/runtime.rs"]
mod runtime;

use core::arch::global_asm;
use core::panic::PanicInfo;
use core::sync::atomic::AtomicU64;

use boot::serial;
use boot::start::{self, ImageFacts, MachineSlot};
use cell::PhysicalAddress;

global_asm!(include_str!("entry.s"), options(att_syntax));

/// The page to which `entry.s` copies the start-up code.
const STARTUP_PAGE: u8 = 0x08;

/// The record that the runner finds by this name (`cell::machine::SYMBOL`).
#[unsafe(no_mangle)]
static HIVE_MACHINE: MachineSlot = MachineSlot::new();

/// The stack of each CPU, by APIC identifier, for `entry.s`.
#[unsafe(no_mangle)]
static startup_stacks: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
}

#[unsafe(no_mangle)]
extern "C" fn boot_cpu_entry(magic: u32, information: u32) -> ! {
    let facts = ImageFacts {
        machine: &HIVE_MACHINE,
        start: PhysicalAddress(&raw const image_start as u64),
        end: PhysicalAddress(&raw const image_end as u64),
        startup_page: STARTUP_PAGE,
        stacks: &startup_stacks,
    };
    // SAFETY: `entry.s` calls this once, with the loader's registers, under the contract of `boot`.
    unsafe { start::boot_cpu(&facts, magic, information) }
}

#[unsafe(no_mangle)]
extern "C" fn other_cpu_entry(apic_id: u32) -> ! {
    start::other_cpu(apic_id as u8)
}

/// The monitor's own broken invariant: this CPU stops, its cell is noticed by the others.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    serial::line(format_args!(
        "the monitor broke an invariant of its own: {info}"
    ));
    firewall::machine::cpu::halt_forever()
}
