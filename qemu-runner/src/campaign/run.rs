//! The command that runs a campaign and reports on it.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::arguments::RunArguments;
use super::directory::{Beginning, Journal, Manifest};
use super::file::Campaign;
use super::jobs::{Engine, Job};
use super::outcome::PauseLimit;
use super::resolve::Resolved;
use super::{report, summary::Summary};
use crate::cli::EmulatorArgument;
use crate::commands::{Setup, prepare, program};
use crate::error::{Ending, Error, Result};
use crate::experiment;
use crate::images::workspace_root;
use crate::launch::{Keep, Launch, Mode, Serial};
use crate::observation::Observation;
use crate::output::{Format, Progress, print_json, print_text};
use crate::watch::Detail;

/// Runs, if neither the command line nor the file says how many.
const RUNS: u32 = 100;
/// The share of runs that could not be carried out, in percent, from which on a campaign shows
/// nothing.
const INFRA_PERCENT_MAX: usize = 10;

/// One QEMU for each run.
#[derive(Debug)]
pub struct Machines {
    /// What to start.
    pub launch: Launch,
}

impl Engine for Machines {
    fn carry_out(&self, run: &Resolved, progress: &mut Progress) -> Result<Observation> {
        experiment::run(&self.launch, &run.plan(), Detail::Events, progress)
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
    let at_once = at_once(arguments.jobs, campaign.header.mode);
    let mut progress = Progress::new();
    let machine = campaign.machine.get_ref().machine();
    let program = program(EmulatorArgument::Qemu, &machine, campaign.header.mode)?;
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
        at_once,
        only,
        stop_on: arguments.stop_on,
    };
    let engine = Machines { launch };
    let started = Instant::now();
    let ended = job.carry_out(&engine, &mut journal, &mut progress);
    drop(progress);
    if let Err(Error::Interrupted) = ended {
        let (finished, shown) = (journal.records.len(), path.display());
        eprintln!("{finished} finished runs are in {shown}; --resume {shown} goes on");
    }
    ended?;
    finish(&journal, &manifest, started.elapsed(), format)
}

/// How many runs at a time: `asked`, or one per CPU of the host where that changes nothing.
fn at_once(asked: Option<usize>, mode: Mode) -> usize {
    let all = || thread::available_parallelism().map_or(1, NonZero::get);
    let at_once = match (asked, mode) {
        (None, Mode::Realtime) => 1,
        (Some(0), Mode::Realtime) => {
            eprintln!(
                "--jobs 0 is one run at a time: in real time they would slow each other down"
            );
            1
        }
        (None | Some(0), Mode::Deterministic) => all(),
        (Some(asked), _) => asked,
    };
    if at_once > 1 && mode == Mode::Realtime {
        eprintln!(
            "warning: {at_once} machines in real time at once: they slow each other down, and \
             their times and suspicions show that"
        );
    }
    at_once
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
