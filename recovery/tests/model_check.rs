//! Model checks of agreement and recovery, with the state machine that the kernel runs.
//!
//! Every test explores all runs of a small machine within its bounds and asserts the properties of
//! [`model`] in every state. The number of states is asserted too: a model that silently shrinks
//! proves nothing any more. A change of the state machine may change it; then look whether it is
//! the change that was meant.
//!
//! # Bounds
//! One step per cell and slot. The first fault comes in the first slots (before it nothing moves),
//! later ones up to `last_fault`. Single faults of two and three cells: every order of steps.
//! Several faults, liars, and four cells: every order up to the slot that the test names, then
//! upward and downward in turn. See `model::world` for what is abstract.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may stop at a broken assumption"
)]

mod model;

use cell::{CellId, Incarnation};
use model::world::{Character, NEVER, cell};
use model::{AllOrdersUntil, Death, Ending, Scenario};
use stateright::{Checker, Expectation, Model};

/// Checks all properties in all states; returns how many there are.
fn check<const N: usize>(scenario: Scenario<N>) -> usize {
    let checker = scenario.checker().threads(2).spawn_dfs().join();
    println!(
        "{} states, depth {}",
        checker.unique_state_count(),
        checker.max_depth()
    );
    let mut broken = Vec::new();
    for (name, path) in checker.discoveries() {
        if checker.discovery_classification(name).to_string() == "counterexample" {
            broken.push(name);
            for (state, action) in path.into_vec() {
                let action = action.map_or_else(|| "end".to_owned(), |it| format!("{it:?}"));
                let world = &state.world;
                println!(
                    "{:3} {} {action}{}",
                    world.slot,
                    world.live(),
                    world.summary()
                );
            }
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
    for property in checker.model().properties() {
        let happens = checker.discovery(property.name).is_some();
        assert!(
            happens || property.expectation != Expectation::Sometimes,
            "{}",
            property.name
        );
    }
    checker.unique_state_count()
}

/// Scenarios in which cell 0 is not honest, and cell 1 its victim.
fn with_liar<const N: usize>(liar: fn(CellId) -> Character, ending: Ending) -> Scenario<N> {
    let orders = AllOrdersUntil(5);
    let mut scenario = Scenario {
        orders,
        ending,
        ..Scenario::calm()
    };
    scenario.characters[0] = liar(cell::<N>(1));
    scenario
}

/// Scenarios in which the threads of a cell stop to run for good.
fn threads_stop<const N: usize>() -> Scenario<N> {
    Scenario {
        orders: AllOrdersUntil(6),
        thread_stalls: 1,
        thread_stall_slots: u32::MAX,
        last_fault: 3,
        ..Scenario::calm()
    }
}

#[test]
fn two_cells_one_halts() {
    assert_eq!(
        check(Scenario::<2> {
            deaths: 1,
            last_fault: 3,
            ..Scenario::calm()
        }),
        622
    );
}

#[test]
fn two_cells_one_panics() {
    assert_eq!(
        check(Scenario::<2> {
            deaths: 1,
            death: Death::Panic,
            last_fault: 3,
            ..Scenario::calm()
        }),
        501
    );
}

#[test]
fn two_cells_halt_twice() {
    assert_eq!(
        check(Scenario::<2> {
            deaths: 2,
            last_fault: 36,
            horizon: 120,
            ..Scenario::calm()
        }),
        198_517
    );
}

#[test]
fn three_cells_one_halts() {
    assert_eq!(
        check(Scenario::<3> {
            deaths: 1,
            last_fault: 3,
            ..Scenario::calm()
        }),
        45_904
    );
}

#[test]
fn three_cells_one_panics() {
    assert_eq!(
        check(Scenario::<3> {
            deaths: 1,
            death: Death::Panic,
            last_fault: 3,
            ..Scenario::calm()
        }),
        111_448
    );
}

#[test]
fn three_cells_panic_twice_at_any_time() {
    assert_eq!(
        check(Scenario::<3> {
            orders: AllOrdersUntil(8),
            deaths: 2,
            death: Death::Panic,
            last_fault: 18,
            ..Scenario::calm()
        }),
        501_796
    );
}

#[test]
fn three_cells_halt_twice_at_any_time() {
    assert_eq!(
        check(Scenario::<3> {
            orders: AllOrdersUntil(8),
            deaths: 2,
            last_fault: 24,
            ..Scenario::calm()
        }),
        199_320
    );
}

/// Five slots are more than the hint threshold and less than a probe after it: false alarms, and
/// nobody is expelled.
#[test]
fn three_cells_miss_up_to_five_slots() {
    assert_eq!(
        check(Scenario::<3> {
            orders: AllOrdersUntil(4),
            stalls: 5,
            last_fault: 9,
            ending: Ending::Unchanged,
            ..Scenario::calm()
        }),
        1_715_253
    );
}

/// Stalls that last longer do get a cell expelled; then everything settles with it in a new life.
#[test]
fn two_cells_one_stalls_for_long() {
    assert_eq!(
        check(Scenario::<2> {
            orders: AllOrdersUntil(4),
            stalls: 1,
            stall_slots: 16,
            last_fault: 3,
            ..Scenario::calm()
        }),
        217
    );
}

#[test]
fn three_cells_one_stalls_for_long() {
    assert_eq!(
        check(Scenario::<3> {
            stalls: 2,
            stall_slots: 16,
            last_fault: 8,
            orders: AllOrdersUntil(4),
            ..Scenario::calm()
        }),
        9_300
    );
}

#[test]
fn three_cells_miss_slots_and_reads_and_one_halts() {
    assert_eq!(
        check(Scenario::<3> {
            orders: AllOrdersUntil(0),
            deaths: 1,
            stalls: 1,
            missed_reads: 1,
            last_fault: 12,
            ..Scenario::calm()
        }),
        453_229
    );
}

#[test]
fn three_cells_one_halts_and_reads_are_missed() {
    assert_eq!(
        check(Scenario::<3> {
            orders: AllOrdersUntil(4),
            deaths: 1,
            missed_reads: 2,
            last_fault: 14,
            ..Scenario::calm()
        }),
        571_249
    );
}

/// Nobody can tell which of two is the liar: nobody is expelled.
#[test]
fn two_cells_one_cries_wolf() {
    assert_eq!(
        check(with_liar::<2>(Character::CriesWolf, Ending::Open)),
        395
    );
}

#[test]
fn two_cells_one_slanders() {
    assert_eq!(
        check(with_liar::<2>(Character::Slanders, Ending::Open)),
        408
    );
}

#[test]
fn three_cells_one_cries_wolf() {
    assert_eq!(
        check(with_liar::<3>(Character::CriesWolf, Ending::Settled)),
        1_591
    );
}

#[test]
fn three_cells_one_slanders() {
    assert_eq!(
        check(with_liar::<3>(Character::Slanders, Ending::Settled)),
        1_591
    );
}

#[test]
fn three_cells_one_clock_runs_fast() {
    assert_eq!(
        check(with_liar::<3>(|_| Character::Fast(20), Ending::Settled)),
        929
    );
}

/// Threads that stop to run for good, at any of the first slots; also in the probe after another
/// death.
#[test]
fn two_cells_threads_of_one_stop() {
    assert_eq!(check(threads_stop::<2>()), 611);
}

#[test]
fn three_cells_threads_of_one_stop() {
    assert_eq!(check(threads_stop::<3>()), 10_043);
}

#[test]
fn three_cells_threads_of_one_stop_and_one_halts() {
    assert_eq!(
        check(Scenario {
            orders: AllOrdersUntil(0),
            deaths: 1,
            last_fault: 20,
            ..threads_stop::<3>()
        }),
        46_668
    );
}

/// Eight slots are more than the threshold of a pulse and less than a probe after it: false alarms,
/// and nobody is expelled.
#[test]
fn three_cells_threads_miss_eight_slots() {
    assert_eq!(
        check(Scenario::<3> {
            orders: AllOrdersUntil(10),
            thread_stalls: 1,
            thread_stall_slots: 8,
            last_fault: 3,
            ending: Ending::Unchanged,
            ..Scenario::calm()
        }),
        32_248
    );
}

/// A cell comes back, and its threads take their time: a false alarm about another one, at any
/// moment, does not end its new life.
#[test]
fn four_cells_threads_of_one_are_late_after_its_reboot() {
    assert_eq!(
        check(Scenario::<4> {
            orders: AllOrdersUntil(0),
            deaths: 1,
            stalls: 1,
            stall_slots: 5,
            first_beat: 8,
            last_fault: 30,
            horizon: 120,
            ..Scenario::calm()
        }),
        175_597
    );
}

/// A cell comes back, and its threads never run.
fn threads_never_begin<const N: usize>() -> Scenario<N> {
    Scenario {
        orders: AllOrdersUntil(6),
        deaths: 1,
        first_beat: NEVER,
        last_fault: 3,
        horizon: 120,
        ..Scenario::calm()
    }
}

#[test]
fn two_cells_threads_of_one_never_begin() {
    assert_eq!(check(threads_never_begin::<2>()), 1_517);
}

#[test]
fn three_cells_threads_of_one_never_begin() {
    assert_eq!(check(threads_never_begin::<3>()), 5_499);
}

/// More lives in a row come to nothing than are tried at once: it rests, and comes back after all.
#[test]
fn two_cells_six_lives_of_one_come_to_nothing() {
    assert_eq!(
        check(Scenario {
            orders: AllOrdersUntil(0),
            last_late: Incarnation(7),
            horizon: 600,
            ending: Ending::Complete,
            ..threads_never_begin::<2>()
        }),
        3_936
    );
}

#[test]
fn four_cells_halt_twice_at_any_time() {
    assert_eq!(
        check(Scenario::<4> {
            orders: AllOrdersUntil(0),
            deaths: 2,
            last_fault: 20,
            ..Scenario::calm()
        }),
        77_500
    );
}

#[test]
fn four_cells_one_slanders() {
    assert_eq!(
        check(with_liar::<4>(Character::Slanders, Ending::Settled)),
        21_709
    );
}

#[test]
fn four_cells_one_slanders_and_one_halts() {
    assert_eq!(
        check(Scenario {
            deaths: 1,
            last_fault: 20,
            ..with_liar::<4>(Character::Slanders, Ending::Settled)
        }),
        132_026
    );
}

#[test]
fn three_cells_one_clock_runs_fast_and_one_panics() {
    assert_eq!(
        check(Scenario {
            deaths: 1,
            death: Death::Panic,
            last_fault: 14,
            ..with_liar::<3>(|_| Character::Fast(20), Ending::Settled)
        }),
        11_452
    );
}

#[test]
fn four_cells_panic_twice_and_one_discards_slowly() {
    assert_eq!(
        check(Scenario::<4> {
            orders: AllOrdersUntil(0),
            deaths: 2,
            discard_steps: 12,
            death: Death::Panic,
            last_fault: 36,
            horizon: 120,
            ..Scenario::calm()
        }),
        172_532
    );
}
