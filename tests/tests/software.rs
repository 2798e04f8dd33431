//! A kernel that goes wrong stops itself, or is stopped, and no other.

use cell::fault::InnerFault;
use cell::trace::Event;
use tests::harness::{inject, inner};

#[test]
fn a_panic_leaves_an_epitaph_and_is_recovered() {
    let outcome = inject(inner(InnerFault::Panic, 1));
    outcome.assert_recovered(&[1]);
    assert!(
        outcome
            .run
            .epitaphs
            .keys()
            .any(|&(cell, life)| (cell, life) == (1, 1))
    );
}

#[test]
fn the_cell_with_the_boot_cpu_may_panic() {
    inject(inner(InnerFault::Panic, 0)).assert_recovered(&[0]);
}

#[test]
fn an_endless_loop_is_contained() {
    inject(inner(InnerFault::Loop, 2)).assert_held();
}

#[test]
fn a_loop_with_interrupts_off_is_recovered() {
    inject(inner(InnerFault::InterruptsOff, 3)).assert_recovered(&[3]);
}

#[test]
fn a_stack_overflow_is_recovered() {
    inject(inner(InnerFault::StackOverflow, 2)).assert_recovered(&[2]);
}

#[test]
fn a_fast_clock_convinces_nobody() {
    inject(inner(InnerFault::FastClock, 1)).assert_held();
}

#[test]
fn a_cell_that_cries_wolf_expels_no_healthy_one() {
    let outcome = inject(inner(InnerFault::CryWolf, 3));
    outcome.assert_held();
    outcome.assert_cell_traced(3, Event::Hint);
}
