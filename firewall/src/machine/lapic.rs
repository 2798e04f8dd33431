//! The local APIC of the executing CPU, in xAPIC mode.
//!
//! Only the monitor writes it: the interrupt command register reaches every CPU of the machine, and
//! shares its page with the harmless registers. Cells read the page directly and ask for writes by
//! hypercall.
//!
//! # Invariants
//! 1. The page lies at its reset address, identity-mapped uncached by the firmware's memory types;
//!    the monitor never moves it.
//! 2. On one CPU, the two halves of a command are written where no handler sends one of its own
//!    (`crate::monitor`, invariant 3), so that no other command of this CPU comes between.
//!
//! # References
//! AMD64 Architecture Programmer's Manual, volume 2, rev. 3.41, chapter 16.

use cell::PhysicalAddress;

/// Where the registers lie after reset.
pub const LAPIC_BASE: PhysicalAddress = PhysicalAddress(0xfee0_0000);

const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const END_OF_INTERRUPT: u32 = 0xb0;
/// Where an interrupt is ended, for handlers in assembly.
pub(crate) const END_OF_INTERRUPT_ADDRESS: u64 = LAPIC_BASE.0 + END_OF_INTERRUPT as u64;

const SPURIOUS: u32 = 0xf0;
const IN_SERVICE: u32 = 0x100;
const ERROR_STATUS: u32 = 0x280;
const COMMAND_LOW: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const LOCAL_VECTORS: core::ops::RangeInclusive<u32> = 0x320..=0x370;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_DIVIDE: u32 = 0x3e0;

const LINT1: u32 = 0x360;

const DELIVER_NMI: u32 = 0b100 << 8;
const MASKED: u32 = 1 << 16;
const DELIVERY_MODE: u32 = 0b111 << 8;
const DELIVERY_PENDING: u32 = 1 << 12;
const SOFTWARE_ENABLE: u32 = 1 << 8;

/// Interrupt vectors below this are exceptions.
const FIRST_FREE_VECTOR: u32 = 0x20;

/// Reads of the delivery status before a command is sent regardless: a bound, not a time.
const PENDING_READS_MAX: u32 = 10_000;

/// What one CPU sends to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// An interrupt of this vector.
    Fixed(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// Reset to wait-for-start-up.
    Init,
    /// Start at this page below 1 MiB.
    StartUp(u8),
}

impl Command {
    const fn low_word(self) -> u32 {
        const ASSERT: u32 = 1 << 14;
        match self {
            Self::Fixed(vector) => vector as u32 | ASSERT,
            Self::Nmi => 0b100 << 8 | ASSERT,
            Self::Init => 0b101 << 8 | ASSERT,
            Self::StartUp(page) => page as u32 | 0b110 << 8 | ASSERT,
        }
    }
}

/// The APIC identifier of the executing CPU.
pub fn id() -> u8 {
    (read(ID) >> 24) as u8
}

/// Sends a command to the CPU with APIC identifier `target`.
pub fn send(target: u8, command: Command) {
    for _ in 0..PENDING_READS_MAX {
        if read(COMMAND_LOW) & DELIVERY_PENDING == 0 {
            break;
        }
        core::hint::spin_loop();
    }
    write(COMMAND_HIGH, u32::from(target) << 24);
    write(COMMAND_LOW, command.low_word());
}

/// Enables the APIC, with every local source but the NMI line masked and nothing in service: the
/// state in which a new life starts.
pub fn quiet() {
    write(TIMER_INITIAL, 0);
    for register in LOCAL_VECTORS.step_by(16) {
        write(register, MASKED);
    }
    write(TASK_PRIORITY, 0);
    write(
        SPURIOUS,
        SOFTWARE_ENABLE | u32::from(crate::hypercall::VECTOR_SPURIOUS),
    );
    // The board's NMI line: an operator's `nmi` reaches every CPU. After the APIC is enabled, for
    // until then the mask cannot be taken off.
    write(LINT1, DELIVER_NMI);
    // A life that ended inside a handler left its interrupt in service; each EOI ends one of at
    // most 256.
    for _ in 0..256 {
        let idle = (0..8).all(|word| read(IN_SERVICE + word * 16) == 0);
        if idle {
            break;
        }
        write(END_OF_INTERRUPT, 0);
    }
}

/// Writes a register for a cell, if it is one that reaches no other CPU.
///
/// Returns whether it was.
#[must_use]
pub fn write_for_cell(register: u64, value: u64) -> bool {
    let (Ok(register), Ok(value)) = (u32::try_from(register), u32::try_from(value)) else {
        return false;
    };
    let allowed = is_allowed(register, value);
    if allowed {
        write(register, value);
    }
    allowed
}

fn is_allowed(register: u32, value: u32) -> bool {
    match register {
        TASK_PRIORITY | END_OF_INTERRUPT | SPURIOUS | ERROR_STATUS | TIMER_INITIAL
        | TIMER_DIVIDE => true,
        _ if LOCAL_VECTORS.contains(&register) && register.is_multiple_of(16) => {
            let is_fixed = value & DELIVERY_MODE == 0 && value & 0xff >= FIRST_FREE_VECTOR;
            value & MASKED != 0 || is_fixed
        }
        _ => false,
    }
}

fn read(register: u32) -> u32 {
    let address = (LAPIC_BASE.0 + u64::from(register)) as *const u32;
    // SAFETY: invariant 1 makes the address valid for 32-bit reads; reading has no effect on
    // memory.
    unsafe { address.read_volatile() }
}

fn write(register: u32, value: u32) {
    let address = (LAPIC_BASE.0 + u64::from(register)) as *mut u32;
    // SAFETY: invariant 1 makes the address valid for 32-bit writes. What a write does to this or
    // another CPU is settled by the public functions: commands that this monitor means, or
    // registers that `is_allowed` lists.
    unsafe { address.write_volatile(value) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMER_VECTOR: u32 = 0x320;

    #[test]
    fn a_cell_cannot_reach_the_command_register() {
        for register in (0..0x400).step_by(4) {
            let is_command = register == COMMAND_LOW || register == COMMAND_HIGH;
            assert!(
                !(is_command && is_allowed(register, 0)),
                "register {register:#x}"
            );
        }
    }

    #[test]
    fn local_vectors_deliver_only_ordinary_interrupts() {
        assert!(is_allowed(TIMER_VECTOR, 0x2_00f2));
        assert!(is_allowed(TIMER_VECTOR, MASKED));
        assert!(!is_allowed(TIMER_VECTOR, 0x1f), "an exception's vector");
        assert!(!is_allowed(0x350, 0b100 << 8), "an NMI by LINT0");
        assert!(!is_allowed(0x360, 0b101 << 8 | 0x40), "an INIT by LINT1");
        assert!(!is_allowed(TIMER_VECTOR + 4, 0x40), "not a register");
    }
}
