//! Many tests at once: the more are made, the more come out by chance alone.
//!
//! # References
//! Holm, Scandinavian Journal of Statistics 6 (1979): right whichever way the tests depend on each
//! other.

use crate::units::float;

/// The chances of several tests, each corrected for there being so many: a difference whose
/// corrected chance is below a risk is one, and the risk that any such difference is none at all is
/// no greater.
pub fn holm(chances: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..chances.len()).collect();
    order.sort_by(|&a, &b| chances[a].total_cmp(&chances[b]));
    let mut corrected = vec![1.0; chances.len()];
    let mut least = 0.0_f64;
    for (before, &position) in order.iter().enumerate() {
        let left = float((chances.len() - before) as u64);
        // Never less than that of a smaller chance.
        least = least.max(chances[position] * left).min(1.0);
        corrected[position] = least;
    }
    corrected
}
