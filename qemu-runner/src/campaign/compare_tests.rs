//! Campaigns that are made up, side by side.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use crate::campaign::directory::tests::manifest;
use crate::campaign::resolve::Resolved;
use crate::guest::difference::Difference as Memory;
use crate::observation::Observation;
use crate::verdict::tests::{cell, good_run};
use std::time::Duration;

/// Forty runs of which the first so many escape, each step later by so many milliseconds.
fn campaign(seed: u64, escapes: u32, later: u64) -> Finished {
    let campaign = manifest().campaign().unwrap();
    let record = |run: u32| {
        let resolved = Resolved::of(&campaign, seed, run);
        let mut observed = good_run();
        let spread = u64::from(run) * 10_000 + later * 1_000_000;
        let start = observed.start();
        let after = |observed: &mut Observation| {
            for record in observed
                .records
                .iter_mut()
                .filter(|record| record.at > start)
            {
                record.at += spread;
            }
        };
        after(&mut observed);
        if run < escapes {
            observed.after[2] = cell(2, 5);
        }
        let mut record = Record::of(resolved, &observed, None, Duration::ZERO);
        record.ram_sha256 = Some(format!("{}", later + u64::from(run < escapes)));
        (run, record)
    };
    Finished {
        manifest: manifest(),
        records: (0..40).map(record).collect(),
        cut_off: 0,
    }
}

#[test]
fn what_differs_is_said_to_differ() {
    let (first, second) = (campaign(7, 30, 0), campaign(7, 0, 50));
    let comparison = compare(&first, &second);
    let escaped = comparison
        .shares
        .iter()
        .find(|line| line.what == "not contained");
    assert!(escaped.unwrap().chance.unwrap().significant);
    let hint = comparison
        .times
        .iter()
        .find(|line| line.what == "fault to first hint");
    let hint = hint.unwrap();
    assert!(hint.chance.significant);
    assert!((hint.shift_ms.shift.unwrap() - 50.0).abs() < 1e-6);
    let all = comparison.pairs.last().unwrap();
    assert_eq!((all.held.pairs, all.held.first_only), (40, 0));
    assert!(all.held.second_only == 30 && all.chance.unwrap().significant);
    let text = comparison.text();
    assert!(
        text.contains("differs") && text.contains("McNemar"),
        "{text}"
    );
}

#[test]
fn what_is_the_same_is_not() {
    let comparison = compare(&campaign(7, 2, 0), &campaign(7, 2, 0));
    let significant = |chance: &Option<Chance>| chance.is_some_and(|chance| chance.significant);
    let shares = &comparison.shares;
    assert!(!shares.iter().any(|line| significant(&line.chance)));
    assert!(!comparison.times.iter().any(|line| line.chance.significant));
    let pairs = &comparison.pairs;
    assert!(!pairs.iter().any(|one| significant(&one.chance)));
    assert_eq!(comparison.same_memory, Some(Proportion::new(40, 40)));
    let differs = compare(&campaign(7, 2, 0), &campaign(7, 3, 0));
    assert_eq!(differs.same_memory, Some(Proportion::new(39, 40)));
    let all = differs.pairs.last().unwrap();
    assert_eq!(all.alike, Proportion::new(39, 40));
}

#[test]
fn another_campaign_file_is_said_to_be_another() {
    let (first, mut second) = (campaign(7, 0, 0), campaign(7, 0, 0));
    assert!(!compare(&first, &second).text().contains("files differ"));
    second.manifest.file.push('#');
    assert!(compare(&first, &second).text().contains("files differ"));
}

#[test]
fn without_a_finished_run_there_is_nothing_to_compare() {
    let refused = |of: &Finished| has_faults(Path::new("b"), of).map_err(|error| error.to_string());
    let mut second = campaign(7, 0, 0);
    assert_eq!(refused(&second), Ok(()));
    second.records.retain(|_, run| run.kind() != Kind::Fault);
    assert!(refused(&second).unwrap_err().contains("none has a fault"));
    second.records.clear();
    let error = refused(&second).unwrap_err();
    assert!(error.starts_with("b: no run of it is finished"), "{error}");
}

#[test]
fn other_seeds_make_no_pairs() {
    let comparison = compare(&campaign(7, 2, 0), &campaign(8, 2, 0));
    assert!(comparison.pairs.is_empty() && comparison.same_memory.is_none());
    assert!(comparison.text().contains("nothing to pair"));
}

/// Six runs that only the first held of forty, without a doubt alone: 2 in 2 to the power of 6. But
/// other tests are made with it.
#[test]
fn one_small_chance_among_many_is_no_difference() {
    let comparison = compare(&campaign(7, 0, 0), &campaign(7, 6, 0));
    let all = comparison.pairs.last().unwrap();
    let chance = all.chance.unwrap();
    assert!((chance.alone - 2.0 / 64.0).abs() < 1e-9);
    assert!(chance.alone < RISK && !chance.significant);
    assert!(comparison.tests > 2 && chance.corrected > 2.0 * chance.alone);
    let text = comparison.text();
    let said = format!("{} tests at once", comparison.tests);
    assert!(
        text.contains(&said) && !text.contains("  differs"),
        "{text}"
    );
}

#[test]
fn what_memory_showed_is_compared_where_both_looked() {
    let looked = || {
        let mut looked = campaign(7, 0, 0);
        let faults = looked.records.values_mut();
        for run in faults.filter(|run| run.kind() == Kind::Fault) {
            run.difference = Some(Memory::default());
        }
        looked
    };
    let has = |comparison: Comparison| {
        let mut shares = comparison.shares.into_iter();
        shares.any(|line| line.what == "foreign stores" && line.first.of > 0)
    };
    assert!(has(compare(&looked(), &looked())));
    assert!(!has(compare(&looked(), &campaign(7, 0, 0))));
}
