//! The operation that writes a page of another cell under a grant, and checks it.
//!
//! A worker imports a page, then for a few operations writes the next content into its own lane,
//! reads it back, and looks at the lane of somebody else; then it releases the page. It remembers
//! what it left in each of its lanes, so that it also finds out what happened to them in the
//! meantime. Homes look at the lanes in their own pages.
//!
//! # Invariants
//! 1. The worker's lane holds what it last wrote, or, in a generation that is new to it, nothing.
//! 2. A lane whose content is in doubt is not judged again before it was rewritten.
//! 3. A write that was interrupted is done again with the same stamp. So every state that others
//!    can see is one of the protocol of [`crate::lane`].

use cell::{CELLS_MAX, CellId, CellSet};

use crate::fate::Source;
use crate::lane::pages_needed;
use crate::lane::{BANKS, BEGIN_WORD, LANE_WORDS, LANES, LaneWords, Look, Place, Stamp};
use crate::pattern::{Generator, differing};
use crate::services::{Services, WorkError};
use crate::worker::{Failure, WorkerSettings, unless_differing};

/// Looks at another worker's lane before a reader gives up on a writer that is faster.
const LOOKS_MAX: usize = 4;

/// One in so many operations on a page is the last one before its release.
const OPERATIONS_PER_IMPORT: usize = 4;

/// What a worker knows of one of its lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Memory {
    /// It did not write the lane in this life.
    Unknown,
    /// The lane is of the newest content.
    Settled,
    /// It began to write the newest content and does not know how far it came.
    Interrupted,
    /// What it found there was not as expected.
    Doubtful,
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    memory: Memory,
    generation: u64,
    newest: Stamp,
}

impl Lane {
    /// Takes note of the generation of the page now. A new generation begins blank.
    fn enter(&mut self, generation: u64) {
        if self.generation != generation && self.memory != Memory::Unknown {
            self.memory = Memory::Settled;
            self.newest = Stamp::BLANK;
        }
        self.generation = generation;
    }

    /// How many bytes of `found` are not as expected. What an earlier life of the cell left is
    /// taken over.
    fn check(&mut self, settings: &WorkerSettings, place: Place, found: &LaneWords) -> u64 {
        let look = place.judge(settings.seed, found);
        let expected = match (self.memory, look) {
            (Memory::Doubtful, _) => true,
            (Memory::Unknown, Look::Settled(stamp)) if stamp.life() < settings.life => {
                *self = Self {
                    memory: Memory::Settled,
                    newest: stamp,
                    ..*self
                };
                true
            }
            (Memory::Unknown, Look::Changing { new, .. }) if new.life() < settings.life => {
                *self = Self {
                    memory: Memory::Interrupted,
                    newest: new,
                    ..*self
                };
                true
            }
            (Memory::Settled, Look::Settled(stamp)) => stamp == self.newest,
            (Memory::Interrupted, Look::Settled(stamp)) => {
                stamp == self.newest || self.newest.follows(stamp)
            }
            (Memory::Interrupted, Look::Changing { new, .. }) => new == self.newest,
            _ => false,
        };
        if expected {
            return 0;
        }
        self.memory = Memory::Doubtful;
        differing(found, &place.content(settings.seed, self.newest)).max(1)
    }

    /// Chooses the content to write next.
    fn begin(&mut self, settings: &WorkerSettings) -> Stamp {
        let again = matches!(self.memory, Memory::Interrupted | Memory::Doubtful);
        let is_own = self.newest.life() == settings.life;
        self.newest = match self.newest {
            newest if again && newest != Stamp::BLANK => newest,
            newest if is_own => newest.next(),
            _ => Stamp::first(settings.life),
        };
        if self.memory != Memory::Doubtful {
            self.memory = Memory::Interrupted;
        }
        self.newest
    }
}

#[derive(Debug)]
struct HeldPage<P> {
    page: P,
    home: CellId,
    bank: usize,
}

/// A worker's dealings with pages of other cells.
#[derive(Debug)]
pub(crate) struct Sharer<P> {
    settings: WorkerSettings,
    held: Option<HeldPage<P>>,
    lanes: [Lane; CELLS_MAX * BANKS],
}

impl<P> Sharer<P> {
    pub(crate) const fn new(settings: WorkerSettings) -> Self {
        let lane = Lane {
            memory: Memory::Unknown,
            generation: 0,
            newest: Stamp::BLANK,
        };
        Self {
            settings,
            held: None,
            lanes: [lane; CELLS_MAX * BANKS],
        }
    }

