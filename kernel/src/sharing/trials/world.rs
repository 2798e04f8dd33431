//! Four cells that share memory, die and come back.

use std::collections::HashSet;

use cell::parameters::Discard;
use cell::{CellId, Epoch, Frame, FrameRange, Incarnation};
use rpc::operation::{Access, ImportedPage};

use super::histories::Step;
use super::machine::Machine;
use super::{CELLS, PAGES, POOL, answer_of, cell_id, region};
use crate::sharing::borrowings::Borrowed;
use crate::sharing::claim::{PageIndex, Peer};
use crate::sharing::discard::{RecoveryReport, Tables};
use crate::sharing::error::{Blame, SharingError};
use crate::sharing::imports::{Ask, Begin, Import, Use};
use crate::sharing::service::list_of;

pub(super) struct Member {
    pub(super) peer: Peer,
    pub(super) tables: Tables,
    pub(super) imports: Vec<Import>,
    pub(super) borrowed: Vec<Borrowed>,
    pub(super) alive: bool,
}

impl Member {
    pub(super) fn boot(cell: CellId, life: u32) -> Self {
        let peer = Peer {
            cell,
            incarnation: Incarnation(life),
        };
        let base = region(cell).start.0 + 0x400;
        let pool = FrameRange {
            start: Frame(base),
            end: Frame(base + POOL),
        };
        let mut tables = Tables::new(peer.incarnation, pool);
        for page in 0..PAGES {
            tables
                .exports
                .offer(Frame(base + POOL + page))
                .expect("room");
        }
        Self {
            peer,
            tables,
            imports: Vec::new(),
            borrowed: Vec::new(),
            alive: true,
        }
    }

    pub(super) fn page_frame(&self, page: u32) -> Frame {
        Frame(region(self.peer.cell).start.0 + 0x400 + POOL + u64::from(page))
    }
}

pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) members: Vec<Member>,
    pub(super) epoch: Epoch,
    pub(super) policy: Discard,
}

impl World {
    pub(super) fn new(policy: Discard) -> Self {
        let members = (0..CELLS)
            .map(|number| Member::boot(cell_id(number), 1))
            .collect();
        Self {
            machine: Machine::default(),
            members,
            epoch: Epoch(0),
            policy,
        }
    }

