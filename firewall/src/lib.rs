//! The write firewall: who may write which frame, and how that is enforced.
//!
//! | module | what it holds |
//! |---|---|
//! | [`hypercall`] | the interface between a cell kernel and the monitor |
//! | [`model`] | writer sets and homes |
//! | [`nested`] | what one cell can reach, as page tables |
//! | [`format`] | the formats of their entries: x86-64's and EPT's |
//! | [`grants`] | both in step: grant, revoke, quarantine |
//! | [`monitor`] | the policy of the monitor, for every back end |
//! | [`machine`] | the islands where the monitor meets the processor, back ends among them |
//!
//! The first five are pure and tested on the host. Unsafe code lives in `machine`, and in
//! `monitor` where it reads or writes a cell's memory.
//!
//! # Checking
//! Writer sets and nested tables, which several CPUs change at once, are explored by loom:
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p firewall --release --lib
//! ```

#![cfg_attr(not(test), no_std)]

mod atomic;
pub mod format;
pub mod grants;
pub mod hypercall;
pub mod machine;
pub mod model;
pub mod monitor;
pub mod nested;

#[cfg(all(test, loom))]
mod interleavings;
