//! qtest: accesses to the guest's memory bus, while the guest runs.
//!
//! qtest is QEMU's internal test protocol. Nothing else here knows it: callers see [`BusAccess`]
//! and [`InterruptInjector`], and the gdb stub implements the same for a QEMU without it.
//!
//! # Invariants
//! 1. Every line is built by this file from numbers only. QEMU aborts on a line with a missing or
//!    malformed argument, so no line is ever taken from outside.

use std::path::Path;

use super::line::{ANSWER_LIMIT, Lines, connect};
use crate::error::Result;

const CHANNEL: &str = "qtest";
/// Where a message-signalled interrupt is written; bits 12 to 19 name the local APIC.
const MESSAGE_ADDRESS: u64 = 0xfee0_0000;
/// Bytes of one read or write, so that a line stays short.
const TRANSFER_MAX: usize = 4096;

/// Reads and writes physical memory as a device would; translated code is invalidated.
pub trait BusAccess {
    /// Reads bytes.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`].
    fn read_bus(&mut self, address: u64, buffer: &mut [u8]) -> Result<()>;

    /// Writes bytes.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`].
    fn write_bus(&mut self, address: u64, bytes: &[u8]) -> Result<()>;
}

/// How an interrupt is delivered to one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// A non-maskable interrupt.
    Nmi,
    /// INIT. The boot CPU goes back to the firmware by it, which resets the machine: never sent
    /// there.
    Init,
}

/// Sends interrupts to single CPUs from outside the machine.
pub trait InterruptInjector {
    /// Sends one.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`].
    fn interrupt(&mut self, apic_id: u8, delivery: Delivery) -> Result<()>;
}

impl<T: BusAccess> InterruptInjector for T {
    fn interrupt(&mut self, apic_id: u8, delivery: Delivery) -> Result<()> {
        let message: u32 = match delivery {
            Delivery::Nmi => 0x400,
            Delivery::Init => 0x500,
        };
        self.write_bus(
            MESSAGE_ADDRESS + (u64::from(apic_id) << 12),
            &message.to_le_bytes(),
        )
    }
}

/// A connection to qtest.
#[derive(Debug)]
pub struct Qtest {
    lines: Lines,
}

impl Qtest {
    /// Connects.
    ///
    /// # Errors
    /// [`crate::error::Error::Channel`].
    pub fn connect(path: &Path) -> Result<Self> {
        Ok(Self {
            lines: Lines::new(CHANNEL, connect(CHANNEL, path)?),
        })
    }

    fn command(&mut self, line: &str) -> Result<String> {
        self.lines.send(line)?;
        let Some(answer) = self.lines.receive(ANSWER_LIMIT)? else {
            return Err(self.lines.error(format!("no answer to {line}")));
        };
        match answer.strip_prefix("OK") {
            Some(value) => Ok(value.trim().to_string()),
            None => Err(self.lines.error(format!("{line}: {answer}"))),
        }
    }
}

impl BusAccess for Qtest {
    fn read_bus(&mut self, address: u64, buffer: &mut [u8]) -> Result<()> {
        let mut at = address;
        for part in buffer.chunks_mut(TRANSFER_MAX) {
            let answer = self.command(&format!("read {at:#x} {:#x}", part.len()))?;
            let bytes = decode_hex(&answer).filter(|bytes| bytes.len() == part.len());
            let bytes = bytes.ok_or_else(|| self.lines.error("a read of the wrong length"))?;
            part.copy_from_slice(&bytes);
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write_bus(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        // A device register takes one access of its width, not a sequence of bytes.
        if let Ok(word) = <[u8; 4]>::try_from(bytes)
            && address.is_multiple_of(4)
        {
            let value = u32::from_le_bytes(word);
            return self
                .command(&format!("writel {address:#x} {value:#x}"))
                .map(drop);
        }
        if let Ok(word) = <[u8; 8]>::try_from(bytes)
            && address.is_multiple_of(8)
        {
            let value = u64::from_le_bytes(word);
            return self
                .command(&format!("writeq {address:#x} {value:#x}"))
                .map(drop);
        }
        let mut at = address;
        for part in bytes.chunks(TRANSFER_MAX) {
            let hex = encode_hex(part);
            self.command(&format!("write {at:#x} {:#x} 0x{hex}", part.len()))?;
            at += part.len() as u64;
        }
        Ok(())
    }
}

/// Two digits per byte.
pub(super) fn encode_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(hex_digit)
        .collect()
}

fn hex_digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0')
}

/// The bytes of pairs of digits, with or without `0x`; `None` for anything else.
pub(super) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    digits
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        assert_eq!(encode_hex(&[0x00, 0xfe, 0x10]), "00fe10");
        assert_eq!(decode_hex("0x00fe10"), Some(vec![0x00, 0xfe, 0x10]));
        assert_eq!(decode_hex("0x0"), None);
        assert_eq!(decode_hex("zz"), None);
    }

    #[derive(Default)]
    struct Recorder(Vec<(u64, Vec<u8>)>);

    impl BusAccess for Recorder {
        fn read_bus(&mut self, _: u64, _: &mut [u8]) -> Result<()> {
            Ok(())
        }

        fn write_bus(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
            self.0.push((address, bytes.to_vec()));
            Ok(())
        }
    }

    #[test]
    fn interrupts_are_messages_to_one_local_apic() {
        let mut bus = Recorder::default();
        bus.interrupt(3, Delivery::Init)
            .expect("the recorder takes everything");
        assert_eq!(bus.0, [(0xfee0_3000, vec![0x00, 0x05, 0x00, 0x00])]);
    }
}
