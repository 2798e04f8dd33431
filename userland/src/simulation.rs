//! A machine of several cells in one process, for the trials of the workload.
//!
//! It has what matters to a worker: pages with generations and writers, frames on loan, calls that
//! time out, an epoch that changes, a recovery that holds work between cells, and the ways in which
//! all this can go wrong.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use cell::trace::Event;
use cell::workload::WorkloadRecord;
use cell::{CellId, CellSet, Epoch, Incarnation, Instant};

use crate::account::{self, Account};
use crate::call::{CALL_WORDS, answer};
use crate::lane::{PAGE_WORDS, pages_needed};
use crate::pattern::{Generator, Pattern, Purpose};
use crate::services::{Reason, Services, WorkError};
use crate::worker::{Worker, WorkerSettings};

pub(crate) const CELLS: usize = 4;
pub(crate) const WORKERS: usize = 2;
pub(crate) const SEED: u64 = 1995;
pub(crate) const DOUBT: Duration = Duration::from_millis(40);

const FRAMES: usize = 16;
/// Workers wait one after the other here, so a call is short.
const CALL_TIME: u64 = 300_000;

pub(crate) fn cell(number: usize) -> CellId {
    CellId::new(number).expect("below the limit")
}

#[derive(Clone)]
pub(crate) struct SimulatedPage {
    pub(crate) words: Vec<u64>,
    pub(crate) generation: u64,
    writers: HashMap<CellId, u32>,
    dirty: CellSet,
}

impl SimulatedPage {
    /// Takes the grant of `cell` away, as if it had released the page.
    pub(crate) fn forget(&mut self, cell: CellId) {
        self.writers.remove(&cell);
        self.dirty = self.dirty.without(cell);
    }
}

#[derive(Clone)]
pub(crate) struct SimulatedFrame {
    pub(crate) words: Vec<u64>,
    pub(crate) borrower: Option<(CellId, Incarnation)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Sound,
    Silent,
    Dead,
}

pub(crate) struct SimulatedCell {
    pub(crate) health: Health,
    pub(crate) life: Incarnation,
    pub(crate) pages: Vec<SimulatedPage>,
    pub(crate) frames: Vec<SimulatedFrame>,
}

impl SimulatedCell {
    fn boot(life: Incarnation) -> Self {
        let page = SimulatedPage {
            words: vec![0; PAGE_WORDS],
            generation: u64::from(life.0) << 32,
            writers: HashMap::new(),
            dirty: CellSet::EMPTY,
        };
        let frame = SimulatedFrame {
            words: vec![0; PAGE_WORDS],
            borrower: None,
        };
        Self {
            health: Health::Sound,
            life,
            pages: vec![page; pages_needed(CELLS)],
            frames: vec![frame; FRAMES],
        }
    }
}

/// What is wrong with the machine itself, so that the workload must find it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    None,
    /// The discard forgets the pages that a dead cell wrote.
    ForgottenDiscard,
    /// One reply in a hundred has a flipped bit.
    SpoiltReplies,
    /// One request in a hundred has a flipped bit.
    SpoiltRequests,
    /// A frame is lent to two borrowers.
    DoubleLoans,
}

pub(crate) struct Machine {
    now: u64,
    epoch: Epoch,
    live: CellSet,
    expelled: Vec<(Epoch, CellId)>,
    is_held: bool,
    flaw: Flaw,
    pub(crate) chance: Generator,
    pub(crate) cells: Vec<SimulatedCell>,
}

impl Machine {
    fn error(&self, cell: CellId) -> Option<Reason> {
        let health = self.cells[cell.index()].health;
        if health == Health::Dead {
            Some(Reason::Gone)
        } else if self.is_held {
            Some(Reason::Held)
        } else {
            None
        }
    }

    /// What a call to `cell` comes to before the cell answers anything.
    fn reach(&mut self, cell: CellId) -> Result<(), WorkError> {
        if let Some(reason) = self.error(cell) {
            return Err(WorkError { cell, reason });
        }
        if self.cells[cell.index()].health == Health::Silent {
            self.now += CALL_TIME;
            return Err(WorkError {
                cell,
                reason: Reason::TimedOut,
            });
        }
        Ok(())
    }

