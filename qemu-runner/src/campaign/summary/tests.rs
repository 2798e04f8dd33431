//! What runs that are made up show together.
//!
//! Each begins as a run in which cell 1 of three was halted, expelled and taken back.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use crate::campaign::directory::tests::manifest;
use crate::campaign::report::files;
use crate::campaign::resolve::Resolved;
use crate::fault::catalogue::{Expectation, Fault, HostFault};
use crate::observation::{End, Observation};
use crate::verdict::tests::{cell, good_run, stays_out};
use std::time::Duration;

fn run(change: fn(&mut Observation)) -> Record {
    let mut observed = good_run();
    change(&mut observed);
    let mut resolved = Resolved::of(&manifest().campaign().unwrap(), 7, 2);
    resolved.kind = Kind::Fault;
    Record::of(resolved, &observed, None, Duration::ZERO)
}

fn summary(records: &[Record]) -> Summary {
    Summary::of(&manifest(), records.iter())
}

/// Nobody dies of it.
fn survived(run: &mut Observation) {
    run.after[1] = cell(1, 50);
    run.injected[0].expectation = Expectation::MayDie;
    run.records.clear();
    run.end = End::Quiet;
}

#[test]
fn the_death_of_another_detects_nothing() {
    let found = summary(&[run(|_| {})]).overall.detected;
    assert_eq!(found, Proportion::new(1, 1));
    let found = summary(&[run(|run| {
        survived(run);
        run.after[2] = cell(2, 5);
    })]);
    assert_eq!(found.overall.escaped, Proportion::new(1, 1));
    assert_eq!(found.overall.detected, Proportion::new(0, 1));
}

#[test]
fn who_never_went_does_not_come_back() {
    let found = summary(&[run(|run| {
        survived(run);
        run.after[1].account.operations[2].wrong = 3;
        run.lives.insert((1, 1), run.after[1].account);
    })]);
    assert_eq!(found.overall.contained, Proportion::new(1, 1));
    assert_eq!(found.overall.reintegrated, Proportion::new(0, 0));
    let found = summary(&[run(|_| {}), run(stays_out)]).overall;
    assert_eq!(found.reintegrated, Proportion::new(1, 2));
}

#[test]
fn what_never_began_took_no_time() {
    let found = summary(&[run(|run| {
        survived(run);
        run.injected[0].expectation = Expectation::Dies;
    })]);
    let samples = |name: &str| {
        let found = found.overall.samples.iter().find(|(of, _)| *of == name);
        found.unwrap().1.as_slice()
    };
    assert_eq!(samples("fault to first hint"), [Sample::Censored(400.0)]);
    for name in Latencies::ALONE {
        assert_eq!(samples(name), [], "{name}");
    }
}

#[test]
fn a_second_fault_that_never_struck_hides_nothing() {
    let found = summary(&[run(|run| {
        stays_out(run);
        run.not_triggered = vec![Fault::Host(HostFault::CpuHalt)];
    })]);
    assert_eq!(found.totals.not_injected, 1);
    assert_eq!(found.overall.manifested, Proportion::new(0, 0));
    assert_eq!(found.violations.len(), 1);
    assert_eq!(found.ended().unwrap(), Ending::Violated);
}

#[test]
fn a_campaign_that_shows_nothing_is_no_success() {
    let missed = run(|run| {
        survived(run);
        run.not_triggered = vec![Fault::Host(HostFault::CpuHalt)];
    });
    for (records, why) in [
        (vec![], "no run is finished"),
        (vec![missed.clone()], "none struck"),
    ] {
        let error = summary(&records).ended().unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.exit_code(), 3);
    }
    let found = summary(&[missed, run(|_| {})]);
    assert_eq!(found.ended().unwrap(), Ending::Held);
}

#[test]
fn a_test_report_counts_runs_and_not_reasons() {
    let twice = run(|run| {
        for operation in [1, 2] {
            run.after[0].account.operations[operation].wrong = 3;
        }
    });
    assert_eq!(twice.violations.len(), 2);
    let records = [twice, run(|_| {})];
    let text = files::junit(&manifest(), records.iter()).unwrap();
    assert!(text.contains("1 of 2 runs"), "{text}");
    assert!(!text.contains("every fault strikes"), "it is of the runner");
}
