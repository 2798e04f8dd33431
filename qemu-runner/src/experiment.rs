//! One run: boot, work, inject, follow to the end.
//!
//! # Invariants
//! 1. Every wait has a bound; a run ends in an [`Observation`] or in an error that is not the
//!    machine's.
//! 2. The emulator's clock decides only when the runner looks and acts. What it reports is the
//!    guest's time.

use std::time::Duration;

use cell::fault::InnerFault;
use cell::trace::Event;

use crate::error::{Error, Result};
use crate::fault::catalogue::{Expectation, Fault};
use crate::fault::host::{Frozen, Target, inject, thaw};
use crate::fault::plan::{Kind, Plan, Strike, Trigger};
use crate::guest::cells::reset_pause;
use crate::guest::symbols::Functions;
use crate::guest::trace::{Observed, Source};
use crate::interrupt;
use crate::launch::Launch;
use crate::observation::{
    CellSnapshot, End, Injected, Missed, Note, Observation, SUSPICIONS, carried_out, matters,
};
use crate::output::Progress;
use crate::session::Session;
use crate::watch::{Detail, Watch, snapshot};

mod settled;

use settled::Settled;

/// How long a fault that may be survived is given to show an effect.
const PATIENCE: Duration = Duration::from_millis(1500);
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
    launch.program.check(plan.strikes())?;
    let mut session = Session::boot(launch, progress)?;
    let strikes: Vec<&Strike> = plan.strikes().collect();
    if plan.kind != Kind::Golden {
        session.emulator.prepare(&strikes)?;
    }
    let watch = Watch::new(&session.machine, detail);
    let mut run = Run::new(session, watch, plan)?;
    run.work(progress)?;
    for number in 0..plan.rehearsals {
        run.rehearse(number as usize, progress)?;
    }
    run.strike_first()?;
    let end = run.follow(progress)?;
    run.finish(end)
}

/// A run in progress.
struct Run<'a> {
    session: Session,
    watch: Watch,
    plan: &'a Plan,
    injected: Vec<Injected>,
    control_from: Option<u64>,
    notes: Vec<Note>,
    before: Vec<CellSnapshot>,
    works: bool,
    /// When the last fault or thaw was, by the emulator's clock.
    acted: Duration,
    /// CPUs that go on later.
    thaws: Vec<(Duration, Frozen)>,
    /// The second fault: not yet armed or struck, and when it is due once its event was seen.
    second: Option<(Strike, Trigger)>,
    due: Option<Duration>,
    /// The second fault: asked of its cell, which has not done it yet.
    asked: Option<(Injected, Option<Trigger>)>,
    settled: Settled,
}

impl<'a> Run<'a> {
    fn new(session: Session, watch: Watch, plan: &'a Plan) -> Result<Self> {
        let before = snapshot(&session)?;
        let now = session.emulator.elapsed();
        Ok(Self {
            works: before.iter().any(|cell| cell.account.workers > 0),
            session,
            watch,
            plan,
            injected: Vec::new(),
            control_from: None,
            notes: Vec::new(),
            settled: Settled::new(&before, now),
            before,
            acted: now,
            thaws: Vec::new(),
            second: None,
            due: None,
            asked: None,
        })
    }

    /// By the emulator's clock.
    fn now(&self) -> Duration {
        self.session.emulator.elapsed()
    }

    /// By the guest's clock.
    fn guest_time(&self) -> u64 {
        self.watch.time(self.now())
    }

    fn look(&mut self) -> Result<usize> {
        interrupt::check()?;
        let now = self.now();
        let Session {
            memory, machine, ..
        } = &self.session;
        let new = self.watch.look(memory, machine, now)?;
        self.confirm(new);
        Ok(new)
    }

    /// Counts a fault that was asked for as injected once its cell says that it does it.
    fn confirm(&mut self, new: usize) {
        let Some((asked, trigger)) = self.asked.take() else {
            return;
        };
        let records = &self.watch.records;
        let start = self.injected.first().map_or(0, |injected| injected.at);
        let done = |from: usize| carried_out(&records[from..], start, asked.fault, asked.cell);
        let is_same = |one: &&Injected| (one.fault, one.cell) == (asked.fault, asked.cell);
        // All records are gone through only where there is news.
        if done(new) > 0 && done(0) > self.injected.iter().filter(is_same).count() {
            self.injected.push(asked);
        } else {
            self.asked = Some((asked, trigger));
        }
    }

