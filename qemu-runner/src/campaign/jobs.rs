//! Carries out the runs that are left, several at a time.
//!
//! # Invariants
//! 1. An interrupt or an error loses the runs in progress and no other.
//! 2. A run that QEMU or the runner could not finish is recorded as such and is not tried again.
//! 3. Nobody begins a run after the campaign has ended, and it ends only when nobody runs.

use std::collections::BTreeSet;
use std::iter;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::arguments::StopOn;
use super::directory::Journal;
use super::file::Campaign;
use super::outcome::Containment;
use super::record::Record;
use super::resolve::Resolved;
use super::run::pause_limit;
use crate::error::{Error, Result};
use crate::observation::Observation;
use crate::output::Progress;

/// So many runs in a row that could not be carried out end a campaign.
const FAILURES_MAX: u32 = 3;

/// Runs that are still to be carried out.
type Left<'a> = Box<dyn Iterator<Item = Resolved> + Send + 'a>;

/// Something that carries out runs, each on a machine of its own.
pub trait Engine: Sync {
    /// Carries out a run.
    ///
    /// # Errors
    /// Whatever kept it from doing so; what the machine does is in the [`Observation`].
    fn carry_out(&self, run: &Resolved, progress: &mut Progress) -> Result<Observation>;
}

/// What to run.
#[derive(Debug)]
pub struct Job<'a> {
    /// The campaign.
    pub campaign: &'a Campaign,
    /// Its seed.
    pub seed: u64,
    /// How many runs, with those that are finished already.
    pub runs: u32,
    /// How many at a time.
    pub at_once: usize,
    /// Only runs of this class.
    pub only: Option<&'a str>,
    /// When to stop early.
    pub stop_on: Option<StopOn>,
}

/// Whether a campaign goes on after a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Run,
    End,
}

/// Puts finished runs into the journal, and says when it is enough.
struct Ledger<'a> {
    journal: &'a mut Journal,
    stop_on: Option<StopOn>,
    failures: u32,
}

impl Ledger<'_> {
    fn add(&mut self, record: Record) -> Result<Next> {
        self.failures = match record.containment {
            Containment::Infra => self.failures + 1,
            _ => 0,
        };
        let problem = record.infra.clone().unwrap_or_default();
        let violation = record.is_violation();
        self.journal.add(record)?;
        if self.failures == FAILURES_MAX {
            return Err(Error::Campaign(format!(
                "{FAILURES_MAX} runs in a row could not be carried out, the last: {problem}"
            )));
        }
        let enough = violation && self.stop_on == Some(StopOn::Violation);
        Ok(if enough { Next::End } else { Next::Run })
    }
}

impl Job<'_> {
    /// Carries out every run that is not finished.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; [`Error::Campaign`] if nothing works; [`Error::Host`].
    pub fn carry_out(
        &self,
        engine: &dyn Engine,
        journal: &mut Journal,
        progress: &mut Progress,
    ) -> Result<()> {
        let left = self.left(journal);
        let mut ledger = Ledger {
            journal,
            stop_on: self.stop_on,
            failures: 0,
        };
        if self.at_once > 1 {
            return self.several(engine, left, &mut ledger, progress);
        }
        for resolved in left {
            let title = format!("run {} of {}, {}", resolved.run, self.runs, resolved.text());
            progress.begin(&title);
            let record = self.one(engine, resolved, progress)?;
            progress.clear();
            progress.finished(&self.told(&record));
            if ledger.add(record)? == Next::End {
                break;
            }
        }
        Ok(())
    }

    /// The runs that are not finished, in order. Each is drawn when it is its turn.
    fn left(&self, journal: &Journal) -> Left<'_> {
        let finished: BTreeSet<u32> = journal.records.keys().copied().collect();
        let left = (0..self.runs)
            .filter(move |number| !finished.contains(number))
            .map(|number| Resolved::of(self.campaign, self.seed, number))
            .filter(|resolved| self.only.is_none_or(|only| only == resolved.class));
        Box::new(left)
    }

    /// Each thread starts QEMUs and outlives them.
    fn several(
        &self,
        engine: &dyn Engine,
        left: Left<'_>,
        ledger: &mut Ledger<'_>,
        progress: &mut Progress,
    ) -> Result<()> {
        let (sender, finished) = channel();
        let threads = self.at_once.min(self.runs as usize);
        let left = Mutex::new(left);
        thread::scope(|scope| {
            for _ in 0..threads {
                let (sender, left) = (sender.clone(), &left);
                scope.spawn(move || self.work(engine, left, &sender));
            }
            drop(sender);
            self.collect(&finished, &left, ledger, progress)
        })
    }

    fn work(&self, engine: &dyn Engine, left: &Mutex<Left<'_>>, sender: &Sender<Result<Record>>) {
        loop {
            let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(resolved) = next else { return };
            let record = self.one(engine, resolved, &mut Progress::silent());
            let is_over = record.is_err();
            // Nobody listens any more only if the campaign is over.
            if sender.send(record).is_err() || is_over {
                return;
            }
        }
    }

    /// Takes what the threads have finished, until the last of them has ended. The first error
    /// counts, and what finishes after it is kept all the same.
    fn collect(
        &self,
        finished: &Receiver<Result<Record>>,
        left: &Mutex<Left<'_>>,
        ledger: &mut Ledger<'_>,
        progress: &mut Progress,
    ) -> Result<()> {
        let mut ended = Ok(());
        let show = |done: usize, progress: &mut Progress| {
            let (runs, at_once) = (self.runs, self.at_once);
            progress.step(&format!(
                "{done} of {runs} runs finished, {at_once} at a time"
            ));
        };
        show(ledger.journal.records.len(), progress);
        for record in finished {
            if let Ok(record) = &record {
                progress.finished(&self.told(record));
            }
            let next = record.and_then(|record| ledger.add(record));
            show(ledger.journal.records.len(), progress);
            if !matches!(next, Ok(Next::Run)) {
                *left.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(iter::empty());
            }
            if ended.is_ok() {
                ended = next.map(|_| ());
            }
        }
        progress.clear();
        ended
    }

    /// What is said of a finished run.
    fn told(&self, record: &Record) -> String {
        let (run, runs) = (record.run(), self.runs);
        let (what, label) = (record.resolved.text(), record.containment.text());
        format!("run {run} of {runs}, {what}: {label}")
    }

    fn one(
        &self,
        engine: &dyn Engine,
        resolved: Resolved,
        progress: &mut Progress,
    ) -> Result<Record> {
        let started = Instant::now();
        match engine.carry_out(&resolved, progress) {
            Ok(run) => {
                let limit = pause_limit(self.campaign);
                Ok(Record::of(resolved, &run, limit, started.elapsed()))
            }
            Err(Error::Down(how)) => Ok(Record::down(resolved, &how, started.elapsed())),
            // None says anything about this run alone.
            Err(error @ (Error::Interrupted | Error::Usage(_) | Error::Build(_))) => Err(error),
            Err(error) => Ok(Record::failed(resolved, &error, started.elapsed())),
        }
    }
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
