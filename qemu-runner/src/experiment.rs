//! One run: boot, work, inject, follow to the end.
//!
//! # Invariants
//! 1. Every wait has a bound; a run ends in an [`Observation`] or in an error that is not the
//!    machine's.
//! 2. The emulator's clock decides only when the runner looks and acts. What it reports is the
//!    guest's time.
//! 3. In the deterministic mode host time decides nothing: the runner looks and acts while the
//!    machine stands still, and the run ends there.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use cell::fault::InnerFault;
use cell::trace::Event;

use crate::error::{Error, Result};
use crate::fault::catalogue::Fault;
use crate::fault::corrupt::Stuck;
use crate::fault::host::{Frozen, Target, inject, thaw};
use crate::fault::plan::{Kind, Plan, Series, Strike, Trigger};
use crate::guest::cells::reset_pause;
use crate::interrupt;
use crate::launch::Launch;
use crate::observation::{
    CellSnapshot, End, Injected, Missed, Note, Observation, Reached, SUSPICIONS, carried_out,
    matters,
};
use crate::output::Progress;
use crate::pace::Moment;
use crate::session::{Passed, Session};
use crate::watch::{Detail, Watch, snapshot};

mod armed;
mod control;
mod ending;
mod missed;
mod settled;

use armed::{Armed, Surroundings};
pub use control::Comparison;
use control::Course;
use settled::Settled;

/// Between two looks while an event is waited for.
const LOOK_SHARP: Duration = Duration::from_micros(200);
/// Between two looks otherwise, to leave the host's CPUs to the guest.
const LOOK: Duration = Duration::from_millis(1);
/// Between two looks at the state of the cells and of the emulator.
const CHECK: Duration = Duration::from_millis(10);

/// Boots a machine, carries out a plan, and follows it to its end.
///
/// # Errors
/// Whatever keeps the runner from doing so; what the machine does is in the [`Observation`].
pub fn run(
    launch: &Launch,
    plan: &Plan,
    detail: Detail,
    progress: &mut Progress,
) -> Result<Observation> {
    let (observed, _) = carry_out(launch, plan, (detail, None), progress)?;
    Ok(observed)
}

fn carry_out(
    launch: &Launch,
    plan: &Plan,
    noted: (Detail, Option<Course>),
    progress: &mut Progress,
) -> Result<(Observation, Option<Course>)> {
    let mut run = Run::boot(launch, plan, noted, progress)?;
    let end = match run.begin(progress)? {
        Some(end) => end,
        None => run.follow(progress)?,
    };
    run.finish(end)
}

/// Carries out a plan up to its first fault and stops the machine there, for a debugger. Says where
/// that connects.
///
/// # Errors
/// See [`run`].
pub fn stop_at_fault(
    launch: &Launch,
    plan: &Plan,
    progress: &mut Progress,
) -> Result<(Session, PathBuf)> {
    let mut run = Run::boot(launch, plan, (Detail::Events, None), progress)?;
    if let Some(end) = run.begin(progress)? {
        return Err(Error::Down(format!(
            "the machine did not last until its fault: {end:?}"
        )));
    }
    let socket = run.session.emulator.hand_over()?;
    Ok((run.session, socket))
}

/// A run in progress.
struct Run<'a> {
    session: Session,
    watch: Watch,
    plan: &'a Plan,
    injected: Vec<Injected>,
    reached: Reached,
    control_from: Option<u64>,
    notes: Vec<Note>,
    before: Vec<CellSnapshot>,
    works: bool,
    /// When the last fault or thaw was.
    acted: Moment,
    /// CPUs that go on later.
    thaws: Vec<(Moment, Frozen)>,
    /// Bits that keep their value.
    stuck: Vec<Stuck>,
    /// The faults after the one that waits, in order.
    later: VecDeque<(Strike, Trigger)>,
    /// The fault that waits.
    armed: Option<Armed>,
    /// Faults that were asked of their cells, which have not done them yet.
    asked: Vec<(Injected, Option<Trigger>)>,
    /// Faults that found their target gone.
    left_out: Vec<Missed>,
    settled: Settled,
    /// Whether everything has settled since the last fault.
    is_settled: bool,
    /// For a comparison with a control.
    course: Option<Course>,
}

