//! The command line of campaigns. The comments below are its help.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::campaign::validate::RUNS_MAX;
use crate::cli::ImageArguments;
use crate::units::{Span, parse_span};

/// What to do with a campaign.
#[derive(Debug, Subcommand)]
pub enum CampaignCommand {
    /// Check a campaign file; show what it does, how many runs it needs and how long they take.
    Check(CheckArguments),
    /// Carry out the runs of a campaign, and report.
    Run(Box<RunArguments>),
    /// Report on the finished runs: on the terminal, and as files beside them.
    Report(ReportArguments),
    /// Compare two campaigns, class by class.
    Compare(CompareArguments),
}

/// Arguments of `campaign check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArguments {
    /// The campaign file.
    pub file: PathBuf,
    /// Draw what a run does, as a state graph, into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub states: Option<PathBuf>,
}

/// Arguments of `campaign run`.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// The campaign file.
    pub file: PathBuf,
    /// How many runs in all; if not said, as with --resume before, else as the file says.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=RUNS_MAX))]
    pub runs: Option<u32>,
    /// The seed, from which everything is drawn; if not said, as with --resume before, else as the
    /// file says.
    #[arg(long, value_parser = parse_seed)]
    pub seed: Option<u64>,
    /// Where everything is written; if not said, a directory below runs/ with the campaign's name
    /// and seed.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "resume")]
    pub out: Option<PathBuf>,
    /// Go on with the runs in this directory.
    #[arg(long, value_name = "DIRECTORY")]
    pub resume: Option<PathBuf>,
    /// Carry out runs of this fault only, controls among them.
    #[arg(long, value_name = "ID")]
    pub only: Option<String>,
    /// How many runs at a time, 0 for one per CPU of the host. If not said: 1 in real time, 0 in
    /// the deterministic mode.
    #[arg(long, value_name = "COUNT")]
    pub jobs: Option<usize>,
    /// Stop early.
    #[arg(long, value_name = "WHAT")]
    pub stop_on: Option<StopOn>,
    /// How the images are built.
    #[command(flatten)]
    pub images: ImageArguments,
}

/// When a campaign stops early.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum StopOn {
    /// After the first run that something speaks against.
    Violation,
}

/// Arguments of `campaign report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArguments {
    /// The directory of the campaign.
    pub directory: PathBuf,
    /// Where the files of the report are written; if not said, beside the runs.
    #[arg(long, value_name = "DIRECTORY")]
    pub out: Option<PathBuf>,
    /// Work out, as a model, how much of the time a cell that fails once in so long would be there,
    /// and its programs: 30d, 12h, 1y.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub mttf: Option<Span>,
}

/// Arguments of `campaign compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareArguments {
    /// The directory of the first campaign.
    pub first: PathBuf,
    /// The directory of the second campaign.
    pub second: PathBuf,
}

/// Arguments of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArguments {
    /// The directory of the campaign.
    pub directory: PathBuf,
    /// The number of the run.
    pub run: u32,
    /// Write a trace file that ui.perfetto.dev opens.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Stop at the first fault, and say how gdb is attached; Ctrl-C ends the machine.
    #[arg(long, conflicts_with = "trace")]
    pub gdb: bool,
    /// Keep the directory of the run, with the serial log and the guest's memory.
    #[arg(long)]
    pub keep: bool,
    /// How the images are built.
    #[command(flatten)]
    pub images: ImageArguments,
}

/// Parses a number, in hex if it begins with 0x.
fn parse_seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(&digits.replace('_', ""), 16),
        None => text.replace('_', "").parse(),
    };
    parsed.map_err(|_| format!("\"{text}\": expected a number such as 7 or 0x1995"))
}
