//! Two samples side by side: shares, pairs, times.
//!
//! # References
//! Newcombe, Statistics in Medicine 17 (1998), method 10; Fisher's exact test, two-sided by
//! likelihood; McNemar's test in its exact form; Mann and Whitney, Annals of Mathematical
//! Statistics 18 (1947); Hodges and Lehmann, the same 34 (1963).

use serde::Serialize;
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal};
use statrs::stats_tests::{Alternative, fishers_exact};

use super::times::Sample;
use super::{Interval, Proportion, Z};
use crate::units::float;

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

/// How likely two shares are to differ so much by chance alone; `None` if there is nothing to test:
/// one share is of nothing, or all that was counted is alike.
pub fn fisher(first: Proportion, second: Proportion) -> Option<f64> {
    let table = [
        first.count,
        first.others().count,
        second.count,
        second.others().count,
    ];
    let [count, others] = [table[0] + table[2], table[1] + table[3]];
    let asked = first.of > 0 && second.of > 0 && count > 0 && others > 0;
    let value = || fishers_exact(&table, Alternative::TwoSided).ok();
    asked.then(value).flatten()
}

/// The same runs in two campaigns: how often only one of the two passed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Debug)]
pub struct Pairs {
    /// Pairs.
    pub pairs: u64,
    /// Only the first passed.
    pub first_only: u64,
    /// Only the second passed.
    pub second_only: u64,
}

impl Pairs {
    /// Counts pairs.
    pub fn counting(pairs: impl IntoIterator<Item = [bool; 2]>) -> Self {
        let mut counted = Self::default();
        for [first, second] in pairs {
            counted.pairs += 1;
            counted.first_only += u64::from(first && !second);
            counted.second_only += u64::from(second && !first);
        }
        counted
    }

    /// McNemar's exact test: how likely so lopsided a split is by chance alone; `None` if all pairs
    /// agree, which say nothing.
    pub fn chance(self) -> Option<f64> {
        let differ = self.first_only + self.second_only;
        let fewer = self.first_only.min(self.second_only);
        let coin = Binomial::new(0.5, differ).ok().filter(|_| differ > 0);
        coin.map(|coin| (2.0 * coin.cdf(fewer)).min(1.0))
    }
}

/// Samples for which all orders are gone through; above, the normal distribution is close.
const EXACT_MAX: usize = 40;
/// Pairs of samples whose differences are sorted.
const DIFFERENCES_MAX: usize = 4_000_000;

/// By how much the times of a second sample are longer than those of a first.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub struct Shift {
    /// Hodges and Lehmann's estimate, the median of all differences; `None` if a time is censored
    /// or there are too many.
    pub shift: Option<f64>,
    /// At 95 %.
    pub interval: Option<Interval>,
    /// How likely so great a difference in ranks is by chance alone (Mann and Whitney).
    pub chance: f64,
}

impl Shift {
    /// Compares two samples; `None` if one is empty. A censored time counts as longer than every
    /// measured one.
    pub fn between(first: &[Sample], second: &[Sample]) -> Option<Self> {
        let ranked = |samples: &[Sample]| samples.iter().map(rank).collect::<Vec<f64>>();
        let (a, b) = (ranked(first), ranked(second));
        let mut all: Vec<f64> = a.iter().chain(&b).copied().collect();
        all.sort_by(f64::total_cmp);
        let chance = chance_of_ranks(&a, &b, &all)?;
        let finite = all.iter().all(|value| value.is_finite());
        let few = a.len() * b.len() <= DIFFERENCES_MAX;
        let (shift, interval) = if finite && few {
            hodges_lehmann(&a, &b)
        } else {
            (None, None)
        };
        Some(Self {
            shift,
            interval,
            chance,
        })
    }
}

