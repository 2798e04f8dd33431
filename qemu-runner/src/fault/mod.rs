//! Faults: what there is, and how each gets into the machine.
//!
//! | module | what it holds |
//! |---|---|
//! | [`catalogue`] | every fault, with what it does, how it is injected, what must come of it |
//! | [`plan`] | which faults, where, when |
//! | [`host`] | faults of CPUs, from outside |
//! | [`corrupt`] | faults of memory, from outside |
//! | [`inner`] | faults that a cell injects into itself on request |

pub mod catalogue;
pub mod corrupt;
pub mod host;
pub mod inner;
pub mod plan;
