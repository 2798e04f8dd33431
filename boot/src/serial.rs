//! Messages for people, before any cell owns the serial port.
//!
//! The boot CPU writes here until the cells run, and a CPU whose monitor met its own bug writes its
//! last words.

use core::fmt::{self, Write};
use core::hint::spin_loop;

use x86_64::instructions::port::Port;

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = DATA + 5;
const CAN_SEND: u8 = 1 << 5;
const LINE_CONTROL: u16 = DATA + 3;
const EIGHT_BITS: u8 = 0b11;
const DIVISOR_ACCESS: u8 = 1 << 7;

/// Reads of the line status before a byte is sent regardless.
const READS_MAX: u32 = 100_000;

/// The first serial port.
#[derive(Clone, Copy, Debug)]
pub struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}

/// Sets the port to 115200 baud, eight bits, no parity: not every firmware does.
pub fn prepare() {
    let settings = [
        (LINE_CONTROL, DIVISOR_ACCESS),
        (DATA, 1),
        (DATA + 1, 0),
        (LINE_CONTROL, EIGHT_BITS),
    ];
    for (port, value) in settings {
        // SAFETY: writing to the serial port's registers touches no memory.
        unsafe { Port::<u8>::new(port).write(value) };
    }
}

fn send(byte: u8) {
    let mut status = Port::<u8>::new(LINE_STATUS);
    let mut data = Port::<u8>::new(DATA);
    for _ in 0..READS_MAX {
        // SAFETY: reading the line status of the serial port has no effect on memory.
        if unsafe { status.read() } & CAN_SEND != 0 {
            break;
        }
        spin_loop();
    }
    // SAFETY: writing to the serial port's data register sends a byte and touches no memory.
    unsafe { data.write(byte) };
}

/// Writes one line.
pub fn line(text: fmt::Arguments<'_>) {
    let _ = writeln!(Serial, "hive: {text}");
}
