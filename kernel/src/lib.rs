//! The cell kernel: one private copy per cell, in guest mode, under the monitor's firewall.
//!
//! It owns a set of CPUs and frames, and nothing outside of them can make it stop: what it reads of
//! others it reads with care, what it waits for has a deadline. What it does wrong itself ends its
//! own life, with an epitaph.
//!
//! | module | what it holds |
//! |---|---|
//! | [`start`] | from the entry to a serving cell |
//! | [`own`] | what the cell knows of itself |
//! | [`hypercall`] | the way into the monitor |
//! | [`cpu`] | where the kernel meets the processor |
//! | [`memory`] | frames, heap, stacks; touching other cells' memory |
//! | [`thread`] | kernel threads and their scheduler |
//! | [`lock`], [`clock`] | the lock of the kernel, its view of time |
//! | [`service`] | what runs at interrupt level |
//! | [`public_area`], [`trace`], [`panic`] | what the cell tells others: state, record, last words |
//! | [`calls`] | calls between cells |
//! | [`hints`], [`liveness`] | suspicions; which cells live: agreement and recovery |
//! | [`work`] | the workload |
//! | [`console`] | the serial port, the shell |
//! | [`sharing`], [`pages`] | memory between cells: the tables, and the tables at work |
//! | [`faults`], [`misdeeds`], [`hooks`] | faults that the cell injects into itself |
//! | [`bench`], [`measurements`] | what the kernel's operations cost |
//!
//! # Unsafe code
//! Lives in `cpu`, `memory`, `thread::{context, scheduler, spawn}`, `hypercall`, `own`, and where
//! the public area is reached (`trace`, `faults`, `bench`, `panic`, `pages`, `calls::rings`,
//! `liveness::surroundings`, `work`); each header says what keeps it sound.
//!
//! # Checking
//! What several CPUs change without a lock lies in files of its own ([`sharing::gate`],
//! [`thread::waiters`], [`thread::idle_set`]), which `tests/interleavings.rs` gives to loom. The
//! rest is not built then: its statics cannot hold loom's atomics.

#![cfg(not(loom))]
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod atomic;
pub mod bench;
pub mod calls;
pub mod clock;
pub mod console;
pub mod cpu;
pub mod faults;
pub mod hints;
pub mod hooks;
pub mod hypercall;
pub mod liveness;
pub mod lock;
pub mod measurements;
pub mod memory;
pub mod misdeeds;
pub mod own;
pub mod pages;
pub mod panic;
pub mod public_area;
pub mod service;
pub mod sharing;
pub mod start;
pub mod thread;
pub mod trace;
pub mod work;
