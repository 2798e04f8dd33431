//! The command that runs a campaign and reports on it.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::arguments::RunArguments;
use super::directory::{Beginning, Journal, Manifest, check_new, read_manifest};
use super::file::Campaign;
use super::jobs::{Engine, Job};
use super::outcome::PauseLimit;
use super::resolve::Resolved;
use super::validate::check_names;
use super::{report, summary::Summary};
use crate::cli::{EmulatorArgument, ImageArguments};
use crate::commands::{Setup, prepare, program};
use crate::error::{Ending, Error, Result};
use crate::experiment::Comparison;
use crate::images::workspace_root;
use crate::launch::{Keep, Launch, Mode, Serial};
use crate::observation::Observation;
use crate::output::{Format, Progress, counted, print_json, print_text, quoted};
use crate::watch::Detail;

/// Runs, if neither the command line nor the file says how many.
const RUNS: u32 = 100;

/// One QEMU for each run.
#[derive(Debug)]
pub struct Machines {
    /// What to start.
    pub launch: Launch,
    /// Whether all memory is compared.
    pub comparison: Comparison,
}

impl Engine for Machines {
    fn carry_out(&self, run: &Resolved, progress: &mut Progress) -> Result<Observation> {
        let plan = run.plan();
        self.comparison
            .run(&self.launch, &plan, Detail::Events, progress)
    }
}

/// The longest pause that the campaign allows, in microseconds.
pub fn pause_limit(campaign: &Campaign) -> PauseLimit {
    let limit = campaign.invariants.survivors_progress_ms;
    limit.map(|milliseconds| milliseconds.saturating_mul(1000))
}

/// What a run of the campaign starts.
///
/// # Errors
/// As for a machine from the command line.
pub fn launch(
    campaign: &Campaign,
    images: &ImageArguments,
    keep: Keep,
    progress: &mut Progress,
) -> Result<Launch> {
    let machine = campaign.machine.get_ref().machine();
    let program = program(EmulatorArgument::Qemu, &machine, campaign.header.mode)?;
    prepare(program, machine, images, Serial::Log, keep, progress)
}

/// Runs a campaign and reports on it.
///
/// # Errors
/// See [`Job::carry_out`]; [`Error::Usage`] if the file or the directory is refused.
pub fn command(arguments: &RunArguments, format: Format) -> Result<Ending> {
    let (text, campaign) = super::load(&arguments.file)?;
    let old = arguments.resume.as_deref().map(read_manifest).transpose()?;
    let old = old.flatten();
    let seed = seed(arguments.seed, old.as_ref(), &campaign);
    let runs = runs(arguments.runs, old.as_ref(), &campaign);
    let only = arguments.only.as_deref();
    if let Some(only) = only {
        super::known_class(&campaign, only)?;
    }
    let at_once = at_once(arguments.jobs, campaign.header.mode);
    let (path, beginning) = match (&arguments.resume, &arguments.out) {
        (Some(path), _) => (path.clone(), Beginning::Resumed),
        (None, Some(path)) => (path.clone(), Beginning::New),
        (None, None) => (default_directory(campaign.name(), seed), Beginning::New),
    };
    if path.exists() && !path.is_dir() {
        return Err(Error::Usage(format!("{} is no directory", path.display())));
    }
    if beginning == Beginning::New {
        check_new(&path)?;
    }
    let mut progress = Progress::new();
    let launch = launch(&campaign, &arguments.images, Keep::Nothing, &mut progress)?;
    check_names((&arguments.file, &text), &campaign, &launch.images)?;
    let on = (Setup::of(&launch), &launch.images);
    let manifest = Manifest::new(&text, &campaign, seed, runs, on)?;
    let mut journal = Journal::open(&path, &manifest, beginning)?;
    let job = Job {
        campaign: &campaign,
        seed,
        runs,
        at_once,
        only,
        stop_on: arguments.stop_on,
    };
    let comparison = campaign.header.comparison();
    let engine = Machines { launch, comparison };
    let started = Instant::now();
    let ended = job.carry_out(&engine, &mut journal, &mut progress);
    drop(progress);
    if ended.is_err() {
        let finished = counted(journal.records.len() as u64, "run");
        let (shown, word) = (path.display(), quoted(&path));
        eprintln!("finished so far: {finished}, in {shown}; --resume {word} goes on");
    }
    ended?;
    finish(&journal, &manifest, started.elapsed(), format)
}

/// The seed: as asked, or as before, or as the file says.
fn seed(asked: Option<u64>, old: Option<&Manifest>, campaign: &Campaign) -> u64 {
    let before = old.map(|manifest| manifest.seed);
    asked.or(before).unwrap_or(campaign.header.seed)
}

/// How many runs: as asked, or as before, or as the file says.
fn runs(asked: Option<u32>, old: Option<&Manifest>, campaign: &Campaign) -> u32 {
    let before = old.map(|manifest| manifest.runs);
    let said = asked
        .or(before)
        .or(campaign.header.runs.as_ref().map(|runs| *runs.get_ref()));
    said.unwrap_or(RUNS)
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
    summary.ended()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::directory::tests::manifest;

    #[test]
    fn what_is_gone_on_with_is_what_was_begun() {
        let old = manifest();
        let campaign = old.campaign().expect("the file is good");
        assert_eq!(
            (seed(None, None, &campaign), runs(None, None, &campaign)),
            (1, RUNS)
        );
        let before = Some(&old);
        assert_eq!(
            (seed(None, before, &campaign), runs(None, before, &campaign)),
            (7, 10)
        );
        assert_eq!(
            (
                seed(Some(9), before, &campaign),
                runs(Some(20), before, &campaign)
            ),
            (9, 20)
        );
    }
}
