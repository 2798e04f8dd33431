//! Proportions with their intervals, bounds for what never happened, latencies with censoring.
//!
//! # Invariants
//! 1. A proportion is never shown without its interval, and "0 of n" never without its bound.
//! 2. All intervals are at 95 %.
//!
//! # References
//! Wilson, JASA 22 (1927); Newcombe, Statistics in Medicine 17 (1998), method 10; Kaplan and Meier,
//! JASA 53 (1958); Leveugle et al., DATE 2009, for sample sizes.

use serde::Serialize;

use crate::units::float;

/// The two-sided 95 % point of the normal distribution.
pub const Z: f64 = 1.959_963_984_540_054;
/// What a one-sided bound may be wrong by.
const RISK: f64 = 0.05;

/// So many of so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proportion {
    /// How many.
    pub count: u64,
    /// Of how many.
    pub of: u64,
}

/// A range of shares.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub struct Interval {
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

impl Proportion {
    /// So many of so many.
    pub const fn new(count: u64, of: u64) -> Self {
        Self { count, of }
    }

    /// Counts what passes a test.
    pub fn counting<T>(items: impl IntoIterator<Item = T>, test: impl Fn(&T) -> bool) -> Self {
        let mut proportion = Self::new(0, 0);
        for item in items {
            proportion.of += 1;
            proportion.count += u64::from(test(&item));
        }
        proportion
    }

    /// The share; `None` of nothing.
    pub fn share(self) -> Option<f64> {
        (self.of > 0).then(|| float(self.count) / float(self.of))
    }

    /// The rest.
    #[must_use]
    pub const fn others(self) -> Self {
        Self::new(self.of - self.count, self.of)
    }

    /// Wilson's interval; `None` of nothing.
    pub fn interval(self) -> Option<Interval> {
        let (p, n) = (self.share()?, float(self.of));
        let scale = 1.0 + Z * Z / n;
        let centre = (p + Z * Z / (2.0 * n)) / scale;
        let half = wilson_half_width(p, n);
        Some(Interval {
            low: if self.count == 0 { 0.0 } else { centre - half },
            high: if self.count == self.of {
                1.0
            } else {
                centre + half
            },
        })
    }

    /// What the true share is at most, if nothing of many was seen (one-sided, 95 %); `None`
    /// otherwise.
    pub fn zero_bound(self) -> Option<f64> {
        (self.count == 0 && self.of > 0).then(|| 1.0 - RISK.powf(1.0 / float(self.of)))
    }

    /// "3 of 20 (15.0 %, 5.2 to 36.0 %)", or with a bound if it is none or all.
    pub fn text(self) -> String {
        let Self { count, of } = self;
        let Some((share, interval)) = self.share().zip(self.interval()) else {
            return "0 of 0".into();
        };
        if let Some(bound) = self.zero_bound() {
            return format!("0 of {of} (at most {} at 95 %)", percent(bound));
        }
        if let Some(bound) = self.others().zero_bound() {
            let least = percent_down(1.0 - bound);
            return format!("{count} of {of} (at least {least} at 95 %)");
        }
        let (low, high) = (interval.low * 100.0, percent(interval.high));
        format!("{count} of {of} ({}, {low:.1} to {high})", percent(share))
    }
}

/// For programs: the counts, the interval, and the bound where one is due.
impl Serialize for Proportion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown {
            count: u64,
            of: u64,
            share: Option<f64>,
            wilson_95: Option<Interval>,
            at_most_95: Option<f64>,
            at_least_95: Option<f64>,
        }
        Shown {
            count: self.count,
            of: self.of,
            share: self.share(),
            wilson_95: self.interval(),
            at_most_95: self.zero_bound(),
            at_least_95: self.others().zero_bound().map(|bound| 1.0 - bound),
        }
        .serialize(serializer)
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A lower bound is rounded down, so that it never claims more than it may.
fn percent_down(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}

fn wilson_half_width(p: f64, n: f64) -> f64 {
    let root = (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Z * root / (1.0 + Z * Z / n)
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

/// The difference between two shares, with its interval.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub struct Difference {
    /// The second less the first.
    pub difference: f64,
    /// At 95 %.
    pub interval: Interval,
}

impl Difference {
    /// By Newcombe from the two Wilson intervals; `None` if one is of nothing.
    pub fn between(first: Proportion, second: Proportion) -> Option<Self> {
        let (a, b) = (first.share()?, second.share()?);
        let (of_a, of_b) = (first.interval()?, second.interval()?);
        let difference = b - a;
        let down = (b - of_b.low).hypot(of_a.high - a);
        let up = (of_b.high - b).hypot(a - of_a.low);
        let interval = Interval {
            low: difference - down,
            high: difference + up,
        };
        Some(Self {
            difference,
            interval,
        })
    }

    /// Whether chance alone is an unlikely cause.
    pub fn is_significant(&self) -> bool {
        self.interval.low > 0.0 || self.interval.high < 0.0
    }

    /// In percentage points.
    pub fn text(&self) -> String {
        let points = |share: f64| share * 100.0;
        let Interval { low, high } = self.interval;
        format!(
            "{:+.1} points ({:+.1} to {:+.1})",
            points(self.difference),
            points(low),
            points(high)
        )
    }
}

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
    /// Nine of ten took at most this.
    pub p90: Option<f64>,
    /// The greatest that was measured; `None` if any is censored, because that may be greater.
    pub worst: Option<f64>,
}

impl Times {
    /// By Kaplan and Meier; `None` of none.
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let curve = survival(samples);
        let measured = curve.len();
        let censored = samples.len() - measured;
        // Half a part in a billion, because the curve is a product of fractions.
        let quantile = |left: f64| {
            let found = curve.iter().find(|(_, above)| *above <= left + 5e-10);
            found.map(|&(time, _)| time)
        };
        (!samples.is_empty()).then(|| Self {
            samples: samples.len(),
            censored,
            least: curve.first().map(|&(time, _)| time),
            median: quantile(0.5),
            p90: quantile(0.1),
            worst: curve
                .last()
                .map(|&(time, _)| time)
                .filter(|_| censored == 0),
        })
    }
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

#[cfg(test)]
#[path = "statistics_tests.rs"]
mod tests;
