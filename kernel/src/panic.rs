//! The end of a cell's life by its own hand: an epitaph, and a hypercall that stops its CPUs.
//!
//! A broken invariant of this kernel ends this cell and nothing else. The epitaph lies in the
//! public area, where the runner and the other cells find it.
//!
//! # Invariants
//! 1. Nothing here takes a lock, allocates, or waits.
//! 2. Only the first CPU that gets here writes the epitaph; whoever comes later, the same CPU
//!    included, only stops.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use cell::public::{EPITAPH_BYTES, EPITAPH_OFFSET, Epitaph};
use cell::trace::Event;
use firewall::hypercall::BusError;

use crate::cpu::{interrupts, per_cpu};
use crate::memory::{stacks, window};
use crate::own::{Own, known};
use crate::thread::context::Context;
use crate::{clock, console, hypercall, public_area, trace};

/// Words of the stack that are searched for return addresses.
const STACK_WORDS: usize = 256;
/// Return addresses that an epitaph lists.
const ADDRESSES_MAX: usize = 16;

static STOPPING: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    static kernel_text_start: u8;
    static kernel_text_end: u8;
}

/// Where the panic came from.
#[derive(Clone, Copy, Debug)]
struct Place {
    instruction: u64,
    stack_pointer: u64,
}

impl From<&Context> for Place {
    fn from(context: &Context) -> Self {
        Self {
            instruction: context.rip,
            stack_pointer: context.rsp,
        }
    }
}

/// Ends the life of the cell: the panic handler of the image.
pub fn broken_invariant(info: &PanicInfo<'_>) -> ! {
    let marker = 0u64;
    let place = Place {
        instruction: 0,
        stack_pointer: (&raw const marker).addr() as u64,
    };
    match info.location() {
        Some(at) => stop(
            place,
            format_args!("{} ({}:{})", info.message(), at.file(), at.line()),
        ),
        None => stop(place, format_args!("{}", info.message())),
    }
}

/// Ends the life of the cell: an exception that nothing expected.
pub fn unexpected_exception(context: &Context, address: Option<u64>) -> ! {
    let place = Place::from(context);
    let (vector, rip, error) = (context.vector, context.rip, context.error);
    match address {
        Some(address) if stacks::is_guard(address) => stop(
            place,
            format_args!("stack overflow: access to {address:#x} at {rip:#x}"),
        ),
        Some(address) => stop(
            place,
            format_args!("page fault: access to {address:#x} at {rip:#x}, error code {error:#x}"),
        ),
        None => stop(
            place,
            format_args!("exception {vector} at {rip:#x}, error code {error:#x}"),
        ),
    }
}

/// Ends the life of the cell: a bus error outside careful references and guarded writes.
pub fn bus_error(context: &Context, error: BusError) -> ! {
    let BusError { address, kind } = error;
    let rip = context.rip;
    stop(
        Place::from(context),
        format_args!("bus error: access to {address:#x} at {rip:#x}, kind {kind}"),
    )
}

/// Ends the life of the cell: a thread's stack pointer is below its stack.
pub fn stack_overflow(context: &Context) -> ! {
    let (rsp, rip) = (context.rsp, context.rip);
    stop(
        Place::from(context),
        format_args!("stack overflow: stack pointer {rsp:#x} at {rip:#x}"),
    )
}

/// Ends a life that the other cells voted out, or that found itself crippled.
pub fn voted_out() -> ! {
    let marker = 0u64;
    let place = Place {
        instruction: 0,
        stack_pointer: (&raw const marker).addr() as u64,
    };
    let is_live = known().is_some_and(|own| {
        let (_, live) = own.machine.membership.current();
        live.contains(own.cell)
    });
    let reason = if is_live {
        "one of the cell's own CPUs does not tick, and the others think so too"
    } else {
        "voted out of the live set"
    };
    stop(place, format_args!("{reason}"))
}

/// Cuts the cell's memory off, writes the epitaph and stops the cell.
fn stop(place: Place, message: fmt::Arguments<'_>) -> ! {
    interrupts::disable();
    let is_first = !STOPPING.swap(true, Ordering::SeqCst);
    if let Some(own) = known().filter(|_| is_first) {
        // First, so that nobody goes on computing with what a broken kernel holds, as the panic
        // routine of Hive did by FLASH's memory cut-off. Where the monitor cannot, the vote ends
        // it.
        let _ = hypercall::cut_off();
        public_area::panicked();
        trace::record(Event::Panic, place.instruction, 0);
        write_epitaph(own, place, message);
        console::uart::emergency(own, message);
    }
    hypercall::stop(place.instruction);
    // The monitor does not come back from that; should it, this CPU at least does no more.
    loop {
        interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Writes text into the epitaph, byte by byte, as far as there is room.
struct EpitaphText {
    text: *mut u8,
    length: usize,
}

impl Write for EpitaphText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes().iter().take(EPITAPH_BYTES - self.length) {
            // SAFETY: `text` points to `EPITAPH_BYTES` bytes of the own public area, and `length`
            // is below that here; only the first CPU that panics writes them (invariant 2), and
            // readers outside Rust see them after `written`.
            unsafe { self.text.add(self.length).write_volatile(byte) };
            self.length += 1;
        }
        Ok(())
    }
}

fn write_epitaph(own: &Own, place: Place, message: fmt::Arguments<'_>) {
    let epitaph = window::pointer::<Epitaph>(own.public(EPITAPH_OFFSET));
    // SAFETY: the epitaph is a part of the own public area. Its text is only reached through the
    // raw pointer, its other fields are atomics.
    let (written, length, incarnation, cpu, at, text) = unsafe {
        (
            &(*epitaph).written,
            &(*epitaph).length,
            &(*epitaph).incarnation,
            &(*epitaph).cpu,
            &(*epitaph).at,
            (&raw mut (*epitaph).text).cast::<u8>(),
        )
    };
    written.store(0, Ordering::SeqCst);
    let mut writer = EpitaphText { text, length: 0 };
    let _ = writer.write_fmt(message);
    let _ = write_addresses(&mut writer, place.stack_pointer);
    length.store(writer.length as u32, Ordering::Relaxed);
    incarnation.store(own.incarnation.0, Ordering::Relaxed);
    cpu.store(per_cpu::cpu_number() as u32, Ordering::Relaxed);
    at.store(clock::now().0, Ordering::Relaxed);
    written.store(1, Ordering::SeqCst);
}

/// Lists the words of the stack that look like return addresses, innermost first.
fn write_addresses(writer: &mut EpitaphText, stack_pointer: u64) -> fmt::Result {
    let start = (&raw const kernel_text_start).addr() as u64;
    let end = (&raw const kernel_text_end).addr() as u64;
    let mut listed = 0;
    for word in 0..STACK_WORDS {
        let address = (stack_pointer & !7) + word as u64 * 8;
        if !stacks::is_readable(address) {
            break;
        }
        // SAFETY: the address lies in memory of this cell that is mapped (checked above) and is
        // aligned.
        let value = unsafe { (address as *const u64).read_volatile() };
        if (start..end).contains(&value) {
            writer.write_str(if listed == 0 { "; stack:" } else { "" })?;
            write!(writer, " {value:#x}")?;
            listed += 1;
        }
        if listed == ADDRESSES_MAX {
            break;
        }
    }
    Ok(())
}
