//! Latencies, some of which were not over when the run was.
//!
//! # References
//! Kaplan and Meier, JASA 53 (1958). The interval of a median is by order statistics, from the
//! binomial distribution.

use serde::Serialize;
use statrs::distribution::{Binomial, DiscreteCDF};

use super::Interval;
use crate::units::float;

/// A time that was measured, or that was still not over when the run was.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Sample {
    /// It took so long.
    Measured(f64),
    /// It took longer than this.
    Censored(f64),
}

impl Sample {
    const fn value(self) -> f64 {
        match self {
            Self::Measured(value) | Self::Censored(value) => value,
        }
    }
}

/// What a number of times show, in their own unit.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub struct Times {
    /// How many, with the censored ones.
    pub samples: usize,
    /// How many were not over when the run was.
    pub censored: usize,
    /// The least that was measured.
    pub least: Option<f64>,
    /// Half took at most this; `None` if too many are censored to say.
    pub median: Option<f64>,
    /// Of the median, at 95 %; `None` if there are too few samples, or too many are censored.
    pub median_interval: Option<Interval>,
    /// Nine of ten took at most this.
    pub p90: Option<f64>,
    /// 95 of 100 took at most this.
    pub p95: Option<f64>,
    /// 99 of 100 took at most this.
    pub p99: Option<f64>,
    /// The greatest that was measured; `None` if any is censored, because that may be greater.
    pub worst: Option<f64>,
    /// The arithmetic mean; if any is censored, at least this.
    pub mean: f64,
    /// The greatest, censored or not; if any is censored, the greatest is at least this.
    pub greatest: f64,
    /// The geometric mean; `None` if any is censored, or not above 0.
    pub geometric_mean: Option<f64>,
}

impl Times {
    /// By Kaplan and Meier; `None` of none.
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let curve = survival(samples);
        let censored = samples.len() - curve.len();
        // Half a part in a billion, because the curve is a product of fractions.
        let quantile = |left: f64| {
            let found = curve.iter().find(|(_, above)| *above <= left + 5e-10);
            found.map(|&(time, _)| time)
        };
        let whole = |value: f64| (censored == 0).then_some(value);
        let count = float(samples.len() as u64);
        let times = || curve.iter().map(|&(time, _)| time);
        let logarithms: f64 = times().map(f64::ln).sum();
        (!samples.is_empty()).then(|| Self {
            samples: samples.len(),
            censored,
            least: times().next(),
            median: quantile(0.5),
            median_interval: median_interval(samples),
            p90: quantile(0.1),
            p95: quantile(0.05),
            p99: quantile(0.01),
            worst: times().next_back().and_then(whole),
            mean: samples.iter().map(|sample| sample.value()).sum::<f64>() / count,
            greatest: samples
                .iter()
                .map(|sample| sample.value())
                .fold(0.0, f64::max),
            geometric_mean: whole((logarithms / count).exp())
                .filter(|mean| mean.is_finite() && *mean > 0.0),
        })
    }
}

/// The two samples between which the median lies; `None` if there are too few, or one that was
/// censored might lie below the greater of the two.
fn median_interval(samples: &[Sample]) -> Option<Interval> {
    let rank = median_rank(samples.len() as u64)?;
    let value = |sample: &Sample| match *sample {
        Sample::Measured(time) => time,
        Sample::Censored(_) => f64::INFINITY,
    };
    let mut sorted: Vec<f64> = samples.iter().map(value).collect();
    sorted.sort_by(f64::total_cmp);
    let interval = Interval {
        low: sorted[rank - 1],
        high: sorted[samples.len() - rank],
    };
    let cut = |sample: &Sample| matches!(*sample, Sample::Censored(at) if at < interval.high);
    (interval.high.is_finite() && !samples.iter().any(cut)).then_some(interval)
}

/// Between the samples of this rank from below and from above, both counted from 1, the median
/// lies at 95 %; `None` if there are too few samples.
pub(super) fn median_rank(samples: u64) -> Option<usize> {
    let coin = Binomial::new(0.5, samples).ok()?;
    let outside = |rank: &u64| coin.cdf(rank - 1) <= 0.025;
    let rank = (1..=samples / 2).take_while(outside).last()?;
    usize::try_from(rank).ok()
}

/// Each measured time in ascending order, with the estimated share of times above it.
pub fn survival(samples: &[Sample]) -> Vec<(f64, f64)> {
    let mut sorted = samples.to_vec();
    // A time that was censored at a moment counts as longer than one measured at that moment.
    let order = |sample: &Sample| matches!(sample, Sample::Censored(_));
    sorted.sort_by(|a, b| {
        let by_value = a.value().total_cmp(&b.value());
        by_value.then(order(a).cmp(&order(b)))
    });
    let mut above = 1.0;
    let mut curve = Vec::new();
    for (position, sample) in sorted.iter().enumerate() {
        if let Sample::Measured(time) = sample {
            let at_risk = float((sorted.len() - position) as u64);
            above *= (at_risk - 1.0) / at_risk;
            curve.push((*time, above));
        }
    }
    curve
}
