//! Probe, flooding and vote of one attempt to agree.
//!
//! ```text
//!          a hint, or another cell's record shows a newer attempt
//!  Idle/Closed ──────────► Probe ──────────► Flood ───────────► Vote ──────► sealed: Idle
//!                            ▲   all proven,       clean round,  │  ▲
//!                            │   or deadline       or last one   │  └─ every step
//!                            │                        │          │
//!                            └────── next attempt ◄───┼──────────┘ deadline
//!                                                     └──► Closed: proposal is the live set, a
//!                                                     false alarm
//! ```
//!
//! # Attempts
//! An attempt can fail: votes differ because a read came late, or a voter died. Then the votes are
//! taken back and a *new attempt for the same epoch* begins with a fresh probe, so that no opinion
//! is older than its attempt. Rejected: patching the old opinions, because a cell that stalled
//! would go on being counted by what it saw before.
//!
//! A false alarm needs no seal: nothing changes, whoever votes otherwise finds no majority and
//! comes back with the next attempt. So epochs, of which there are `EPOCHS_MAX`, are spent on
//! changes only, and a noisy host cannot use them up.
//!
//! # Those who have just joined
//! A probe ends when its time is over, but not as long as somebody of whom nothing is proven is new
//! in the live set: somebody else's false alarm would otherwise end a life that has hardly begun.
//! A real death in that time is found so much later.
//!
//! # Following the others
//! From rest a cell joins any newer attempt. In the middle of one it does not run after a single
//! other cell, or a babbler that starts one attempt after the other could keep everybody from ever
//! ending any (found by the model checker):
//! - probing, it moves on if two others did;
//! - flooding, never; nobody waits for the words of those who moved on;
//! - voting, if anybody did and the vote is older than half a probe.
//!
//! And whoever closed an attempt leaves its record as it is until the others need it no more, or
//! for the time of a probe.
//!
//! # Invariants
//! 1. A cell never votes for a set without itself. Left out of its own proposal, it waits for the
//!    seal; if its own opinion is that it is crippled, it stops itself.
//! 2. A vote is taken back before the attempt that it belongs to is left, unless the epoch was
//!    sealed.
//! 3. At most [`ATTEMPTS_MAX`] attempts per run; then everything stays as it was, until the next
//!    hint.

use core::cmp::Reverse;

use cell::trace::Event;
use cell::{CellId, CellSet};

use crate::decide::decide;
use crate::flooding::{Flooding, RoundEnd};
use crate::hint::Hint;
use crate::machine::{Pace, Recovery, Sightings};
use crate::opinion::{Alert, Opinion};
use crate::record::{Ballot, Part, Phase, RecordCopy};
use crate::surroundings::{Surroundings, VoteAnswer};
use crate::timing::Moment;

/// Attempts of one run.
pub const ATTEMPTS_MAX: u32 = 8;

/// Attempts in which a cell stands by all that it holds against others. In the later ones only the
/// probe and fatal evidence count: two cells that condemn each other would else also keep a third
/// one, dead beyond doubt, in the live set.
pub const CONTESTED_ATTEMPTS: u32 = 2;

/// How far ahead of our own an attempt may be. A record beyond is a liar's, or we are so late that
/// we are lost anyway.
pub const AHEAD_MAX: u32 = 16;

/// The state of agreement in one cell.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Agreement<const CELLS: usize> {
    /// Where we are.
    pub(crate) phase: Phase,
    /// In which attempt; the last one, if none is going on.
    pub(crate) ballot: Ballot,
    /// When the attempt began here.
    began: Moment,
    /// When the present round, or the vote, began.
    since: Moment,
    /// Attempts of this run.
    attempts: u32,
    /// Whom we accuse in this run.
    pub(crate) accused: CellSet,
    /// Our own alert in this run.
    pub(crate) alert: Option<Alert>,
    /// Who showed that it joined the attempt.
    joined: CellSet,
    /// The opinions.
    pub(crate) flooding: Flooding<CELLS>,
    /// What we propose, in the phase [`Phase::Vote`].
    proposal: CellSet,
    /// Whether our vote stands.
    has_voted: bool,
}

impl<const CELLS: usize> Agreement<CELLS> {
    /// At rest, before any attempt.
    pub(crate) const fn new() -> Self {
        Self {
            phase: Phase::Idle,
            ballot: Ballot {
                epoch: cell::Epoch(0),
                attempt: 0,
            },
            began: Moment {
                at: cell::Instant(0),
                ticks: 0,
            },
            since: Moment {
                at: cell::Instant(0),
                ticks: 0,
            },
            attempts: 0,
            accused: CellSet::EMPTY,
            alert: None,
            joined: CellSet::EMPTY,
            flooding: Flooding::new(),
            proposal: CellSet::EMPTY,
            has_voted: false,
        }
    }

