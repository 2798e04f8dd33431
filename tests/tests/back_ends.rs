//! Every trial on every platform, from one description, and a table of what ran where.
//!
//! `cargo test -p tests --test back_ends npt-bochs` runs those of one platform; HIVE_TRIALS=all has
//! Bochs run all of them. The table is also left beside the images.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial as Run};
use qemu_runner::images::target_directory;
use tests::harness::{run_trial, run_without_firewall};
use tests::platform::{Omission, Platform, bochs};
use tests::spoilt::{run_with_an_unusable_guest, run_with_an_unusable_table};
use tests::trials::TRIALS;

/// How each run came out, by trial and platform.
type Results = Arc<Mutex<BTreeMap<(usize, usize), bool>>>;

/// What only Bochs can show, beside the trials.
const BESIDE: [(&str, fn()); 3] = [
    (
        "bochs, firewall off: the watch on stores sees wild ones",
        run_without_firewall,
    ),
    (
        "ept-bochs: a table that the processor cannot use is the monitor's fault",
        run_with_an_unusable_table,
    ),
    (
        "ept-bochs: a guest that the processor refuses to enter ends its life",
        run_with_an_unusable_guest,
    ),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One machine runs at a time anyway, and the output stays in order.
    arguments.test_threads = Some(1);
    let results = Results::default();
    let mut runs = runs(&results);
    for (name, run) in BESIDE {
        let run = Run::test(name, move || {
            let held = std::panic::catch_unwind(run);
            held.map_err(|_| Failed::without_message())
        });
        runs.push(run.with_ignored_flag(bochs().is_err()));
    }
    let conclusion = libtest_mimic::run(&arguments, runs);
    if !arguments.list {
        let table = table(&results);
        println!("{table}");
        let file = target_directory().join("back-ends.txt");
        if let Err(error) = fs::write(&file, table) {
            eprintln!("{} is not written: {error}", file.display());
        }
    }
    conclusion.exit_code()
}

fn runs(results: &Results) -> Vec<Run> {
    let mut runs = Vec::new();
    for (column, platform) in Platform::ALL.into_iter().enumerate() {
        for (row, trial) in TRIALS.iter().enumerate() {
            let results = Arc::clone(results);
            let name = format!("{}: {}", platform.name(), trial.name);
            let run = Run::test(name, move || {
                let held = std::panic::catch_unwind(|| run_trial(platform, trial));
                let mut results = results.lock().map_err(|_| Failed::without_message())?;
                results.insert((row, column), held.is_ok());
                held.map_err(|_| Failed::without_message())
            });
            runs.push(run.with_ignored_flag(platform.omits(trial).is_some()));
        }
    }
    runs
}

/// One line per trial, one column per platform, and the reasons below.
fn table(results: &Results) -> String {
    let results = results.lock().map(|it| it.clone()).unwrap_or_default();
    let mut reasons: Vec<String> = Vec::new();
    let width = TRIALS.iter().map(|trial| trial.name.len()).max();
    let width = width.unwrap_or_default();
    let mut text = format!("{:width$}", "what ran where");
    for platform in Platform::ALL {
        let _ = write!(text, "  {:11}", platform.name());
    }
    for (row, trial) in TRIALS.iter().enumerate() {
        let _ = write!(text, "\n{:width$}", trial.name);
        for (column, platform) in Platform::ALL.into_iter().enumerate() {
            let cell = match (results.get(&(row, column)), platform.omits(trial)) {
                (Some(true), _) => "held".into(),
                (Some(false), _) => "FAILED".into(),
                (None, Some(Omission::Cannot(reason))) => {
                    format!("cannot [{}]", note(&mut reasons, reason))
                }
                (None, Some(Omission::NotRun(reason))) => {
                    format!("not run [{}]", note(&mut reasons, &reason))
                }
                (None, None) => "not run".into(),
            };
            let _ = write!(text, "  {cell:11}");
        }
    }
    for (number, reason) in reasons.iter().enumerate() {
        let _ = write!(text, "\n[{}] {reason}", number + 1);
    }
    text.push('\n');
    text
}

fn note(reasons: &mut Vec<String>, reason: &str) -> usize {
    let known = reasons.iter().position(|known| known == reason);
    known.map_or_else(
        || {
            reasons.push(reason.into());
            reasons.len()
        },
        |position| position + 1,
    )
}
