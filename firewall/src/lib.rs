//! The write firewall: who may write which frame, and how that is enforced.
//!
//! | module | what it holds |
//! |---|---|
//! | [`hypercall`] | the interface between a cell kernel and the monitor |
//!
//! `hypercall` and `model` are pure and tested on the host; `machine` is where the monitor meets the processor.

#![cfg_attr(not(test), no_std)]

pub mod hypercall;
