//! The two formats of a nested table's entries.
//!
//! | bit | [`X86`]: page tables, NPT | [`Ept`]: extended page tables |
//! |---|---|---|
//! | 0 | present | loads allowed |
//! | 1 | stores allowed | stores allowed |
//! | 2 | user | fetches allowed |
//! | 3, 4, 5 | write-through, no cache, accessed | memory type |
//! | 6 | written | ignore the memory type of the cell's tables |
//! | 7 | large | large |
//! | 8, 9 | global, free | accessed, written |
//! | 11 | free: [`WITHHELD`], [`MERGING`] | free: [`WITHHELD`], [`MERGING`] |
//! | 12 to 51 | address | address |
//! | 63 | no fetches | no exception instead of an exit |
//!
//! What both agree on is a constant here; the rest is asked of a [`Format`].
//!
//! # Invariants
//! 1. No entry allows stores without loads: to EPT that is a misconfiguration, and in the other
//!    format it cannot be said.
//!
//! # References
//! AMD64 Architecture Programmer's Manual, volume 2, rev. 3.41, 5.3 and 15.25.5. Intel 64 and IA-32
//! Architectures Software Developer's Manual (SDM), volume 3, 325384-070, 28.2.2 (tables 28-1 to
//! 28-6), 28.2.3.1, 28.2.4, 28.2.6.

use core::fmt::Debug;

use crate::nested::Access;

/// The entry is in use: present, or open to loads, without which nothing is open.
pub(crate) const PRESENT: u64 = 1 << 0;
pub(crate) const WRITABLE: u64 = 1 << 1;
pub(crate) const LARGE: u64 = 1 << 7;
/// The right to write is withheld for a time. Free for software in both formats.
pub(crate) const WITHHELD: u64 = 1 << 11;
/// Of an entry that leads on: somebody may be about to exchange it for a large one.
pub(crate) const MERGING: u64 = 1 << 11;
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// How a nested table says what it says.
pub trait Format: Sync + Debug {
    /// A leaf that gives `access` to ordinary memory, without its address.
    fn leaf(&self, access: Access) -> u64;

    /// A leaf that lets a device's registers be loaded, without its address.
    fn device(&self) -> u64;

    /// An entry that leads to a lower level and takes no right away, without its address.
    fn branch(&self) -> u64;

    /// What the processor sets in a leaf when it stores through it.
    fn dirty(&self) -> u64;

    /// All that the processor sets in an entry.
    fn marks(&self) -> u64;

    /// What a leaf gives.
    fn access(&self, leaf: u64) -> Access;
}

/// The format of x86-64 page tables, in which nested paging and the paging back end's windows are.
#[derive(Clone, Copy, Debug)]
pub struct X86;

impl X86 {
    /// Nested walks are user accesses (APM 15.25.5).
    const USER: u64 = 1 << 2;
    /// Write-through and no cache: uncached, whatever the address's own type.
    const UNCACHED: u64 = 0b11 << 3;
    pub(crate) const ACCESSED: u64 = 1 << 5;
    pub(crate) const DIRTY: u64 = 1 << 6;
    const NO_EXECUTE: u64 = 1 << 63;
}

impl Format for X86 {
    fn leaf(&self, access: Access) -> u64 {
        match access {
            Access::Absent => 0,
            Access::Read => PRESENT | Self::USER | Self::NO_EXECUTE,
            Access::Write => PRESENT | Self::USER | WRITABLE | Self::NO_EXECUTE,
            Access::Own => PRESENT | Self::USER | WRITABLE,
        }
    }

    fn device(&self) -> u64 {
        self.leaf(Access::Read) | Self::UNCACHED
    }

    fn branch(&self) -> u64 {
        PRESENT | WRITABLE | Self::USER
    }

    fn dirty(&self) -> u64 {
        Self::DIRTY
    }

    fn marks(&self) -> u64 {
        Self::ACCESSED | Self::DIRTY
    }

    fn access(&self, leaf: u64) -> Access {
        access_of(leaf, leaf & Self::NO_EXECUTE == 0)
    }
}

