//! Random histories keep the invariants of the tables.

use std::collections::HashMap;

use cell::parameters::Discard;
use cell::{CellId, Frame};
use proptest::prelude::*;

use super::world::World;
use super::{CELLS, PAGES, POOL, cell_id};
use crate::sharing::claim::PageIndex;
use crate::sharing::error::SharingError;

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Import {
        client: usize,
        home: usize,
        page: u32,
        writable: bool,
    },
    Release {
        client: usize,
        which: usize,
        lost: bool,
    },
    Use {
        client: usize,
        which: usize,
    },
    Borrow {
        client: usize,
        home: usize,
        count: u64,
    },
    Return {
        client: usize,
        which: usize,
        lost: bool,
    },
    Store {
        cell: usize,
        home: usize,
        offset: u64,
    },
    Drain {
        cell: usize,
    },
    Settle {
        cell: usize,
    },
    Die {
        cell: usize,
        twice: bool,
    },
    Reboot {
        cell: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let one = || 0..CELLS;
    prop_oneof![
        4 => (one(), one(), 0..PAGES as u32 + 1, any::<bool>())
            .prop_map(|(client, home, page, writable)| {
                Step::Import { client, home, page, writable }
            }),
        2 => (one(), 0usize..4, any::<bool>())
            .prop_map(|(client, which, lost)| Step::Release { client, which, lost }),
        2 => (one(), 0usize..4).prop_map(|(client, which)| Step::Use { client, which }),
        3 => (one(), one(), 0u64..20)
            .prop_map(|(client, home, count)| Step::Borrow { client, home, count }),
        2 => (one(), 0usize..4, any::<bool>())
            .prop_map(|(client, which, lost)| Step::Return { client, which, lost }),
        4 => (one(), one(), 0..POOL + PAGES)
            .prop_map(|(cell, home, offset)| Step::Store { cell, home, offset }),
        2 => one().prop_map(|cell| Step::Drain { cell }),
        2 => one().prop_map(|cell| Step::Settle { cell }),
        1 => (one(), any::<bool>()).prop_map(|(cell, twice)| Step::Die { cell, twice }),
        1 => one().prop_map(|cell| Step::Reboot { cell }),
    ]
}

/// A page stained by a cell stays served only while that cell lives, or if its stay ended in order
/// before its death.
fn stains_are_discarded(world: &World, before: &HashMap<Frame, CellId>, dead: CellId) {
    for member in world.members.iter().filter(|member| member.alive) {
        for page in 0..PAGES as u32 {
            let frame = member.page_frame(page);
            let stained = before.get(&frame) == Some(&dead);
            let was_exposed = world.machine.stale.contains(&(frame, dead));
            if stained && was_exposed {
                let own = member.tables.exports.own(PageIndex(page));
                assert_eq!(
                    own,
                    Err(SharingError::Discarded),
                    "a damaged page is served"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_keeps_the_invariants(
        steps in prop::collection::vec(step(), 1..150),
        written in any::<bool>(),
    ) {
        let policy = if written { Discard::Written } else { Discard::Writable };
        let mut world = World::new(policy);
        for step in steps {
            let stains = world.machine.stained.clone();
            let dying = match step {
                Step::Die { cell, .. } if world.members[cell].alive => Some(cell_id(cell)),
                _ => None,
            };
            world.run(step);
            if let Some(dead) = dying {
                stains_are_discarded(&world, &stains, dead);
            }
            world.check();
        }
        every_frame_comes_home(&mut world);
    }
}

/// Once every borrower is dead and fenced, every pool is whole again.
fn every_frame_comes_home(world: &mut World) {
    for number in 1..CELLS {
        world.die(number, false);
        world.machine.drain(cell_id(number));
    }
    world.settle(0);
    if world.members[0].alive {
        let counts = world.members[0].tables.loans.counts();
        assert_eq!(u64::from(counts.free), POOL);
        assert!(
            (0..PAGES as u32).all(|page| world.members[0]
                .tables
                .exports
                .own(PageIndex(page))
                .is_ok())
        );
    }
}