    /// Starts an attempt.
    fn begin(&mut self, ballot: Ballot, now: Moment) {
        *self = Self {
            phase: Phase::Probe,
            ballot,
            began: now,
            since: now,
            attempts: self.attempts + 1,
            accused: self.accused,
            alert: self.alert,
            ..Self::new()
        };
    }

    /// Ends the run. The opinions of a run that was closed stay for those who have not.
    fn end(&mut self, phase: Phase, now: Moment) {
        let flooding = core::mem::replace(&mut self.flooding, Flooding::new());
        *self = Self {
            phase,
            ballot: self.ballot,
            ..Self::new()
        };
        if phase == Phase::Closed {
            self.flooding = flooding;
            self.since = now;
        }
    }

    /// Whether this run failed so often that we only stand by what nobody can dispute.
    pub(crate) const fn is_contested(&self) -> bool {
        self.attempts > CONTESTED_ATTEMPTS
    }

    /// How much of the others' records the attempt needs: their opinions, until ours are final.
    pub(crate) const fn needed(&self) -> Part {
        match self.phase {
            Phase::Probe | Phase::Flood => Part::Whole,
            Phase::Idle | Phase::Vote | Phase::Closed => Part::Head,
        }
    }

    /// Takes over what a peer's record says about the attempt.
    pub(crate) fn look_at(
        &mut self,
        me: CellId,
        peer: CellId,
        record: &RecordCopy<CELLS>,
        sightings: &mut Sightings,
    ) {
        if record.phase == Phase::Idle || record.ballot.epoch != self.ballot.epoch {
            return;
        }
        let is_open = matches!(record.phase, Phase::Probe | Phase::Flood);
        if is_open && record.ballot <= self.ballot {
            sightings.lagging = sightings.lagging.with(peer);
        }
        let ahead = record.ballot.attempt.saturating_sub(self.ballot.attempt);
        if !self.phase.is_active() || record.ballot < self.ballot || ahead > AHEAD_MAX {
            return;
        }
        self.joined = self.joined.with(peer);
        if record.ballot > self.ballot {
            // Its word about this attempt is gone; waiting for it is in vain.
            sightings.left = sightings.left.with(peer);
            return;
        }
        if self.needed() == Part::Whole {
            self.flooding.merge(me, peer, record);
        }
        if record.phase.is_final() {
            sightings.finished = sightings.finished.with(peer);
        }
        let floods = record.phase == Phase::Flood && record.round >= self.flooding.round.max(1);
        if record.phase.is_final() || floods {
            sightings.reached = sightings.reached.with(peer);
        }
    }
}

impl<const CELLS: usize, const CPUS: usize> Recovery<CELLS, CPUS> {
    /// The next attempt that would be ours.
    fn next_ballot(&self) -> Ballot {
        let epoch = self.seen.next();
        let known = self.agreement.ballot.epoch == epoch;
        let attempt = if known {
            self.agreement.ballot.attempt.saturating_add(1)
        } else {
            0
        };
        Ballot { epoch, attempt }
    }

    /// Starts a run with the hints that wait, or takes them into the probe that is going on.
    pub(crate) fn take_up_hints<S: Surroundings<CELLS>>(
        &mut self,
        s: &mut S,
        sightings: &Sightings,
    ) -> Pace {
        if self.agreement.phase.is_active() && self.agreement.phase != Phase::Probe {
            return Pace::Waiting;
        }
        let Some(first) = self.watch.first_pending() else {
            return Pace::Idle;
        };
        if self.lingers(sightings) {
            return Pace::Waiting;
        }
        while let Some(hint) = self.watch.take_pending() {
            s.trace(
                Event::Hint,
                [hint.suspect.index() as u64, u64::from(hint.reason.code())],
            );
            self.agreement.accused = self.agreement.accused.with(hint.suspect);
            self.quarantine(s, hint.suspect);
        }
        if self.agreement.alert.is_none() {
            self.agreement.alert = Some(first);
        }
        if self.agreement.phase.is_active() {
            // The probe goes on with the sightings of this step: hints that keep coming must not
            // hold it up.
            return Pace::Waiting;
        }
        self.begin_attempt(s, self.next_ballot());
        Pace::Advanced
    }

    /// Joins or follows the attempts of others (module header).
    pub(crate) fn follow_attempts<S: Surroundings<CELLS>>(
        &mut self,
        s: &mut S,
        sightings: &Sightings,
    ) -> Pace {
        let [most, second] = sightings.attempts;
        let own = self.next_ballot();
        let is_late = |span| self.timing.expired(self.agreement.since, self.now(), span);
        let target = match self.agreement.phase {
            Phase::Idle => most,
            Phase::Closed => most.filter(|_| !self.lingers(sightings)),
            Phase::Probe => second,
            Phase::Flood => None,
            Phase::Vote => most.filter(|_| is_late(self.timing.probe / 2)),
        };
        let Some(attempt) = target.filter(|&attempt| attempt >= own.attempt) else {
            return Pace::Idle;
        };
        self.withdraw(s);
        self.begin_attempt(s, Ballot { attempt, ..own });
        Pace::Advanced
    }

