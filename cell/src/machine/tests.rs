//! Accusations: who stands still, and since when.

use super::*;

const CLOCK: u64 = 7;

#[test]
fn a_cpu_that_stands_still_since_it_was_accused_is_discredited() {
    let entry = CpuEntry::new();
    let accused = Instant(1000);
    entry.accuse(CLOCK, || accused);
    assert!(!entry.stands_still(CLOCK, accused));
    assert!(entry.stands_still(CLOCK, accused + WITNESS_SPAN));
    entry.hypercalls.fetch_add(1, Ordering::SeqCst);
    assert!(!entry.stands_still(CLOCK + 1, accused + WITNESS_SPAN));
}

#[test]
fn an_accuser_that_was_away_accuses_from_when_it_came_back() {
    let entry = CpuEntry::new();
    let back = Instant(0) + WITNESS_SPAN;
    entry.accuse(CLOCK, || {
        // What the accused did while the accuser was away counts as movement.
        entry.hypercalls.fetch_add(1, Ordering::SeqCst);
        back
    });
    assert!(!entry.stands_still(CLOCK + 1, back + WITNESS_SPAN));
}
