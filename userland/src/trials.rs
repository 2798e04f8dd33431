//! Trials of the workload on a simulated machine: it must notice what is wrong, and nothing else.

use cell::workload::Operation;
use cell::{CellId, CellSet};

use crate::account::Account;
use crate::lane::{LANE_WORDS, Place};
use crate::simulation::{CELLS, DOUBT, Flaw, Simulation, WORKERS, cell};
use crate::verdict::{Case, Verdict, Violation, judge};

fn sum(accounts: &[Account], of: impl Fn(&Account) -> u64, without: CellSet) -> u64 {
    let counted = (0..CELLS).filter(|&number| !without.contains(cell(number)));
    counted.map(|number| of(&accounts[number])).sum()
}

fn total(account: &Account, of: impl Fn(&crate::account::OperationCounts) -> u64) -> u64 {
    account.operations.iter().map(of).sum()
}

fn verdict(before: &[Account], after: &[Account], expelled: CellSet) -> Verdict {
    judge(&Case {
        before,
        after,
        expelled,
        pause_limit: None,
    })
}

/// A cell falls ill, writes wherever it can, and is expelled; some time later it comes back.
fn fall_ill(simulation: &mut Simulation, victim: CellId, comes_back: bool) {
    simulation.silence(victim);
    for _ in 0..5 {
        simulation.machine.borrow_mut().scribble(victim, 200);
        simulation.run(40);
    }
    simulation.machine.borrow_mut().expel(victim);
    simulation.run(30);
    simulation.machine.borrow_mut().hold();
    simulation.run(60);
    simulation.machine.borrow_mut().recover(victim);
    simulation.run(500);
    if comes_back {
        simulation.machine.borrow_mut().rejoin(victim);
        simulation.start_workers(victim);
    }
    simulation.run_to_certainty();
}

#[test]
fn a_sound_machine_is_found_sound() {
    let mut simulation = Simulation::new(1, Flaw::None);
    simulation.run(100);
    let before = simulation.accounts();
    simulation.run(20_000);
    let after = simulation.accounts();
    let verdict = verdict(&before, &after, CellSet::EMPTY);
    assert!(verdict.is_held(), "{verdict}");
    assert_eq!((verdict.survivors.lost, verdict.survivors.suspect), (0, 0));
    let most = verdict.survivors.verified * 99 / 100;
    assert!(verdict.survivors.verified > 15_000 && verdict.survivors.attempted >= most);
}

#[test]
fn a_death_costs_only_what_depended_on_the_dead() {
    let (mut suspect, mut lost) = (0, 0);
    for seed in 0..24 {
        let mut simulation = Simulation::new(seed, Flaw::None);
        simulation.run(2_000);
        let victim = cell(seed as usize % CELLS);
        let before = simulation.accounts();
        fall_ill(&mut simulation, victim, seed % 2 == 0);
        let verdict = verdict(&before, &simulation.accounts(), CellSet::only(victim));
        assert!(verdict.is_held(), "seed {seed}: {verdict}");
        suspect += verdict.survivors.suspect;
        lost += verdict.survivors.lost;
    }
    assert!(
        suspect > 0,
        "nobody met what the dying cell wrote: the trial is too tame"
    );
    assert!(lost > 0, "no work was lost: the trial is too tame");
}

#[test]
fn cells_that_die_one_after_the_other_are_survived() {
    for seed in 100..108 {
        let mut simulation = Simulation::new(seed, Flaw::None);
        simulation.run(2_000);
        let before = simulation.accounts();
        fall_ill(&mut simulation, cell(0), true);
        fall_ill(&mut simulation, cell(1), true);
        fall_ill(&mut simulation, cell(0), true);
        let expelled = CellSet::first(2);
        let verdict = verdict(&before, &simulation.accounts(), expelled);
        assert!(verdict.is_held(), "seed {seed}: {verdict}");
        let again = simulation.accounts();
        simulation.run(5_000);
        let verdict = self::verdict(&again, &simulation.accounts(), CellSet::EMPTY);
        assert!(verdict.is_held(), "seed {seed}, after it all: {verdict}");
    }
}

