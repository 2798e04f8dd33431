//! The small machine as one cell's state machine meets it in one step.

use cell::machine::{CellState, Evidence, EvidenceKind};
use cell::membership::{check_vote, has_majority};
use cell::parameters::Discard;
use cell::trace::Event;
use cell::{CELLS_MAX, CellId, CellSet, CpuId, Epoch, Incarnation, Instant};
use recovery::{
    DiscardCounts, Hint, Part, ReadFailure, RebootAnswer, RecordCopy, RecordError, Surroundings,
    VoteAnswer,
};

use super::world::{BOOT_SLOTS, Cell, Character, Health, SLOT, Violation, World};

/// The machine as one cell meets it in one step.
pub(crate) struct View<'w, const N: usize> {
    pub(crate) world: &'w mut World<N>,
    pub(crate) me: CellId,
    pub(crate) hidden: CellSet,
    /// Effects until the CPU is gone.
    pub(crate) effects: Option<u32>,
}

impl<const N: usize> View<'_, N> {
    /// Whether the CPU is still there for one more effect.
    fn acts(&mut self) -> bool {
        match &mut self.effects {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    fn own(&mut self) -> &mut Cell<N> {
        &mut self.world.cells[self.me.index()]
    }

    fn other(&self, cell: CellId) -> &Cell<N> {
        &self.world.cells[cell.index()]
    }

    fn set_work(&mut self, holds: bool) {
        if self.acts() {
            if self.own().holds_work == holds {
                self.world.violation = Some(Violation::WorkOutOfStep);
            }
            self.own().holds_work = holds;
        }
    }
}

impl<const N: usize> Surroundings<N> for View<'_, N> {
    fn now(&self) -> Instant {
        let pace = match self.other(self.me).character {
            Character::Fast(times) => times,
            _ => 1,
        };
        Instant(0) + SLOT * self.world.slot * u32::try_from(pace).unwrap()
    }

    fn membership(&self) -> (Epoch, CellSet) {
        (self.world.epoch(), self.world.live())
    }

    fn sealed(&self, epoch: Epoch) -> Option<CellSet> {
        self.world.history.get(epoch.0 as usize).copied()
    }

    fn incarnation(&self, cell: CellId) -> Incarnation {
        self.other(cell).incarnation
    }

    fn cell_state(&self, cell: CellId) -> CellState {
        self.other(cell).state
    }

    fn evidence(&self, cell: CellId) -> Option<(u64, Evidence)> {
        let entry = self.other(cell);
        entry.panicked.then_some((
            1,
            Evidence {
                kind: EvidenceKind::Panic,
                incarnation: entry.incarnation,
                address: 0,
                instruction: 0,
                at: Instant(0),
            },
        ))
    }

    fn clock_words(
        &mut self,
        cell: CellId,
        show: &mut dyn FnMut(CpuId, u64),
    ) -> Result<(), ReadFailure> {
        if !self.hidden.contains(cell) {
            show(CpuId::new(cell.index()).unwrap(), self.other(cell).clock);
        }
        Ok(())
    }

    fn read_record(
        &mut self,
        cell: CellId,
        part: Part,
        into: &mut RecordCopy<N>,
    ) -> Result<(), RecordError> {
        if self.hidden.contains(cell) {
            return Err(RecordError::Torn);
        }
        if self.other(cell).panicked {
            return Err(RecordError::Unreadable(ReadFailure::BusError));
        }
        *into = self.other(cell).record.ok_or(RecordError::Absent)?;
        if part == Part::Head {
            into.known = CellSet::EMPTY;
            into.opinions = RecordCopy::EMPTY.opinions;
        }
        Ok(())
    }

    fn progress(&mut self) -> u64 {
        let slot = self.world.slot;
        let (from, to) = self.own().threads_away;
        if slot < self.own().first_beat {
            return 0;
        }
        let is_away = (from..to).contains(&slot);
        u64::from(if is_away { from } else { slot })
    }

    fn take_hint(&mut self) -> Option<Hint> {
        None
    }

    fn publish(&mut self, record: &RecordCopy<N>) {
        let mut record = *record;
        if let Character::Slanders(victim) = self.own().character {
            let opinion = &mut record.opinions[self.me.index()];
            opinion.alive = opinion.alive.without(victim);
        }
        if self.acts() {
            self.own().record = Some(record);
        }
    }

    fn doorbell(&mut self, _cells: CellSet) {}

    fn vote(&mut self, epoch: Epoch, proposal: CellSet) -> VoteAnswer {
        if !self.acts() {
            return VoteAnswer::Missing;
        }
        let (current, live) = self.membership();
        if self.sealed(epoch).is_some() {
            return VoteAnswer::Sealed;
        }
        let proposal = match self.own().character {
            Character::Slanders(victim) => live.without(victim),
            _ => proposal,
        };
        if check_vote(self.me, epoch, proposal, current, live).is_err() {
            return VoteAnswer::Refused;
        }
        self.world.votes[self.me.index()] = Some((epoch, proposal));
        let mut votes = [None; CELLS_MAX];
        for voter in live.iter() {
            let vote = self.world.votes[voter.index()];
            votes[voter.index()] = vote.filter(|vote| vote.0 == epoch).map(|vote| vote.1);
        }
        if !has_majority(live, self.world.discredited(), proposal, &votes) {
            return VoteAnswer::Missing;
        }
        self.world.seal(proposal);
        VoteAnswer::Sealed
    }

    fn withdraw_vote(&mut self, _epoch: Epoch) {
        if self.acts() {
            self.world.votes[self.me.index()] = None;
        }
    }

    fn quarantine(&mut self, suspect: CellId) {
        if self.acts() {
            let (me, slot) = (self.me, self.world.slot);
            let entry = &mut self.world.cells[suspect.index()];
            entry.quarantined_by = entry.quarantined_by.with(me);
            if entry.accused.is_none_or(|(_, clock)| clock != entry.clock) {
                entry.accused = Some((slot, entry.clock));
            }
        }
    }

    fn unquarantine(&mut self, cell: CellId) {
        if self.acts() {
            let me = self.me;
            let entry = &mut self.world.cells[cell.index()];
            entry.quarantined_by = entry.quarantined_by.without(me);
        }
    }

    fn hold_work(&mut self) {
        self.set_work(true);
    }

    fn resume_work(&mut self) {
        let followed = self.own().followed;
        let is_ready = |survivor: CellId| {
            let entry = self.other(survivor);
            entry.health == Health::Down
                || entry.owes.iter().flatten().all(|&epoch| epoch > followed)
        };
        let ready = self.world.live().iter().all(is_ready);
        if !ready && self.effects != Some(0) {
            self.world.violation = Some(Violation::ResumedEarly);
        }
        self.set_work(false);
    }

    fn discard(&mut self, dead: CellSet, _policy: Discard) -> Option<DiscardCounts> {
        if !self.acts() {
            return None;
        }
        let entry = self.own();
        if entry.discard_step < entry.discard_steps {
            entry.discard_step += 1;
            return None;
        }
        entry.discard_step = 0;
        entry.discarded = entry.discarded.union(dead);
        Some(DiscardCounts {
            writable: 2,
            written: 1,
            discarded: 1,
        })
    }

    fn is_drained(&mut self, dead: CellId) -> bool {
        let drained = self.world.slot > self.other(dead).expelled_in;
        if drained && self.acts() && self.own().discarded.contains(dead) {
            self.own().owes[dead.index()] = None;
            self.own().discarded = self.own().discarded.without(dead);
        }
        drained
    }

    fn abandon_frames(&mut self, _dead: CellId) {}

    fn reboot(&mut self, cell: CellId, ended: Incarnation) -> RebootAnswer {
        let slot = self.world.slot;
        let entry = &mut self.world.cells[cell.index()];
        if entry.state == CellState::Expelled
            && entry.incarnation == ended
            && self.effects != Some(0)
        {
            entry.incarnation = ended.next();
            entry.state = CellState::Booting;
            entry.health = Health::Up;
            entry.panicked = false;
            entry.character = Character::Honest;
            entry.record = None;
            entry.away_until = slot + BOOT_SLOTS;
            self.world.done = self.world.done.with(cell);
        }
        RebootAnswer::Asked
    }

    fn admit(&mut self, _cell: CellId, _incarnation: Incarnation) {}

    fn stop_self(&mut self) {
        let entry = self.own();
        let is_healthy = entry.character == Character::Honest && !entry.faltered;
        entry.health = Health::Down;
        if entry.state == CellState::Live {
            entry.state = CellState::Stopped;
        }
        if is_healthy {
            self.world.violation = Some(Violation::StoppedHealthy);
        }
    }

    fn trace(&mut self, event: Event, arguments: [u64; 2]) {
        match event {
            Event::Decided => self.own().followed = Epoch(arguments[0] as u32),
            Event::FalseAlarm => self.world.false_alarms = true,
            _ => {}
        }
    }
}
