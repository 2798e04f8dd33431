//! Measures the rate of the time-stamp counter against the programmable interval timer.
//!
//! # Not guaranteed
//! A host that takes the virtual CPU away between the timer and the counter spoils a measurement.
//! Each end is therefore bracketed by two readings of the counter, and the measurement with the
//! tightest brackets counts. TCG's counter is the host's own, so an error shows only in how long a
//! second is, in all cells alike.
//!
//! # References
//! Intel 8254 data sheet, mode 0; PC/AT port 61h.

use core::hint::spin_loop;

use cell::time::Clock;
use firewall::machine::cpu;
use x86_64::instructions::port::Port;

const TIMER_HERTZ: u64 = 1_193_182;
/// 5 ms.
const COUNT: u64 = TIMER_HERTZ / 200;
const MEASUREMENTS_MAX: usize = 20;
/// A measurement whose brackets are below one part in so many of it is good enough.
const GOOD_ENOUGH: u64 = 2000;
/// Reads of port 61h before a measurement is given up.
const READS_MAX: u32 = 10_000_000;

/// One measurement, in cycles.
#[derive(Clone, Copy, Debug)]
struct Measurement {
    cycles: u64,
    /// Both brackets together.
    uncertainty: u64,
}

/// The clock whose origin is now.
pub fn measure() -> Clock {
    let start_cycles = cpu::cycles();
    let mut best: Option<Measurement> = None;
    for measurement in (0..MEASUREMENTS_MAX).filter_map(|_| measure_once()) {
        if best.is_none_or(|best| measurement.uncertainty < best.uncertainty) {
            best = Some(measurement);
        }
        if measurement.uncertainty < measurement.cycles / GOOD_ENOUGH {
            break;
        }
    }
    // Without a timer: 1 GHz, which every machine beats; waits only get longer.
    let cycles_per_second = best.map_or(1_000_000_000, |best| best.cycles * TIMER_HERTZ / COUNT);
    Clock {
        start_cycles,
        cycles_per_second,
    }
}

/// Cycles for [`COUNT`] periods of the timer.
fn measure_once() -> Option<Measurement> {
    const GATE: u8 = 1 << 0;
    const SPEAKER: u8 = 1 << 1;
    const OUTPUT: u8 = 1 << 5;
    /// Channel 2, both bytes, mode 0 (output goes high at the end of the count).
    const CHANNEL_2_MODE_0: u8 = 0b1011_0000;
    let mut control = Port::<u8>::new(0x61);
    let mut mode = Port::<u8>::new(0x43);
    let mut channel = Port::<u8>::new(0x42);
    // SAFETY: these ports drive the timer's second channel, whose only other use is the speaker; no
    // memory is touched.
    unsafe {
        let quiet = control.read() & !SPEAKER;
        control.write(quiet | GATE);
        mode.write(CHANNEL_2_MODE_0);
        channel.write(COUNT as u8);
    }
    let before = cpu::cycles();
    // SAFETY: as above. The second byte starts the count.
    unsafe { channel.write((COUNT >> 8) as u8) };
    let start = cpu::cycles();
    let mut last = start;
    for _ in 0..READS_MAX {
        // SAFETY: as above.
        if unsafe { control.read() } & OUTPUT != 0 {
            let end = cpu::cycles();
            return Some(Measurement {
                cycles: end - start,
                uncertainty: (start - before) + (end - last),
            });
        }
        last = cpu::cycles();
        spin_loop();
    }
    None
}