impl<'a> Run<'a> {
    fn boot(
        launch: &Launch,
        plan: &'a Plan,
        (detail, course): (Detail, Option<Course>),
        progress: &mut Progress,
    ) -> Result<Self> {
        let detail = if plan.watches_daily_work() {
            Detail::All
        } else {
            detail
        };
        launch.program.check(plan)?;
        let mut session = Session::boot(launch, progress)?;
        session.emulator.prepare(plan)?;
        let watch = Watch::new(&session.machine, detail);
        Self::new(session, watch, plan, course)
    }

    /// Lets the cells work, and injects the first fault. How it ended, if that was before.
    fn begin(&mut self, progress: &mut Progress) -> Result<Option<End>> {
        let mut early = self.work(progress)?;
        for number in 0..self.plan.rehearsals as usize {
            if early.is_none() {
                early = self.rehearse(number, progress)?;
            }
        }
        if early.is_none() {
            self.reached = Reached::Fault;
            self.strike_first(progress)?;
        }
        Ok(early)
    }

    fn new(session: Session, watch: Watch, plan: &'a Plan, course: Option<Course>) -> Result<Self> {
        let before = snapshot(&session)?;
        let now = session.emulator.now();
        Ok(Self {
            works: before.iter().any(|cell| cell.account.workers > 0),
            session,
            watch,
            plan,
            injected: Vec::new(),
            reached: Reached::Work,
            control_from: None,
            notes: Vec::new(),
            settled: Settled::new(&before, plan, now),
            before,
            acted: now,
            thaws: Vec::new(),
            stuck: Vec::new(),
            later: VecDeque::new(),
            armed: None,
            asked: Vec::new(),
            left_out: Vec::new(),
            is_settled: false,
            course,
        })
    }

    fn look(&mut self) -> Result<usize> {
        interrupt::check()?;
        let now = self.now();
        let Session {
            memory, machine, ..
        } = &self.session;
        let new = self.watch.look(memory, machine, now)?;
        self.confirm(new)?;
        Ok(new)
    }

    /// Counts the faults that were asked for as injected once their cells say that they do them.
    fn confirm(&mut self, new: usize) -> Result<()> {
        let start = self.injected.first().map_or(0, |injected| injected.at);
        for (asked, trigger) in std::mem::take(&mut self.asked) {
            let records = &self.watch.records;
            let done = |from: usize| carried_out(&records[from..], start, asked.fault, asked.cell);
            let is_same = |one: &&Injected| (one.fault, one.cell) == (asked.fault, asked.cell);
            // All records are gone through only where there is news.
            if done(new) > 0 && done(0) > self.injected.iter().filter(is_same).count() {
                self.injected.push(asked);
                if trigger.is_some() {
                    self.arm_next()?;
                }
            } else {
                self.asked.push((asked, trigger));
            }
        }
        Ok(())
    }

    /// Lets the cells work until the first fault. How it ended, if that was before.
    fn work(&mut self, progress: &mut Progress) -> Result<Option<End>> {
        let until = self.now() + self.plan.at;
        while self.now() < until {
            progress.step("the cells work");
            self.look()?;
            let span = LOOK.min(until.since(self.now()));
            match self.session.pass(span)? {
                Passed::Span => {}
                Passed::Down(how) => return Ok(Some(End::SystemDown(how))),
                Passed::Silence => return Ok(Some(End::Silence)),
            }
        }
        Ok(None)
    }

    /// Lets a cell other than the target panic and come back, each in turn, and forgets that. How
    /// it ended, if the cell did not come back: that panic is what the run shows then.
    fn rehearse(&mut self, number: usize, progress: &mut Progress) -> Result<Option<End>> {
        let cells = self.session.machine.cells();
        let others = cells.saturating_sub(1).max(1);
        let victim = (self.plan.first.cell + 1 + number % others) % cells;
        self.look_around()?;
        let panic = Strike::new(Fault::Inner(InnerFault::Panic), victim);
        let struck = self.strike(&panic, None)?;
        self.injected.push(struck);
        let end = self.follow(progress)?;
        if end != End::Settled {
            return Ok(Some(end));
        }
        self.injected.clear();
        self.work(progress)
    }

    /// Looks at the cells just before a fault.
    fn look_around(&mut self) -> Result<()> {
        self.before = snapshot(&self.session)?;
        self.settled = Settled::new(&self.before, self.plan, self.now());
        Ok(())
    }

