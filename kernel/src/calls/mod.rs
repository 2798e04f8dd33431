//! Calls between cells, at work: the rings of this cell, its outstanding calls, its servers.
//!
//! What a message is, when a doorbell is rung and how a call ends is the `rpc` crate's; here it
//! meets threads, interrupts and other cells' memory.
//!
//! | module | what it does |
//! |---|---|
//! | [`rings`] | the endpoint over the public area: who is admitted, polling, doorbells |
//! | [`outgoing`] | calls another cell and waits for the outcome |
//! | [`incoming`] | serves other cells, at interrupt level or by server threads |
//! | [`partner`] | the other end of a measurement |
//! | [`text`] | carries console text to the owner of the serial port |

pub mod incoming;
pub mod outgoing;
pub mod partner;
pub mod rings;
pub mod text;

pub use outgoing::{call, call_until};
