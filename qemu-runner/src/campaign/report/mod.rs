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
use std::path::Path;

use super::arguments::ReportArguments;
use super::directory::{self, Manifest, pretty};
use super::record::Record;
use super::summary::Summary;
use crate::error::{Ending, Result};
use crate::output::{Format, print_json, print_text};

pub use terminal::text;

/// Writes every file of the report.
///
/// # Errors
/// [`crate::error::Error::Host`].
pub fn write(
    path: &Path,
    manifest: &Manifest,
    records: &BTreeMap<u32, Record>,
    summary: &Summary,
) -> Result<()> {
    directory::write(path, "summary.json", &pretty(summary)?)?;
    directory::write(path, "runs.csv", &files::csv(records.values())?)?;
    directory::write(path, "report.html", &html::page(summary, records, path)?)?;
    directory::write(
        path,
        "junit.xml",
        &files::junit(manifest, records.values())?,
    )
}

/// Reports on a campaign that was run.
///
/// # Errors
/// See [`directory::read`] and [`write`].
pub fn command(arguments: &ReportArguments, format: Format) -> Result<Ending> {
    let path = &arguments.directory;
    let finished = directory::read(path)?;
    let summary = Summary::of(&finished.manifest, finished.records.values());
    write(path, &finished.manifest, &finished.records, &summary)?;
    match format {
        Format::Json => print_json(&summary)?,
        Format::Text => print_text(&text(&summary, path))?,
    }
    Ok(summary.ending())
}
