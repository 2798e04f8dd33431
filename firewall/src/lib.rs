//! The write firewall: who may write which frame, and how that is enforced.
//!
//! | module | what it holds |
//! |---|---|
//! | [`hypercall`] | the interface between a cell kernel and the monitor |
//! | [`model`] | writer sets and homes |
//! | [`nested`] | what one cell can reach, as page tables |
//! | [`monitor`] | the policy of the monitor, for every back end |
//! | [`machine`] | the islands where the monitor meets the processor, back ends among them |
//!
//! The first three are pure and tested on the host. Unsafe code lives in `machine`, and in
//! `monitor` where it reads or writes a cell's memory.

#![cfg_attr(not(test), no_std)]

pub mod hypercall;
pub mod machine;
pub mod model;
pub mod monitor;
pub mod nested;
