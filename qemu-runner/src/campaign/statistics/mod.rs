//! Proportions with their intervals, bounds for what never happened, latencies with censoring.
//!
//! | module | what it holds |
//! |---|---|
//! | [`proportion`] | shares, Wilson's interval, the bound of what never happened |
//! | [`sizes`] | how many runs a question needs, and when to look at the answer |
//! | [`times`] | latencies, some of which were not over when the run was |
//! | [`differences`] | two samples side by side: shares, pairs, times |
//! | [`several`] | many tests at once |
//! | [`chain`] | the steady state of a Markov chain |
//!
//! # Invariants
//! 1. A proportion is never shown without its interval, and "0 of n" never without its bound.
//! 2. All intervals are at 95 %.

pub mod chain;
pub mod differences;
pub mod proportion;
pub mod several;
pub mod sizes;
pub mod times;

pub use differences::{Difference, Pairs, Shift, fisher};
pub use proportion::{Interval, Proportion};
pub use several::holm;
pub use sizes::{LOOKS, runs_for_half_width, runs_for_zero_bound};
pub use times::{Sample, Times, survival};

/// The two-sided 95 % point of the normal distribution.
pub const Z: f64 = 1.959_963_984_540_054;
/// What a one-sided bound may be wrong by.
const RISK: f64 = 0.05;

#[cfg(test)]
mod tests;
