//! The serial port, on the cell that owns it.
//!
//! # Invariants
//! 1. The port is touched only while `MachineRecord::uart_owner` names this cell; otherwise the
//!    monitor would deny it.
//! 2. No text waits for ever: a port that takes no byte for [`TRIES_MAX`] looks loses the rest of
//!    the text.

use core::fmt::{self, Write};
use core::sync::atomic::Ordering;

use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550};

use crate::lock::Lock;
use crate::own::Own;

/// COM1.
const PORT: u16 = 0x3f8;

/// How often a full port is looked at before the text is dropped. A byte takes about 0.1 ms.
const TRIES_MAX: u32 = 100_000;
/// As fast as the port goes: the lock is held with interrupts off while a line is sent, and a line
/// at the usual 9600 baud would take longer than a cell may stand still. QEMU sends at any speed.
const CONFIGURATION: Config = Config {
    baud_rate: BaudRate::Baud115200,
    ..Config::DEFAULT
};

static UART: Lock<Option<Uart16550<PioBackend>>> = Lock::new(None);

/// Takes the port into use; again after an adoption does no harm.
pub fn set_up() {
    let mut uart = UART.lock();
    if uart.is_none() {
        *uart = open();
        if let Some(uart) = uart.as_mut() {
            // Without a device there is nobody to read either.
            let _ = uart.init(CONFIGURATION);
        }
    }
}

fn open() -> Option<Uart16550<PioBackend>> {
    // SAFETY: the port exists on every PC, and this cell owns it (invariant 1).
    unsafe { Uart16550::new_port(PORT) }.ok()
}

/// Sends text, line feeds as carriage return and line feed.
pub fn write(text: &[u8]) {
    if let Some(uart) = UART.lock().as_mut() {
        send(uart, text);
    }
}

fn send(uart: &mut Uart16550<PioBackend>, text: &[u8]) {
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(body) => {
                send_raw(uart, body);
                send_raw(uart, b"\r\n");
            }
            None => send_raw(uart, line),
        }
    }
}

fn send_raw(uart: &mut Uart16550<PioBackend>, mut bytes: &[u8]) {
    let mut tries = 0;
    while !bytes.is_empty() && tries < TRIES_MAX {
        let sent = uart.send_bytes(bytes);
        bytes = &bytes[sent..];
        tries = if sent == 0 { tries + 1 } else { 0 };
        if sent == 0 {
            core::hint::spin_loop();
        }
    }
}

/// Receives what is there, unless another CPU of the cell is at the port.
pub fn try_receive(buffer: &mut [u8]) -> usize {
    let Some(mut uart) = UART.try_lock() else {
        return 0;
    };
    uart.as_mut().map_or(0, |uart| uart.receive_bytes(buffer))
}

/// Sends the last words of this cell if the port is its own, past the lock: its holder may be the
/// one that died.
pub fn emergency(own: &Own, message: fmt::Arguments<'_>) {
    if own.machine.uart_owner.load(Ordering::Acquire) as usize != own.cell.index() {
        return;
    }
    if let Some(uart) = open() {
        let _ = writeln!(Emergency(uart), "\ncell {} panicked: {message}", own.cell);
    }
}

struct Emergency(Uart16550<PioBackend>);

impl Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        send(&mut self.0, text.as_bytes());
        Ok(())
    }
}
