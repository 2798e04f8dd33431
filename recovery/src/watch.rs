//! What becomes a hint, and what is held back.
//!
//! Sources: the kernel's own hints, clock words, pulses, the monitor's evidence, records that
//! cannot be read, barriers, and the strike rule. Most are levels, true at every step while the
//! matter lasts; one run of agreement answers them all.
//!
//! # Holding back
//! An alert that was voted down is not raised again for a while: for the time of a probe if others
//! had seen something too, for twice the strike window if not. So an honest cell never earns two
//! strikes ([`crate::strike`]). Two things are never held back: fatal evidence, and a clock or a
//! pulse that has stood still for four times its threshold, which every cell that was there has
//! seen as well.
//!
//! # Who is quarantined
//! A cell closes its frames to those whom it suspects itself: at its own hint, or when its own
//! probe finds somebody dead; never on another's word, or one liar could stop the stores of a
//! healthy cell everywhere.
//!
//! # Not guaranteed
//! A hint raised while the votes are out is taken up after the run, not in it.

use cell::machine::{CellState, EvidenceKind};
use cell::trace::Event;
use cell::{CellId, CellSet, Instant};

use crate::hint::{Hint, HintReason};
use crate::machine::{Recovery, Sightings, is_up};
use crate::opinion::Alert;
use crate::record::RecordError;
use crate::surroundings::{ReadFailure, Surroundings};

/// `evidence_seen` before the first look: what happened before this life began is no news.
const NEVER_LOOKED: u64 = u64::MAX;

/// Alerts about one cell that are held back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct HeldBack {
    reasons: u16,
    until: Instant,
}

/// What is noted about each cell.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Watch<const CELLS: usize> {
    /// Hints that no run has taken up yet, and about whom.
    pending: [Option<HintReason>; CELLS],
    suspects: CellSet,
    /// Until when something odd is remembered.
    noticed_until: [Instant; CELLS],
    /// How much evidence was seen.
    evidence_seen: [u64; CELLS],
    held_back: [HeldBack; CELLS],
}

impl<const CELLS: usize> Watch<CELLS> {
    /// Nothing noted.
    pub(crate) const fn new() -> Self {
        Self {
            pending: [None; CELLS],
            suspects: CellSet::EMPTY,
            noticed_until: [Instant(0); CELLS],
            evidence_seen: [NEVER_LOOKED; CELLS],
            held_back: [HeldBack {
                reasons: 0,
                until: Instant(0),
            }; CELLS],
        }
    }

    /// Remembers something odd about `cell`.
    pub(crate) fn notice(&mut self, cell: CellId, until: Instant) {
        self.noticed_until[cell.index()] = until;
    }

    /// The cells of `cells` about which something odd is remembered.
    pub(crate) fn noticed(&self, cells: CellSet, now: Instant) -> CellSet {
        let is_noticed = |cell: &CellId| now < self.noticed_until[cell.index()];
        cells.iter().filter(is_noticed).collect()
    }

    /// Holds an alert back, and what waits of the same kind.
    pub(crate) fn hold_back(&mut self, alert: Alert, until: Instant) {
        let held = &mut self.held_back[alert.suspect.index()];
        held.reasons |= alert.reason.bit();
        held.until = held.until.max(until);
        let reasons = held.reasons;
        let pending = self.pending[alert.suspect.index()];
        if pending.is_some_and(|reason| !reason.is_proof() && reasons & reason.bit() != 0) {
            self.drop_pending(alert.suspect);
        }
    }

    pub(crate) fn first_pending(&self) -> Option<Alert> {
        // What is proven goes first: the alert by which a cell is judged should be its best one.
        let hints = || self.pending().map(|hint| (hint.suspect, hint.reason));
        let first = hints()
            .find(|(_, reason)| reason.is_proof())
            .or_else(|| hints().next());
        first.map(|(suspect, reason)| Alert { suspect, reason })
    }

    pub(crate) fn take_pending(&mut self) -> Option<Hint> {
        let hint = self.pending().next()?;
        self.drop_pending(hint.suspect);
        Some(hint)
    }

    fn drop_pending(&mut self, suspect: CellId) {
        self.pending[suspect.index()] = None;
        self.suspects = self.suspects.without(suspect);
    }

    /// Forgets a cell: it is gone, or begins a new life.
    pub(crate) fn forget(&mut self, cell: CellId) {
        self.drop_pending(cell);
        self.noticed_until[cell.index()] = Instant(0);
        self.held_back[cell.index()] = HeldBack {
            reasons: 0,
            until: Instant(0),
        };
    }

