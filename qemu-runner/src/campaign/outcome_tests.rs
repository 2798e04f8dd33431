//! What runs that are made up count as.
//!
//! Each row changes one thing about a run in which cell 1 of three was halted, expelled and taken
//! back.

use super::*;
use crate::fault::catalogue::Expectation;
use crate::verdict::tests::{cell, good_run, record, stays_out};
use cell::fault::InnerFault;

use crate::observation::{End, Injected, Missed};

type Change = fn(&mut Observation);

fn classified(kind: Kind, change: Change, limit: PauseLimit) -> (Containment, Option<Effect>) {
    let mut run = good_run();
    change(&mut run);
    run.records.sort_by_key(|record| record.at);
    let (verdict, latencies) = (Verdict::of(&run), Latencies::of(&run));
    classify(kind, &run, &verdict, &latencies, limit)
}

/// Nobody dies of it.
fn survived(run: &mut Observation) {
    run.after[1] = cell(1, 50);
    run.records.clear();
    run.end = End::Quiet;
}

/// As a fault that a cell does to itself, and that may be survived.
fn asked_for(run: &mut Observation, fault: InnerFault) {
    run.injected[0].fault = Fault::Inner(fault);
    run.injected[0].expectation = Expectation::MayDie;
}

fn evidence(kind: EvidenceKind) -> [u64; 2] {
    [(kind as u64) << 32 | 1, 0]
}

/// Cell 1 was asked to drop messages, and says so much of it.
fn drops_messages(run: &mut Observation, said: Event) {
    asked_for(run, InnerFault::RpcDrop);
    let what = [InnerFault::RpcDrop as u64, 8];
    run.records.push(record(101, Source::Cell(1), said, what));
}

/// Cell 1 was asked to end programs, and says that it ended some.
fn loses_programs(run: &mut Observation) {
    survived(run);
    asked_for(run, InnerFault::ProgramKill);
    let what = [InnerFault::ProgramKill as u64, 1];
    let struck = record(101, Source::Cell(1), Event::Struck, what);
    run.records.push(struck);
}

const FAULTS: [(&str, Change, Containment, Effect); 20] = [
    (
        "as it is",
        |_| {},
        Containment::ContainedReintegrated,
        Effect::Halted,
    ),
    (
        "not taken back",
        stays_out,
        Containment::Contained,
        Effect::Halted,
    ),
    (
        "a bystander is voted out",
        |run| run.after[2] = cell(2, 5),
        Containment::WrongAccusation,
        Effect::Halted,
    ),
    (
        "a bystander panics",
        |run| {
            run.after[2] = cell(2, 5);
            run.records
                .push(record(120, Source::Cell(2), Event::Panic, [0, 0]));
        },
        Containment::Propagated,
        Effect::Halted,
    ),
    (
        "wrong bytes elsewhere",
        |run| run.after[0].account.operations[2].wrong = 3,
        Containment::FsvExternal,
        Effect::Halted,
    ),
    (
        "work lost with the living",
        |run| run.after[0].account.lost_with[2] = 4,
        Containment::RecoveryFailed,
        Effect::Halted,
    ),
    (
        "two live sets",
        |run| {
            run.records
                .push(record(120, Source::Cell(0), Event::Decided, [1, 7]));
        },
        Containment::SplitView,
        Effect::Halted,
    ),
    (
        "the machine goes down",
        |run| run.end = End::SystemDown("RESET".into()),
        Containment::SystemFailure,
        Effect::Halted,
    ),
    (
        "every cell dies of faults of its own",
        |run| {
            for cell in [0, 2] {
                let first = run.injected[0].clone();
                run.injected.push(Injected { cell, ..first });
            }
            for cell in &mut run.after {
                (cell.state, cell.serves) = (CellState::Expelled, false);
            }
        },
        Containment::SystemFailure,
        Effect::Halted,
    ),
    (
        "nobody notices the halt",
        survived,
        Containment::Missed,
        Effect::Hang,
    ),
    (
        "a survivor hangs, though recovery is over",
        |run| run.progressing[0] = false,
        Containment::Propagated,
        Effect::Halted,
    ),
    (
        "a survivor is held by a recovery that does not end",
        |run| {
            run.progressing[0] = false;
            let own = |record: &Observed| record.source == Source::Cell(0);
            run.records
                .retain(|record| !own(record) || record.event != Event::Resume);
        },
        Containment::RecoveryFailed,
        Effect::Halted,
    ),
    (
        "nobody recovers",
        |run| {
            run.progressing[0] = false;
            let phases = [Event::RecoveryBegin, Event::Resume];
            run.records.retain(|record| !phases.contains(&record.event));
        },
        Containment::RecoveryFailed,
        Effect::Halted,
    ),
    (
        "all its programs are gone, and nobody notices",
        |run| {
            loses_programs(run);
            run.progressing[1] = false;
        },
        Containment::Contained,
        Effect::ServiceLost,
    ),
    (
        "some of its programs are gone",
        loses_programs,
        Containment::Contained,
        Effect::ProgramsLost,
    ),
    (
        "asked for and done, with no effect",
        |run| {
            survived(run);
            drops_messages(run, Event::Struck);
        },
        Containment::NotManifested,
        Effect::Masked,
    ),
    (
        "asked for, and nothing passed that it could strike",
        |run| {
            survived(run);
            drops_messages(run, Event::Injected);
        },
        Containment::NotInjected,
        Effect::Masked,
    ),
    (
        "a bit that nobody used",
        |run| {
            survived(run);
            run.injected[0].fault = Fault::Host(HostFault::MemBitflip);
            run.injected[0].expectation = Expectation::MayDie;
            run.records
                .push(record(105, Source::Cell(0), Event::Hint, [1, 1]));
        },
        Containment::NotManifested,
        Effect::NotManifested,
    ),
    (
        "wrong bytes of its own",
        |run| {
            survived(run);
            run.injected[0].expectation = Expectation::MayDie;
            run.after[1].account.operations[2].wrong = 3;
            run.lives.insert((1, 1), run.after[1].account);
        },
        Containment::ContainedReintegrated,
        Effect::FsvLocal,
    ),
    (
        "asked for, and never done",
        |run| {
            survived(run);
            asked_for(run, InnerFault::RpcDrop);
        },
        Containment::NotInjected,
        Effect::Masked,
    ),
];

