//! The local APIC: reads direct, writes by hypercall.
//!
//! # References
//! AMD64 Architecture Programmer's Manual, volume 2, 16.3 (local APIC), 16.4.1 (timer). Registers:
//! table 16-2.

use core::time::Duration;

use cell::PhysicalAddress;
use firewall::hypercall::{VECTOR_SPURIOUS, VECTOR_TIMER};
use spin::Once;

use crate::memory::window;
use crate::{clock, hypercall};

/// Where the registers lie in physical memory.
const BASE: u64 = 0xfee0_0000;

const TASK_PRIORITY: u32 = 0x80;
const END_OF_INTERRUPT: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const TIMER_VECTOR: u32 = 0x320;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const SPURIOUS_ENABLE: u32 = 1 << 8;
const TIMER_MASKED: u32 = 1 << 16;
const TIMER_PERIODIC: u32 = 1 << 17;
/// Divide the bus clock by 16.
const DIVIDE_BY_16: u32 = 0b0011;

/// For how long the timer is compared with the time-stamp counter.
const MEASURE: Duration = Duration::from_millis(4);

/// Pairs of readings of which the tightest counts.
const PAIRS: usize = 8;

/// Timer counts per second, measured once by the boot CPU.
static COUNTS_PER_SECOND: Once<u64> = Once::new();

fn read(offset: u32) -> u32 {
    let register = window::pointer::<u32>(PhysicalAddress(BASE + u64::from(offset)));
    // SAFETY: the first 4 GiB are mapped in the window, and the monitor lets every CPU read its own
    // local APIC.
    unsafe { register.read_volatile() }
}

/// Writes a register. A refusal means that monitor and kernel disagree about the interface.
fn write(offset: u32, value: u32) {
    hypercall::lapic_write(offset, value).expect("every register written here is allowed");
}

/// Acknowledges the interrupt in service.
#[inline]
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Lets the running CPU take interrupts.
pub fn enable() {
    write(SPURIOUS, SPURIOUS_ENABLE | u32::from(VECTOR_SPURIOUS));
    write(TASK_PRIORITY, 0);
}

/// Measures the timer's rate against the time-stamp counter. Boot CPU, once, interrupts off.
pub fn measure_timer() {
    write(TIMER_VECTOR, TIMER_MASKED | u32::from(VECTOR_TIMER));
    write(TIMER_DIVIDE, DIVIDE_BY_16);
    write(TIMER_INITIAL, u32::MAX);
    let (first, first_cycles) = timer_and_cycles();
    clock::spin(MEASURE);
    let (last, last_cycles) = timer_and_cycles();
    write(TIMER_INITIAL, 0);
    let counts = u64::from(first.wrapping_sub(last));
    let per_second = clock::cycles_of(Duration::from_secs(1));
    let cycles = last_cycles.wrapping_sub(first_cycles).max(1);
    COUNTS_PER_SECOND.call_once(|| (counts * per_second / cycles).max(1));
}

/// Timer count and time-stamp counter at one moment. A host may take the CPU away between the two
/// reads, and the rate would be wrong by as much; so the tightest of a few pairs is taken.
fn timer_and_cycles() -> (u32, u64) {
    let pair = || {
        let before = clock::cycles();
        let count = read(TIMER_CURRENT);
        let after = clock::cycles();
        (after.wrapping_sub(before), count, before)
    };
    let tightest =
        |best: (u64, u32, u64), next: (u64, u32, u64)| if next.0 < best.0 { next } else { best };
    let (_, count, cycles) = (0..PAIRS).map(|_| pair()).fold(pair(), tightest);
    (count, cycles)
}

/// Starts the periodic timer of the running CPU.
pub fn start_timer(period: Duration) {
    let per_second = COUNTS_PER_SECOND.get().copied().unwrap_or(1);
    let counts = u128::from(per_second) * period.as_nanos() / 1_000_000_000;
    write(TIMER_DIVIDE, DIVIDE_BY_16);
    write(TIMER_VECTOR, TIMER_PERIODIC | u32::from(VECTOR_TIMER));
    write(
        TIMER_INITIAL,
        u32::try_from(counts).unwrap_or(u32::MAX).max(1),
    );
}
