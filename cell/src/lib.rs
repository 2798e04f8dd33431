//! What every layer of Hive agrees on: names, shares, and the memory that others read.
//!
//! The bottom layer. The monitor, the cell kernels and the host-side runner all build on this
//! crate, so that none of them can disagree about a layout or a word. It is `no_std`, holds no
//! assembly, and is tested on the host.
//!
//! | module | what it settles |
//! |---|---|
//! | [`id`] | cells, CPUs, incarnations, epochs, sets of them |
//! | [`address`] | physical addresses, frames, ranges of frames |
//! | [`time`] | instants on the one machine clock, and its conversion from the time-stamp counter |
//! | [`parameters`] | the boot parameters, parsed once for the monitor and for the runner |
//! | [`partition`] | the arithmetic that divides CPUs and frames among cells |
//! | [`machine`] | the monitor's record of all cells, read by every cell and by the runner |
//! | [`standing`] | where a CPU is, and who may restart it |
//! | [`membership`] | votes and seals: the one live set of each epoch |
//! | [`public`] | the public area of a cell: what the others read |
//! | [`handover`] | what the monitor tells a cell kernel at entry |
//! | [`careful`] | the careful reference: reading another cell's memory without being harmed |
//! | [`standstill`] | points of time at which the machine stands still for the runner |
//! | [`trace`] | the record of what happened, which survives its cell |
//! | [`fault`] | faults that a cell injects into itself when the host asks for it |
//! | [`random`] | pseudo-random numbers for faults |
//! | [`workload`] | the record in which a cell's workers account for every operation |

#![cfg_attr(not(test), no_std)]

pub mod address;
mod atomic;
pub mod careful;
pub mod fault;
pub mod handover;
pub mod id;
pub mod machine;
pub mod membership;
pub mod parameters;
pub mod partition;
pub mod public;
pub mod random;
pub mod standing;
pub mod standstill;
pub mod time;
pub mod trace;
pub mod workload;

pub use address::{Frame, FrameRange, PAGE_SIZE, PhysicalAddress};
pub use id::{CELLS_MAX, CPUS_MAX, CellId, CellSet, CpuId, Epoch, Incarnation};
pub use time::Instant;
