//! A fault that waits for its trigger.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::fault::objects::find;
use crate::fault::plan::{Cause, Strike, Trigger};
use crate::fault::trigger::{Progress, Seen};
use crate::guest::cells::load;
use crate::guest::symbols::Functions;
use crate::guest::trace::Observed;
use crate::pace::Moment;
use crate::qemu::gdb::breakpoints::Point;
use crate::session::Session;

/// How long one look waits for a CPU to meet a point.
const HIT_LIMIT: Duration = Duration::from_micros(200);
/// Meetings that one look takes, those of other cells included.
const HITS_MAX: u32 = 256;

/// A fault that waits.
#[derive(Debug)]
pub(super) struct Armed {
    pub(super) strike: Strike,
    pub(super) trigger: Trigger,
    /// Events before, in the guest's time, do not count.
    from: u64,
    progress: Progress,
    /// When it is due, once its cause was there.
    due: Option<Moment>,
    /// What the CPUs are to meet, while it is set.
    point: Option<Point>,
}

/// What an armed fault looks at.
pub(super) struct Surroundings<'a> {
    pub(super) session: &'a mut Session,
    /// The records that are new.
    pub(super) fresh: &'a [Observed],
    pub(super) is_settled: bool,
    /// The moment of the run.
    pub(super) now: Moment,
}

impl Armed {
    /// Begins to wait.
    ///
    /// # Errors
    /// [`Error::Guest`] if the kernel has no such function or object, [`Error::Channel`].
    pub(super) fn new(
        (strike, trigger): (Strike, Trigger),
        from: u64,
        session: &mut Session,
    ) -> Result<Self> {
        let point = point(&trigger.cause, session)?;
        if let Some(point) = point {
            session.emulator.gdb()?.set(point)?;
        }
        Ok(Self {
            strike,
            trigger,
            from,
            progress: Progress::default(),
            due: None,
            point,
        })
    }

    /// Whether it will be due whatever happens.
    pub(super) const fn is_sure(&self) -> bool {
        self.due.is_some() || matches!(self.trigger.cause, Cause::Now | Cause::Settled)
    }

    /// When it is due, once its cause came.
    pub(super) const fn due(&self) -> Option<Moment> {
        self.due
    }

    /// How long it is not due at `now`, once its cause came; not zero.
    pub(super) fn until_due(&self, now: Moment) -> Option<Duration> {
        let span = self.due?.since(now);
        (!span.is_zero()).then_some(span)
    }

    /// Looks once; whether it is due now.
    ///
    /// # Errors
    /// [`Error::Channel`], [`Error::Host`].
    pub(super) fn look(&mut self, around: &mut Surroundings<'_>) -> Result<bool> {
        if self.due.is_none() {
            let awaited = |record: &&Observed| {
                matches!(self.trigger.cause, Cause::Event(event) if event == record.event)
                    && record.at >= self.from
            };
            let seen = Seen {
                events: around.fresh.iter().filter(awaited).count() as u32,
                hits: self.hits(around.session)?,
                load: self.load(around.session)?,
                is_settled: around.is_settled,
            };
            if self.progress.advance(&self.trigger, seen) {
                self.disarm(around.session)?;
                self.due = Some(around.now + self.trigger.delay);
            }
        }
        Ok(self.due.is_some_and(|due| due <= around.now))
    }

    /// Takes back what it set.
    ///
    /// # Errors
    /// [`Error::Channel`].
    pub(super) fn disarm(&mut self, session: &mut Session) -> Result<()> {
        match self.point.take() {
            Some(point) => session.emulator.gdb()?.clear(point),
            None => Ok(()),
        }
    }

    fn hits(&self, session: &mut Session) -> Result<u32> {
        let Some(point) = self.point else {
            return Ok(0);
        };
        let cpus = session.machine.cpus_of(&session.memory, self.strike.cell)?;
        let mut hits = 0;
        for _ in 0..HITS_MAX {
            let Some(met) = session.emulator.gdb()?.hit(point, HIT_LIMIT)? else {
                break;
            };
            hits += u32::from(cpus.iter().any(|cpu| u32::from(cpu.apic_id) == met));
            if hits >= self.trigger.count {
                break;
            }
        }
        Ok(hits)
    }

    fn load(&self, session: &Session) -> Result<u64> {
        match self.trigger.cause {
            Cause::Load(_) => {
                let public = session.machine.public(self.strike.cell);
                load(&session.memory, public)
            }
            _ => Ok(0),
        }
    }
}

/// Where CPUs are to be stopped for a cause.
fn point(cause: &Cause, session: &Session) -> Result<Option<Point>> {
    let object = |name: &str| {
        let object = find(&session.images, name, &mut |_| 0)?;
        Ok::<_, Error>((object.address, object.bytes))
    };
    Ok(match cause {
        Cause::Symbol(name) => {
            let functions = Functions::read(&session.images.kernel)?;
            Some(Point::Execution(functions.find(name)?))
        }
        Cause::Write(name) => object(name).map(|(at, bytes)| Some(Point::Store(at, bytes)))?,
        Cause::Access(name) => object(name).map(|(at, bytes)| Some(Point::Access(at, bytes)))?,
        _ => None,
    })
}
