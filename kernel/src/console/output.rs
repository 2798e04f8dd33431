//! Where text goes: to the serial port if it is this cell's, else on its way to the owner.

use core::fmt::{self, Write};
use core::sync::atomic::Ordering;

use crate::console::{remote, uart};
use crate::own::own;

/// Whether this cell owns the serial port.
pub fn is_owner() -> bool {
    let own = own();
    own.machine.uart_owner.load(Ordering::Acquire) as usize == own.cell.index()
}

/// Writes text.
pub fn write(text: &[u8]) {
    if is_owner() {
        uart::write(text);
    } else {
        remote::send(text);
    }
}

/// The console as a target of `write!`.
#[derive(Debug)]
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write(text.as_bytes());
        Ok(())
    }
}