/// Flips a bit in a lane of a live cell that somebody wrote.
fn flip_a_written_lane(simulation: &mut Simulation) {
    let mut machine = simulation.machine.borrow_mut();
    let words = machine.cells.iter_mut().flat_map(|cell| &mut cell.pages);
    let mut lanes = words.flat_map(|page| page.words.chunks_exact_mut(LANE_WORDS));
    let written = lanes.find(|lane| lane[0] != 0).expect("somebody wrote");
    written[3] ^= 1 << 17;
}

fn wrong_bytes(verdict: &Verdict, operation: Operation) -> u64 {
    let of_kind = |violation| match violation {
        Violation::WrongBytes {
            operation: kind,
            bytes,
            ..
        } if kind == operation => Some(bytes),
        _ => None,
    };
    verdict.violations().filter_map(of_kind).sum()
}

#[test]
fn a_flipped_bit_in_a_lane_of_a_live_cell_is_wrong() {
    for seed in 0..10 {
        let mut simulation = Simulation::new(seed, Flaw::None);
        simulation.run(2_000);
        let before = simulation.accounts();
        flip_a_written_lane(&mut simulation);
        // Its writer comes by only now and then.
        simulation.run(10_000);
        simulation.run_to_certainty();
        let verdict = verdict(&before, &simulation.accounts(), CellSet::EMPTY);
        assert!(
            wrong_bytes(&verdict, Operation::Share) > 0,
            "seed {seed}: {verdict}"
        );
    }
}

#[test]
fn a_store_into_a_lane_that_nobody_owns_is_found_by_the_others() {
    let mut simulation = Simulation::new(6, Flaw::None);
    simulation.run(1_000);
    let before = simulation.accounts();
    let lane = Place::new(cell(2), 0, cell(1), WORKERS).first_word();
    for page in &mut simulation.machine.borrow_mut().cells[2].pages {
        page.words[lane..lane + LANE_WORDS].fill(7);
        page.words[lane + 3] = 8;
    }
    simulation.run(10_000);
    simulation.run_to_certainty();
    let after = simulation.accounts();
    let home = CellSet::only(cell(2));
    let wrong = |accounts: &[Account], without| {
        sum(
            accounts,
            |account| account.of(Operation::Share).wrong,
            without,
        )
    };
    let others = wrong(&after, home) - wrong(&before, home);
    let all = wrong(&after, CellSet::EMPTY) - wrong(&before, CellSet::EMPTY);
    assert!(
        others > 0 && all > others,
        "by clients {others}, by all {all}"
    );
}

#[test]
fn a_lane_set_back_to_an_older_content_is_found_by_its_writer() {
    let mut simulation = Simulation::new(4, Flaw::None);
    simulation.run(2_000);
    let lane = |simulation: &Simulation| {
        let machine = simulation.machine.borrow();
        let first = Place::new(cell(0), 0, cell(1), 0).first_word();
        (
            first,
            machine.cells[0].pages[0].words[first..first + LANE_WORDS].to_vec(),
        )
    };
    let (first, old) = lane(&simulation);
    while lane(&simulation).1 == old {
        simulation.run(100);
    }
    let before = simulation.accounts();
    let set_back = first..first + LANE_WORDS;
    simulation.machine.borrow_mut().cells[0].pages[0].words[set_back].copy_from_slice(&old);
    simulation.run(10_000);
    simulation.run_to_certainty();
    let after = simulation.accounts();
    assert!(after[1].of(Operation::Share).wrong > before[1].of(Operation::Share).wrong);
}

#[test]
fn a_death_elsewhere_does_not_excuse_a_flipped_bit() {
    let mut simulation = Simulation::new(5, Flaw::None);
    simulation.run(2_000);
    let before = simulation.accounts();
    // The victim holds no page, so its death discards none.
    simulation.silence(cell(3));
    for home in &mut simulation.machine.borrow_mut().cells {
        for page in &mut home.pages {
            page.forget(cell(3));
        }
    }
    flip_a_written_lane(&mut simulation);
    simulation.run(5_000);
    fall_ill(&mut simulation, cell(3), false);
    let verdict = verdict(&before, &simulation.accounts(), CellSet::only(cell(3)));
    assert!(wrong_bytes(&verdict, Operation::Share) > 0, "{verdict}");
}