    pub(super) fn run(&mut self, step: Step) {
        match step {
            Step::Import {
                client,
                home,
                page,
                writable,
            } => {
                let access = if writable {
                    Access::Write
                } else {
                    Access::Read
                };
                self.import(client, home, PageIndex(page), access);
            }
            Step::Release {
                client,
                which,
                lost,
            } => self.release(client, which, lost),
            Step::Use { client, which } => self.use_import(client, which),
            Step::Borrow {
                client,
                home,
                count,
            } => self.borrow_frames(client, home, count),
            Step::Return {
                client,
                which,
                lost,
            } => self.give_back(client, which, lost),
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
    pub(super) fn pair(&self, client: usize, home: usize) -> bool {
        client != home && self.members[client].alive && self.members[home].alive
    }

    pub(super) fn answer(
        &mut self,
        client: usize,
        ask: &Ask,
    ) -> Result<ImportedPage, SharingError> {
        let peer = self.members[client].peer;
        let home = &mut self.members[ask.home.cell.index()];
        assert!(home.alive, "asked a dead home");
        let export = home
            .tables
            .exports
            .export(peer, ask.page, ask.access, &mut self.machine)?;
        Ok(answer_of(export.frame, export.generation))
    }

    pub(super) fn import(&mut self, client: usize, home: usize, page: PageIndex, access: Access) {
        if !self.pair(client, home) {
            return;
        }
        let target = self.members[home].peer;
        let begun = self.members[client]
            .tables
            .imports
            .begin(target, page, access);
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
                        let blamed = error.blame() == Blame::Peer;
                        return assert!(!blamed || page.0 >= PAGES as u32, "{error:?}");
                    }
                }
            }
            Err(error) => return assert_eq!(error, SharingError::InTransit),
        };
        self.members[client].imports.push(import);
    }

    pub(super) fn release(&mut self, client: usize, which: usize, lost: bool) {
        let member = &mut self.members[client];
        if !member.alive || which >= member.imports.len() {
            return;
        }
        let import = member.imports.swap_remove(which);
        member.tables.imports.release(import);
        let Some(request) = member.tables.imports.next_release() else {
            return;
        };
        let peer = member.peer;
        let home = &mut self.members[request.home.cell.index()];
        assert!(home.alive && home.peer == request.home, "told a dead home");
        let outcome = home
            .tables
            .exports
            .release(peer, request.page, &mut self.machine);
        assert_eq!(outcome, Ok(()));
        let imports = &mut self.members[client].tables.imports;
        if lost {
            imports.not_released(request);
        } else {
            imports.released(request);
        }
    }

    pub(super) fn use_import(&mut self, client: usize, which: usize) {
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

    pub(super) fn lives(&self, peer: Peer) -> bool {
        let member = &self.members[peer.cell.index()];
        member.alive && member.peer == peer
    }

    pub(super) fn check_usable(&self, client: usize, which: usize, frame: Frame) {
        let import = &self.members[client].imports[which];
        assert!(
            self.lives(import.home()),
            "the page of a dead cell is usable"
        );
        let home = &self.members[import.home().cell.index()];
        let page = (0..PAGES as u32).find(|&page| home.page_frame(page) == frame);
        let own = home
            .tables
            .exports
            .own(PageIndex(page.expect("a page of the home")));
        assert_eq!(own.map(|export| export.generation), Ok(import.generation()));
    }

    pub(super) fn borrow_frames(&mut self, client: usize, home: usize, count: u64) {
        if !self.pair(client, home) {
            return;
        }
        let target = self.members[home].peer;
        if self.members[client]
            .tables
            .borrowings
            .may_borrow(target, count)
            .is_err()
        {
            return;
        }
        let peer = self.members[client].peer;
        let lent = self.members[home]
            .tables
            .loans
            .lend(peer, count, &mut self.machine);
        let Ok(frames) = lent else { return };
        let member = &mut self.members[client];
        let region = region(target.cell);
        let borrowed = member
            .tables
            .borrowings
            .accept(target, count, &list_of(frames), region);
        match borrowed {
            Ok(borrowed) => member.borrowed.push(borrowed),
            // The home lends again what it took back without an answer; the return that is tried
            // again brings the frames home.
            Err(error) => assert_eq!(error, SharingError::InTransit),
        }
    }

    pub(super) fn give_back(&mut self, client: usize, which: usize, lost: bool) {
        let member = &mut self.members[client];
        if !member.alive || which >= member.borrowed.len() {
            return;
        }
        let borrowed = member.borrowed.swap_remove(which);
        member.tables.borrowings.give_back(borrowed);
        let Some(request) = member.tables.borrowings.next_return() else {
            return;
        };
        let peer = member.peer;
        let home = &mut self.members[request.home.cell.index()];
        assert!(home.alive && home.peer == request.home, "told a dead home");
        let outcome = home
            .tables
            .loans
            .take_back(peer, request.frames, &mut self.machine);
        assert!(outcome.is_ok());
        let borrowings = &mut self.members[client].tables.borrowings;
        if lost {
            borrowings.not_returned(request);
        } else {
            borrowings.returned(request);
        }
    }

    pub(super) fn settle(&mut self, number: usize) {
        let World {
            machine, members, ..
        } = self;
        let member = &mut members[number];
        if member.alive {
            let mut recreated = Vec::new();
            member
                .tables
                .settle(machine, |_, frame| recreated.push(frame));
            for frame in recreated {
                machine.stained.remove(&frame);
            }
        }
    }

    pub(super) fn die(&mut self, number: usize, twice: bool) {
        if !self.members[number].alive {
            return;
        }
        let dead = self.members[number].peer;
        self.members[number].alive = false;
        self.machine.expel(dead.cell);
        self.epoch = self.epoch.next();
        let World {
            machine,
            members,
            policy,
            ..
        } = self;
        for member in members.iter_mut().filter(|member| member.alive) {
            let report = member.tables.recover(&[dead], *policy, machine);
            assert!(report.pages.written <= report.pages.writable);
            assert!(report.pages.discarded <= report.pages.writable);
            if twice {
                let again = member.tables.recover(&[dead], *policy, machine);
                assert_eq!(again, RecoveryReport::default(), "not idempotent");
            }
            for page in 0..PAGES as u32 {
                assert!(
                    !member
                        .tables
                        .exports
                        .writers(PageIndex(page))
                        .contains(dead.cell)
                );
            }
        }
        for (&frame, writers) in &self.machine.writers {
            let home = self
                .members
                .iter()
                .find(|member| region(member.peer.cell).contains(frame));
            assert!(!home.is_some_and(|home| home.alive) || !writers.contains(dead.cell));
        }
    }

    pub(super) fn reboot(&mut self, number: usize) {
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
        self.machine
            .writers
            .retain(|&frame, _| !own.contains(frame));
        self.machine
            .stale
            .retain(|&(frame, _)| !own.contains(frame));
        self.machine
            .dirty
            .retain(|&(frame, _)| !own.contains(frame));
        self.machine
            .stained
            .retain(|&frame, _| !own.contains(frame));
        self.members[number] = Member::boot(cell, life);
    }

    /// What holds after every step.
    pub(super) fn check(&self) {
        let mut held = HashSet::new();
        for member in self.members.iter().filter(|member| member.alive) {
            let counts = member.tables.loans.counts();
            let total = counts.free + counts.lent + counts.returning + counts.fencing;
            assert_eq!(u64::from(total), POOL, "a frame was lost");
            self.check_pages(member);
            for borrowed in &member.borrowed {
                for index in 0..borrowed.count() {
                    let Ok(frame) = member.tables.borrowings.frame(borrowed, index) else {
                        continue;
                    };
                    assert!(self.lives(borrowed.home()));
                    assert!(held.insert(frame.address()), "a frame is lent twice");
                }
            }
        }
    }

    /// A page that is served was not written by a cell that is dead, and no dead cell can reach it
    /// with a dirty translation.
    pub(super) fn check_pages(&self, member: &Member) {
        for page in 0..PAGES as u32 {
            if member.tables.exports.own(PageIndex(page)).is_err() {
                continue;
            }
            let frame = member.page_frame(page);
            for dead in self.members.iter().filter(|other| !other.alive) {
                let cell = dead.peer.cell;
                let key = (frame, cell);
                let can_store =
                    self.machine.reaches(frame, cell) && self.machine.dirty.contains(&key);
                assert!(!can_store, "a dead cell can write a served page");
            }
        }
    }
}
