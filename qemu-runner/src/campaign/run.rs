//! Carries out the runs of a campaign, one after the other.
//!
//! # Invariants
//! 1. An interrupt or an error loses the run in progress and no other.
//! 2. A run that QEMU or the runner could not finish is recorded as such and is not tried again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::arguments::{RunArguments, StopOn};
use super::directory::{Beginning, Journal, Manifest};
use super::file::{Campaign, Mode};
use super::outcome::{Containment, PauseLimit};
use super::record::Record;
use super::resolve::Resolved;
use super::{report, summary::Summary};
use crate::cli::EmulatorArgument;
use crate::commands::{Setup, prepare, program};
use crate::error::{Ending, Error, Result};
use crate::experiment;
use crate::images::workspace_root;
use crate::launch::Serial;
use crate::launch::{Keep, Launch};
use crate::observation::Observation;
use crate::output::{Format, Progress, print_json, print_text};
use crate::watch::Detail;

/// Runs, if neither the command line nor the file says how many.
const RUNS: u32 = 100;
/// So many runs in a row that could not be carried out end a campaign.
const FAILURES_MAX: u32 = 3;
/// The share of such runs, in percent, from which on a campaign shows nothing.
const INFRA_PERCENT_MAX: usize = 10;

/// Something that carries out runs.
pub trait Engine {
    /// Carries out a run.
    ///
    /// # Errors
    /// Whatever kept it from doing so; what the machine does is in the [`Observation`].
    fn carry_out(&mut self, run: &Resolved, progress: &mut Progress) -> Result<Observation>;
}

/// One QEMU for each run, all CPUs at once.
#[derive(Debug)]
pub struct Realtime {
    /// What to start.
    pub launch: Launch,
}

impl Engine for Realtime {
    fn carry_out(&mut self, run: &Resolved, progress: &mut Progress) -> Result<Observation> {
        experiment::run(&self.launch, &run.plan(), Detail::Events, progress)
    }
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
    /// Only runs of this class.
    pub only: Option<&'a str>,
    /// When to stop early.
    pub stop_on: Option<StopOn>,
}

impl Job<'_> {
    /// Carries out every run that is not finished.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; [`Error::Campaign`] if nothing works; [`Error::Host`].
    pub fn carry_out(
        &self,
        engine: &mut dyn Engine,
        journal: &mut Journal,
        progress: &mut Progress,
    ) -> Result<()> {
        let mut failures = 0;
        for number in 0..self.runs {
            if journal.records.contains_key(&number) {
                continue;
            }
            let resolved = Resolved::of(self.campaign, self.seed, number);
            if self.only.is_some_and(|only| only != resolved.class) {
                continue;
            }
            let title = format!("run {number} of {}, {}", self.runs, resolved.text());
            progress.begin(&title);
            let record = self.one(engine, resolved, progress)?;
            failures = match record.containment {
                Containment::Infra => failures + 1,
                _ => 0,
            };
            let problem = record.infra.clone().unwrap_or_default();
            let violation = record.is_violation();
            progress.clear();
            journal.add(record)?;
            if failures == FAILURES_MAX {
                return Err(Error::Campaign(format!(
                    "{failures} runs in a row could not be carried out, the last: {problem}"
                )));
            }
            if violation && self.stop_on == Some(StopOn::Violation) {
                break;
            }
        }
        Ok(())
    }

    fn one(
        &self,
        engine: &mut dyn Engine,
        resolved: Resolved,
        progress: &mut Progress,
    ) -> Result<Record> {
        let started = Instant::now();
        match engine.carry_out(&resolved, progress) {
            Ok(run) => {
                let limit = pause_limit(self.campaign);
                Ok(Record::of(resolved, &run, limit, started.elapsed()))
            }
            // Neither says anything about this run alone.
            Err(error @ (Error::Interrupted | Error::Usage(_) | Error::Build(_))) => Err(error),
            Err(error) => Ok(Record::failed(resolved, &error, started.elapsed())),
        }
    }
}

/// The longest pause that the campaign allows, in microseconds.
pub fn pause_limit(campaign: &Campaign) -> PauseLimit {
    let limit = campaign.invariants.survivors_progress_ms;
    limit.map(|milliseconds| milliseconds.saturating_mul(1000))
}

/// Runs a campaign and reports on it.
///
/// # Errors
/// See [`Job::carry_out`]; [`Error::Usage`] if the file or the directory is refused.
pub fn command(arguments: &RunArguments, format: Format) -> Result<Ending> {
    let (text, campaign) = super::load(&arguments.file)?;
    let seed = arguments.seed.unwrap_or(campaign.header.seed);
    let runs = arguments.runs.or(campaign.header.runs).unwrap_or(RUNS);
    let only = arguments.only.as_deref();
    if let Some(only) = only {
        super::known_class(&campaign, only)?;
    }
    let mut progress = Progress::new();
    let machine = campaign.machine.get_ref().machine();
    let program = program(EmulatorArgument::Qemu, &machine)?;
    let launch = prepare(
        program,
        machine,
        &arguments.images,
        Serial::Log,
        Keep::Nothing,
        &mut progress,
    )?;
    let on = (Setup::of(&launch), &launch.images);
    let manifest = Manifest::new(&text, &campaign, seed, runs, on)?;
    let (path, beginning) = match (&arguments.resume, &arguments.out) {
        (Some(path), _) => (path.clone(), Beginning::Resumed),
        (None, Some(path)) => (path.clone(), Beginning::New),
        (None, None) => (default_directory(campaign.name(), seed), Beginning::New),
    };
    let mut journal = Journal::open(&path, &manifest, beginning)?;
    let job = Job {
        campaign: &campaign,
        seed,
        runs,
        only,
        stop_on: arguments.stop_on,
    };
    let mut engine = match campaign.header.mode {
        Mode::Realtime => Realtime { launch },
    };
    let started = Instant::now();
    let ended = job.carry_out(&mut engine, &mut journal, &mut progress);
    drop(progress);
    if let Err(Error::Interrupted) = ended {
        let (finished, shown) = (journal.records.len(), path.display());
        eprintln!("{finished} finished runs are in {shown}; --resume {shown} goes on");
    }
    ended?;
    finish(&journal, &manifest, started.elapsed(), format)
}

fn default_directory(name: &str, seed: u64) -> PathBuf {
    workspace_root()
        .join("runs")
        .join(format!("{name}-{seed:#x}"))
}

/// Writes the report and says how the campaign ended.
fn finish(
    journal: &Journal,
    manifest: &Manifest,
    took: Duration,
    format: Format,
) -> Result<Ending> {
    let summary = Summary::of(manifest, journal.records.values());
    report::write(journal.path(), manifest, &journal.records, &summary)?;
    match format {
        Format::Json => print_json(&summary)?,
        Format::Text => {
            let (text, shown) = (
                report::text(&summary, journal.path()),
                journal.path().display(),
            );
            let took = took.as_secs();
            print_text(&format!("{text}\n{took} s; everything is in {shown}\n"))?;
        }
    }
    let infra = summary.totals.infra;
    if infra * 100 > INFRA_PERCENT_MAX * summary.totals.runs {
        let runs = summary.totals.runs;
        return Err(Error::Campaign(format!(
            "{infra} of {runs} runs could not be carried out"
        )));
    }
    Ok(summary.ending())
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