    /// Whether others still need the opinions of the attempt that we closed.
    fn lingers(&self, sightings: &Sightings) -> bool {
        self.agreement.phase == Phase::Closed
            && !sightings.lagging.is_empty()
            && !self
                .timing
                .expired(self.agreement.since, self.now(), self.timing.probe)
    }

    /// Makes one transition of the attempt, if one is due.
    pub(crate) fn advance_agreement<S: Surroundings<CELLS>>(
        &mut self,
        s: &mut S,
        sightings: &mut Sightings,
    ) -> Pace {
        match self.agreement.phase {
            Phase::Idle | Phase::Closed => Pace::Idle,
            Phase::Probe => self.advance_probe(s),
            Phase::Flood => self.advance_flood(s, sightings),
            Phase::Vote => self.advance_vote(s),
        }
    }

    fn begin_attempt<S: Surroundings<CELLS>>(&mut self, s: &mut S, ballot: Ballot) {
        self.agreement.begin(ballot, self.now());
        self.clocks.begin_probe();
        self.pulses.begin_probe();
        s.trace(
            Event::EpochBegin,
            [u64::from(ballot.epoch.0), self.agreement.accused.0],
        );
    }

    fn advance_probe<S: Surroundings<CELLS>>(&mut self, s: &mut S) -> Pace {
        let condemned = self.condemned(s);
        let proven = self.live.iter().filter(|&cell| self.is_proven(cell));
        let alive = proven.collect::<CellSet>().minus(condemned);
        let open = self.live.minus(alive).minus(condemned);
        let expired = self
            .timing
            .expired(self.agreement.began, self.now(), self.timing.probe);
        let is_early = !expired || open.iter().any(|cell| self.is_new(cell));
        if !open.is_empty() && is_early {
            return Pace::Waiting;
        }
        let gone = self.live.minus(alive);
        let suspects = self
            .watch
            .noticed(self.live, self.now().at)
            .union(self.agreement.accused)
            .union(gone);
        let suspects = suspects.intersection(self.live);
        let opinion = Opinion {
            alive,
            suspects,
            alert: self.agreement.alert,
        };
        for suspect in gone.iter() {
            self.quarantine(s, suspect);
        }
        self.agreement.flooding.start(self.me, opinion, self.live);
        self.agreement.since = self.now();
        self.agreement.phase = Phase::Flood;
        s.trace(
            Event::Opinion,
            [u64::from(self.agreement.ballot.epoch.0), alive.0],
        );
        Pace::Advanced
    }

    fn is_proven(&self, cell: CellId) -> bool {
        let runs = if cell == self.me {
            !self.pulses.is_still(cell, self.now(), &self.timing)
        } else {
            self.agreement.joined.contains(cell) && self.pulses.is_proven(cell)
        };
        runs && self.clocks.is_proven(cell)
    }

    fn advance_flood<S: Surroundings<CELLS>>(
        &mut self,
        s: &mut S,
        sightings: &mut Sightings,
    ) -> Pace {
        let missing = self
            .agreement
            .flooding
            .missing(self.me, self.live, sightings.reached);
        let hoped_for = missing.minus(self.condemned(s)).minus(sightings.left);
        let expired = self
            .timing
            .expired(self.agreement.since, self.now(), self.timing.probe);
        if !hoped_for.is_empty() && !expired {
            return Pace::Waiting;
        }
        let (epoch, round) = (self.agreement.ballot.epoch, self.agreement.flooding.round);
        s.trace(Event::Round, [u64::from(epoch.0), u64::from(round)]);
        self.agreement.since = self.now();
        // What was read shows who reached this round, not who is beyond it.
        sightings.reached = sightings.finished;
        match self.agreement.flooding.end_round(self.live, missing) {
            RoundEnd::Another => {}
            RoundEnd::Complete => self.propose(s),
        }
        Pace::Advanced
    }

    fn propose<S: Surroundings<CELLS>>(&mut self, s: &mut S) {
        let flooding = &self.agreement.flooding;
        let proposal = decide(flooding.known, &flooding.opinions, self.live);
        if proposal == self.live {
            self.close(s);
            return;
        }
        let finds_itself_alive = flooding.opinions[self.me.index()].alive.contains(self.me);
        // Where nobody is thought alive, the host is to blame; the cells probe again rather than
        // all stop.
        if !proposal.is_empty() && !proposal.contains(self.me) && !finds_itself_alive {
            self.stop(s);
            return;
        }
        self.agreement.proposal = proposal;
        self.agreement.phase = Phase::Vote;
    }