    fn strike_first(&mut self, progress: &mut Progress) -> Result<()> {
        let plan = self.plan;
        if let Some(course) = &mut self.course {
            course.restart();
        }
        self.look_around()?;
        for cell in 0..self.session.machine.cells() {
            reset_pause(&self.session.memory, self.session.machine.public(cell))?;
        }
        let came = plan.kind == Kind::Golden || self.await_trigger(progress)?;
        if plan.kind != Kind::Fault || !came {
            self.control_from = Some(self.time());
            self.acted = self.now();
            return Ok(());
        }
        self.later.extend(plan.then.iter().cloned());
        let first = plan.first.clone();
        self.strike_next(&first)
    }

    /// Waits for what the first fault waits for; whether it came before the bound.
    fn await_trigger(&mut self, progress: &mut Progress) -> Result<bool> {
        let wanted = (self.plan.first.clone(), self.plan.trigger.clone());
        let (from, begun) = (self.time(), self.now());
        let mut armed = Armed::new(wanted, from, &mut self.session)?;
        loop {
            let new = self.look()?;
            if self.is_due(&mut armed, new)? {
                return Ok(true);
            }
            let span = armed.until_due(self.now()).unwrap_or(LOOK_SHARP);
            let passed = self.session.pass(span)?;
            let waited = self.now().since(begun);
            if !matches!(passed, Passed::Span) || waited >= self.plan.bound {
                armed.disarm(&mut self.session)?;
                // It is still waiting when the run is judged.
                self.armed = Some(armed);
                return Ok(false);
            }
            progress.step(&format!(
                "the first fault waits: {}",
                self.plan.trigger.cause
            ));
        }
    }

    /// Whether a fault that waits is due, by what came since the record `new`.
    fn is_due(&mut self, armed: &mut Armed, new: usize) -> Result<bool> {
        let is_due = armed.look(&mut Surroundings {
            now: self.session.emulator.now(),
            session: &mut self.session,
            fresh: &self.watch.records[new..],
            is_settled: self.is_settled,
        })?;
        if armed.trigger.needs_gdb() {
            // The machine stood still meanwhile.
            self.watch.forget_clock();
        }
        Ok(is_due)
    }

    /// Strikes, and sees to it that the next fault waits from then on.
    fn strike_next(&mut self, strike: &Strike) -> Result<()> {
        let inside = |next: &mut (Strike, Trigger)| is_timed_inside(strike, next);
        if let Some((next, trigger)) = self.later.pop_front_if(inside) {
            let armed = self.strike(&next, Some(&trigger))?;
            self.asked.push((armed, Some(trigger)));
        }
        let struck = self.strike(strike, None)?;
        match strike.fault {
            // What the first does, or does not, is seen in the end.
            Fault::Inner(_) if !self.injected.is_empty() => self.asked.push((struck, None)),
            _ => self.injected.push(struck),
        }
        (self.is_settled, self.acted) = (false, self.now());
        self.settled.restart();
        if self.asked.iter().any(|(_, trigger)| trigger.is_some()) {
            return Ok(());
        }
        self.arm_next()
    }

    fn arm_next(&mut self) -> Result<()> {
        if let Some(next) = self.later.pop_front() {
            let from = self.injected.last().map_or(0, |last| last.at);
            let armed = Armed::new(next, from, &mut self.session)?;
            self.armed = Some(armed);
        }
        Ok(())
    }

    fn strike(&mut self, strike: &Strike, trigger: Option<&Trigger>) -> Result<Injected> {
        // Before, not after: a fault may stop the machine for a moment.
        let at = self.time();
        let Session {
            emulator,
            memory,
            images,
            machine,
            ..
        } = &mut self.session;
        let target = Target {
            memory,
            machine,
            images,
        };
        if strike.fault == Fault::Inner(InnerFault::WildWrite) {
            emulator.watch_stores(&target, strike.cell)?;
        }
        let done = inject(&target, &mut **emulator, strike, trigger)?;
        // A request in memory stops nothing.
        if let Fault::Host(_) = strike.fault {
            self.watch.forget_clock();
        }
        self.acted = self.now();
        if let Some((after, frozen)) = strike.thaw.zip(done.frozen) {
            self.thaws.push((self.acted + after, frozen));
        }
        self.stuck.extend(done.stuck);
        Ok(Injected {
            fault: strike.fault,
            cell: strike.cell,
            expectation: strike.expectation(),
            at,
            detail: done.detail,
        })
    }