/// The format of Intel's extended page tables.
#[derive(Clone, Copy, Debug)]
pub struct Ept;

impl Ept {
    const EXECUTABLE: u64 = 1 << 2;
    /// The memory type, together with the cell's own tables; the firmware's types for the address
    /// do not count behind EPT (SDM 28.2.6.2), so a device's registers need a type of their own.
    const WRITE_BACK: u64 = 6 << 3;
    const UNCACHED: u64 = 0 << 3;
    const ACCESSED: u64 = 1 << 8;
    const DIRTY: u64 = 1 << 9;
}

impl Format for Ept {
    fn leaf(&self, access: Access) -> u64 {
        match access {
            Access::Absent => 0,
            Access::Read => PRESENT | Self::WRITE_BACK,
            Access::Write => PRESENT | WRITABLE | Self::WRITE_BACK,
            Access::Own => PRESENT | WRITABLE | Self::EXECUTABLE | Self::WRITE_BACK,
        }
    }

    fn device(&self) -> u64 {
        PRESENT | Self::UNCACHED
    }

    fn branch(&self) -> u64 {
        PRESENT | WRITABLE | Self::EXECUTABLE
    }

    fn dirty(&self) -> u64 {
        Self::DIRTY
    }

    fn marks(&self) -> u64 {
        Self::ACCESSED | Self::DIRTY
    }

    fn access(&self, leaf: u64) -> Access {
        access_of(leaf, leaf & Self::EXECUTABLE != 0)
    }
}

const fn access_of(leaf: u64, is_executable: bool) -> Access {
    match (leaf & PRESENT != 0, leaf & WRITABLE != 0, is_executable) {
        (false, _, _) => Access::Absent,
        (true, false, _) => Access::Read,
        (true, true, false) => Access::Write,
        (true, true, true) => Access::Own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [&dyn Format; 2] = [&X86, &Ept];
    const ACCESSES: [Access; 4] = [Access::Absent, Access::Read, Access::Write, Access::Own];

    #[test]
    fn an_access_is_read_as_it_was_written() {
        for format in FORMATS {
            for access in ACCESSES {
                let leaf = format.leaf(access);
                assert_eq!(format.access(leaf), access, "{format:?}");
                let marked = leaf | if leaf == 0 { 0 } else { format.dirty() };
                assert_eq!(format.access(marked | LARGE), access, "{format:?}");
            }
            assert_eq!(format.access(format.device()), Access::Read, "{format:?}");
        }
    }

    #[test]
    fn no_two_meanings_share_a_bit() {
        for format in FORMATS {
            let own = format.leaf(Access::Own) | format.leaf(Access::Read) | format.device();
            let meanings = [own, format.marks(), LARGE, WITHHELD, ADDRESS];
            let sum: u32 = meanings.iter().map(|bits| bits.count_ones()).sum();
            let union = meanings.iter().fold(0, |all, bits| all | bits);
            assert_eq!(union.count_ones(), sum, "{format:?}");
        }
    }

    /// SDM 28.2.3.1: stores without loads, a reserved memory type, and bits 3 to 6 of an entry that
    /// leads on are misconfigurations. Execute-only, which some processors refuse, is not used.
    #[test]
    fn no_entry_misconfigures_the_extended_tables() {
        let leaves = ACCESSES.map(|access| Ept.leaf(access));
        for leaf in leaves.into_iter().chain([Ept.device()]) {
            let rights = leaf & 0b111;
            assert!(
                matches!(rights, 0b000 | 0b001 | 0b011 | 0b111),
                "{rights:03b}"
            );
            assert!(matches!(leaf >> 3 & 0b111, 0 | 6), "memory type");
            assert!(rights != 0 || leaf == 0, "an absent entry says nothing");
            assert_eq!(leaf & ADDRESS, 0);
        }
        assert_eq!((Ept.branch() | MERGING) & 0b1111_1000, 0);
        assert_eq!(Ept.leaf(Access::Own) & !WRITABLE & 0b111, 0b101);
    }
}
