//! Median, spread, ratio.

use serde::Serialize;

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
            median: quantile(&sorted, 0.5),
            least,
            lower_quartile: quantile(&sorted, 0.25),
            upper_quartile: quantile(&sorted, 0.75),
            greatest,
        })
    }

    /// The summary in another unit.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            samples: self.samples,
            median: self.median * factor,
            least: self.least * factor,
            lower_quartile: self.lower_quartile * factor,
            upper_quartile: self.upper_quartile * factor,
            greatest: self.greatest * factor,
        }
    }
}

/// Between the two samples that lie around it, in proportion. `sorted` is not empty.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let position = part * (sorted.len() - 1) as f64;
    let (below, above) = (position.floor(), position.ceil());
    // Both lie between 0 and the last index.
    let at = |index: f64| sorted[index as usize];
    at(below) + (at(above) - at(below)) * (position - below)
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
