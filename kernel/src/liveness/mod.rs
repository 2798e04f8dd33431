//! Which cells live, at work: the state machine of the `recovery` crate on this kernel's ticks and doorbells.
//!
//! | module | what it does |
//! |---|---|
//! | [`agent`] | steps the state machine |
//! | [`surroundings`] | what the state machine sees of the machine |

pub mod agent;
pub mod surroundings;