/// Mann and Whitney's test: exact for few samples without ties, else by the normal distribution,
/// corrected for ties and for continuity. `all` is both samples, sorted.
fn chance_of_ranks(first: &[f64], second: &[f64], all: &[f64]) -> Option<f64> {
    if first.is_empty() || second.is_empty() {
        return None;
    }
    let (m, n) = (float(first.len() as u64), float(second.len() as u64));
    let runs: Vec<f64> = all
        .chunk_by(|a, b| a.total_cmp(b).is_eq())
        .map(|run| float(run.len() as u64))
        .collect();
    let beats = |a: f64| {
        let below = all.partition_point(|value| value.total_cmp(&a).is_lt());
        let upto = all.partition_point(|value| value.total_cmp(&a).is_le());
        // The middle of the ranks that it shares.
        float((below + upto + 1) as u64) / 2.0
    };
    let ranks: f64 = first.iter().map(|&a| beats(a)).sum();
    let statistic = ranks - m * (m + 1.0) / 2.0;
    let statistic = statistic.min(m * n - statistic);
    if all.len() <= EXACT_MAX && runs.len() == all.len() {
        return Some(exact_tail(first.len(), second.len(), statistic));
    }
    let ties: f64 = runs.iter().map(|run| run * run * run - run).sum();
    let total = m + n;
    let variance = m * n / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance <= 0.0 {
        // All alike: no order at all, so nothing against chance.
        return Some(1.0);
    }
    let score = ((statistic - m * n / 2.0 + 0.5) / variance.sqrt()).min(0.0);
    Some((2.0 * Normal::standard().cdf(score)).min(1.0))
}

/// Twice the share of all orders of `m` and `n` samples whose statistic is at most this.
fn exact_tail(m: usize, n: usize, statistic: f64) -> f64 {
    // How many orders of the samples so far, by statistic; sample by sample of the first kind.
    let most = m * n;
    let mut orders = vec![0.0; most + 1];
    orders[0] = 1.0;
    // The coefficients of the Gaussian binomial: times (1 - q^(n + i)), through (1 - q^i).
    for step in 1..=m {
        for at in (n + step..=most).rev() {
            orders[at] -= orders[at - n - step];
        }
        for at in step..=most {
            orders[at] += orders[at - step];
        }
    }
    let total: f64 = orders.iter().sum();
    let least = orders.iter().enumerate();
    let least = least.take_while(|(at, _)| float(*at as u64) <= statistic);
    let tail: f64 = least.map(|(_, count)| count).sum();
    (2.0 * tail / total).min(1.0)
}

impl Shift {
    /// "+1.2 (-0.3 to +2.9), chance 0.12".
    pub fn text(&self) -> String {
        let shift = self.shift.map(|shift| format!("{shift:+.1}"));
        let interval = self
            .interval
            .map(|Interval { low, high }| format!(" ({low:+.1} to {high:+.1})"));
        let both = shift.unwrap_or_else(|| "not known".into()) + &interval.unwrap_or_default();
        format!("{both}, chance {}", chance(self.chance))
    }
}

/// How likely something is by chance alone, never as nothing.
pub fn chance(value: f64) -> String {
    if value < 0.001 {
        "below 0.001".into()
    } else {
        format!("{value:.3}")
    }
}

const fn rank(sample: &Sample) -> f64 {
    match *sample {
        Sample::Measured(time) => time,
        Sample::Censored(_) => f64::INFINITY,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank among the differences, which is not negative"
)]
fn hodges_lehmann(first: &[f64], second: &[f64]) -> (Option<f64>, Option<Interval>) {
    let mut differences: Vec<f64> = second
        .iter()
        .flat_map(|b| first.iter().map(move |a| b - a))
        .collect();
    differences.sort_by(f64::total_cmp);
    let count = differences.len();
    let middle = f64::midpoint(differences[(count - 1) / 2], differences[count / 2]);
    let (m, n) = (float(first.len() as u64), float(second.len() as u64));
    let rank = m * n / 2.0 - Z * (m * n * (m + n + 1.0) / 12.0).sqrt();
    let interval = (rank >= 1.0).then(|| {
        let rank = rank.round() as usize;
        Interval {
            low: differences[rank - 1],
            high: differences[count - rank],
        }
    });
    (Some(middle), interval)
}