    fn spoil(&mut self, flaw: Flaw, words: &mut [u64; CALL_WORDS]) {
        if self.flaw == flaw && self.chance.below(100) == 0 {
            words[self.chance.below(CALL_WORDS)] ^= 1 << self.chance.below(64);
        }
    }

    /// The page that a handle stands for, if it may be used.
    fn page(&mut self, page: &PageHandle) -> Result<&mut SimulatedPage, WorkError> {
        let home = page.home;
        if self.cells[home.index()].life != page.life {
            return Err(WorkError {
                cell: home,
                reason: Reason::Gone,
            });
        }
        if let Some(reason) = self.error(home) {
            return Err(WorkError { cell: home, reason });
        }
        let found = &mut self.cells[home.index()].pages[page.page as usize];
        if found.generation != page.generation {
            return Err(WorkError {
                cell: home,
                reason: Reason::Stale,
            });
        }
        Ok(found)
    }

    fn frame(&mut self, loan: &LoanHandle, frame: usize) -> Result<&mut [u64], WorkError> {
        let home = loan.home;
        if self.cells[home.index()].life != loan.life {
            return Err(WorkError {
                cell: home,
                reason: Reason::Gone,
            });
        }
        if let Some(reason) = self.error(home) {
            return Err(WorkError { cell: home, reason });
        }
        Ok(&mut self.cells[home.index()].frames[loan.frames[frame]].words)
    }

    /// Stores of a sick cell wherever the firewall lets it: its own memory, pages granted to it,
    /// frames lent to it.
    pub(crate) fn scribble(&mut self, sick: CellId, stores: usize) {
        for _ in 0..stores {
            let home = self.chance.below(CELLS);
            let (word, value) = (
                self.chance.below(PAGE_WORDS),
                self.chance.below(usize::MAX) as u64,
            );
            let own = home == sick.index();
            if self.chance.below(2) == 0 {
                let number = self.chance.below(self.cells[home].pages.len());
                let page = &mut self.cells[home].pages[number];
                if own || page.writers.contains_key(&sick) {
                    page.words[word] = value;
                    page.dirty = page.dirty.with(sick);
                }
            } else {
                let frame = self.chance.below(FRAMES);
                let frame = &mut self.cells[home].frames[frame];
                if own || frame.borrower.is_some_and(|(borrower, _)| borrower == sick) {
                    frame.words[word] = value;
                }
            }
        }
    }

    /// The vote: the cell is out, the recovery is not done yet.
    pub(crate) fn expel(&mut self, dead: CellId) {
        self.epoch = self.epoch.next();
        self.live = self.live.without(dead);
        self.expelled.push((self.epoch, dead));
        self.cells[dead.index()].health = Health::Dead;
    }

    pub(crate) fn hold(&mut self) {
        self.is_held = true;
    }

    /// The discard and the end of the recovery.
    pub(crate) fn recover(&mut self, dead: CellId) {
        let forgets = self.flaw == Flaw::ForgottenDiscard;
        for home in &mut self.cells {
            for page in &mut home.pages {
                let exposed = page.writers.remove(&dead).is_some();
                if exposed && page.dirty.contains(dead) && !forgets {
                    page.words.fill(0);
                    page.generation += 1;
                    page.writers.clear();
                    page.dirty = CellSet::EMPTY;
                }
            }
            for frame in &mut home.frames {
                frame.borrower = frame.borrower.filter(|(borrower, _)| *borrower != dead);
            }
        }
        self.is_held = false;
    }

    pub(crate) fn rejoin(&mut self, back: CellId) {
        let life = self.cells[back.index()].life.next();
        self.cells[back.index()] = SimulatedCell::boot(life);
        self.epoch = self.epoch.next();
        self.live = self.live.with(back);
    }
}

/// An imported page.
#[derive(Debug)]
pub(crate) struct PageHandle {
    home: CellId,
    life: Incarnation,
    page: u32,
    generation: u64,
}

/// Borrowed frames.
#[derive(Debug)]
pub(crate) struct LoanHandle {
    home: CellId,
    life: Incarnation,
    frames: Vec<usize>,
}

#[derive(Clone)]
pub(crate) struct Kernel {
    pub(crate) machine: Rc<RefCell<Machine>>,
    record: Rc<WorkloadRecord>,
    cell: CellId,
}

impl Services for Kernel {
    type Page = PageHandle;
    type Loan = LoanHandle;