    fn pending(&self) -> impl Iterator<Item = Hint> {
        self.suspects.iter().filter_map(|suspect| {
            self.pending[suspect.index()].map(|reason| Hint { suspect, reason })
        })
    }

    /// Whether an alert is held back now. A hold that is over is forgotten.
    fn holds_back(&mut self, hint: Hint, now: Instant) -> bool {
        let held = &mut self.held_back[hint.suspect.index()];
        if now >= held.until {
            held.reasons = 0;
        }
        held.reasons & hint.reason.bit() != 0
    }

    pub(crate) fn put(&mut self, hint: Hint) {
        self.pending[hint.suspect.index()].get_or_insert(hint.reason);
        self.suspects = self.suspects.with(hint.suspect);
    }
}

impl<const CELLS: usize, const CPUS: usize> Recovery<CELLS, CPUS> {
    /// Raises an alert against the rules of an honest cell. For the injected fault `sw.cry_wolf`,
    /// and for nothing else.
    pub fn cry_wolf(&mut self, suspect: CellId, reason: HintReason) {
        if suspect.index() < CELLS {
            self.watch.put(Hint { suspect, reason });
        }
    }

    /// Collects the hints of this step.
    pub(crate) fn collect_hints<S: Surroundings<CELLS>>(
        &mut self,
        s: &mut S,
        sightings: &Sightings,
    ) {
        for _ in 0..CELLS {
            let Some(hint) = s.take_hint() else { break };
            self.hint(hint);
        }
        let up: CellSet = self.live.iter().filter(|&cell| is_up(s, cell)).collect();
        let still = self.look_at_clocks(s, up);
        self.look_at_pulses(up, still, sightings.read);
        for cell in self.live.without(self.me).iter() {
            self.look_at_evidence(s, cell);
        }
        self.hint_all(sightings.unreachable, HintReason::BusError);
        self.hint_all(sightings.garbled, HintReason::CarefulCheck);
        self.hint_all(self.barriers.late, HintReason::BarrierMissed);
        self.hint_all(self.convicted(), HintReason::CriedWolf);
    }

    /// The cells that the opinion about to be formed calls dead whatever the probe shows.
    pub(crate) fn condemned<S: Surroundings<CELLS>>(&self, s: &S) -> CellSet {
        let is_doomed = |cell: &CellId| fatal_evidence(s, *cell).is_some();
        let doomed: CellSet = self.live.iter().filter(is_doomed).collect();
        let judged = self
            .clocks
            .nonsense(self.live, self.now().at)
            .union(self.convicted())
            .union(self.barriers.overdue);
        let judged = if self.agreement.is_contested() {
            CellSet::EMPTY
        } else {
            judged
        };
        doomed
            .union(judged)
            .intersection(self.live)
            .without(self.me)
    }

    fn convicted(&self) -> CellSet {
        self.strikes.convicted(self.now().at, self.timing.window)
    }

    /// Closes our frames to `suspect`, once.
    pub(crate) fn quarantine<S: Surroundings<CELLS>>(&mut self, s: &mut S, suspect: CellId) {
        if suspect == self.me || !self.live.contains(suspect) {
            return;
        }
        s.quarantine(suspect);
        if !self.quarantined.contains(suspect) {
            s.trace(Event::Quarantine, [suspect.index() as u64, 0]);
            self.quarantined = self.quarantined.with(suspect);
        }
    }

    /// Opens our frames again to those of `cells` that were in quarantine.
    pub(crate) fn end_quarantine<S: Surroundings<CELLS>>(&mut self, s: &mut S, cells: CellSet) {
        for cell in self.quarantined.intersection(cells).iter() {
            s.unquarantine(cell);
            s.trace(Event::QuarantineEnd, [cell.index() as u64, 0]);
        }
        self.quarantined = self.quarantined.minus(cells);
    }

    /// What a failed read of a record says about its owner.
    pub(crate) fn note_record_error(sightings: &mut Sightings, cell: CellId, error: RecordError) {
        match error {
            RecordError::Unreadable(ReadFailure::BusError) => {
                sightings.unreachable = sightings.unreachable.with(cell);
            }
            RecordError::Unreadable(ReadFailure::CheckFailed)
            | RecordError::WrongCell
            | RecordError::Nonsense => sightings.garbled = sightings.garbled.with(cell),
            RecordError::Torn | RecordError::Absent | RecordError::Stale(_) => {}
        }
    }