    /// Carries out what is due: a thaw, the next fault, what sticks.
    fn act(&mut self, new: usize) -> Result<()> {
        let now = self.now();
        if let Some(position) = self.thaws.iter().position(|&(due, _)| due <= now) {
            let (_, frozen) = self.thaws.remove(position);
            let at = self.time();
            let text = thaw(&mut *self.session.emulator, frozen)?;
            self.notes.push(Note { at, text });
            self.watch.forget_clock();
            self.acted = self.now();
        }
        for stuck in &self.stuck {
            stuck.assert(&self.session.memory, self.session.emulator.bus()?)?;
        }
        let start = self.injected.first().map_or(0, |injected| injected.at);
        if self.plan.series == Series::UntilDeath && self.watch.count(Event::Expelled, start) > 0 {
            self.later.clear();
            self.disarm()?;
        }
        let Some(mut armed) = self.armed.take() else {
            return Ok(());
        };
        if !self.is_due(&mut armed, new)? {
            self.armed = Some(armed);
            return Ok(());
        }
        match self.strike_next(&armed.strike) {
            // Its place is not there now: the cell is dead, or on its way back.
            Err(Error::Guest(why)) => {
                let (at, Strike { fault, cell, .. }) = (self.time(), armed.strike);
                let text = format!("{fault} left out: {why}");
                self.notes.push(Note { at, text });
                if self.plan.series == Series::Whole {
                    self.left_out.push(Missed { fault, cell });
                }
                self.arm_next()
            }
            outcome => outcome,
        }
    }

    fn disarm(&mut self) -> Result<()> {
        match self.armed.take() {
            Some(mut armed) => armed.disarm(&mut self.session),
            None => Ok(()),
        }
    }

    /// Follows the machine until everything has settled, or the bound.
    fn follow(&mut self, progress: &mut Progress) -> Result<End> {
        let begun = self.now();
        let mut checked = begun;
        loop {
            let new = self.look()?;
            self.act(new)?;
            // Suspicions that come to nothing stop nobody, and may go on for as long as the host is
            // busy.
            let news = |event: Event| matters(event) && !SUSPICIONS.contains(&event);
            if self.watch.records[new..]
                .iter()
                .any(|record| news(record.event))
            {
                self.settled.restart();
            }
            let now = self.now();
            if now.since(checked) >= CHECK {
                checked = now;
                let tenths = now.since(begun).as_millis() / 100;
                progress.step(&format!(
                    "{}.{} s since the fault",
                    tenths / 10,
                    tenths % 10
                ));
                if let Some(end) = self.ended(begun)? {
                    return Ok(end);
                }
            }
            let span = self.until_next_look();
            if let Some(course) = &mut self.course {
                course.add(&self.session, span)?;
            }
            match self.session.pass(span)? {
                Passed::Span => {}
                Passed::Down(how) => return Ok(End::SystemDown(how)),
                Passed::Silence => return Ok(End::Silence),
            }
        }
    }

    /// How long nobody needs to look.
    fn until_next_look(&self) -> Duration {
        let sharp = self.armed.is_some() || self.time() == 0;
        let span = if sharp { LOOK_SHARP } else { LOOK };
        let now = self.now();
        let thaws = self.thaws.iter().map(|&(due, _)| due);
        let due = self.armed.as_ref().and_then(Armed::due);
        let actions = thaws.chain(due).map(|due| due.since(now));
        // What is overdue is done at the next look; a span of nothing would be none.
        let actions = actions.filter(|span| !span.is_zero());
        actions.fold(span, Duration::min)
    }

    /// The moment of the run.
    fn now(&self) -> Moment {
        self.session.emulator.now()
    }

    /// The guest's time, in nanoseconds.
    fn time(&self) -> u64 {
        let exact = self.session.emulator.guest_time();
        exact.unwrap_or_else(|| self.watch.time(self.now()))
    }
}

/// Whether the next fault's victim times it itself, in the middle of what its event tells of. It
/// must then be asked for before this fault, which must leave the request as it is.
fn is_timed_inside(this: &Strike, next: &(Strike, Trigger)) -> bool {
    let (strike, trigger) = next;
    let is_inner = |strike: &Strike| matches!(strike.fault, Fault::Inner(_));
    let one_request = is_inner(this) && this.cell == strike.cell;
    is_inner(strike) && trigger.inner_event().is_some() && !one_request
}
