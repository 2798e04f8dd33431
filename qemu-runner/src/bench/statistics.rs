//! Median, spread, ratio.

use serde::Serialize;

use crate::units::float;

/// What a number of samples show.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub struct Summary {
    /// How many samples.
    pub samples: usize,
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// One quarter is below.
    pub lower_quartile: f64,
    /// One quarter is above.
    pub upper_quartile: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Summary {
    /// Summarizes samples; `None` of none.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&least, &greatest) = sorted.first().zip(sorted.last())?;
        Some(Self {
            samples: sorted.len(),
            median: quantile(&sorted, 2),
            least,
            lower_quartile: quantile(&sorted, 1),
            upper_quartile: quantile(&sorted, 3),
            greatest,
        })
    }
}

/// Between the two samples that lie around it, in proportion. `sorted` is not empty.
fn quantile(sorted: &[f64], quarters: usize) -> f64 {
    let position = quarters * (sorted.len() - 1);
    let (below, rest) = (position / 4, position % 4);
    let above = below + usize::from(rest > 0);
    sorted[below] + (sorted[above] - sorted[below]) * float(rest as u64) / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_samples() {
        let summary = Summary::of([4.0, 1.0, 3.0, 2.0]).expect("there are samples");
        assert_eq!(
            (summary.median, summary.least, summary.greatest),
            (2.5, 1.0, 4.0)
        );
        assert_eq!(
            (summary.lower_quartile, summary.upper_quartile),
            (1.75, 3.25)
        );
        assert!(Summary::of([]).is_none());
    }
}
