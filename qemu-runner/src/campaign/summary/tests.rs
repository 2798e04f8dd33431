//! What runs that are made up show together.
//!
//! Each begins as a run in which cell 1 of three was halted, expelled and taken back.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use crate::campaign::directory::tests::manifest;
use crate::campaign::report::{files, html, terminal};
use crate::campaign::resolve::Resolved;
use crate::fault::catalogue::{Expectation, Fault, HostFault};
use crate::guest::trace::Source;
use crate::observation::{End, Observation, Reached};
use crate::verdict::tests::{cell, good_run, record, stays_out};
use cell::trace::Event;
use std::path::Path;
use std::time::Duration;

fn run(change: fn(&mut Observation)) -> Record {
    let mut observed = good_run();
    change(&mut observed);
    let mut resolved = Resolved::of(&manifest().campaign().unwrap(), 7, 2);
    resolved.kind = Kind::Fault;
    Record::of(resolved, &observed, None, Duration::ZERO)
}

/// A run with a fault of a class, which stayed in its cell.
pub(crate) fn contained(class: &str) -> Record {
    let mut run = run(|_| {});
    run.resolved.class = class.into();
    run
}

/// A run that QEMU did not survive.
fn killed(kind: Kind) -> Record {
    let mut resolved = Resolved::of(&manifest().campaign().unwrap(), 7, 3);
    resolved.kind = kind;
    let error = Error::Qemu("ended with signal 9".into());
    Record::failed(resolved, &error, Duration::ZERO)
}

/// A golden run to which nothing happened.
fn golden() -> Record {
    let mut observed = good_run();
    survived(&mut observed);
    observed.injected.clear();
    let mut resolved = Resolved::of(&manifest().campaign().unwrap(), 7, 1);
    resolved.kind = Kind::Golden;
    Record::of(resolved, &observed, None, Duration::ZERO)
}

fn page(found: &Summary, records: &[Record]) -> String {
    let records = records.iter().map(|run| (run.run(), run.clone())).collect();
    html::page(found, &records, Path::new("runs")).unwrap()
}

