//! Shares with their intervals.
//!
//! # References
//! Wilson, JASA 22 (1927); Agresti and Coull, The American Statistician 52 (1998), on why no other.

use serde::Serialize;

use super::{RISK, Z};
use crate::units::float;

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
            return format!("0 of {of} (at most {} at 95 %)", percent_up(bound));
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

/// An upper bound is rounded up, so that it never claims more than it may.
fn percent_up(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0).ceil() / 10.0)
}

/// A lower bound is rounded down, so that it never claims more than it may.
fn percent_down(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}

pub(super) fn wilson_half_width(p: f64, n: f64) -> f64 {
    let root = (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Z * root / (1.0 + Z * Z / n)
}
