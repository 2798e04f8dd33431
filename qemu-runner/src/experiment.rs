//! One run: boot, work, inject, follow to the end.
//!
//! # Invariants
//! 1. Every wait has a bound; a run ends in an [`Observation`] or in an error that is not the
//!    machine's.
//! 2. Host time decides only when the runner looks and acts. What it reports is the guest's time.

use std::time::{Duration, Instant};

use cell::fault::InnerFault;
use cell::trace::Event;
use cell::workload::Operation;
use userland::Account;

use crate::error::{Error, Result};
use crate::fault::catalogue::{Expectation, Fault};
use crate::fault::channels::Channels;
use crate::fault::host::{inject, thaw};
use crate::fault::plan::{Kind, Plan, Strike, Trigger};
use crate::guest::cells::reset_pause;
use crate::guest::symbols::Functions;
use crate::interrupt;
use crate::observation::{CellSnapshot, End, Injected, Note, Observation, SUSPICIONS, matters};
use crate::output::Progress;
use crate::qemu::process::Launch;
use crate::session::{Session, system_down};
use crate::watch::{Detail, Watch, snapshot};

/// How long nothing may happen, and everybody work, before a run is over.
const SETTLE: Duration = Duration::from_millis(400);
/// How long a fault that may be survived is given to show an effect.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Between two looks while an event is waited for.
const LOOK_SHARP: Duration = Duration::from_micros(200);
/// Between two looks otherwise, to leave the host's CPUs to the guest.
const LOOK: Duration = Duration::from_millis(1);
/// Between two looks at the state of the cells and of QEMU.
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
    let (session, qmp) = Session::boot(launch, progress)?;
    let strikes = plan.strikes().filter(|_| plan.kind != Kind::Golden);
    let channels = Channels::connect(&session.qemu, qmp, strikes)?;
    let watch = Watch::new(&session.machine, detail);
    let mut run = Run::new(session, channels, watch, plan)?;
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
    channels: Channels,
    watch: Watch,
    plan: &'a Plan,
    injected: Vec<Injected>,
    control_from: Option<u64>,
    notes: Vec<Note>,
    before: Vec<CellSnapshot>,
    works: bool,
    /// When the last fault or thaw was, on the host.
    acted: Instant,
    /// CPUs that go on later.
    thaws: Vec<(Instant, Strike)>,
    /// The second fault: not yet armed or struck, and when it is due once its event was seen.
    second: Option<(Strike, Trigger)>,
    due: Option<Instant>,
    settled: Settled,
}

impl<'a> Run<'a> {
    fn new(session: Session, channels: Channels, watch: Watch, plan: &'a Plan) -> Result<Self> {
        let before = snapshot(&session)?;
        Ok(Self {
            works: before.iter().any(|cell| cell.account.workers > 0),
            session,
            channels,
            watch,
            plan,
            injected: Vec::new(),
            control_from: None,
            notes: Vec::new(),
            before,
            acted: Instant::now(),
            thaws: Vec::new(),
            second: None,
            due: None,
            settled: Settled::default(),
        })
    }

    fn look(&mut self) -> Result<usize> {
        interrupt::check()?;
        self.watch
            .look(self.session.qemu.memory(), &self.session.machine)
    }

