//! Verdicts on runs that are made up.
//!
//! Each test changes one thing about a run in which cell 1 of three was halted, expelled and taken
//! back.

use super::*;
use crate::fault::catalogue::{Fault, HostFault};
use crate::guest::trace::{Observed, Source};
use crate::latency::Latencies;
use crate::observation::{
    CellSnapshot, Injected, Missed, Reached, StrayStore, Watched, carried_out,
};
use cell::fault::InnerFault;
use cell::{CELLS_MAX, Incarnation};
use std::collections::BTreeMap;
use std::time::Duration;
use userland::account::Account;

const MILLISECOND: u64 = 1_000_000;

fn account(life: u32, verified: u64) -> Account {
    let counts = OperationCounts {
        attempted: verified,
        verified,
        ..OperationCounts::default()
    };
    Account {
        life: Incarnation(life),
        workers: 2,
        operations: [counts; 4],
        lost_with: [0; CELLS_MAX],
        longest_pause: 0,
        longest_pause_of: [0; 4],
        last_progress: 0,
    }
}

pub(crate) fn cell(incarnation: u32, verified: u64) -> CellSnapshot {
    let account = account(incarnation, verified);
    CellSnapshot {
        state: CellState::Live,
        incarnation,
        serves: true,
        account,
    }
}

pub(crate) fn record(at: u64, source: Source, event: Event, arguments: [u64; 2]) -> Observed {
    Observed {
        at: at * MILLISECOND,
        source,
        cpu: 0,
        event,
        arguments,
    }
}

/// Cell 1 of three is halted at 100 ms, expelled and taken back.
pub(crate) fn good_run() -> Observation {
    let mut records = vec![
        record(90, Source::Cell(2), Event::Hint, [0, 1]),
        record(108, Source::Cell(2), Event::Hint, [1, 1]),
        record(112, Source::Monitor, Event::Expelled, [1, 1]),
    ];
    for cell in [0, 2] {
        let delay = cell as u64;
        let source = Source::Cell(cell);
        records.push(record(109, source, Event::Opinion, [1, 0b101]));
        records.push(record(111 + delay, source, Event::Decided, [1, 0b101]));
        records.push(record(
            112 + delay,
            source,
            Event::RecoveryBegin,
            [1, 0b101],
        ));
        records.push(record(115 + delay, source, Event::Resume, [1, 0]));
        records.push(record(145 + delay, source, Event::Decided, [2, 0b111]));
        records.push(record(150 + delay, source, Event::Reintegrated, [1, 2]));
    }
    records.sort_by_key(|record| record.at);
    let before = vec![cell(1, 10), cell(1, 10), cell(1, 10)];
    let after = vec![cell(1, 50), cell(2, 20), cell(1, 50)];
    let lives = [((0, 1), 50), ((1, 1), 12), ((1, 2), 20), ((2, 1), 50)];
    Observation {
        boot_time: Duration::from_secs(1),
        injected: vec![Injected {
            fault: Fault::Host(HostFault::CpuHalt),
            cell: 1,
            expectation: Expectation::Dies,
            at: 100 * MILLISECOND,
            detail: String::new(),
        }],
        control_from: None,
        ended_at: 500 * MILLISECOND,
        notes: Vec::new(),
        not_triggered: Vec::new(),
        not_carried_out: Vec::new(),
        left_out: Vec::new(),
        reached: Reached::Fault,
        records,
        records_lost: 0,
        before,
        after,
        progressing: vec![true; 3],
        lives: lives
            .map(|((cell, life), done)| ((cell, life), account(life, done)))
            .into(),
        epitaphs: BTreeMap::new(),
        live_set: CellSet::first(3),
        watched: None,
        works: true,
        spoilt: Vec::new(),
        ram_sha256: None,
        difference: None,
        end: End::Settled,
    }
}

#[test]
fn a_death_that_stays_in_its_cell_is_held() {
    let verdict = Verdict::of(&good_run());
    assert_eq!(verdict.violations, []);
    assert_eq!(verdict.outcome, Outcome::Recovered);
    assert_eq!((verdict.held, verdict.contained), (true, true));
    assert_eq!(verdict.dead, [1]);
    assert_eq!(
        verdict.cells[1].verified,
        4 * (2 + 20),
        "of both lives, of four kinds"
    );
}

#[test]
fn latencies_count_from_the_fault_and_to_the_last_survivor() {
    let latencies = Latencies::of(&good_run());
    assert_eq!(
        latencies.first_hint,
        Some(8.0),
        "the hint before the fault was about another cell"
    );
    assert_eq!(latencies.agreement, Some(4.0), "of the slowest survivor");
    assert_eq!(latencies.last_in_recovery, Some(14.0));
    assert_eq!(latencies.resumed, Some(17.0));
    assert_eq!(latencies.reintegrated, Some(52.0));
}

