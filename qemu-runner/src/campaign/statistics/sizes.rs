//! How many runs a question needs, and when to look at the answer.
//!
//! # References
//! Leveugle et al., DATE 2009, for sample sizes.

use super::RISK;
use super::proportion::wilson_half_width;
use crate::units::float;

/// The numbers of faults at which a result may be looked at and the campaign ended: those that show
/// a share to 10 (nearly), 5, 3 and 2 points. Whoever looks after every run and stops when he likes
/// the answer is wrong far more often than one time in twenty.
pub const LOOKS: [u64; 4] = [100, 385, 1068, 2401];

/// The next look after so many runs; `None` after the last.
pub fn next_look(runs: u64) -> Option<u64> {
    LOOKS.into_iter().find(|&look| look > runs)
}

/// The fewest runs for which Wilson's interval is at most `half_width` to each side, whatever the
/// share.
pub fn runs_for_half_width(half_width: f64) -> u64 {
    least(|n| wilson_half_width(0.5, n) <= half_width)
}

/// The fewest runs without a failure that show the share of failures to be at most `bound`, at
/// 95 %.
pub fn runs_for_zero_bound(bound: f64) -> u64 {
    least(|n| 1.0 - RISK.powf(1.0 / n) <= bound)
}

/// The least whole number from 1 on that passes a test which all greater ones pass too.
fn least(test: impl Fn(f64) -> bool) -> u64 {
    let (mut fails, mut passes) = (0, 1_u64 << 40);
    while passes - fails > 1 {
        let middle = u64::midpoint(fails, passes);
        if test(float(middle)) {
            passes = middle;
        } else {
            fails = middle;
        }
    }
    passes
}

/// The normal approximation for an infinite population: how many samples for a half width, at a
/// confidence given as the point `z` of the normal distribution.
pub fn sample_size(half_width: f64, z: f64) -> u64 {
    let exact = z * z * 0.25 / (half_width * half_width);
    least(|n| n >= exact)
}
