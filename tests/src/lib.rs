//! What the on-target tests share.
//!
//! Each file of `tests/` is one behaviour, each test in it boots a machine of its own. Results come
//! from the guest's memory and from exit codes; no test looks at how long something took, because
//! that depends on the host.
//!
//! | module | what it holds |
//! |---|---|
//! | [`harness`] | booting, injecting, and one machine at a time |
//! | [`trials`], [`platform`] | behaviours of every back end, and where each runs |
//! | [`spoilt`] | what the EPT back end keeps for the processor, spoilt |
//! | [`sources`] | the project's own files, for the tests of style |

#![forbid(unsafe_code)]

pub mod harness;
pub mod platform;
pub mod sources;
pub mod spoilt;
pub mod trials;
