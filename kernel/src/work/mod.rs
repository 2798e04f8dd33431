//! The workload, at work: worker threads, and what they ask of this kernel.
//!
//! | module | what it does |
//! |---|---|
//! | [`workers`] | starts the threads, answers the calls of other cells' workers |
//! | [`services`] | pages, frames and calls for a worker |

pub mod services;
pub mod workers;

pub use workers::{answer, start};
