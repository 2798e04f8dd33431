//! Model checks of agreement and recovery, with the state machine that the kernel runs.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test may stop at a broken assumption"
)]

mod model;

use model::world::{Character, cell};
use model::{Death, Orders, Scenario};
use stateright::{Checker, Model};

fn check<const N: usize>(scenario: Scenario<N>) -> usize {
    let checker = scenario.checker().threads(2).spawn_dfs().join();
    for (name, path) in checker.discoveries() {
        if name != "everything settles after a fault" {
            println!("{name}:");
            for (state, action) in path.into_vec() {
                println!(
                    "{} {:?} {:?} {:?}",
                    state.world.slot,
                    state.world.live(),
                    state.world.violation,
                    action
                );
            }
        }
    }
    checker.assert_properties();
    println!(
        "{} states, depth {}",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.unique_state_count()
}

#[test]
fn two_cells_one_halts() {
    let scenario = Scenario::<2> {
        deaths: 1,
        last_fault: 3,
        horizon: 60,
        ..Scenario::calm()
    };
    assert_eq!(check(scenario), 0);
}

#[test]
fn three_cells_one_halts() {
    let scenario = Scenario::<3> {
        deaths: 1,
        last_fault: 3,
        horizon: 60,
        ..Scenario::calm()
    };
    assert_eq!(check(scenario), 0);
}
