//! The maps of ports and model-specific registers that a cell may touch by itself.
//!
//! A set bit intercepts. Everything is denied but what is listed here: the registers below, which
//! reach no other cell, and, for the owner of the serial port, its eight ports.
//!
//! # References
//! AMD64 Architecture Programmer's Manual, volume 2, rev. 3.41, 15.10.1 and 15.11. Intel SDM volume
//! 3, 325384-070, 24.6.4 and 24.6.9.

use core::ops::RangeInclusive;

/// The ports of the first serial port.
pub(crate) const UART_PORTS: RangeInclusive<u16> = 0x3f8..=0x3ff;

/// Registers that a cell may read and write: system call set-up, and the FS, GS and kernel GS
/// bases.
const FREE_REGISTERS: [u32; 7] = [
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0100, // FS.base
    0xc000_0101, // GS.base
    0xc000_0102, // KernelGSbase
];

/// A map of the 64 Ki ports: one bit each, 12 KiB with the tail that a port access may touch. For
/// VMX the first 4 KiB are map A, the second map B.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct PortMap([u8; 3 * 4096]);

impl PortMap {
    /// No port is free.
    pub(crate) const CLOSED: Self = Self([0xff; 3 * 4096]);

    /// The serial port is free.
    pub(crate) const fn with_uart() -> Self {
        let mut map = Self::CLOSED;
        // Eight ports from a multiple of eight are one whole byte.
        map.0[*UART_PORTS.start() as usize / 8] = 0;
        map
    }
}

/// A map of model-specific registers for SVM: two bits each (read, write), 2 KiB for each of three
/// ranges.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct PairedRegisterMap([u8; 2 * 4096]);

impl PairedRegisterMap {
    /// The map that every cell gets.
    pub(crate) const fn new() -> Self {
        let mut map = Self([0xff; 2 * 4096]);
        let mut index = 0;
        while index < FREE_REGISTERS.len() {
            let bit = (FREE_REGISTERS[index] & 0x1fff) as usize * 2;
            // The range from C000_0000h has the second 2 KiB.
            map.0[0x800 + bit / 8] &= !(0b11 << (bit % 8));
            index += 1;
        }
        map
    }
}

/// A map of model-specific registers for VMX: one bit each, 1 KiB for each of: reads of the
/// registers from 0, reads from C000_0000h, writes from 0, writes from C000_0000h.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct SplitRegisterMap([u8; 4096]);

impl SplitRegisterMap {
    /// The map that every cell gets.
    pub(crate) const fn new() -> Self {
        let mut map = Self([0xff; 4096]);
        let mut index = 0;
        while index < FREE_REGISTERS.len() {
            let bit = (FREE_REGISTERS[index] & 0x1fff) as usize;
            map.0[0x400 + bit / 8] &= !(1 << (bit % 8));
            map.0[0xc00 + bit / 8] &= !(1 << (bit % 8));
            index += 1;
        }
        map
    }
}

const _: () = assert!(
    (*UART_PORTS.start()).is_multiple_of(8) && *UART_PORTS.end() == *UART_PORTS.start() + 7
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_serial_port_is_free() {
        let map = PortMap::with_uart();
        let is_free = |port: u16| map.0[port as usize / 8] & 1 << (port % 8) == 0;
        let free: Vec<_> = (0..=u16::MAX).filter(|&port| is_free(port)).collect();
        assert_eq!(free, UART_PORTS.collect::<Vec<_>>());
    }

    #[test]
    fn exactly_the_listed_registers_are_free() {
        let map = PairedRegisterMap::new();
        let free_bits: u32 = map.0.iter().map(|byte| byte.count_zeros()).sum();
        assert_eq!(free_bits as usize, FREE_REGISTERS.len() * 2);
        let star = 0x81 * 2;
        assert_eq!(map.0[0x800 + star / 8] >> (star % 8) & 0b11, 0);
    }

    #[test]
    fn exactly_the_listed_registers_are_free_in_the_split_map() {
        let map = SplitRegisterMap::new();
        let free_bits: u32 = map.0.iter().map(|byte| byte.count_zeros()).sum();
        assert_eq!(free_bits as usize, FREE_REGISTERS.len() * 2);
        let star = 0x81;
        for range in [0x400, 0xc00] {
            assert_eq!(map.0[range + star / 8] >> (star % 8) & 1, 0);
        }
    }
}