#[test]
fn a_cell_that_is_not_back_has_no_time_at_which_it_was() {
    let mut run = good_run();
    stays_out(&mut run);
    assert_eq!(Latencies::of(&run).reintegrated, None);
    let mut two = good_run();
    let joined = record(170, Source::Monitor, Event::Joined, [2, 2]);
    two.after[2] = cell(2, 5);
    two.records.push(joined);
    assert_eq!(
        Latencies::of(&two).reintegrated,
        Some(70.0),
        "the later one"
    );
    two.records.pop();
    assert_eq!(Latencies::of(&two).reintegrated, None, "one of two");
}

#[test]
fn an_epoch_before_the_first_hint_is_another_matter() {
    let mut run = good_run();
    let begins = |at| record(at, Source::Cell(2), Event::EpochBegin, [1, 2]);
    run.records.extend([begins(103), begins(109)]);
    run.records.sort_by_key(|record| record.at);
    assert_eq!(Latencies::of(&run).epoch_begun, Some(9.0));
    run.records.retain(|record| record.event != Event::Hint);
    assert_eq!(Latencies::of(&run).epoch_begun, None);
}

#[test]
fn a_dead_bystander_is_a_spread() {
    let mut run = good_run();
    run.after[2] = cell(2, 5);
    let verdict = Verdict::of(&run);
    assert_eq!(verdict.violations, [Violation::BystanderDied { cell: 2 }]);
    assert_eq!(
        (verdict.outcome, verdict.contained),
        (Outcome::Spread, false)
    );
}

#[test]
fn wrong_bytes_count_where_no_fault_was_injected() {
    let mut run = good_run();
    for cell in [0, 1] {
        run.after[cell].account.operations[2].wrong = 3;
    }
    let verdict = Verdict::of(&run);
    let expected = Violation::WrongBytes {
        cell: 0,
        operation: "share",
        bytes: 3,
    };
    assert_eq!(verdict.violations, [expected]);
    assert_eq!(verdict.outcome, Outcome::SilentCorruption);
}

#[test]
fn work_may_be_lost_with_the_dead_only() {
    let mut run = good_run();
    run.after[0].account.lost_with[1] = 7;
    run.after[0].account.lost_with[2] = 4;
    let expected = Violation::LostWithTheLiving {
        cell: 0,
        with: 2,
        operations: 4,
    };
    assert_eq!(Verdict::of(&run).violations, [expected]);
}

#[test]
fn a_survivor_must_go_on_with_every_kind_of_work() {
    let mut run = good_run();
    let borrow = &mut run.after[2].account.operations[3];
    (borrow.attempted, borrow.verified) = (10, 10);
    let expected = Violation::NoProgress {
        cell: 2,
        operation: "borrow",
    };
    assert_eq!(Verdict::of(&run).violations, [expected]);
}

#[test]
fn a_halt_that_nobody_notices_is_a_hang() {
    let mut run = good_run();
    run.records.clear();
    run.after[1] = cell(1, 10);
    let verdict = Verdict::of(&run);
    assert_eq!(verdict.violations, [Violation::Unnoticed { cell: 1 }]);
    assert_eq!((verdict.outcome, verdict.contained), (Outcome::Hang, true));
}

#[test]
fn survivors_must_decide_alike() {
    let mut run = good_run();
    run.records
        .push(record(120, Source::Cell(0), Event::Decided, [1, 0b111]));
    assert_eq!(
        Verdict::of(&run).violations,
        [Violation::LiveSetsDiffer { epoch: 1 }]
    );
}

#[test]
fn survivors_must_end_with_the_true_live_set() {
    let mut run = good_run();
    let of_2 = |one: &Observed| one.source == Source::Cell(2) && one.arguments == [2, 0b111];
    run.records.retain(|record| !of_2(record));
    assert_eq!(
        Verdict::of(&run).violations,
        [Violation::LiveSetUntrue { cell: 2 }]
    );
    run.records_lost = 1;
    assert_eq!(Verdict::of(&run).violations, [], "it may be among the lost");
    run.records_lost = 0;
    run.end = End::Bound;
    assert_eq!(Verdict::of(&run).violations, [], "it may be on its way");
}

/// Cell 1 stays out.
pub(crate) fn stays_out(run: &mut Observation) {
    run.after[1].state = CellState::Expelled;
    run.after[1].serves = false;
    run.records.retain(|record| record.arguments != [2, 0b111]);
}

#[test]
fn a_dead_cell_must_come_back() {
    let mut run = good_run();
    stays_out(&mut run);
    let verdict = Verdict::of(&run);
    assert_eq!(verdict.violations, [Violation::NotReintegrated { cell: 1 }]);
    assert_eq!(verdict.outcome, Outcome::DetectedNotRecovered);
}

