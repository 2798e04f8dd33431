//! The table of costs.
//!
//! | module | what it holds |
//! |---|---|
//! | [`record`] | results that a kernel measured, read from its bench record |
//! | [`instructions`] | instructions of the monitor, counted under Bochs |
//! | [`statistics`] | median, spread, ratio |
//! | [`measure`] | boots, and what is measured from outside |
//! | [`table`] | the table, as text and as JSON |

pub mod instructions;
pub mod measure;
pub mod record;
pub mod statistics;
pub mod table;

use crate::cli::BenchArguments;
use crate::commands::{Setup, launch};
use crate::error::{Ending, Result};
use crate::launch::{Mode, Serial};
use crate::output::{Format, Progress, print_json, print_text};

/// Measures everything and prints the table.
///
/// # Errors
/// Whatever keeps the runner from measuring.
pub fn command(arguments: &BenchArguments, format: Format) -> Result<Ending> {
    let mut progress = Progress::new();
    let launch = launch(
        &arguments.machine,
        Mode::Realtime,
        Serial::Log,
        &mut progress,
    )?;
    let costs = measure::measure(&launch, arguments, &mut progress)?;
    progress.clear();
    let setup = Setup::of(&launch);
    match format {
        Format::Json => print_json(&table::json(&setup, &costs))?,
        Format::Text => print_text(&table::text(&setup, &costs))?,
    }
    Ok(if costs.failed.is_empty() {
        Ending::Held
    } else {
        Ending::Violated
    })
}
