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

use serde_json::Value;

use super::arguments::ReportArguments;
use super::directory::{self, Manifest, pretty};
use super::record::Record;
use super::summary::{self, Summary};
use crate::error::{Context, Ending, Error, Result};
use crate::output::{Format, print_json, print_text};

pub use terminal::text;

/// What says that the files beside it are a report.
const SUMMARY: &str = "summary.json";
const TABLE: &str = "runs.csv";
const PAGE: &str = "report.html";
const TESTS: &str = "junit.xml";

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
    // First, because from then on the others may be written again.
    directory::write(out, SUMMARY, &pretty(summary)?)?;
    directory::write(out, TABLE, &files::csv(records.values())?)?;
    directory::write(out, PAGE, &html::page(summary, records, path)?)?;
    let junit = files::junit(manifest, records.values())?;
    directory::write(out, TESTS, &junit)
}

/// Refuses to overwrite files that are of no report: they stand neither beside a campaign nor
/// beside the summary of one.
fn check_place(out: &Path) -> Result<()> {
    let schema = || {
        let bytes = fs::read(out.join(SUMMARY)).ok()?;
        let summary: Value = serde_json::from_slice(&bytes).ok()?;
        Some(summary.get("schema")?.as_str()?.to_owned())
    };
    let is_summary = schema().is_some_and(|schema| schema.starts_with(summary::FORMAT));
    if is_summary || matches!(directory::read_manifest(out), Ok(Some(_))) {
        return Ok(());
    }
    let names = [SUMMARY, TABLE, PAGE, TESTS].into_iter();
    match names.map(|name| out.join(name)).find(|path| path.exists()) {
        None => Ok(()),
        Some(other) => Err(Error::Usage(format!(
            "{} is there, and no report of a campaign is; --out DIRECTORY writes the report \
             elsewhere",
            other.display()
        ))),
    }
}

/// Sums up a campaign that was run, and writes the files of its report; the second result is what
/// came of those.
///
/// # Errors
/// See [`directory::read`]; [`Error::Usage`] if the files have no place, or would overwrite others.
pub fn make(arguments: &ReportArguments) -> Result<(Summary, Result<()>)> {
    let path = &arguments.directory;
    let finished = directory::read(path)?;
    if let Some(text) = finished.cut_off_text(path) {
        eprintln!("{text}");
    }
    let mut summary = Summary::of(&finished.manifest, finished.records.values());
    if let Some(mttf) = &arguments.mttf {
        summary = summary.with_mttf(mttf);
    }
    let out = arguments.out.as_deref().unwrap_or(path);
    check_place(out)?;
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
