//! Statistics against published values.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::sizes::{least, next_look};
use super::times::median_rank;
use super::*;
use proptest::prelude::{ProptestConfig, prop_assert, proptest};

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 5e-5, "{found} for {expected}");
}

#[test]
fn wilson_intervals() {
    for (count, of, low, high) in [
        (0, 69, 0.0, 0.0527),
        (0, 385, 0.0, 0.0099),
        (3, 300, 0.0034, 0.0290),
        (5, 100, 0.0215, 0.1118),
        (50, 1000, 0.0381, 0.0653),
        (461, 665, 0.6572, 0.7271),
    ] {
        let interval = Proportion::new(count, of).interval().unwrap();
        close(interval.low, low);
        close(interval.high, high);
    }
    assert_eq!(Proportion::new(0, 0).interval(), None);
}

#[test]
fn bounds_of_what_never_happened() {
    for (of, percent) in [(20, 13.9), (49, 5.9), (69, 4.25), (258, 1.15), (1000, 0.30)] {
        let bound = Proportion::new(0, of).zero_bound().unwrap() * 100.0;
        assert!((bound - percent).abs() < 0.051, "{bound} for {of}");
    }
    assert_eq!(Proportion::new(1, 20).zero_bound(), None);
    assert_eq!(Proportion::new(0, 0).zero_bound(), None);
}

/// How many samples for a half width by the normal approximation for an infinite population, at a
/// confidence given as the point `z` of the normal distribution (Leveugle et al., DATE 2009).
fn sample_size(half_width: f64, z: f64) -> u64 {
    let exact = z * z * 0.25 / (half_width * half_width);
    least(|n| n >= exact)
}

#[test]
fn sample_sizes() {
    let at_95 = [
        (0.1, 97),
        (0.05, 385),
        (0.03, 1068),
        (0.02, 2401),
        (0.01, 9604),
    ];
    let at_99 = [
        (0.1, 166),
        (0.05, 664),
        (0.03, 1844),
        (0.02, 4147),
        (0.01, 16_588),
    ];
    for (half_width, runs) in at_95 {
        assert_eq!(sample_size(half_width, Z), runs);
        let wilson = runs_for_half_width(half_width);
        assert!(wilson <= runs && runs - wilson < 6, "{wilson} for {runs}");
    }
    for (half_width, runs) in at_99 {
        assert_eq!(sample_size(half_width, 2.575_829_303_548_901), runs);
    }
}

#[test]
fn runs_without_a_failure() {
    for (good, runs) in [
        (0.95, 59),
        (0.98, 149),
        (0.99, 299),
        (0.995, 598),
        (0.999, 2995),
    ] {
        assert_eq!(runs_for_zero_bound(1.0 - good), runs);
    }
}

#[test]
fn all_and_nothing_are_said_with_their_bounds() {
    assert_eq!(
        Proportion::new(0, 69).text(),
        "0 of 69 (at most 4.3 % at 95 %)"
    );
    assert_eq!(
        Proportion::new(69, 69).text(),
        "69 of 69 (at least 95.7 % at 95 %)"
    );
    assert_eq!(
        Proportion::new(5, 100).text(),
        "5 of 100 (5.0 %, 2.2 to 11.2 %)"
    );
    assert_eq!(Proportion::new(0, 0).text(), "0 of 0");
}

/// The first and the seventh example of Newcombe's table II, method 10.
#[test]
fn differences_of_two_shares() {
    for (first, second, low, high) in [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ] {
        let second = Proportion::new(second.0, second.1);
        let difference = Difference::between(second, Proportion::new(first.0, first.1)).unwrap();
        close(difference.interval.low, low);
        close(difference.interval.high, high);
    }
}

/// Remission times of the treated group in Freireich et al. 1963, as in textbooks on survival.
#[test]
fn survival_with_censoring() {
    let measured = [6.0, 6.0, 6.0, 7.0, 10.0, 13.0, 16.0, 22.0, 23.0];
    let censored = [
        6.0, 9.0, 10.0, 11.0, 17.0, 19.0, 20.0, 25.0, 32.0, 32.0, 34.0, 35.0,
    ];
    let samples: Vec<Sample> = measured
        .map(Sample::Measured)
        .into_iter()
        .chain(censored.map(Sample::Censored))
        .collect();
    let curve = survival(&samples);
    let at = |time: f64| curve.iter().rfind(|&&(at, _)| at <= time).unwrap().1;
    for (time, above) in [(6.0, 0.8571), (7.0, 0.8067), (10.0, 0.7529), (23.0, 0.4482)] {
        close(at(time), above);
    }
    let times = Times::of(&samples).unwrap();
    assert_eq!((times.samples, times.censored), (21, 12));
    assert_eq!(
        (times.median, times.p90, times.worst),
        (Some(23.0), None, None)
    );
}

#[test]
fn without_censoring_quantiles_are_samples() {
    let samples: Vec<Sample> = (1..=10).map(|at| Sample::Measured(f64::from(at))).collect();
    let times = Times::of(&samples).unwrap();
    assert_eq!(times.median, Some(5.0));
    assert_eq!((times.p90, times.worst), (Some(9.0), Some(10.0)));
    assert_eq!(Times::of(&[]), None);
}

#[test]
fn looks_are_few_and_set_beforehand() {
    assert_eq!(
        LOOKS[1..],
        [0.05, 0.03, 0.02].map(|width| sample_size(width, Z))
    );
    assert_eq!(
        [0, 100, 1067, 2401].map(next_look),
        [Some(100), Some(385), Some(1068), None]
    );
}

