//! Rounds in which all cells come to hold the same opinions.
//!
//! `FloodSet` with early decision (HIVE 5.7): in each round a cell shows all opinions that it knows
//! and takes over those that the others show. A round that brought nothing new and in which nobody
//! fell silent is *clean*: the others hold the same. Without a clean round the flooding ends after
//! as many rounds as there are cells.
//!
//! # Invariants
//! 1. An opinion that was read in its owner's own record is never replaced by hearsay; hearsay is
//!    replaced by it.
//! 2. At most [`Flooding::rounds_max`] rounds.
//!
//! # Not guaranteed
//! That two cells end with the same opinions if reads are delayed beyond the deadline of a round,
//! or if a liar relays a false one. Their votes may then differ; the monitor seals at most one set.

use cell::{CellId, CellSet};

use crate::opinion::Opinion;
use crate::record::RecordCopy;

/// What one cell knows of the opinions of all.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Flooding<const CELLS: usize> {
    /// Whose opinions are known.
    pub known: CellSet,
    /// Of these: whose were read in their own record.
    direct: CellSet,
    /// The opinions; only those of `known` mean anything.
    pub opinions: [Opinion; CELLS],
    /// The round, from 1; 0 before the first.
    pub round: u32,
    /// Whether this round brought anything new.
    changed: bool,
    /// Cells for which nobody waits any more.
    silent: CellSet,
}

/// How a round ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoundEnd {
    /// Another round is needed.
    Another,
    /// All opinions are exchanged.
    Complete,
}

impl<const CELLS: usize> Flooding<CELLS> {
    /// Nothing known.
    pub(crate) const fn new() -> Self {
        Self {
            known: CellSet::EMPTY,
            direct: CellSet::EMPTY,
            opinions: [Opinion::NONE; CELLS],
            round: 0,
            changed: false,
            silent: CellSet::EMPTY,
        }
    }

    /// Rounds that any run of flooding among `live` can take: one per tolerated failure, and one
    /// more.
    pub const fn rounds_max(live: CellSet) -> u32 {
        live.len() as u32
    }

    /// Adds the own opinion and starts round 1. Those outside `opinion.alive` are not waited for.
    pub(crate) fn start(&mut self, me: CellId, opinion: Opinion, live: CellSet) {
        self.put(me, opinion);
        self.direct = self.direct.with(me);
        self.round = 1;
        self.changed = false;
        self.silent = live.minus(opinion.alive);
    }

    /// Takes over what the record of `from` shows for the same attempt.
    pub(crate) fn merge(&mut self, me: CellId, from: CellId, record: &RecordCopy<CELLS>) {
        for owner in record.known.without(me).iter() {
            let opinion = record.opinions[owner.index()];
            let direct = owner == from;
            let news = !self.known.contains(owner)
                || direct && !self.direct.contains(owner) && self.opinion(owner) != opinion;
            if news {
                self.put(owner, opinion);
                self.changed = true;
            }
            if direct {
                self.direct = self.direct.with(owner);
            }
        }
    }

    /// The cells whose word is still missing in this round.
    pub(crate) fn missing(&self, me: CellId, live: CellSet, reached: CellSet) -> CellSet {
        live.without(me).minus(self.silent).minus(reached)
    }

    /// Ends the round; those in `missing` fell silent in it.
    pub(crate) fn end_round(&mut self, live: CellSet, missing: CellSet) -> RoundEnd {
        let clean = !self.changed && missing.is_empty();
        if clean || self.round >= Self::rounds_max(live) {
            return RoundEnd::Complete;
        }
        self.silent = self.silent.union(missing);
        self.round += 1;
        self.changed = false;
        RoundEnd::Another
    }

    fn opinion(&self, owner: CellId) -> Opinion {
        self.opinions[owner.index()]
    }

    fn put(&mut self, owner: CellId, opinion: Opinion) {
        self.known = self.known.with(owner);
        self.opinions[owner.index()] = opinion;
    }
}
