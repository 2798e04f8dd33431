//! What survivors see of a page that a dead cell could write.

use cell::parameters::Discard;
use cell::{Epoch, Frame};
use rpc::operation::Access;

use super::histories::Step;
use super::world::World;
use super::{cell_id, region};
use crate::sharing::claim::PageIndex;
use crate::sharing::error::SharingError;
use crate::sharing::imports::{Begin, Use};

const HOME: usize = 0;
const SURVIVOR: usize = 1;
const VICTIM: usize = 2;
const PAGE: u32 = 1;

/// A world in which the survivor and the victim hold a page, the victim wrote it if `stores`, and
/// died.
fn after_the_death(policy: Discard, stores: usize) -> World {
    let mut world = World::new(policy);
    for client in [SURVIVOR, VICTIM] {
        world.run(Step::Import {
            client,
            home: HOME,
            page: PAGE,
            writable: true,
        });
    }
    for _ in 0..stores {
        let offset = super::POOL + u64::from(PAGE);
        world.run(Step::Store {
            cell: VICTIM,
            home: HOME,
            offset,
        });
    }
    world.run(Step::Die {
        cell: VICTIM,
        twice: true,
    });
    world
}

/// What the survivor may do with its import, after it asked the home if it has to.
fn use_it(world: &mut World) -> Result<Frame, SharingError> {
    let survivor = &mut world.members[SURVIVOR];
    let used = survivor
        .tables
        .imports
        .usable(&survivor.imports[0], world.epoch)?;
    let ask = match used {
        Use::Ready(frame) => return Ok(frame),
        Use::Confirm(ask) => ask,
    };
    let answer = world.answer(SURVIVOR, &ask);
    let imports = &mut world.members[SURVIVOR].tables.imports;
    match answer {
        Ok(answer) => imports.confirm(ask, answer, region(cell_id(HOME)), world.epoch)?,
        Err(error) => return Err(imports.abandon(ask, error)),
    }
    use_it(world)
}

#[test]
fn a_holder_of_discarded_content_is_told_and_gets_the_new() {
    let mut world = after_the_death(Discard::Written, 1);
    assert_eq!(use_it(&mut world), Err(SharingError::Discarded));
    world.run(Step::Settle { cell: HOME });
    assert_eq!(
        use_it(&mut world),
        Err(SharingError::Discarded),
        "the fence does not hold yet"
    );
    world.run(Step::Drain { cell: VICTIM });
    world.run(Step::Drain { cell: SURVIVOR });
    world.run(Step::Settle { cell: HOME });
    let stale = use_it(&mut world);
    assert!(
        matches!(stale, Err(SharingError::StaleGeneration { .. })),
        "{stale:?}"
    );
    assert_eq!(use_it(&mut world), stale, "and stays so");

    let survivor = &mut world.members[SURVIVOR];
    let old = survivor.imports.pop().expect("still held");
    world.run(Step::Import {
        client: SURVIVOR,
        home: HOME,
        page: PAGE,
        writable: true,
    });
    let survivor = &mut world.members[SURVIVOR];
    assert!(survivor.imports[0].generation() > old.generation());
    survivor.tables.imports.release(old);
    assert_eq!(
        survivor.tables.imports.next_release(),
        None,
        "the page is held anew"
    );
    assert!(use_it(&mut world).is_ok());
}

#[test]
fn a_page_that_was_not_written_is_kept_under_the_one_policy_only() {
    let mut kept = after_the_death(Discard::Written, 0);
    assert!(use_it(&mut kept).is_ok());
    let mut discarded = after_the_death(Discard::Writable, 0);
    assert_eq!(use_it(&mut discarded), Err(SharingError::Discarded));
}

#[test]
fn a_kept_page_is_confirmed_once_per_epoch() {
    let mut world = after_the_death(Discard::Written, 0);
    let survivor = &mut world.members[SURVIVOR];
    let used = survivor
        .tables
        .imports
        .usable(&survivor.imports[0], world.epoch);
    let Ok(Use::Confirm(ask)) = used else {
        panic!("{used:?}")
    };
    let second = survivor
        .tables
        .imports
        .usable(&survivor.imports[0], world.epoch);
    assert_eq!(second, Err(SharingError::InTransit));
    let timed_out = survivor.tables.imports.abandon(ask, SharingError::TimedOut);
    assert_eq!(timed_out, SharingError::TimedOut);
    assert!(use_it(&mut world).is_ok());
    let survivor = &mut world.members[SURVIVOR];
    let used = survivor
        .tables
        .imports
        .usable(&survivor.imports[0], world.epoch);
    assert!(matches!(used, Ok(Use::Ready(_))));
    let before = survivor
        .tables
        .imports
        .usable(&survivor.imports[0], Epoch(0));
    assert!(
        matches!(before, Ok(Use::Ready(_))),
        "a confirmation holds for what was before it"
    );
}

#[test]
fn a_page_held_to_be_read_is_asked_for_again_to_be_written() {
    let mut world = World::new(Discard::Written);
    world.run(Step::Import {
        client: SURVIVOR,
        home: HOME,
        page: PAGE,
        writable: false,
    });
    assert!(
        world.members[HOME]
            .tables
            .exports
            .writers(PageIndex(PAGE))
            .is_empty()
    );
    let home = world.members[HOME].peer;
    let imports = &mut world.members[SURVIVOR].tables.imports;
    let begun = imports.begin(home, PageIndex(PAGE), Access::Write);
    let Ok(Begin::Ask(ask)) = begun else {
        panic!("{begun:?}")
    };
    let answer = world.answer(SURVIVOR, &ask).expect("served");
    let imports = &mut world.members[SURVIVOR].tables.imports;
    let import = imports
        .complete(ask, answer, region(home.cell), Epoch(0))
        .expect("the same page");
    let writers = world.members[HOME].tables.exports.writers(PageIndex(PAGE));
    assert!(writers.contains(cell_id(SURVIVOR)));
    let imports = &mut world.members[SURVIVOR].tables.imports;
    imports.release(import);
    assert_eq!(imports.next_release(), None, "one user is left");
    world.run(Step::Release {
        client: SURVIVOR,
        which: 0,
        lost: false,
    });
    assert!(
        world.members[HOME]
            .tables
            .exports
            .writers(PageIndex(PAGE))
            .is_empty()
    );
}
