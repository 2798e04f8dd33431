//! One run of a campaign again, from what was resolved then.

use std::path::Path;

use super::arguments::ReplayArguments;
use super::directory::{self, Finished};
use super::outcome::classify;
use super::resolve::Resolved;
use super::run::pause_limit;
use crate::cli::EmulatorArgument;
use crate::commands::{judge, prepare, program};
use crate::error::{Ending, Error, Result};
use crate::experiment;
use crate::latency::Latencies;
use crate::launch::Keep;
use crate::launch::Serial;
use crate::output::{Format, Progress};
use crate::perfetto::TraceFile;
use crate::verdict::Verdict;
use crate::watch::Detail;

fn resolved(finished: &Finished, path: &Path, run: u32) -> Result<Resolved> {
    if let Some(record) = finished.records.get(&run) {
        return Ok(record.resolved.clone());
    }
    let manifest = &finished.manifest;
    if run >= manifest.runs {
        let (shown, last) = (path.display(), manifest.runs.saturating_sub(1));
        return Err(Error::Usage(format!(
            "{shown} has no run {run}: the last is {last}"
        )));
    }
    Ok(Resolved::of(&manifest.campaign()?, manifest.seed, run))
}

/// Carries out the run and shows it as `inject` does.
///
/// # Errors
/// [`Error::Usage`] if there is no such run, and whatever keeps the runner from carrying it out.
pub fn command(arguments: &ReplayArguments, format: Format) -> Result<Ending> {
    let path = &arguments.directory;
    let finished = directory::read(path)?;
    let resolved = resolved(&finished, path, arguments.run)?;
    let campaign = finished.manifest.campaign()?;
    let trace = arguments.trace.as_deref().map(TraceFile::open);
    let trace = trace.transpose()?;
    let mut progress = Progress::new();
    let keep = if arguments.keep {
        Keep::Directory
    } else {
        Keep::Nothing
    };
    let machine = campaign.machine.get_ref().machine();
    let program = program(EmulatorArgument::Qemu, &machine)?;
    let launch = prepare(
        program,
        machine,
        &arguments.images,
        Serial::Log,
        keep,
        &mut progress,
    )?;
    let detail = match trace {
        Some(_) => Detail::All,
        None => Detail::Events,
    };
    let plan = resolved.plan();
    let run = experiment::run(&launch, &plan, detail, &mut progress)?;
    progress.clear();
    let (verdict, latencies) = (Verdict::of(&run), Latencies::of(&run));
    let (now, _) = classify(
        resolved.kind,
        &run,
        &verdict,
        &latencies,
        pause_limit(&campaign),
    );
    let then = finished.records.get(&arguments.run);
    let then = then.map_or("not finished", |record| record.containment.text());
    eprintln!(
        "run {} of {}, {}: {then} then, {} now",
        arguments.run,
        finished.manifest.name,
        resolved.text(),
        now.text()
    );
    judge(&launch, &plan, &run, trace, format)
}