#[test]
fn a_fault_that_was_asked_for_and_not_done_is_said_to_be_so() {
    let fault = Fault::Inner(InnerFault::Panic);
    let mut run = good_run();
    run.not_carried_out.push(Missed { fault, cell: 2 });
    let verdict = Verdict::of(&run);
    let expected = Violation::NotCarriedOut {
        cell: 2,
        fault: "sw.panic",
    };
    assert_eq!(verdict.violations, [expected]);
    assert_eq!((verdict.held, verdict.contained), (false, true));
}

#[test]
fn a_fault_is_done_when_its_own_cell_says_so_after_the_first() {
    let does = |at, cell, fault: InnerFault| {
        record(at, Source::Cell(cell), Event::Injected, [fault as u64, 0])
    };
    let start = 100 * MILLISECOND;
    let done =
        |records: &[Observed]| carried_out(records, start, Fault::Inner(InnerFault::Panic), 2);
    assert_eq!(done(&[does(99, 2, InnerFault::Panic)]), 0, "a rehearsal");
    assert_eq!(done(&[does(101, 1, InnerFault::Panic)]), 0, "of another");
    assert_eq!(done(&[does(101, 2, InnerFault::Loop)]), 0, "another fault");
    assert_eq!(done(&[does(101, 2, InnerFault::Panic)]), 1);
}

#[test]
fn a_store_that_nothing_allowed_is_a_spread() {
    let mut run = good_run();
    let mut watched = Watched::default();
    run.watched = Some(watched.clone());
    assert!(Verdict::of(&run).held, "watched, and nothing seen");
    watched.strays_count = 2;
    watched.strays.push(StrayStore {
        cpu: 2,
        cell: Some(1),
        home: Some(0),
        address: 0x1000,
    });
    run.watched = Some(watched);
    let verdict = Verdict::of(&run);
    assert_eq!((verdict.held, verdict.contained), (false, false));
    assert_eq!(verdict.outcome, Outcome::Spread);
    assert_eq!(verdict.violations[0].cell(), Some(1));
}

#[test]
fn silence_is_the_end_of_the_machine() {
    let mut run = good_run();
    run.end = End::Silence;
    let verdict = Verdict::of(&run);
    assert_eq!(verdict.outcome, Outcome::SystemDown);
    assert!(verdict.violations[0].text().contains("no CPU works"));
}

#[test]
fn a_cell_whose_programs_a_fault_ended_is_not_silently_well() {
    let mut run = good_run();
    run.after[1] = cell(1, 10);
    run.records.clear();
    run.injected[0].fault = Fault::Inner(InnerFault::ProgramKill);
    run.injected[0].expectation = Expectation::MayDie;
    let what = [InnerFault::ProgramKill as u64, 1];
    let struck = record(101, Source::Cell(1), Event::Struck, what);
    run.records.push(struck);
    run.progressing[1] = false;
    let verdict = Verdict::of(&run);
    assert_eq!(
        (verdict.held, verdict.outcome),
        (true, Outcome::ServiceLost)
    );
    assert_eq!(verdict.out_of_work, [1]);
    // Of another fault it hangs, and nobody noticed.
    run.records.clear();
    let verdict = Verdict::of(&run);
    assert_eq!(verdict.violations, [Violation::Stopped { cell: 1 }]);
}

#[test]
fn a_second_death_needs_a_second_fault() {
    let died_again = || {
        let mut run = good_run();
        let joined = record(200, Source::Monitor, Event::Joined, [1, 2]);
        let expelled = record(400, Source::Monitor, Event::Expelled, [1, 2]);
        run.records.extend([joined, expelled]);
        run.injected[0].fault = Fault::Inner(InnerFault::Panic);
        run
    };
    let run = died_again();
    let violations = Verdict::of(&run).violations;
    assert!(violations.contains(&Violation::BystanderDied { cell: 1 }));
    let mut struck_again = died_again();
    let mut second = struck_again.injected[0].clone();
    second.at = 390 * MILLISECOND;
    struck_again.injected.push(second);
    let violations = Verdict::of(&struck_again).violations;
    assert!(!violations.contains(&Violation::BystanderDied { cell: 1 }));
    let mut frozen = died_again();
    frozen.injected[0].fault = Fault::Host(HostFault::CpuFreeze);
    let violations = Verdict::of(&frozen).violations;
    assert!(!violations.contains(&Violation::BystanderDied { cell: 1 }));
}

#[test]
fn a_cell_that_dies_before_its_fault_is_a_bystander() {
    let mut run = good_run();
    let mut late = run.injected[0].clone();
    (late.cell, late.at) = (1, 300 * MILLISECOND);
    run.injected[0].cell = 0;
    run.injected.push(late);
    let violations = Verdict::of(&run).violations;
    assert!(violations.contains(&Violation::BystanderDied { cell: 1 }));
}
