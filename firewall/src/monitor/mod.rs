//! The monitor: what all cells stand on, one instance per CPU.
//!
//! Everything here is policy and holds for every back end; how a CPU enters a cell and how an
//! access is stopped is behind the [`BackEnd`] trait.
//!
//! | module | what it does |
//! |---|---|
//! | [`state`] | the monitor's data, and the seams to the back end and to the loader |
//! | [`hypercalls`] | answers the cells |
//! | [`exits`] | judges what a cell did that it could not do alone |
//! | [`denials`] | what a denied access was: a misdeed, a matter of time, or the end of its target |
//! | [`reach`] | what a cell can reach: its nested table at the start of a life, grants, quarantine, cut-off |
//! | [`fence`] | kicks, expulsion, and when a revoked right is really gone |
//! | [`standstill`] | waiting for the runner at points of the guest's time |
//! | [`life`] | a CPU between lives: parked, loading, starting |
//!
//! # Invariants
//! 1. No lock that a second CPU can wait for: shared words are atomics, a refused claim is answered
//!    `Busy`.
//! 2. What a CPU does here is bounded by the size of a region, never by another CPU.
//! 3. No interrupt comes in the middle of it. NMIs do not either under SVM, where the global
//!    interrupt flag is clear but for one instruction in `svm::enter` and `svm::park`; under VMX
//!    their handler only notes them.

pub mod denials;
pub mod exits;
pub mod fence;
pub mod hypercalls;
pub mod life;
pub mod reach;
pub mod standstill;
pub mod state;

pub use denials::Denial;
pub use exits::{Exit, Verdict};
pub use state::{BackEnd, CellControl, LoadError, Loader, Monitor, PerCpu, STACK_BYTES, Start};
