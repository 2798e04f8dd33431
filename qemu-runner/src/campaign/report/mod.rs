//! The report of a campaign, in every form.
//!
//! | module | what it holds |
//! |---|---|
//! | [`terminal`] | the summary as text |
//! | [`html`], [`charts`] | the summary as a page, and its charts |
//! | [`files`] | `runs.csv`, and `junit.xml` with a case for each class and invariant |

pub mod charts;
pub mod files;
pub mod html;
pub mod terminal;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::arguments::ReportArguments;
use super::directory::{self, Manifest, pretty};
use super::record::Record;
use super::summary::Summary;
use crate::error::{Context, Ending, Result};
use crate::output::{Format, print_json, print_text};

pub use terminal::text;

/// Writes every file of the report beside the runs.
///
/// # Errors
/// [`crate::error::Error::Host`].
pub fn write(
    path: &Path,
    manifest: &Manifest,
    records: &BTreeMap<u32, Record>,
    summary: &Summary,
) -> Result<()> {
    write_to(path, path, (manifest, records), summary)
}

/// Writes every file of the report on the runs in `path` to `out`.
fn write_to(
    out: &Path,
    path: &Path,
    (manifest, records): (&Manifest, &BTreeMap<u32, Record>),
    summary: &Summary,
) -> Result<()> {
    directory::write(out, "summary.json", &pretty(summary)?)?;
    directory::write(out, "runs.csv", &files::csv(records.values())?)?;
    directory::write(out, "report.html", &html::page(summary, records, path)?)?;
    let junit = files::junit(manifest, records.values())?;
    directory::write(out, "junit.xml", &junit)
}

/// Sums up a campaign that was run, and writes the files of its report; the second result is what
/// came of those.
///
/// # Errors
/// See [`directory::read`]; [`crate::error::Error::Usage`] if the files have no place.
pub fn make(arguments: &ReportArguments) -> Result<(Summary, Result<()>)> {
    let path = &arguments.directory;
    let finished = directory::read(path)?;
    let mut summary = Summary::of(&finished.manifest, finished.records.values());
    if let Some(mttf) = &arguments.mttf {
        summary = summary.with_mttf(mttf);
    }
    let out = arguments.out.as_deref().unwrap_or(path);
    fs::create_dir_all(out).argument(|| format!("creating the directory {}", out.display()))?;
    let runs = (&finished.manifest, &finished.records);
    let written = write_to(out, path, runs, &summary);
    Ok((summary, written))
}

/// Reports on a campaign that was run. What cannot be written is shown all the same.
///
/// # Errors
/// See [`make`].
pub fn command(arguments: &ReportArguments, format: Format) -> Result<Ending> {
    let (summary, written) = make(arguments)?;
    match format {
        Format::Json => print_json(&summary)?,
        Format::Text => print_text(&text(&summary, &arguments.directory))?,
    }
    if let Err(error) = written {
        eprintln!(
            "error: {error}: the summary is shown, but the files of the report are not written; \
             --out DIRECTORY writes them elsewhere"
        );
        return Ok(Ending::Unable);
    }
    summary.ended()
}
