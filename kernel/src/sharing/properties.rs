//! Random histories of four cells that share memory, die and come back.
//!
//! The fake monitor has what the real one has: writer sets, translations that outlive a revoke until they drain, and
//! dirty bits that only a walk of the tables can set.

use std::collections::{HashMap, HashSet};

use cell::parameters::Discard;
use cell::{CellId, CellSet, Epoch, Frame, FrameRange, Incarnation};
use proptest::prelude::*;
use rpc::operation::{Access, FrameList, ImportedPage};

use super::borrowings::Borrowed;
use super::claim::{Generation, PageIndex, Peer, single};
use super::discard::Tables;
use super::error::SharingError;
use super::firewall::{Firewall, Refusal};
use super::imports::{Ask, Begin, Import, Use};
use super::service::list_of;

const CELLS: usize = 4;
const PAGES: u64 = 3;
const POOL: u64 = 24;
const REGION: u64 = 0x1000;

fn cell_id(number: usize) -> CellId {
    CellId::new(number).expect("below the limit")
}

fn region(cell: CellId) -> FrameRange {
    let start = (cell.index() as u64 + 1) * REGION;
    FrameRange { start: Frame(start), end: Frame(start + REGION) }
}

fn answer_of(frame: Frame, generation: Generation) -> ImportedPage {
    ImportedPage { frame: frame.into(), generation: generation.raw() }
}

/// What the monitor knows.
#[derive(Default)]
struct Machine {
    writers: HashMap<Frame, CellSet>,
    stale: HashSet<(Frame, CellId)>,
    dirty: HashSet<(Frame, CellId)>,
    /// Frames whose content the named cell wrote last.
    stained: HashMap<Frame, CellId>,
    expelled: CellSet,
}

impl Machine {
    /// Whether the monitor would give `cell` a fresh writable translation.
    fn granted(&self, frame: Frame, cell: CellId) -> bool {
        !self.expelled.contains(cell)
            && self.writers.get(&frame).is_some_and(|writers| writers.contains(cell))
    }

    /// Whether anything of `cell` can still reach `frame`.
    fn reaches(&self, frame: Frame, cell: CellId) -> bool {
        self.granted(frame, cell) || self.stale.contains(&(frame, cell))
    }

    /// A store of `cell`. A stale translation serves it only if it is dirty already.
    fn store(&mut self, frame: Frame, cell: CellId) {
        let key = (frame, cell);
        if self.granted(frame, cell) || self.stale.contains(&key) && self.dirty.contains(&key) {
            self.dirty.insert(key);
            self.stained.insert(frame, cell);
        }
    }

    fn drain(&mut self, cell: CellId) {
        self.stale.retain(|&(_, holder)| holder != cell);
    }

    /// Empties the nested tables of a cell; its CPUs may keep translations until the fence holds.
    fn expel(&mut self, cell: CellId) {
        self.expelled = self.expelled.with(cell);
        let granted = self.writers.iter().filter(|(_, writers)| writers.contains(cell));
        self.stale.extend(granted.map(|(&frame, _)| (frame, cell)));
    }
}

impl Firewall for Machine {
    fn grant(&mut self, frames: FrameRange, writer: Peer) -> Result<(), Refusal> {
        if self.expelled.contains(writer.cell) {
            return Err(Refusal::Stale);
        }
        for frame in frames.iter() {
            let set = self.writers.entry(frame).or_default();
            *set = set.with(writer.cell);
        }
        Ok(())
    }

    fn revoke(&mut self, frames: FrameRange, writer: CellId) -> Result<(), Refusal> {
        for frame in frames.iter() {
            let set = self.writers.entry(frame).or_default();
            *set = set.without(writer);
            self.stale.insert((frame, writer));
        }
        Ok(())
    }

    fn drained(&mut self, writer: CellId) -> bool {
        !self.stale.iter().any(|&(_, holder)| holder == writer)
    }

    fn written(&mut self, frames: FrameRange, writer: CellId) -> bool {
        frames.iter().any(|frame| self.dirty.contains(&(frame, writer)))
    }

    fn reclaim(&mut self, frames: FrameRange) -> Result<(), Refusal> {
        for frame in frames.iter() {
            assert!(self.writers.get(&frame).is_none_or(|set| set.is_empty()), "reclaimed early");
            assert!(self.stale.iter().all(|&(stale, _)| stale != frame), "reclaimed before drain");
            self.dirty.retain(|&(dirty, _)| dirty != frame);
        }
        Ok(())
    }
}

