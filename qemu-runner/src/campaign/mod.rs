//! Campaigns: many faults, drawn from a seed, counted, and each to be had again.
//!
//! | module | what it holds |
//! |---|---|
//! | [`arguments`] | the command line |
//! | [`file`], [`when`], [`validate`] | the campaign file, and what it must keep to |
//! | [`draw`], [`resolve`] | from a seed to everything that a run does |
//! | [`check`], [`states`] | what a campaign does and needs, without running it |
//! | [`run`], [`jobs`] | carrying out the runs, several at a time |
//! | [`outcome`], [`lanes`], [`record`] | what a run counts as, and its line in `runs.jsonl` |
//! | [`directory`] | the manifest and the finished runs; going on where they stopped |
//! | [`statistics`], [`summary`] | intervals, bounds, latencies; what the runs show together |
//! | [`report`] | the summary on the terminal and as files |
//! | [`compare`], [`replay`] | two campaigns side by side; one run again |

pub mod arguments;
pub mod check;
pub mod compare;
pub mod directory;
pub mod draw;
pub mod file;
pub mod jobs;
pub mod lanes;
pub mod outcome;
pub mod record;
pub mod replay;
pub mod report;
pub mod resolve;
pub mod run;
pub mod states;
pub mod statistics;
pub mod summary;
pub mod validate;
pub mod when;

use std::fs;
use std::path::Path;

use arguments::CampaignCommand;
use file::Campaign;

use crate::error::{Context, Ending, Error, Result};
use crate::output::Format;
use crate::qemu::install::Accelerator;

/// Carries out a command.
///
/// # Errors
/// Whatever keeps the command from its end.
pub fn command(command: &CampaignCommand, format: Format) -> Result<Ending> {
    match command {
        CampaignCommand::Check(arguments) => check::command(arguments, format),
        CampaignCommand::Run(arguments) => run::command(arguments, format),
        CampaignCommand::Report(arguments) => report::command(arguments, format),
        CampaignCommand::Compare(arguments) => compare::command(arguments, format),
    }
}

/// Reads a campaign file, and refuses what this host cannot run; gives its text too.
fn load(path: &Path) -> Result<(String, Campaign)> {
    let shown = path.display();
    if !path.exists() {
        return Err(Error::Usage(format!("{shown} does not exist")));
    }
    if !path.is_file() {
        return Err(Error::Usage(format!("{shown} is not a file")));
    }
    let bytes = fs::read(path).argument(|| format!("reading {shown}"))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::Usage(format!("{shown} is not text in UTF-8")))?;
    let refused = |problem| Error::Usage(format!("{shown}: {problem}"));
    let campaign = Campaign::parse(&text).map_err(refused)?;
    let accelerator = Accelerator::for_mode(campaign.header.mode);
    validate::check_accelerator(&text, &campaign, accelerator).map_err(refused)?;
    Ok((text, campaign))
}

/// Refuses a class that the campaign does not have.
fn known_class(campaign: &Campaign, id: &str) -> Result<()> {
    let ids: Vec<&str> = campaign
        .classes
        .iter()
        .map(|class| class.id.get_ref().as_str())
        .collect();
    if ids.contains(&id) {
        return Ok(());
    }
    let known = ids.join(", ");
    Err(Error::Usage(format!(
        "no fault \"{id}\" in the campaign; there are {known}"
    )))
}