#[test]
fn a_flipped_bit_in_a_borrowed_frame_is_wrong() {
    let mut simulation = Simulation::new(3, Flaw::None);
    simulation.run(2_000);
    let before = simulation.accounts();
    for home in &mut simulation.machine.borrow_mut().cells {
        for frame in home
            .frames
            .iter_mut()
            .filter(|frame| frame.borrower.is_some())
        {
            frame.words[99] ^= 1;
        }
    }
    simulation.run_to_certainty();
    let verdict = verdict(&before, &simulation.accounts(), CellSet::EMPTY);
    assert!(wrong_bytes(&verdict, Operation::Borrow) > 0, "{verdict}");
}

#[test]
fn every_flaw_of_the_machine_is_found() {
    let flaws = [
        (Flaw::SpoiltReplies, Operation::Call),
        (Flaw::SpoiltRequests, Operation::Call),
        (Flaw::DoubleLoans, Operation::Borrow),
    ];
    for (flaw, operation) in flaws {
        let mut simulation = Simulation::new(11, flaw);
        let before = simulation.accounts();
        simulation.run(2_000);
        simulation.run_to_certainty();
        let verdict = verdict(&before, &simulation.accounts(), CellSet::EMPTY);
        assert!(wrong_bytes(&verdict, operation) > 0, "{flaw:?}: {verdict}");
    }
}

#[test]
fn a_discard_that_forgets_a_page_is_found() {
    let mut wrong = 0;
    for seed in 0..10 {
        let mut simulation = Simulation::new(seed, Flaw::ForgottenDiscard);
        simulation.run(2_000);
        let before = simulation.accounts();
        fall_ill(&mut simulation, cell(2), false);
        let verdict = verdict(&before, &simulation.accounts(), CellSet::only(cell(2)));
        wrong += wrong_bytes(&verdict, Operation::Share);
    }
    assert!(wrong > 0);
}

#[test]
fn a_silent_peer_takes_a_bounded_part_of_the_time() {
    let mut simulation = Simulation::new(2, Flaw::None);
    simulation.run(2_000);
    simulation.silence(cell(1));
    let (before, start) = (simulation.accounts(), simulation.now());
    simulation.run(4_000);
    let after = simulation.accounts();
    let milliseconds = simulation.now().since(start).as_millis() as u64;
    let silent = CellSet::only(cell(1));
    let verified = |accounts: &[Account]| {
        sum(
            accounts,
            |account| total(account, |counts| counts.verified),
            silent,
        )
    };
    let done = verified(&after) - verified(&before);
    assert!(done > 2_000, "{done} operations in {milliseconds} ms");
    // Each of six workers waits once and then leaves the cell alone for 20 ms.
    let lost = sum(
        &after,
        |account| total(account, |counts| counts.refused),
        silent,
    );
    assert!(
        lost < 200 + milliseconds * 6 / 20,
        "{lost} refused in {milliseconds} ms"
    );
    for operation in [
        Operation::Compute,
        Operation::Call,
        Operation::Share,
        Operation::Borrow,
    ] {
        let went_on = (0..CELLS).filter(|&number| number != 1).all(|number| {
            after[number].of(operation).verified > before[number].of(operation).verified
        });
        assert!(went_on, "{}", operation.name());
    }
}

#[test]
fn every_operation_is_accounted_for() {
    let mut simulation = Simulation::new(9, Flaw::None);
    simulation.run(3_000);
    fall_ill(&mut simulation, cell(3), true);
    assert!(DOUBT.as_millis() > 0);
    for account in &simulation.accounts() {
        assert_eq!(account.workers, WORKERS as u64);
        for counts in &account.operations {
            let ended = counts.verified + counts.lost + counts.refused;
            assert_eq!((counts.attempted, counts.wrong), (ended, 0));
        }
        let lost: u64 = account.lost_with.iter().sum();
        assert_eq!(lost, total(account, |counts| counts.lost));
    }
}
