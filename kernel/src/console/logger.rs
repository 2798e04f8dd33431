//! Messages of the kernel, each with its time and its cell, through the `log` crate.

use core::fmt::{self, Write};

use log::{LevelFilter, Log, Metadata, Record};

use crate::clock;
use crate::console::output;
use crate::own::own;

/// Longest message; the rest is cut off. A message is written whole, so that two CPUs' messages do
/// not mix.
const MESSAGE_BYTES: usize = 240;

struct Logger;

static LOGGER: Logger = Logger;

/// Makes this the logger of the kernel. Boot CPU, once.
pub fn set_up() {
    // The only error is that there is a logger already.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Info);
}

struct Message {
    bytes: [u8; MESSAGE_BYTES],
    length: usize,
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte is kept for the line feed.
        let room = MESSAGE_BYTES - 1 - self.length;
        for &byte in text.as_bytes().iter().take(room) {
            self.bytes[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= LevelFilter::Info
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut message = Message {
            bytes: [0; MESSAGE_BYTES],
            length: 0,
        };
        let now = clock::now().0 / 1000;
        let (seconds, microseconds) = (now / 1_000_000, now % 1_000_000);
        let cell = own().cell;
        let _ = write!(
            message,
            "[{seconds:4}.{microseconds:06}] cell {cell}: {}",
            record.args()
        );
        message.bytes[message.length] = b'\n';
        output::write(&message.bytes[..=message.length]);
    }

    fn flush(&self) {}
}