/// Ranks of the sign test's interval of a median at 95 %, as in tables of it.
#[test]
fn ranks_around_the_median() {
    let table = [
        (6, 1),
        (8, 1),
        (9, 2),
        (10, 2),
        (20, 6),
        (30, 10),
        (50, 18),
        (100, 40),
    ];
    for (samples, rank) in table {
        assert_eq!(median_rank(samples), Some(rank), "{samples}");
    }
    assert_eq!(median_rank(5), None);
    assert_eq!(median_rank(0), None);
}

#[test]
fn means_and_the_interval_of_the_median() {
    let samples: Vec<Sample> = (1..=10).map(|at| Sample::Measured(f64::from(at))).collect();
    let times = Times::of(&samples).unwrap();
    close(times.mean, 5.5);
    close(times.geometric_mean.unwrap(), 4.52873);
    let interval = times.median_interval.unwrap();
    assert_eq!((interval.low, interval.high), (2.0, 9.0));
    assert_eq!((times.p95, times.p99), (Some(10.0), Some(10.0)));
    let mut late = samples.clone();
    late.push(Sample::Censored(30.0));
    let times = Times::of(&late).unwrap();
    assert_eq!((times.worst, times.geometric_mean), (None, None));
    assert!(times.mean > 7.7 && times.greatest > 29.9, "at least");
    assert!(times.median_interval.is_some());
    late.push(Sample::Censored(3.0));
    assert_eq!(Times::of(&late).unwrap().median_interval, None);
}

/// Fisher's lady tasting tea; and a table of his with smokers' twins, whose p is often quoted.
#[test]
fn exact_test_of_two_shares() {
    let share = Proportion::new;
    close(fisher(share(3, 4), share(1, 4)).unwrap(), 0.48571);
    close(fisher(share(10, 13), share(2, 17)).unwrap(), 0.000_536_7);
    assert_eq!(fisher(share(0, 20), share(0, 30)), None, "nothing anywhere");
    assert_eq!(fisher(share(20, 20), share(30, 30)), None, "all everywhere");
    assert_eq!(fisher(share(0, 0), share(1, 4)), None);
    // Many: as the sum of the hypergeometric terms that are no likelier, worked out exactly.
    close(fisher(share(50, 100), share(60, 100)).unwrap(), 0.20071);
}

/// Twice the tail of a fair coin.
#[test]
fn pairs_that_differ() {
    let pairs = |first_only, second_only| Pairs {
        pairs: 100,
        first_only,
        second_only,
    };
    close(pairs(1, 8).chance().unwrap(), 0.039_062_5);
    close(pairs(5, 0).chance().unwrap(), 0.0625);
    close(pairs(4, 4).chance().unwrap(), 1.0);
    assert_eq!(pairs(0, 0).chance(), None);
    let counted = Pairs::counting([[true, false], [true, true], [false, true], [true, false]]);
    assert_eq!(
        (counted.pairs, counted.first_only, counted.second_only),
        (4, 2, 1)
    );
}

/// Permeability constants of the amnion at term and earlier, from Hollander and Wolfe,
/// Nonparametric Statistical Methods, section 4.1.
#[test]
fn shifts_of_times() {
    let term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
    let early = [1.15, 0.88, 0.90, 0.74, 1.21];
    let measured = |times: &[f64]| {
        times
            .iter()
            .copied()
            .map(Sample::Measured)
            .collect::<Vec<_>>()
    };
    let shift = Shift::between(&measured(&early), &measured(&term)).unwrap();
    close(shift.shift.unwrap(), 0.305);
    close(shift.chance, 0.254_41);
    let interval = shift.interval.unwrap();
    assert!(interval.low < 0.0 && interval.high > 0.305);
    let mut cut = measured(&term);
    cut.push(Sample::Censored(0.1));
    let shift = Shift::between(&measured(&early), &cut).unwrap();
    assert_eq!((shift.shift, shift.interval), (None, None));
    assert_eq!(Shift::between(&[], &cut), None);
    let same = vec![Sample::Measured(1.0); 30];
    close(Shift::between(&same, &same).unwrap().chance, 1.0);
}

/// By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which is no less than the one before.
#[test]
fn many_tests_at_once() {
    let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
    for (found, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
        close(*found, expected);
    }
    assert_eq!(holm(&[0.6, 0.7]), [1.0, 1.0]);
    close(holm(&[0.04])[0], 0.04);
    assert_eq!(holm(&[]), [0.0; 0]);
}

#[test]
fn chains_settle() {
    let two = chain::steady_state(&[vec![0.0, 2.0], vec![8.0, 0.0]]).unwrap();
    close(two[0], 0.8);
    // Births and deaths: each state twice as likely as the next.
    let rates = [
        vec![0.0, 1.0, 0.0],
        vec![2.0, 0.0, 1.0],
        vec![0.0, 2.0, 0.0],
    ];
    let three = chain::steady_state(&rates).unwrap();
    for (found, expected) in three.iter().zip([4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0]) {
        close(*found, expected);
    }
    assert_eq!(chain::steady_state(&[vec![0.0, 1.0], vec![0.0, 0.0]]), None);
    assert_eq!(chain::steady_state(&[]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn intervals_hold_their_share(count in 0..2000_u64, more in 0..2000_u64) {
        let proportion = Proportion::new(count, count + more);
        if let Some((share, interval)) = proportion.share().zip(proportion.interval()) {
            prop_assert!(0.0 <= interval.low && interval.low <= share);
            prop_assert!(share <= interval.high && interval.high <= 1.0);
        }
    }
}
