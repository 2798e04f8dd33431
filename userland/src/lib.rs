//! What runs on the cells: the verified workload.
//!
//! Every worker of every cell runs an endless, seeded sequence of small operations and verifies
//! every byte that it gets back: from its own memory, from calls, from pages of other cells, from
//! borrowed frames. All bytes are computed from (seed, cell, worker, life, sequence), so a reader
//! knows what a writer in another cell must have written. The account that results is what a run is
//! judged by: work may be lost only with a cell that died, and no byte may ever be wrong.
//!
//! | module | what it settles |
//! |---|---|
//! | [`pattern`] | the seeded generator, and the bytes that everything is checked against |
//! | [`lane`] | the part of a shared page that one worker writes, and how anybody checks it |
//! | [`services`] | what a worker asks of its kernel |
//! | [`account`] | entries in the workload record |
//! | [`fate`] | unexpected bytes whose explanation is still to come |
//! | [`worker`] | the sequence of operations |
//! | [`compute`], [`call`], [`share`], [`borrow`] | the operations |
//! | [`verdict`] | the judgement of a whole run, for the runner |

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod account;
pub mod borrow;
pub mod call;
pub mod compute;
pub mod fate;
pub mod lane;
pub mod pattern;
pub mod services;
pub mod share;
pub mod verdict;
pub mod worker;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod trials;

pub use account::Account;
pub use call::{CALL_WORDS, answer};
pub use lane::{PAGE_WORDS, pages_needed};
pub use services::{Reason, Services, WorkError};
pub use verdict::{Case, Verdict, Violation};
pub use worker::{Worker, WorkerSettings};