#[test]
fn faults_are_classified() {
    for (what, change, containment, effect) in FAULTS {
        let found = classified(Kind::Fault, change, None);
        assert_eq!(found, (containment, Some(effect)), "{what}");
    }
}

#[test]
fn deaths_are_told_apart() {
    let inner: Change = |run| asked_for(run, InnerFault::WildWrite);
    let rows: [(Change, Effect); 4] = [
        (|_| {}, Effect::Hang),
        (
            |run| {
                run.records
                    .push(record(101, Source::Cell(1), Event::Panic, [0, 0]));
            },
            Effect::Assert,
        ),
        (
            |run| {
                run.records
                    .push(record(101, Source::Cell(1), Event::Panic, [0x1234, 0]));
            },
            Effect::Crash,
        ),
        (
            |run| {
                let what = evidence(EvidenceKind::Shutdown);
                run.records
                    .push(record(101, Source::Monitor, Event::Evidence, what));
            },
            Effect::Crash,
        ),
    ];
    for (change, effect) in rows {
        let mut run = good_run();
        inner(&mut run);
        change(&mut run);
        run.records.sort_by_key(|record| record.at);
        let (verdict, latencies) = (Verdict::of(&run), Latencies::of(&run));
        let found = classify(Kind::Fault, &run, &verdict, &latencies, None);
        assert_eq!(found, (Containment::ContainedReintegrated, Some(effect)));
    }
}

#[test]
fn a_second_fault_that_never_struck_hides_no_escape() {
    let missing: Change = |run| run.not_triggered = vec![Fault::Host(HostFault::CpuHalt)];
    let found = classified(Kind::Fault, missing, None);
    assert_eq!(found.0, Containment::NotInjected);
    let escaped: Change = |run| {
        run.not_triggered = vec![Fault::Host(HostFault::CpuHalt)];
        run.after[2] = cell(2, 5);
    };
    let found = classified(Kind::Fault, escaped, None);
    assert_eq!(found.0, Containment::WrongAccusation);
}