    /// Works on the page that is held, or on one of `peer` if none is.
    pub(crate) fn step<S: Services<Page = P>>(
        &mut self,
        peer: CellId,
        choices: &mut Generator,
        services: &mut S,
    ) -> Result<(), Failure> {
        let held = match self.held.take() {
            Some(held) => held,
            None => self.import(peer, choices, services)?,
        };
        let mut outcome = self.renew(&held, services);
        if outcome.is_ok() {
            outcome = self.look_beside(&held, choices.below(LANES), services);
        }
        if outcome.is_ok() && choices.below(OPERATIONS_PER_IMPORT) != 0 {
            self.held = Some(held);
            return Ok(());
        }
        let released = services.release(held.page);
        outcome.and(released.map_err(Failure::from))
    }

    fn import<S: Services<Page = P>>(
        &self,
        home: CellId,
        choices: &mut Generator,
        services: &mut S,
    ) -> Result<HeldPage<P>, WorkError> {
        let bank = choices.below(BANKS);
        let page = services.import(home, self.place(home, bank).page)?;
        Ok(HeldPage { page, home, bank })
    }

    const fn place(&self, home: CellId, bank: usize) -> Place {
        Place::new(home, bank, self.settings.cell, self.settings.worker)
    }

    /// Checks the worker's own lane, writes the next content, and checks that.
    fn renew<S: Services<Page = P>>(
        &mut self,
        held: &HeldPage<P>,
        services: &mut S,
    ) -> Result<(), Failure> {
        let settings = self.settings;
        let place = self.place(held.home, held.bank);
        let generation = services.generation(&held.page);
        let source = source_of(place, generation);
        let lane = &mut self.lanes[held.home.index() * BANKS + held.bank];
        let found = read_lane(&held.page, place, services)?;
        lane.enter(generation);
        unless_differing(lane.check(&settings, place, &found), source)?;
        let content = place.content(settings.seed, lane.begin(&settings));
        write_lane(&held.page, place, &content, services)?;
        let found = read_lane(&held.page, place, services)?;
        let bytes = differing(&found, &content);
        lane.memory = if bytes == 0 {
            Memory::Settled
        } else {
            Memory::Doubtful
        };
        unless_differing(bytes, source)
    }

    /// Looks at another lane of the page.
    fn look_beside<S: Services<Page = P>>(
        &self,
        held: &HeldPage<P>,
        lane: usize,
        services: &mut S,
    ) -> Result<(), Failure> {
        let place = self.place(held.home, held.bank).beside(lane);
        let source = source_of(place, services.generation(&held.page));
        let bytes = look(self.settings.seed, place, || {
            read_lane(&held.page, place, services)
        })?;
        unless_differing(bytes, source)
    }
}

/// Looks at a lane in a page of the worker's own cell.
pub(crate) fn check_own_page<S: Services>(
    settings: &WorkerSettings,
    choices: &mut Generator,
    live: CellSet,
    services: &mut S,
) -> Result<(), Failure> {
    let cells = CELLS_MAX - live.with(settings.cell).0.leading_zeros() as usize;
    let page = choices.below(pages_needed(cells)) as u32;
    let place = Place {
        home: settings.cell,
        page,
        lane: choices.below(LANES),
    };
    let mut generation = 0;
    let bytes = look(settings.seed, place, || {
        let mut words = [0; LANE_WORDS];
        generation = services.read_own(page, place.first_word(), &mut words)?;
        Ok(words)
    })?;
    unless_differing(bytes, source_of(place, generation))
}

/// How many bytes of a lane that somebody else writes are not as they can be. A lane is unclear
/// twice with the same end stamp only if it is damaged: its writer did not end anything in between.
fn look(
    seed: u64,
    place: Place,
    mut read: impl FnMut() -> Result<LaneWords, WorkError>,
) -> Result<u64, WorkError> {
    let mut unclear = None;
    for _ in 0..LOOKS_MAX {
        let words = read()?;
        match place.judge(seed, &words) {
            Look::Settled(_) | Look::Changing { .. } => return Ok(0),
            Look::Damaged(bytes) => return Ok(bytes),
            Look::Unclear => {
                if unclear.replace(words[0]) == Some(words[0]) {
                    return Ok(differing(&words, &place.content(seed, Stamp(words[0]))).max(1));
                }
            }
        }
    }
    Ok(0)
}

const fn source_of(place: Place, generation: u64) -> Source {
    Source::Page {
        home: place.home,
        page: place.page,
        generation,
    }
}

fn read_lane<S: Services>(
    page: &S::Page,
    place: Place,
    services: &mut S,
) -> Result<LaneWords, WorkError> {
    let mut words = [0; LANE_WORDS];
    services.read(page, place.first_word(), &mut words)?;
    Ok(words)
}

/// Writes a content by the protocol of [`crate::lane`]: begin stamp, pattern, end stamp.
fn write_lane<S: Services>(
    page: &S::Page,
    place: Place,
    content: &LaneWords,
    services: &mut S,
) -> Result<(), WorkError> {
    let first = place.first_word();
    services.write(page, first + BEGIN_WORD, &content[BEGIN_WORD..])?;
    services.write(page, first + 1, &content[1..BEGIN_WORD])?;
    services.write(page, first, &content[..1])
}
