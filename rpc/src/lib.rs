//! Calls between cells, over rings that only their sender writes.
//!
//! A cell kernel never writes another kernel's memory, so each cell keeps, in its own public area,
//! one ring of requests and one of replies for every other cell, and the others read them remotely.
//! What they have read so far they say in *their* public areas, where the sender reads it: that is
//! the flow control. Nothing here trusts what it reads.
//!
//! | module | what it settles |
//! |---|---|
//! | [`layout`] | where the rings lie, and how the rings of another cell are read |
//! | [`message`] | the 128-byte message: sealed by its sender, checked by its receiver |
//! | [`ring`] | the two ends of a ring, flow control, and what happens when indices make no sense |
//! | [`doorbell`] | when the receiver must be woken, without losing a wake-up |
//! | [`endpoint`] | all rings of one cell: send, poll, admit and forget cells |
//! | [`call`] | outstanding calls: exactly one outcome each |
//! | [`service`] | the two service classes, and the queue of requests that may block |
//! | [`operation`] | what a cell may ask of another, with its arguments and results |
//! | [`mischief`] | messages dropped, sent twice, spoilt or held up on purpose |
//! | [`peer`] | the rings of another cell, reached by careful reference |
//! | [`lock`] | how a kernel lends its locks to this crate |
//!
//! # Checking
//! `cargo test -p rpc` runs unit, property and stress tests. The interleavings of ring and doorbell
//! are explored by loom, in a target directory of its own lest the flag rebuild everything (about a
//! second, once built):
//! ```text
//! LOOM_MAX_PREEMPTIONS=3 RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test -p rpc --release --lib
//! ```

#![cfg_attr(not(any(test, loom)), no_std)]
#![forbid(unsafe_code)]

mod atomic;
pub mod call;
pub mod doorbell;
pub mod endpoint;
pub mod layout;
pub mod lock;
pub mod message;
pub mod mischief;
pub mod operation;
pub mod peer;
pub mod ring;
pub mod service;

#[cfg(all(test, loom))]
mod interleavings;
#[cfg(test)]
mod testing;

pub use call::{Call, CallNumber, CallTable, Outcome};
pub use doorbell::{Doorbell, Pollers};
pub use endpoint::{Endpoint, Link};
pub use layout::{Lane, Queue, RemoteLane, RingArea};
pub use message::{Message, Payload, Refusal, Reply, ReplyStatus, Request};
pub use operation::{Operation, ServiceClass};