#[test]
fn a_fault_that_never_struck_has_no_outcome_and_hides_nothing() {
    let down: Change = |run| {
        run.injected.clear();
        run.reached = Reached::Work;
        run.end = End::SystemDown("RESET".into());
    };
    assert_eq!(
        classified(Kind::Fault, down, None).0,
        Containment::NotInjected
    );
    for kind in [Kind::Golden, Kind::Null] {
        let found = classified(kind, down, None);
        assert_eq!(found, (Containment::SystemFailure, None));
    }
    let silent: Change = |run| {
        run.injected.clear();
        run.reached = Reached::Work;
        run.end = End::Silence;
    };
    let found = classified(Kind::Golden, silent, None);
    assert_eq!(found.0, Containment::SystemFailure);
    // A panic that did not end in recovery in time, and nothing else to say of it.
    let rehearsed: Change = |run| (run.reached, run.end) = (Reached::Work, End::Bound);
    let found = classified(Kind::Null, rehearsed, None);
    assert_eq!(found.0, Containment::NotInjected);
    let waits: Change = |run| {
        run.injected.clear();
        run.not_triggered = vec![Fault::Host(HostFault::CpuHalt)];
        run.control_from = Some(100_000_000);
    };
    let found = classified(Kind::Fault, waits, None);
    assert_eq!(found.0, Containment::NotInjected);
}

#[test]
fn a_later_fault_whose_target_is_gone_leaves_the_outcome_of_the_first() {
    let mut run = good_run();
    let fault = Fault::Host(HostFault::CpuHalt);
    run.left_out = vec![Missed { fault, cell: 1 }];
    let (verdict, latencies) = (Verdict::of(&run), Latencies::of(&run));
    let found = classify(Kind::Fault, &run, &verdict, &latencies, None);
    let halted = (Containment::ContainedReintegrated, Some(Effect::Halted));
    assert_eq!(found, halted);
    assert_eq!(flags(&run, &verdict, None), [Flag::LeftOut]);
    assert!(!verdict.held, "who asked for it is told");
}

#[test]
fn a_control_in_which_somebody_dies_accuses_wrongly() {
    let quiet: Change = |run| {
        survived(run);
        run.injected.clear();
        run.control_from = Some(100_000_000);
    };
    let found = classified(Kind::Null, quiet, None);
    assert_eq!(found, (Containment::NotManifested, None));
    let dead: Change = |run| {
        run.injected.clear();
        run.control_from = Some(100_000_000);
    };
    let found = classified(Kind::Golden, dead, None);
    assert_eq!(found, (Containment::WrongAccusation, None));
}

#[test]
fn what_else_holds_is_kept_beside_the_label() {
    let mut run = good_run();
    run.after[2] = cell(2, 5);
    run.after[0].account.operations[2].wrong = 3;
    run.after[0].account.longest_pause = 60_000_000;
    run.records
        .push(record(120, Source::Cell(0), Event::FalseAlarm, [2, 0]));
    let (verdict, latencies) = (Verdict::of(&run), Latencies::of(&run));
    let labels: Vec<Containment> = labels(&run, &verdict, &latencies).into_iter().collect();
    assert_eq!(
        labels,
        [Containment::FsvExternal, Containment::WrongAccusation]
    );
    let found = flags(&run, &verdict, Some(50_000));
    assert_eq!(found, [Flag::Overkill, Flag::Paused, Flag::FalseAlarm]);
    let quiet = good_run();
    assert_eq!(flags(&quiet, &Verdict::of(&quiet), None), []);
}

#[test]
fn a_target_that_stands_still_is_no_degradation() {
    let frozen: Change = |run| {
        survived(run);
        run.injected[0].expectation = Expectation::MayDie;
        run.after[1].account.longest_pause = 60_000_000;
    };
    let found = classified(Kind::Fault, frozen, Some(50_000));
    assert_eq!(found, (Containment::NotManifested, Some(Effect::Masked)));
}

#[test]
fn work_lost_with_the_living_and_nobody_suspected_has_propagated() {
    let lost: Change = |run| {
        survived(run);
        run.injected[0].expectation = Expectation::MayDie;
        run.after[0].account.lost_with[2] = 4;
    };
    let found = classified(Kind::Fault, lost, None);
    assert_eq!(found.0, Containment::Propagated);
}

#[test]
fn a_pause_beyond_the_limit_is_a_degradation() {
    let paused: Change = |run| run.after[0].account.longest_pause = 60_000_000;
    let found = classified(Kind::Fault, paused, Some(50_000));
    assert_eq!(found.0, Containment::Degraded);
    let found = classified(Kind::Fault, paused, Some(70_000));
    assert_eq!(found.0, Containment::ContainedReintegrated);
}

#[test]
fn what_could_not_be_judged_is_no_success() {
    for label in [Containment::Infra, Containment::NotInjected] {
        assert!(!label.is_valid() && !label.is_manifested() && !label.is_contained());
    }
    let contained: Vec<_> = Containment::ALL
        .iter()
        .filter(|label| label.is_contained())
        .collect();
    assert!(contained.iter().all(|label| label.is_manifested()));
    assert_eq!(contained.len(), 3);
}