    fn now(&self) -> Instant {
        let mut machine = self.machine.borrow_mut();
        machine.now += 5_000;
        Instant(machine.now)
    }

    fn live(&self) -> (Epoch, CellSet) {
        let machine = self.machine.borrow();
        (machine.epoch, machine.live)
    }

    fn expelled_since(&self, epoch: Epoch) -> CellSet {
        let machine = self.machine.borrow();
        let after = machine.expelled.iter().filter(|(when, _)| *when > epoch);
        after.map(|(_, cell)| *cell).collect()
    }

    fn account(&self) -> &WorkloadRecord {
        &self.record
    }

    fn trace(&self, _event: Event, _arguments: [u64; 2]) {}

    fn call(
        &mut self,
        peer: CellId,
        request: &[u64; CALL_WORDS],
    ) -> Result<[u64; CALL_WORDS], WorkError> {
        let mut machine = self.machine.borrow_mut();
        machine.reach(peer)?;
        let mut request = *request;
        machine.spoil(Flaw::SpoiltRequests, &mut request);
        let reply = answer(SEED, peer, self.cell, &request);
        let mut reply = reply.ok_or(WorkError {
            cell: peer,
            reason: Reason::Malformed,
        })?;
        machine.spoil(Flaw::SpoiltReplies, &mut reply);
        Ok(reply)
    }

    fn import(&mut self, home: CellId, page: u32) -> Result<PageHandle, WorkError> {
        let mut machine = self.machine.borrow_mut();
        machine.reach(home)?;
        let owner = &mut machine.cells[home.index()];
        let life = owner.life;
        let found = &mut owner.pages[page as usize];
        *found.writers.entry(self.cell).or_default() += 1;
        Ok(PageHandle {
            home,
            life,
            page,
            generation: found.generation,
        })
    }

    fn generation(&self, page: &PageHandle) -> u64 {
        page.generation
    }

    fn read(
        &mut self,
        page: &PageHandle,
        first: usize,
        words: &mut [u64],
    ) -> Result<(), WorkError> {
        let mut machine = self.machine.borrow_mut();
        words.copy_from_slice(&machine.page(page)?.words[first..first + words.len()]);
        Ok(())
    }

    fn write(&mut self, page: &PageHandle, first: usize, words: &[u64]) -> Result<(), WorkError> {
        let mut machine = self.machine.borrow_mut();
        // A quarantine of this cell, say: the store is refused though the home lives.
        let is_refused = machine.chance.below(300) == 0;
        let found = machine.page(page)?;
        if is_refused {
            return Err(WorkError {
                cell: page.home,
                reason: Reason::Busy,
            });
        }
        assert!(
            found.writers.contains_key(&self.cell),
            "stored without a grant"
        );
        found.words[first..first + words.len()].copy_from_slice(words);
        found.dirty = found.dirty.with(self.cell);
        Ok(())
    }

    fn release(&mut self, page: PageHandle) -> Result<(), WorkError> {
        let mut machine = self.machine.borrow_mut();
        let found = match machine.page(&page) {
            Err(WorkError {
                reason: Reason::Held,
                ..
            }) => &mut machine.cells[page.home.index()].pages[page.page as usize],
            other => other?,
        };
        if let Some(users) = found.writers.get_mut(&self.cell) {
            *users -= 1;
            if *users == 0 {
                found.writers.remove(&self.cell);
                found.dirty = found.dirty.without(self.cell);
            }
        }
        Ok(())
    }

    fn read_own(&mut self, page: u32, first: usize, words: &mut [u64]) -> Result<u64, WorkError> {
        let machine = self.machine.borrow();
        let found = &machine.cells[self.cell.index()].pages[page as usize];
        words.copy_from_slice(&found.words[first..first + words.len()]);
        Ok(found.generation)
    }

    fn borrow(&mut self, home: CellId, count: usize) -> Result<LoanHandle, WorkError> {
        let mut machine = self.machine.borrow_mut();
        machine.reach(home)?;
        let doubles = machine.flaw == Flaw::DoubleLoans;
        let owner = &mut machine.cells[home.index()];
        let life = owner.life;
        let free = |frame: &SimulatedFrame| doubles || frame.borrower.is_none();
        let frames = owner
            .frames
            .iter()
            .enumerate()
            .filter(|(_, frame)| free(frame));
        let frames: Vec<usize> = frames.map(|(number, _)| number).take(count).collect();
        if frames.len() < count {
            return Err(WorkError {
                cell: home,
                reason: Reason::Exhausted,
            });
        }
        for &frame in &frames {
            owner.frames[frame].borrower = Some((self.cell, life));
        }
        Ok(LoanHandle { home, life, frames })
    }

