//! The monitor's start: from the multiboot entry to cells that run.
//!
//! | module | what it does |
//! |---|---|
//! | [`start`] | the order of everything, on the boot CPU and on the others |
//! | [`multiboot`] | reads what the boot loader left |
//! | [`memory`] | chooses the cells' memory and hands out the monitor's own |
//! | [`processors`] | finds the CPUs (ACPI) and starts them |
//! | [`clock`] | measures the time-stamp counter |
//! | [`tables`] | the monitor's own page tables and descriptors |
//! | [`load`] | puts a pristine kernel into a cell's memory |
//! | [`image`] | reads the kernel's ELF file |
//! | [`serial`] | messages for people, before any cell owns the serial port |
//!
//! After the start, the monitor is the `firewall` crate; of this crate only [`load`] is called
//! again, at reboots of cells.
//!
//! # Entry contract
//! `boot/image` enters [`start::boot_cpu`] and [`start::other_cpu`] in long mode, identity-mapped,
//! with SSE on and interrupts off. Unsafe code: [`multiboot`], [`memory`], [`processors`] read
//! firmware memory; [`load`] writes cells' memory; [`tables`], [`clock`] and [`serial`] touch the
//! processor and ports. Nothing else runs yet, or the cell concerned is fenced.

#![cfg_attr(not(test), no_std)]

pub mod clock;
pub mod image;
pub mod load;
pub mod memory;
pub mod multiboot;
pub mod processors;
pub mod serial;
pub mod start;
pub mod tables;
