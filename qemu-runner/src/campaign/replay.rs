//! One run of a campaign again, from what was resolved then.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::arguments::ReplayArguments;
use super::directory::{self, Finished, Manifest};
use super::file::Campaign;
use super::outcome::{Containment, Effect, classify};
use super::record::Record;
use super::resolve::Resolved;
use super::run::{launch, pause_limit};
use crate::commands::{Setup, judge};
use crate::error::{Ending, Error, Result};
use crate::experiment;
use crate::images::debug_file;
use crate::interrupt;
use crate::latency::Latencies;
use crate::launch::{Keep, Launch};
use crate::observation::Observation;
use crate::output::{Format, Progress};
use crate::perfetto::TraceFile;
use crate::session::Session;
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
    let launch = launch(&campaign, &arguments.images, keep, &mut progress)?;
    warn_of_changes(&finished, &campaign, &launch)?;
    let detail = match trace {
        Some(_) => Detail::All,
        None => Detail::Events,
    };
    let plan = resolved.plan();
    if arguments.gdb {
        let (session, socket) = experiment::stop_at_fault(&launch, &plan, &mut progress)?;
        progress.clear();
        return debug(session, &socket, &resolved);
    }
    let comparison = campaign.header.comparison();
    let run = comparison.run(&launch, &plan, detail, &mut progress)?;
    progress.clear();
    let (verdict, latencies) = (Verdict::of(&run), Latencies::of(&run));
    let now = classify(
        resolved.kind,
        &run,
        &verdict,
        &latencies,
        pause_limit(&campaign),
    );
    let record = finished.records.get(&arguments.run);
    if let Some(record) = record {
        compare_memory(record, &run);
    }
    let then = record.map(|record| (record.containment, record.effect));
    eprintln!(
        "run {} of {}, {}: {} then, {} now",
        arguments.run,
        finished.manifest.name,
        resolved.text(),
        then.map_or_else(|| "not finished".into(), ended),
        ended(now)
    );
    judge(&launch, &plan, &run, trace, format)
}

/// What a run counts as, on both axes.
fn ended((containment, effect): (Containment, Option<Effect>)) -> String {
    let (containment, effect) = (containment.text(), effect.map(Effect::text));
    match effect {
        Some(effect) if effect != containment => format!("{containment} ({effect})"),
        _ => containment.into(),
    }
}

/// Says whether memory is what it was then, and beside the control.
fn compare_memory(record: &Record, run: &Observation) {
    if let (Some(then), Some(now)) = (&record.ram_sha256, &run.ram_sha256) {
        if then == now {
            eprintln!("all memory is as it was then: SHA-256 {now}");
        } else {
            eprintln!("memory is not as it was then: SHA-256 {now}, {then} then");
        }
    }
    if let (Some(then), Some(now)) = (&record.difference, &run.difference)
        && then != now
    {
        eprintln!(
            "memory differs otherwise from the control than then; then: {}",
            then.text()
        );
    }
}

/// Says what is not as it was: the same draw then strikes another place.
fn warn_of_changes(finished: &Finished, campaign: &Campaign, launch: &Launch) -> Result<()> {
    let then = &finished.manifest;
    let on = (Setup::of(launch), &launch.images);
    let now = Manifest::new(&then.file, campaign, then.seed, then.runs, on)?;
    if let Some(what) = then.differs_from(&now) {
        eprintln!("warning: this is another {what} than then; the run may not be the same");
    }
    Ok(())
}

/// Leaves a stopped machine to the user, until QEMU ends or an interrupt is asked for.
fn debug(mut session: Session, socket: &Path, resolved: &Resolved) -> Result<Ending> {
    let [kernel, monitor] =
        [&session.images.kernel, &session.images.monitor].map(|image| debug_file(image));
    let (kernel, monitor) = (kernel.display(), monitor.display());
    eprintln!(
        "stopped after the first fault of {}; in another terminal:\n\
         gdb -ex 'file {kernel}' -ex 'add-symbol-file {monitor}' -ex 'target remote {}'\n\
         Ctrl-C ends the machine",
        resolved.text(),
        socket.display()
    );
    while session.emulator.is_up()? && interrupt::check().is_ok() {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(Ending::Held)
}