    /// Lets the cells work until the first fault.
    fn work(&mut self, progress: &mut Progress) -> Result<()> {
        let until = self.now() + self.plan.at;
        while self.now() < until {
            progress.step("the cells work");
            self.look()?;
            self.session.emulator.pass(LOOK)?;
        }
        Ok(())
    }

    /// Lets a cell other than the target panic and come back, each in turn, and forgets that.
    fn rehearse(&mut self, number: usize, progress: &mut Progress) -> Result<()> {
        let cells = self.session.machine.cells();
        let others = cells.saturating_sub(1).max(1);
        let victim = (self.plan.first.cell + 1 + number % others) % cells;
        self.begin()?;
        let panic = Strike::new(Fault::Inner(InnerFault::Panic), victim);
        let struck = self.strike(&panic, None)?;
        self.injected.push(struck);
        let end = self.follow(progress)?;
        if end != End::Settled {
            return Err(Error::Guest(format!(
                "the rehearsal, a panic of cell {victim}, did not end in recovery: {end:?}"
            )));
        }
        self.injected.clear();
        self.work(progress)
    }

    /// Looks at the cells just before a fault.
    fn begin(&mut self) -> Result<()> {
        self.before = snapshot(&self.session)?;
        self.settled = Settled::new(&self.before, self.now());
        Ok(())
    }

    fn strike_first(&mut self) -> Result<()> {
        let plan = self.plan;
        self.begin()?;
        for cell in 0..self.session.machine.cells() {
            reset_pause(&self.session.memory, self.session.machine.public(cell))?;
        }
        if plan.kind != Kind::Fault {
            self.control_from = Some(self.guest_time());
            self.acted = self.now();
            return Ok(());
        }
        self.second.clone_from(&plan.second);
        if let Some((strike, trigger)) = self.second.take_if(|second| is_timed_inside(plan, second))
        {
            let armed = self.strike(&strike, Some(trigger))?;
            self.asked = Some((armed, Some(trigger)));
        }
        let struck = self.strike(&plan.first, None)?;
        self.injected.push(struck);
        Ok(())
    }

    fn strike(&mut self, strike: &Strike, trigger: Option<Trigger>) -> Result<Injected> {
        // Before, not after: a fault may stop the machine for a moment.
        let at = self.guest_time();
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
        Ok(Injected {
            fault: strike.fault,
            cell: strike.cell,
            expectation: strike.expectation(),
            at,
            detail: done.detail,
        })
    }