    fn advance_vote<S: Surroundings<CELLS>>(&mut self, s: &mut S) -> Pace {
        let (epoch, proposal) = (self.agreement.ballot.epoch, self.agreement.proposal);
        if proposal.contains(self.me) {
            if !self.agreement.has_voted {
                s.trace(Event::Vote, [u64::from(epoch.0), proposal.0]);
            }
            self.agreement.has_voted = true;
            match s.vote(epoch, proposal) {
                VoteAnswer::Sealed => return Pace::Advanced,
                VoteAnswer::Missing => {}
                VoteAnswer::Refused => self.agreement.has_voted = false,
            }
        }
        if !self
            .timing
            .expired(self.agreement.since, self.now(), self.timing.vote)
        {
            return Pace::Waiting;
        }
        self.withdraw(s);
        if self.agreement.attempts >= ATTEMPTS_MAX {
            self.close(s);
        } else {
            self.begin_attempt(s, self.next_ballot());
        }
        Pace::Advanced
    }

    /// Takes the vote back (invariant 2).
    fn withdraw<S: Surroundings<CELLS>>(&mut self, s: &mut S) {
        if core::mem::take(&mut self.agreement.has_voted) {
            s.withdraw_vote(self.agreement.ballot.epoch);
        }
    }

    /// Ends the run with the live set as it was.
    fn close<S: Surroundings<CELLS>>(&mut self, s: &mut S) {
        let suspects = self.agreement.accused;
        s.trace(
            Event::FalseAlarm,
            [u64::from(self.agreement.ballot.epoch.0), suspects.0],
        );
        self.count_strikes(s);
        self.agreement.end(Phase::Closed, self.now());
        self.end_quarantine(s, self.live);
    }

    /// Ends the run, if one is going on, because its epoch was sealed.
    pub(crate) fn conclude<S: Surroundings<CELLS>>(&mut self, s: &mut S) {
        if self.agreement.phase.is_active() {
            self.count_strikes(s);
        }
        self.agreement.end(Phase::Idle, self.now());
        self.end_quarantine(s, self.live);
    }

    /// Ends the run because a join took its epoch. The alert waits for the next one.
    pub(crate) fn postpone<S: Surroundings<CELLS>>(&mut self, s: &mut S) {
        if let Some(Alert { suspect, reason }) = self.agreement.alert {
            self.watch.put(Hint { suspect, reason });
        }
        self.agreement.end(Phase::Idle, self.now());
        self.end_quarantine(s, self.live);
    }

    /// Counts who cried wolf in the attempt that ends, ourselves included.
    fn count_strikes<S: Surroundings<CELLS>>(&mut self, s: &mut S) {
        let (now, timing) = (self.now().at, self.timing);
        let counted = self
            .strikes
            .count(&self.agreement.flooding, self.live, now, &timing);
        for accuser in counted.iter() {
            let struck = self.agreement.flooding.opinions[accuser.index()].alert;
            let strikes = struck.map_or(0, |alert| {
                self.strikes.strikes(accuser, alert, now, timing.window)
            });
            s.trace(Event::Strike, [accuser.index() as u64, strikes as u64]);
        }
        let Some(alert) = self
            .agreement
            .alert
            .filter(|alert| self.live.contains(alert.suspect))
        else {
            return;
        };
        let unconfirmed = counted.contains(self.me);
        let span = if unconfirmed {
            timing.window * 2
        } else {
            timing.probe
        };
        self.watch.hold_back(alert, now + span);
    }
}

impl Sightings {
    /// Notes an attempt that `record` shows to be going on for the epoch of `own`.
    pub(crate) fn note_attempt<const CELLS: usize>(
        &mut self,
        own: Ballot,
        record: &RecordCopy<CELLS>,
    ) {
        let is_next = record.phase.is_active() && record.ballot.epoch == own.epoch;
        let ahead = record.ballot.attempt.saturating_sub(own.attempt);
        if !is_next || record.ballot.attempt < own.attempt || ahead > AHEAD_MAX {
            return;
        }
        let mut attempts = [
            self.attempts[0],
            self.attempts[1],
            Some(record.ballot.attempt),
        ];
        attempts.sort_unstable_by_key(|&attempt| Reverse(attempt));
        self.attempts = [attempts[0], attempts[1]];
    }
}

impl<const CELLS: usize, const CPUS: usize> Recovery<CELLS, CPUS> {
    /// The attempt against which newer ones are measured, for [`Sightings::note_attempt`].
    pub(crate) fn newer_than(&self) -> Ballot {
        self.next_ballot()
    }
}