    /// Returns the cells with a clock that stands still.
    fn look_at_clocks<S: Surroundings<CELLS>>(&mut self, s: &mut S, watched: CellSet) -> CellSet {
        let now = self.now();
        let mut unreachable = CellSet::EMPTY;
        for cell in watched.iter() {
            let clocks = &mut self.clocks;
            let read = s.clock_words(cell, &mut |cpu, word| clocks.observe(cell, cpu, word, now));
            if read.is_err() {
                unreachable = unreachable.with(cell);
            }
        }
        let findings = self.clocks.judge(watched, now, &self.timing);
        for cell in findings.unsteady.union(findings.nonsense).iter() {
            self.watch.notice(cell, now.at + self.timing.memory);
        }
        if findings.still.contains(self.me) {
            self.hint(Hint {
                suspect: self.me,
                reason: HintReason::OwnCpuStalled,
            });
        }
        self.hint_all(findings.still, HintReason::ClockStill);
        let doubtless = self.clocks.long_still(watched, now, &self.timing);
        self.insist(doubtless, HintReason::ClockStill);
        self.hint_all(findings.nonsense, HintReason::ClockNonsense);
        self.hint_all(unreachable, HintReason::BusError);
        findings.still
    }

    /// Whose clock stands still is known to be in trouble. Whose record cannot be read here may
    /// have a pulse that others can read: that is a hint, and never beyond doubt.
    fn look_at_pulses(&mut self, watched: CellSet, clock_still: CellSet, read: CellSet) {
        let now = self.now();
        let findings = self.pulses.judge(watched, now, &self.timing);
        for cell in findings.unsteady.iter() {
            self.watch.notice(cell, now.at + self.timing.memory);
        }
        let threads_only = findings.still.minus(clock_still);
        self.hint_all(threads_only, HintReason::PulseStill);
        let doubtless = findings.long_still.minus(clock_still).intersection(read);
        self.insist(doubtless, HintReason::PulseStill);
    }

    /// Raises what is never held back; about others only.
    fn insist(&mut self, suspects: CellSet, reason: HintReason) {
        for suspect in suspects.without(self.me).iter() {
            // A probe of it that is under way answers this too; taken up again at each step, it
            // would never end.
            if self.is_news(suspect) {
                self.watch.put(Hint { suspect, reason });
            }
        }
    }

    fn look_at_evidence<S: Surroundings<CELLS>>(&mut self, s: &S, cell: CellId) {
        if let Some(kind) = fatal_evidence(s, cell) {
            self.hint(Hint {
                suspect: cell,
                reason: HintReason::Evidence(kind),
            });
        }
        let (count, kind) = match s.evidence(cell) {
            Some((count, evidence)) if evidence.incarnation == s.incarnation(cell) => {
                (count, evidence.kind)
            }
            Some((count, _)) => (count, EvidenceKind::None),
            None => (0, EvidenceKind::None),
        };
        let seen = &mut self.watch.evidence_seen[cell.index()];
        let is_news = *seen != NEVER_LOOKED && *seen != count && kind != EvidenceKind::None;
        *seen = count;
        if is_news {
            self.hint(Hint {
                suspect: cell,
                reason: HintReason::Evidence(kind),
            });
        }
    }

    fn hint_all(&mut self, suspects: CellSet, reason: HintReason) {
        for suspect in suspects.without(self.me).iter() {
            self.hint(Hint { suspect, reason });
        }
    }

    /// Whether a hint about `suspect` would tell more than that it is being probed.
    fn is_news(&self, suspect: CellId) -> bool {
        self.agreement.phase != crate::record::Phase::Probe
            || !self.agreement.accused.contains(suspect)
    }

    /// Takes a hint up, unless it concerns nobody or is held back.
    fn hint(&mut self, hint: Hint) {
        let own = hint.reason == HintReason::OwnCpuStalled;
        if !self.live.contains(hint.suspect) || own != (hint.suspect == self.me) {
            return;
        }
        let now = self.now().at;
        self.watch.notice(hint.suspect, now + self.timing.memory);
        if self.is_news(hint.suspect)
            && (hint.reason.is_proof() || !self.watch.holds_back(hint, now))
        {
            self.watch.put(hint);
        }
    }
}

/// The kind of the fatal evidence against the present life of `cell`, if there is any.
fn fatal_evidence<const CELLS: usize, S: Surroundings<CELLS>>(
    s: &S,
    cell: CellId,
) -> Option<EvidenceKind> {
    let newest = s.evidence(cell).map(|(_, evidence)| evidence);
    let fatal = newest
        .filter(|evidence| evidence.incarnation == s.incarnation(cell) && evidence.kind.is_fatal());
    match (fatal, s.cell_state(cell)) {
        (Some(evidence), _) => Some(evidence.kind),
        // The record holds only the newest evidence; a stopped cell stays stopped whatever came
        // after.
        (None, CellState::Stopped) => Some(EvidenceKind::Panic),
        (None, _) => None,
    }
}