/// What runs show together.
pub(crate) fn summary(records: &[Record]) -> Summary {
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
fn a_machine_that_goes_down_before_its_fault_speaks_against_itself() {
    let down = || {
        run(|run| {
            survived(run);
            run.injected.clear();
            run.reached = Reached::Work;
            run.end = End::SystemDown("RESET".into());
            run.not_triggered = vec![Fault::Host(HostFault::CpuHalt)];
        })
    };
    let found = summary(&[down(), run(|_| {})]);
    assert_eq!(found.overall.manifested, Proportion::new(1, 1));
    assert_eq!(found.totals.infra, 0);
    let totals = (
        found.totals.not_injected,
        found.totals.violated_without_fault,
    );
    assert_eq!(totals, (1, 1));
    let stays_up = Invariant::MachineStaysUp;
    let check = found
        .checks
        .iter()
        .find(|check| check.invariant == stays_up);
    assert_eq!(check.unwrap().broken, Proportion::new(1, 2));
    assert_eq!(found.ended().unwrap(), Ending::Violated);
    assert!(found.verdict().contains("never struck: 1."));
    let text = terminal::text(&found, Path::new("runs"));
    assert!(
        text.contains("1 not injected (1 of these with something against them"),
        "{text}"
    );
    assert_eq!(found.violations[0].also, [Containment::SystemFailure]);
}

/// As the trace of a cell that comes back has it.
fn comes_back(run: &mut Observation) {
    run.records.extend([
        record(120, Source::Monitor, Event::Loaded, [1, 2]),
        record(130, Source::Cell(1), Event::Serving, [2, 0]),
        record(140, Source::Monitor, Event::Joined, [1, 2]),
    ]);
    run.records.sort_by_key(|record| record.at);
}

#[test]
fn repair_times_are_extrapolated_as_a_model() {
    let of = |text: &str| {
        let span = crate::units::parse_span(text).unwrap();
        summary(&[run(comes_back)]).with_mttf(&span)
    };
    let found = of("2s");
    let availability = found.availability.as_ref().unwrap();
    let repair = availability.mttr_ms.unwrap();
    assert!((repair - 40.0).abs() < 1e-9);
    let model = &availability.model[0];
    assert_eq!(
        (model.mttf.as_str(), availability.model.len()),
        ("in 2s", 4)
    );
    assert!((model.cell - 2000.0 / (2000.0 + repair)).abs() < 1e-9);
    assert!(model.service < model.cell);
    let text = terminal::text(&found, Path::new("runs"));
    assert!(text.contains("model, not measured") && text.contains("once in 2s"));
    let page = html::page(&found, &BTreeMap::new(), Path::new("runs")).unwrap();
    assert!(page.contains("once in 2s"), "on the page too");
}

#[test]
fn no_runs_show_nothing() {
    let found = summary(&[]);
    assert!(found.verdict().starts_with("No run is finished"));
    let text = terminal::text(&found, Path::new("runs"));
    assert_eq!(text.lines().count(), 2, "{text}");
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
fn a_control_that_was_not_carried_out_is_no_fault() {
    let found = summary(&[run(|_| {}), killed(Kind::Null)]);
    let counts = terminal::counts(&found);
    assert!(counts.contains("1 fault, 0 not carried out"), "{counts}");
    assert!(counts.contains("1 of 1 (at least"), "{counts}");
    assert!(
        counts.ends_with("; a control was not carried out"),
        "{counts}"
    );
    let found = summary(&[run(|_| {}), killed(Kind::Fault)]);
    let counts = terminal::counts(&found);
    assert!(counts.contains("2 faults, 1 not carried out"), "{counts}");
    assert!(
        counts.contains("1 of 2 (") && !counts.contains("control"),
        "{counts}"
    );
}

#[test]
fn what_was_not_carried_out_is_told_with_what_may_be_done() {
    let records = [run(|_| {}), killed(Kind::Fault)];
    let found = summary(&records);
    let text = terminal::text(&found, Path::new("runs"));
    assert!(
        text.contains("could not be carried out: QEMU: ended with signal 9"),
        "{text}"
    );
    assert!(text.ends_with("    cargo run -- replay runs 3\n"), "{text}");
    assert!(page(&found, &records).contains("cargo run -- replay runs 3"));
    let text = terminal::text(&summary(&records[..1]), Path::new("runs"));
    assert!(!text.contains("could not be carried out"), "{text}");
}

#[test]
fn without_a_fault_nothing_is_green() {
    let records = [golden()];
    let found = summary(&records);
    let verdict = found.verdict();
    assert!(verdict.contains("no fault was injected"), "{verdict}");
    let error = found.ended().unwrap_err().to_string();
    assert!(error.contains("no fault was injected"), "{error}");
    for (found, records) in [(found, &records[..]), (summary(&[]), &[])] {
        let page = page(&found, records);
        assert!(page.contains("<p class=\"verdict nothing\">"), "{page}");
    }
    let records = [golden(), run(|_| {})];
    let green = page(&summary(&records), &records);
    assert!(green.contains("<p class=\"verdict\">"), "{green}");
}

#[test]
fn the_only_contained_run_is_drawn_once() {
    let records = [run(|_| {})];
    let found = summary(&records);
    assert_eq!(found.shown.typical, found.shown.worst);
    let page = page(&found, &records);
    assert_eq!(page.matches("\ncell 1\n").count(), 1, "{page}");
    assert!(page.contains("The typical run, and the worst"));
}

#[test]
fn work_like_the_controls_is_told_with_the_number_of_runs() {
    let records = [golden(), run(|_| {}), run(|_| {})];
    let found = summary(&records);
    let work = found.availability.as_ref().unwrap().work_text().unwrap();
    assert!(work.contains("median of 2 runs"), "{work}");
    let page = page(&found, &records);
    assert!(
        page.contains(&work.replace('\'', "&#39;")) || page.contains(&work),
        "{work}"
    );
    assert!(
        !page.contains(" 100 %") && !page.contains("100.0 %"),
        "{page}"
    );
}

#[test]
fn one_is_told_as_one() {
    let records = [run(|_| {})];
    let text = terminal::text(&summary(&records), Path::new("runs"));
    for plural in [" 1 faults", " 1 workers", " 1 failures"] {
        assert!(!text.contains(plural), "{plural}: {text}");
    }
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