    /// Lets the cells work until the first fault.
    fn work(&mut self, progress: &mut Progress) -> Result<()> {
        let until = Instant::now() + self.plan.at;
        while Instant::now() < until {
            progress.step("the cells work");
            self.look()?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Lets a cell other than the target panic and come back, each in turn, and forgets that.
    fn rehearse(&mut self, number: usize, progress: &mut Progress) -> Result<()> {
        let cells = self.session.machine.cells();
        let others = cells.saturating_sub(1).max(1);
        let victim = (self.plan.first.cell + 1 + number % others) % cells;
        self.before = snapshot(&self.session)?;
        self.strike(&Strike::new(Fault::Inner(InnerFault::Panic), victim), None)?;
        let end = self.follow(progress)?;
        if end != End::Settled {
            return Err(Error::Guest(format!(
                "the rehearsal, a panic of cell {victim}, did not end in recovery: {end:?}"
            )));
        }
        self.injected.clear();
        self.settled = Settled::default();
        self.work(progress)
    }

    fn strike_first(&mut self) -> Result<()> {
        self.before = snapshot(&self.session)?;
        for cell in 0..self.session.machine.cells() {
            reset_pause(
                self.session.qemu.memory(),
                self.session.machine.public(cell),
            )?;
        }
        if self.plan.kind != Kind::Fault {
            self.control_from = Some(self.watch.now());
            self.acted = Instant::now();
            return Ok(());
        }
        self.second.clone_from(&self.plan.second);
        // A second fault that the victim's kernel times itself must be asked for before the first
        // strikes.
        if let Some((strike, trigger)) = self.second.clone()
            && matches!(strike.fault, Fault::Inner(_))
            && trigger.is_seen_by_every_cell()
            && trigger.delay.is_zero()
        {
            self.strike(&strike, Some(trigger))?;
            let armed = self.injected.pop();
            self.second = None;
            let plan = self.plan;
            self.strike(&plan.first, None)?;
            self.injected.extend(armed);
            return Ok(());
        }
        let plan = self.plan;
        self.strike(&plan.first, None)
    }

    fn strike(&mut self, strike: &Strike, trigger: Option<Trigger>) -> Result<()> {
        // Before, not after: a fault may stop the machine for a moment.
        let at = self.watch.now();
        let target = self.session.target();
        let detail = inject(&target, &mut self.channels, strike, trigger)?;
        self.injected.push(Injected {
            fault: strike.fault,
            cell: strike.cell,
            expectation: strike.expectation(),
            at,
            detail,
        });
        self.watch.forget_clock();
        self.acted = Instant::now();
        if let Some(after) = strike.thaw {
            self.thaws.push((Instant::now() + after, strike.clone()));
        }
        Ok(())
    }

    /// Carries out what is due: a thaw, or the second fault.
    fn act(&mut self, new: usize) -> Result<()> {
        let now = Instant::now();
        if let Some(position) = self.thaws.iter().position(|&(due, _)| due <= now) {
            let (_, strike) = self.thaws.remove(position);
            let at = self.watch.now();
            let text = thaw(&self.session.target(), &mut self.channels, &strike)?;
            self.notes.push(Note { at, text });
            self.watch.forget_clock();
            self.acted = Instant::now();
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
            self.strike(&strike, None)?;
        }
        Ok(())
    }

    /// Follows the machine until everything has settled, or the bound.
    fn follow(&mut self, progress: &mut Progress) -> Result<End> {
        let begun = Instant::now();
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
            if checked.elapsed() >= CHECK {
                checked = Instant::now();
                let tenths = begun.elapsed().as_millis() / 100;
                progress.step(&format!(
                    "{}.{} s since the fault",
                    tenths / 10,
                    tenths % 10
                ));
                if let Some(end) = self.ended(begun)? {
                    return Ok(end);
                }
            }
            let sharp = self.second.is_some() || self.watch.now() == 0;
            std::thread::sleep(if sharp { LOOK_SHARP } else { LOOK });
        }
    }

    fn ended(&mut self, begun: Instant) -> Result<Option<End>> {
        if let Some(how) = system_down(&mut self.session.qemu, &mut self.channels.qmp)? {
            return Ok(Some(End::SystemDown(how)));
        }
        if begun.elapsed() >= self.plan.bound {
            return Ok(Some(End::Bound));
        }
        let cells = snapshot(&self.session)?;
        if !self.settled.holds(&cells, self.works) || !self.thaws.is_empty() {
            return Ok(None);
        }
        let pairs = || self.before.iter().zip(&cells);
        if pairs().any(|(before, now)| before.incarnation != now.incarnation) {
            let waiting = self.second.is_some() && self.acted.elapsed() < PATIENCE;
            return Ok((!waiting).then_some(End::Settled));
        }
        let must_die = self
            .injected
            .iter()
            .any(|one| one.expectation == Expectation::Dies);
        let quiet = !must_die && self.acted.elapsed() >= PATIENCE;
        Ok(quiet.then_some(End::Quiet))
    }

    fn finish(mut self, end: End) -> Result<Observation> {
        self.look()?;
        self.watch
            .read_accounts(self.session.qemu.memory(), &self.session.machine)?;
        let after = snapshot(&self.session)?;
        let (_, live_set) = self.session.machine.live_set(self.session.qemu.memory())?;
        let mut records = std::mem::take(&mut self.watch.records);
        records.sort_by_key(|record| record.at);
        let functions = Functions::read(&self.session.images.kernel)?;
        let explained = |(life, text): (_, String)| (life, functions.explain(&text));
        let epitaphs = std::mem::take(&mut self.watch.epitaphs);
        let epitaphs = epitaphs.into_iter().map(explained).collect();
        Ok(Observation {
            boot_time: self.session.boot_time,
            injected: self.injected,
            control_from: self.control_from,
            ended_at: self.watch.now(),
            notes: self.notes,
            not_triggered: self
                .second
                .into_iter()
                .map(|(strike, _)| strike.fault)
                .collect(),
            records,
            records_lost: self.watch.lost(),
            before: self.before,
            progressing: self.settled.progressing(&after, self.works),
            after,
            lives: self.watch.lives,
            epitaphs,
            live_set,
            works: self.works,
            end,
        })
    }
}

/// Whether everybody serves and works and nothing has happened for a while.
#[derive(Default)]
struct Settled {
    /// Since when nothing happened, with the accounts at that time.
    since: Option<(Instant, Vec<Account>)>,
}

impl Settled {
    fn restart(&mut self) {
        self.since = None;
    }

    fn holds(&mut self, cells: &[CellSnapshot], works: bool) -> bool {
        if !cells.iter().all(|cell| cell.serves) {
            self.restart();
        }
        let (since, _) = self.since.get_or_insert_with(|| {
            (
                Instant::now(),
                cells.iter().map(|cell| cell.account).collect(),
            )
        });
        let long = since.elapsed() >= SETTLE;
        long && self
            .progressing(cells, works)
            .into_iter()
            .all(|progressing| progressing)
    }

    /// Which cells have finished operations of every kind since nothing happened.
    fn progressing(&self, cells: &[CellSnapshot], works: bool) -> Vec<bool> {
        let Some((_, accounts)) = &self.since else {
            return cells.iter().map(|cell| cell.serves).collect();
        };
        let alone = cells.len() == 1;
        let goes_on = |(cell, then): (&CellSnapshot, &Account)| {
            let more = |&operation: &Operation| {
                let (now, then) = (cell.account.of(operation), then.of(operation));
                now.verified > then.verified || (alone && operation != Operation::Compute)
            };
            let same_life = cell.account.life == then.life;
            cell.serves && (!works || (same_life && Operation::ALL.iter().all(more)))
        };
        cells.iter().zip(accounts).map(goes_on).collect()
    }
}