struct Member {
    peer: Peer,
    tables: Tables,
    imports: Vec<Import>,
    borrowed: Vec<Borrowed>,
    alive: bool,
}

impl Member {
    fn boot(cell: CellId, life: u32) -> Self {
        let peer = Peer { cell, incarnation: Incarnation(life) };
        let base = region(cell).start.0 + 0x400;
        let pool = FrameRange { start: Frame(base), end: Frame(base + POOL) };
        let mut tables = Tables::new(peer.incarnation, pool);
        for page in 0..PAGES {
            tables.exports.offer(Frame(base + POOL + page)).expect("room");
        }
        Self { peer, tables, imports: Vec::new(), borrowed: Vec::new(), alive: true }
    }

    fn page_frame(&self, page: u32) -> Frame {
        Frame(region(self.peer.cell).start.0 + 0x400 + POOL + u64::from(page))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Import { client: usize, home: usize, page: u32, writable: bool },
    Release { client: usize, which: usize, lost: bool },
    Use { client: usize, which: usize },
    Borrow { client: usize, home: usize, count: u64 },
    Return { client: usize, which: usize, lost: bool },
    Store { cell: usize, home: usize, offset: u64 },
    Drain { cell: usize },
    Settle { cell: usize },
    Die { cell: usize, twice: bool },
    Reboot { cell: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let one = || 0..CELLS;
    prop_oneof![
        4 => (one(), one(), 0..PAGES as u32 + 1, any::<bool>())
            .prop_map(|(client, home, page, writable)| Step::Import { client, home, page, writable }),
        2 => (one(), 0usize..4, any::<bool>())
            .prop_map(|(client, which, lost)| Step::Release { client, which, lost }),
        2 => (one(), 0usize..4).prop_map(|(client, which)| Step::Use { client, which }),
        3 => (one(), one(), 0u64..20).prop_map(|(client, home, count)| Step::Borrow { client, home, count }),
        2 => (one(), 0usize..4, any::<bool>())
            .prop_map(|(client, which, lost)| Step::Return { client, which, lost }),
        4 => (one(), one(), 0..POOL + PAGES).prop_map(|(cell, home, offset)| Step::Store { cell, home, offset }),
        2 => one().prop_map(|cell| Step::Drain { cell }),
        2 => one().prop_map(|cell| Step::Settle { cell }),
        1 => (one(), any::<bool>()).prop_map(|(cell, twice)| Step::Die { cell, twice }),
        1 => one().prop_map(|cell| Step::Reboot { cell }),
    ]
}

struct World {
    machine: Machine,
    members: Vec<Member>,
    epoch: Epoch,
    policy: Discard,
}

impl World {
    fn new(policy: Discard) -> Self {
        let members = (0..CELLS).map(|number| Member::boot(cell_id(number), 1)).collect();
        Self { machine: Machine::default(), members, epoch: Epoch(0), policy }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Import { client, home, page, writable } => {
                let access = if writable { Access::Write } else { Access::Read };
                self.import(client, home, PageIndex(page), access);
            }
            Step::Release { client, which, lost } => self.release(client, which, lost),
            Step::Use { client, which } => self.use_import(client, which),
            Step::Borrow { client, home, count } => self.borrow_frames(client, home, count),
            Step::Return { client, which, lost } => self.give_back(client, which, lost),
            Step::Store { cell, home, offset } => {
                let frame = Frame(region(cell_id(home)).start.0 + 0x400 + offset);
                self.machine.store(frame, cell_id(cell));
            }
            Step::Drain { cell } => self.machine.drain(cell_id(cell)),
            Step::Settle { cell } => self.settle(cell),
            Step::Die { cell, twice } => self.die(cell, twice),
            Step::Reboot { cell } => self.reboot(cell),
        }
    }

    /// Whether the transport carries a request from `client` to `home`.
    fn pair(&self, client: usize, home: usize) -> bool {
        client != home && self.members[client].alive && self.members[home].alive
    }

    fn answer(&mut self, client: usize, ask: &Ask) -> Result<ImportedPage, SharingError> {
        let peer = self.members[client].peer;
        let home = &mut self.members[ask.home.cell.index()];
        assert!(home.alive, "asked a dead home");
        let export =
            home.tables.exports.export(peer, ask.page, ask.access, &mut self.machine)?;
        Ok(answer_of(export.frame, export.generation))
    }

    fn import(&mut self, client: usize, home: usize, page: PageIndex, access: Access) {
        if !self.pair(client, home) {
            return;
        }
        let target = self.members[home].peer;
        let begun = self.members[client].tables.imports.begin(target, page, access);
        let import = match begun {
            Ok(Begin::Held(import)) => import,
            Ok(Begin::Ask(ask)) => {
                let answer = self.answer(client, &ask);
                let imports = &mut self.members[client].tables.imports;
                let done = match answer {
                    Ok(export) => imports.complete(ask, export, region(target.cell), self.epoch),
                    Err(error) => Err(imports.abandon(ask, error)),
                };
                match done {
                    Ok(import) => import,
                    Err(error) => {
                        let blamed = error.blame() == super::Blame::Peer;
                        return assert!(!blamed || page.0 >= PAGES as u32, "{error:?}");
                    }
                }
            }
            Err(error) => return assert_eq!(error, SharingError::InTransit),
        };
        self.members[client].imports.push(import);
    }

    fn release(&mut self, client: usize, which: usize, lost: bool) {
        let member = &mut self.members[client];
        if !member.alive || which >= member.imports.len() {
            return;
        }
        let import = member.imports.swap_remove(which);
        member.tables.imports.release(import);
        let Some(request) = member.tables.imports.next_release() else { return };
        let peer = member.peer;
        let home = &mut self.members[request.home.cell.index()];
        assert!(home.alive && home.peer == request.home, "told a dead home");
        let outcome = home.tables.exports.release(peer, request.page, &mut self.machine);
        assert_eq!(outcome, Ok(()));
        let imports = &mut self.members[client].tables.imports;
        if lost { imports.not_released(request) } else { imports.released(request) }
    }

    fn use_import(&mut self, client: usize, which: usize) {
        let epoch = self.epoch;
        let member = &mut self.members[client];
        if !member.alive || which >= member.imports.len() {
            return;
        }
        let (tables, import) = (&mut member.tables, &member.imports[which]);
        let home = import.home();
        match tables.imports.usable(import, epoch) {
            Ok(Use::Ready(frame)) => self.check_usable(client, which, frame),
            Ok(Use::Confirm(ask)) => {
                let answer = self.answer(client, &ask);
                let imports = &mut self.members[client].tables.imports;
                let _ = match answer {
                    Ok(export) => imports.confirm(ask, export, region(home.cell), epoch),
                    Err(error) => Err(imports.abandon(ask, error)),
                };
            }
            Err(SharingError::PeerGone(cell)) => {
                assert_eq!(cell, home.cell);
                assert!(!self.lives(home), "a live home is not gone");
            }
            Err(error) => assert!(matches!(error, SharingError::StaleGeneration { .. })),
        }
    }

    fn lives(&self, peer: Peer) -> bool {
        let member = &self.members[peer.cell.index()];
        member.alive && member.peer == peer
    }

    fn check_usable(&self, client: usize, which: usize, frame: Frame) {
        let import = &self.members[client].imports[which];
        assert!(self.lives(import.home()), "the page of a dead cell is usable");
        let home = &self.members[import.home().cell.index()];
        let page = (0..PAGES as u32).find(|&page| home.page_frame(page) == frame);
        let own = home.tables.exports.own(PageIndex(page.expect("a page of the home")));
        assert_eq!(own.map(|export| export.generation), Ok(import.generation()));
    }

    fn borrow_frames(&mut self, client: usize, home: usize, count: u64) {
        if !self.pair(client, home) {
            return;
        }
        let target = self.members[home].peer;
        if self.members[client].tables.borrowings.may_borrow(target, count).is_err() {
            return;
        }
        let peer = self.members[client].peer;
        let lent = self.members[home].tables.loans.lend(peer, count, &mut self.machine);
        let Ok(frames) = lent else { return };
        let member = &mut self.members[client];
        let region = region(target.cell);
        let borrowed = member.tables.borrowings.accept(target, count, &list_of(frames), region);
        member.borrowed.push(borrowed.expect("an honest loan is accepted"));
    }

    fn give_back(&mut self, client: usize, which: usize, lost: bool) {
        let member = &mut self.members[client];
        if !member.alive || which >= member.borrowed.len() {
            return;
        }
        let borrowed = member.borrowed.swap_remove(which);
        member.tables.borrowings.give_back(borrowed);
        let Some(request) = member.tables.borrowings.next_return() else { return };
        let peer = member.peer;
        let home = &mut self.members[request.home.cell.index()];
        assert!(home.alive && home.peer == request.home, "told a dead home");
        let outcome = home.tables.loans.take_back(peer, request.frames, &mut self.machine);
        assert!(outcome.is_ok());
        let borrowings = &mut self.members[client].tables.borrowings;
        if lost { borrowings.not_returned(request) } else { borrowings.returned(request) }
    }

    fn settle(&mut self, number: usize) {
        let World { machine, members, .. } = self;
        let member = &mut members[number];
        if member.alive {
            let mut recreated = Vec::new();
            member.tables.settle(machine, |_, frame| recreated.push(frame));
            for frame in recreated {
                machine.stained.remove(&frame);
            }
        }
    }

    fn die(&mut self, number: usize, twice: bool) {
        if !self.members[number].alive {
            return;
        }
        let dead = self.members[number].peer;
        self.members[number].alive = false;
        self.machine.expel(dead.cell);
        self.epoch = self.epoch.next();
        let World { machine, members, policy, .. } = self;
        for member in members.iter_mut().filter(|member| member.alive) {
            let report = member.tables.recover(&[dead], *policy, machine);
            assert!(report.pages.written <= report.pages.writable);
            assert!(report.pages.discarded <= report.pages.writable);
            if twice {
                let again = member.tables.recover(&[dead], *policy, machine);
                assert_eq!(again, super::RecoveryReport::default(), "not idempotent");
            }
            for page in 0..PAGES as u32 {
                assert!(!member.tables.exports.writers(PageIndex(page)).contains(dead.cell));
            }
        }
        for (&frame, writers) in &self.machine.writers {
            let home = self.members.iter().find(|member| region(member.peer.cell).contains(frame));
            assert!(!home.is_some_and(|home| home.alive) || !writers.contains(dead.cell));
        }
    }

    fn reboot(&mut self, number: usize) {
        if self.members[number].alive {
            return;
        }
        let cell = cell_id(number);
        let life = self.members[number].peer.incarnation.0 + 1;
        self.machine.drain(cell); // the fence
        self.machine.expelled = self.machine.expelled.without(cell);
        self.machine.dirty.retain(|&(_, writer)| writer != cell);
        for writers in self.machine.writers.values_mut() {
            *writers = writers.without(cell);
        }
        let own = region(cell);
        self.machine.writers.retain(|&frame, _| !own.contains(frame));
        self.machine.stale.retain(|&(frame, _)| !own.contains(frame));
        self.machine.dirty.retain(|&(frame, _)| !own.contains(frame));
        self.machine.stained.retain(|&frame, _| !own.contains(frame));
        self.members[number] = Member::boot(cell, life);
    }

    /// What holds after every step.
    fn check(&self) {
        let mut held = HashSet::new();
        for member in self.members.iter().filter(|member| member.alive) {
            let counts = member.tables.loans.counts();
            let total = counts.free + counts.lent + counts.returning + counts.fencing;
            assert_eq!(u64::from(total), POOL, "a frame was lost");
            self.check_pages(member);
            for borrowed in &member.borrowed {
                for index in 0..borrowed.count() {
                    let Ok(frame) = member.tables.borrowings.frame(borrowed, index) else { continue };
                    assert!(self.lives(borrowed.home()));
                    assert!(held.insert(frame.address()), "a frame is lent twice");
                }
            }
        }
    }

    /// A page that is served was not written by a cell that is dead, and no dead cell can reach it with a dirty
    /// translation.
    fn check_pages(&self, member: &Member) {
        for page in 0..PAGES as u32 {
            if member.tables.exports.own(PageIndex(page)).is_err() {
                continue;
            }
            let frame = member.page_frame(page);
            for dead in self.members.iter().filter(|other| !other.alive) {
                let cell = dead.peer.cell;
                let key = (frame, cell);
                let can_store = self.machine.reaches(frame, cell) && self.machine.dirty.contains(&key);
                assert!(!can_store, "a dead cell can write a served page");
            }
        }
    }
}

/// A page stained by a cell stays served only while that cell lives, or if its stay ended in order before its death.
fn stains_are_discarded(world: &World, before: &HashMap<Frame, CellId>, dead: CellId) {
    for member in world.members.iter().filter(|member| member.alive) {
        for page in 0..PAGES as u32 {
            let frame = member.page_frame(page);
            let stained = before.get(&frame) == Some(&dead);
            let was_exposed = world.machine.stale.contains(&(frame, dead));
            if stained && was_exposed {
                let own = member.tables.exports.own(PageIndex(page));
                assert_eq!(own, Err(SharingError::Discarded), "a damaged page is served");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
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
        assert!((0..PAGES as u32).all(|page| world.members[0].tables.exports.own(PageIndex(page)).is_ok()));
    }
}

#[test]
fn what_a_sick_home_answers_is_refused() {
    let mut client = Member::boot(cell_id(0), 1);
    let home = Peer { cell: cell_id(1), incarnation: Incarnation(1) };
    let generation = Generation::first(home.incarnation);
    let mut answer = |page, frame| {
        let imports = &mut client.tables.imports;
        match imports.begin(home, PageIndex(page), Access::Write) {
            Ok(Begin::Ask(ask)) => {
                let answer = answer_of(frame, generation);
                imports.complete(ask, answer, region(home.cell), Epoch(0)).map(|_| ())
            }
            other => panic!("{other:?}"),
        }
    };
    let own_frame = Frame(region(cell_id(0)).start.0 + 0x400);
    assert_eq!(answer(0, own_frame), Err(SharingError::OutsideRegion));
    assert_eq!(answer(0, Frame(u64::MAX)), Err(SharingError::OutsideRegion));
    assert_eq!(answer(0, region(home.cell).start), Err(SharingError::OutsideRegion), "public area");
    let good = Frame(region(home.cell).start.0 + 0x400);
    assert_eq!(answer(1, good), Ok(()));
    assert_eq!(answer(2, good), Err(SharingError::FrameTwice));

    let borrowings = &mut client.tables.borrowings;
    let mut accept = |frames: &[u64], count| {
        let frames: Vec<Frame> = frames.iter().map(|offset| Frame(good.0 + offset)).collect();
        let list = FrameList::new(&frames).expect("a list");
        borrowings.accept(home, count, &list, region(home.cell)).map(|borrowed| borrowed.count())
    };
    assert_eq!(accept(&[0, 1], 1), Err(SharingError::BadCount));
    assert_eq!(accept(&[0, 2], 2), Err(SharingError::OutsideRegion), "not a run");
    assert_eq!(accept(&[1, 0], 2), Err(SharingError::OutsideRegion), "not a run");
    assert_eq!(accept(&[REGION], 1), Err(SharingError::OutsideRegion));
    assert_eq!(accept(&[0, 1], 3), Ok(2), "a home may give fewer");
    assert_eq!(accept(&[1], 1), Err(SharingError::FrameTwice));
}

#[test]
fn an_answer_that_comes_after_the_death_is_not_used() {
    let mut client = Member::boot(cell_id(0), 1);
    let home = Peer { cell: cell_id(1), incarnation: Incarnation(1) };
    let imports = &mut client.tables.imports;
    let Ok(Begin::Ask(ask)) = imports.begin(home, PageIndex(0), Access::Read) else {
        panic!("nothing is held")
    };
    assert_eq!(imports.drop_departed(&[home]), 1);
    let frame = Frame(region(home.cell).start.0 + 0x400);
    let answer = answer_of(frame, Generation::first(home.incarnation));
    let late = imports.complete(ask, answer, region(home.cell), Epoch(1));
    assert_eq!(late, Err(SharingError::PeerGone(home.cell)));
    assert_eq!(
        imports.begin(home, PageIndex(0), Access::Read),
        Err(SharingError::PeerGone(home.cell))
    );
}

#[test]
fn a_sick_client_gets_nothing_by_lying() {
    let mut machine = Machine::default();
    let mut home = Member::boot(cell_id(0), 1);
    let client = Peer { cell: cell_id(1), incarnation: Incarnation(2) };
    let stale = Peer { incarnation: Incarnation(1), ..client };
    let (exports, loans) = (&mut home.tables.exports, &mut home.tables.loans);
    let missing = exports.export(client, PageIndex(99), Access::Read, &mut machine);
    assert_eq!(missing, Err(SharingError::NoSuchPage));
    assert_eq!(exports.release(client, PageIndex(0), &mut machine), Ok(()));
    assert_eq!(
        exports.export(stale, PageIndex(0), Access::Write, &mut machine),
        Err(SharingError::StaleLife)
    );
    assert_eq!(loans.lend(client, u64::MAX, &mut machine), Err(SharingError::BadCount));
    assert_eq!(loans.lend(client, 0, &mut machine), Err(SharingError::BadCount));
    let frames = loans.lend(client, 11, &mut machine).expect("less than half of the pool");
    assert_eq!(loans.lend(client, 2, &mut machine), Err(SharingError::QuotaExceeded));
    let other = Peer { cell: cell_id(2), incarnation: Incarnation(1) };
    let outside = FrameRange { end: Frame(frames.start.0 + POOL + 1), ..frames };
    assert_eq!(loans.take_back(client, outside, &mut machine), Err(SharingError::NotLent));
    assert_eq!(loans.take_back(stale, frames, &mut machine), Err(SharingError::StaleLife));
    assert_eq!(loans.take_back(other, frames, &mut machine), Ok(0), "not its own");
    assert_eq!(loans.take_back(client, frames, &mut machine), Ok(11));
    assert_eq!(loans.take_back(client, frames, &mut machine), Ok(0), "twice is once");
}

#[test]
fn a_late_loan_is_returned_and_not_used() {
    let mut client = Member::boot(cell_id(0), 1);
    let home = Peer { cell: cell_id(1), incarnation: Incarnation(1) };
    let start = Frame(region(home.cell).start.0 + 0x400);
    let frames = FrameRange { start, end: Frame(start.0 + 3) };
    let borrowings = &mut client.tables.borrowings;
    let list = list_of(frames);
    assert_eq!(borrowings.accept_late(home, &list, region(home.cell)), Ok(()));
    let again = borrowings.accept(home, 3, &list, region(home.cell));
    assert_eq!(again, Err(SharingError::InTransit));
    let request = borrowings.next_return().expect("waits to be returned");
    assert_eq!((request.home, request.frames), (home, frames));
    assert_eq!(borrowings.next_return(), None);
    borrowings.not_returned(request);
    let request = borrowings.next_return().expect("is tried again");
    borrowings.returned(request);
    assert_eq!(borrowings.next_return(), None);
}

/// The whole way of the four operations over the wire.
#[test]
fn requests_are_served_and_refused_by_the_letter() {
    use rpc::operation::{BorrowFrames, ClaimedPage, ImportPage, Operation, ReleasePage};
    use rpc::{CallNumber, Payload, ReplyStatus, Request};
    let mut machine = Machine::default();
    let mut home = Member::boot(cell_id(0), 1);
    let own = region(cell_id(0));
    let mut serve = |operation, payload| {
        let (from, incarnation, call) = (cell_id(1), Incarnation(1), CallNumber(1));
        let request = Request { from, incarnation, call, operation, payload };
        home.tables.serve(&request, own, &mut machine)
    };
    let import = ImportPage { page: ClaimedPage::new(1), access: Access::Write };
    let answer = serve(Operation::ImportPage, import.encode()).expect("about memory");
    assert_eq!(answer.status, ReplyStatus::Done);
    assert!(ImportedPage::decode(answer.payload).is_some());
    let missing = ImportPage { page: ClaimedPage::new(u64::MAX), ..import };
    let answer = serve(Operation::ImportPage, missing.encode()).expect("about memory");
    assert_eq!(answer.status, ReplyStatus::BadArgument);
    assert_eq!(answer.error.map(SharingError::blame), Some(super::Blame::Peer));
    let release = ReleasePage { page: ClaimedPage::new(1) }.encode();
    assert_eq!(serve(Operation::ReleasePage, release).map(|a| a.status), Some(ReplyStatus::Done));
    let borrow = BorrowFrames { count: 4 }.encode();
    let answer = serve(Operation::BorrowFrames, borrow).expect("about memory");
    assert_eq!(answer.status, ReplyStatus::Done);
    let back = serve(Operation::ReturnFrames, answer.payload).expect("about memory");
    assert_eq!(back.status, ReplyStatus::Done);
    for operation in [Operation::ImportPage, Operation::BorrowFrames, Operation::ReturnFrames] {
        let answer = serve(operation, Payload::EMPTY).expect("about memory");
        assert_eq!(answer.status, ReplyStatus::BadArgument);
    }
    assert_eq!(serve(Operation::Null, Payload::EMPTY), None);
}