    /// Carries out what is due: a thaw, or the second fault.
    fn act(&mut self, new: usize) -> Result<()> {
        let now = self.now();
        if let Some(position) = self.thaws.iter().position(|&(due, _)| due <= now) {
            let (_, frozen) = self.thaws.remove(position);
            let at = self.guest_time();
            let text = thaw(&mut *self.session.emulator, frozen)?;
            self.notes.push(Note { at, text });
            self.watch.forget_clock();
            self.acted = self.now();
        }
        let start = self.injected.first().map_or(0, |injected| injected.at);
        if let Some((_, trigger)) = &self.second
            && self.due.is_none()
        {
            let fresh = &self.watch.records[new..];
            let seen = fresh.iter().any(|record| record.event == trigger.event);
            if seen && self.watch.count(trigger.event, start) >= trigger.count as usize {
                self.due = Some(now + trigger.delay);
            }
        }
        if self.due.is_some_and(|due| due <= now)
            && let Some((strike, _)) = self.second.take()
        {
            let struck = self.strike(&strike, None)?;
            match strike.fault {
                Fault::Inner(_) => self.asked = Some((struck, None)),
                Fault::Host(_) => self.injected.push(struck),
            }
        }
        Ok(())
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
            if now.saturating_sub(checked) >= CHECK {
                checked = now;
                let tenths = now.saturating_sub(begun).as_millis() / 100;
                progress.step(&format!(
                    "{}.{} s since the fault",
                    tenths / 10,
                    tenths % 10
                ));
                if let Some(end) = self.ended(begun)? {
                    return Ok(end);
                }
            }
            let sharp = self.second.is_some() || self.guest_time() == 0;
            let pause = if sharp { LOOK_SHARP } else { LOOK };
            self.session.emulator.pass(pause)?;
        }
    }

    fn ended(&mut self, begun: Duration) -> Result<Option<End>> {
        if let Some(how) = self.session.emulator.down()? {
            return Ok(Some(End::SystemDown(how)));
        }
        let now = self.now();
        if now.saturating_sub(begun) >= self.plan.bound {
            return Ok(Some(End::Bound));
        }
        let cells = snapshot(&self.session)?;
        if !self.settled.holds(&cells, now) || !self.thaws.is_empty() {
            return Ok(None);
        }
        let patient = now.saturating_sub(self.acted) < PATIENCE;
        let open = self.second.is_some() || self.asked.is_some();
        if self.due.is_some() && self.second.is_some() || open && patient {
            return Ok(None);
        }
        let pairs = || self.before.iter().zip(&cells);
        if pairs().any(|(before, now)| before.incarnation != now.incarnation) {
            return Ok(Some(End::Settled));
        }
        let must_die = self
            .injected
            .iter()
            .any(|one| one.expectation == Expectation::Dies);
        Ok((!must_die && !patient).then_some(End::Quiet))
    }

    /// The faults whose event did not happen, and those that their cell, asked for them, did not
    /// do. A note tells of the latter.
    fn missed(&mut self) -> (Vec<Fault>, Vec<Missed>) {
        let second = self.second.take().map(|(strike, _)| strike.fault);
        let Some((asked, trigger)) = self.asked.take() else {
            return (second.into_iter().collect(), Vec::new());
        };
        let text = format!("{}, {}: not done", asked.fault.name(), asked.detail);
        self.notes.push(Note { at: asked.at, text });
        let start = self.injected.first().map_or(0, |injected| injected.at);
        let happened = trigger.is_none_or(|trigger| {
            let own = |record: &&Observed| {
                record.source == Source::Cell(asked.cell)
                    && record.event == trigger.event
                    && record.at >= start
            };
            self.watch.records.iter().filter(own).count() >= trigger.count as usize
        });
        if happened {
            let (fault, cell) = (asked.fault, asked.cell);
            (Vec::new(), vec![Missed { fault, cell }])
        } else {
            (vec![asked.fault], Vec::new())
        }
    }

    fn finish(mut self, end: End) -> Result<Observation> {
        self.look()?;
        self.watch
            .read_accounts(&self.session.memory, &self.session.machine)?;
        let after = snapshot(&self.session)?;
        let progressing = self.settled.progressing(&after, self.now());
        let (not_triggered, not_carried_out) = self.missed();
        let (_, live_set) = self.session.machine.live_set(&self.session.memory)?;
        let mut records = std::mem::take(&mut self.watch.records);
        records.sort_by_key(|record| record.at);
        let functions = Functions::read(&self.session.images.kernel)?;
        let explained = |(life, text): (_, String)| (life, functions.explain(&text));
        let epitaphs = std::mem::take(&mut self.watch.epitaphs);
        let epitaphs = epitaphs.into_iter().map(explained).collect();
        let ended_at = self.guest_time();
        Ok(Observation {
            boot_time: self.session.boot_time,
            injected: self.injected,
            control_from: self.control_from,
            ended_at,
            notes: self.notes,
            not_triggered,
            not_carried_out,
            records,
            records_lost: self.watch.lost(),
            before: self.before,
            progressing,
            after,
            lives: self.watch.lives,
            epitaphs,
            live_set,
            watched: self.session.emulator.watched(),
            works: self.works,
            end,
        })
    }
}

/// Whether the second fault's victim times it itself, in the middle of what its event tells of. It
/// must then be asked for before the first fault, which must leave the request as it is.
fn is_timed_inside(plan: &Plan, second: &(Strike, Trigger)) -> bool {
    let (strike, trigger) = second;
    let is_inner = |strike: &Strike| matches!(strike.fault, Fault::Inner(_));
    let one_request = is_inner(&plan.first) && plan.first.cell == strike.cell;
    is_inner(strike) && trigger.is_seen_by_every_cell() && trigger.delay.is_zero() && !one_request
}
