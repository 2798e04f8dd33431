//! Faults: what there is, and how each gets into the machine.
//!
//! | module | what it holds |
//! |---|---|
//! | [`catalogue`] | every fault, with what it does, how it is injected, what must come of it |
//! | [`plan`] | which faults, where |
//! | [`trigger`] | when they strike |
//! | [`host`] | faults of CPUs, from outside |
//! | [`corrupt`] | faults of memory, from outside |
//! | [`place`] | where the parts of a cell's kernel lie in memory |
//! | [`objects`] | the kernel's statics and their fields, by name |
//! | [`names`] | whether the kernel has what a plan names |
//! | [`registers`] | faults of registers, from outside |
//! | [`inner`] | faults that a cell injects into itself on request |

pub mod catalogue;
pub mod corrupt;
pub mod host;
pub mod inner;
pub mod names;
pub mod objects;
pub mod place;
pub mod plan;
pub mod registers;
pub mod trigger;
