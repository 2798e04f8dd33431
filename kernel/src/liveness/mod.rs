//! Which cells live, at work: the machine of `recovery` on this kernel's ticks.
//!
//! | module | what it does |
//! |---|---|
//! | [`agent`] | steps the state machine |
//! | [`surroundings`] | what the state machine sees of the machine |

pub mod agent;
pub mod surroundings;
