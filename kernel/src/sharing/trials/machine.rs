//! A monitor for trials.
//!
//! It has what the real one has: writer sets, translations that outlive a revoke until they drain,
//! and dirty bits that only a walk of the tables can set.

use std::collections::{HashMap, HashSet};

use cell::{CellId, CellSet, Frame, FrameRange};

use crate::sharing::claim::Peer;
use crate::sharing::firewall::{Firewall, Refusal};

/// What the monitor knows.
#[derive(Default)]
pub(super) struct Machine {
    pub(super) writers: HashMap<Frame, CellSet>,
    pub(super) stale: HashSet<(Frame, CellId)>,
    pub(super) dirty: HashSet<(Frame, CellId)>,
    /// Frames whose content the named cell wrote last.
    pub(super) stained: HashMap<Frame, CellId>,
    pub(super) expelled: CellSet,
}

impl Machine {
    /// Whether the monitor would give `cell` a fresh writable translation.
    pub(super) fn granted(&self, frame: Frame, cell: CellId) -> bool {
        !self.expelled.contains(cell)
            && self
                .writers
                .get(&frame)
                .is_some_and(|writers| writers.contains(cell))
    }

    /// Whether anything of `cell` can still reach `frame`.
    pub(super) fn reaches(&self, frame: Frame, cell: CellId) -> bool {
        self.granted(frame, cell) || self.stale.contains(&(frame, cell))
    }

    /// A store of `cell`. A stale translation serves it only if it is dirty already.
    pub(super) fn store(&mut self, frame: Frame, cell: CellId) {
        let key = (frame, cell);
        if self.granted(frame, cell) || self.stale.contains(&key) && self.dirty.contains(&key) {
            self.dirty.insert(key);
            self.stained.insert(frame, cell);
        }
    }

    pub(super) fn drain(&mut self, cell: CellId) {
        self.stale.retain(|&(_, holder)| holder != cell);
    }

    /// Empties the nested tables of a cell; its CPUs may keep translations until the fence holds.
    pub(super) fn expel(&mut self, cell: CellId) {
        self.expelled = self.expelled.with(cell);
        let granted = self
            .writers
            .iter()
            .filter(|(_, writers)| writers.contains(cell));
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
        frames
            .iter()
            .any(|frame| self.dirty.contains(&(frame, writer)))
    }

    fn reclaim(&mut self, frames: FrameRange) -> Result<(), Refusal> {
        for frame in frames.iter() {
            assert!(
                self.writers.get(&frame).is_none_or(|set| set.is_empty()),
                "reclaimed early"
            );
            assert!(
                self.stale.iter().all(|&(stale, _)| stale != frame),
                "reclaimed before drain"
            );
            self.dirty.retain(|&(dirty, _)| dirty != frame);
        }
        Ok(())
    }
}
