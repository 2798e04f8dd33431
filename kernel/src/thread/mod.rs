//! Kernel threads: preemptive, on all CPUs of the cell, by priority and in turn.
//!
//! | module | what it holds |
//! |---|---|
//! | [`context`] | what is saved of a thread that does not run |
//! | [`run_queue`] | who is ready, who sleeps, who is next: the pure part |
//! | [`scheduler`] | the same over the cell's CPUs |
//! | [`spawn`] | new threads |
//! | [`wait`] | waiting for a condition, with a deadline |
//! | [`waiters`] | who waits for a condition: the pure part |
//! | [`idle`] | what a CPU does when nobody is ready |
//! | [`idle_set`] | which CPUs do that |

pub mod context;
pub mod idle;
pub mod idle_set;
pub mod run_queue;
pub mod scheduler;
pub mod spawn;
pub mod wait;
pub mod waiters;

pub use run_queue::{Priority, ThreadId, Wakeup};
pub use scheduler::{block, current, sleep, sleep_until, wake, yield_now};
pub use spawn::{SpawnError, spawn};