    fn read_frame(
        &mut self,
        loan: &LoanHandle,
        frame: usize,
        first: usize,
        words: &mut [u64],
    ) -> Result<(), WorkError> {
        let mut machine = self.machine.borrow_mut();
        words.copy_from_slice(&machine.frame(loan, frame)?[first..first + words.len()]);
        Ok(())
    }

    fn write_frame(
        &mut self,
        loan: &LoanHandle,
        frame: usize,
        first: usize,
        words: &[u64],
    ) -> Result<(), WorkError> {
        let mut machine = self.machine.borrow_mut();
        machine.frame(loan, frame)?[first..first + words.len()].copy_from_slice(words);
        Ok(())
    }

    fn give_back(&mut self, loan: LoanHandle) -> Result<(), WorkError> {
        let mut machine = self.machine.borrow_mut();
        if machine.cells[loan.home.index()].life == loan.life {
            for &frame in &loan.frames {
                machine.cells[loan.home.index()].frames[frame].borrower = None;
            }
        }
        machine.reach(loan.home)
    }
}

/// The machine and all workers on it.
pub(crate) struct Simulation {
    pub(crate) machine: Rc<RefCell<Machine>>,
    pub(crate) records: Vec<Rc<WorkloadRecord>>,
    workers: Vec<(Kernel, Worker<Kernel>)>,
    order: Generator,
}

impl Simulation {
    pub(crate) fn new(seed: u64, flaw: Flaw) -> Self {
        let pattern = Pattern::new(seed, Purpose::Choice);
        let machine = Machine {
            now: 1,
            epoch: Epoch(0),
            live: CellSet::first(CELLS),
            expelled: Vec::new(),
            is_held: false,
            flaw,
            chance: Generator::new(pattern.of(1)),
            cells: (0..CELLS)
                .map(|_| SimulatedCell::boot(Incarnation(1)))
                .collect(),
        };
        let mut simulation = Self {
            machine: Rc::new(RefCell::new(machine)),
            records: (0..CELLS).map(|_| Rc::new(WorkloadRecord::new())).collect(),
            workers: Vec::new(),
            order: Generator::new(pattern.of(2)),
        };
        (0..CELLS).for_each(|number| simulation.start_workers(cell(number)));
        simulation
    }

    pub(crate) fn start_workers(&mut self, cell: CellId) {
        let life = self.machine.borrow().cells[cell.index()].life;
        let record = Rc::clone(&self.records[cell.index()]);
        let machine = Rc::clone(&self.machine);
        let kernel = Kernel {
            machine,
            record,
            cell,
        };
        account::open(&kernel.record, life, WORKERS, kernel.now());
        self.workers.retain(|(kernel, _)| kernel.cell != cell);
        for worker in 0..WORKERS {
            let settings = WorkerSettings {
                seed: SEED,
                cell,
                life,
                worker,
                doubt: DOUBT,
            };
            self.workers.push((kernel.clone(), Worker::new(settings)));
        }
    }

    /// Lets workers of sound cells work, in random order.
    pub(crate) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            let drawn = self.order.below(self.workers.len());
            let (kernel, worker) = &mut self.workers[drawn];
            let health = self.machine.borrow().cells[kernel.cell.index()].health;
            if health == Health::Sound {
                worker.step(kernel);
            }
        }
    }

    /// Works until every doubt must have ended.
    pub(crate) fn run_to_certainty(&mut self) {
        let end = self.machine.borrow().now + 2 * DOUBT.as_nanos() as u64 + 20_000_000;
        while self.machine.borrow().now < end {
            self.run(50);
        }
    }

    pub(crate) fn silence(&mut self, cell: CellId) {
        self.machine.borrow_mut().cells[cell.index()].health = Health::Silent;
    }

    pub(crate) fn accounts(&self) -> Vec<Account> {
        self.records
            .iter()
            .map(|record| Account::read(record))
            .collect()
    }

    pub(crate) fn now(&self) -> Instant {
        Instant(self.machine.borrow().now)
    }
}
