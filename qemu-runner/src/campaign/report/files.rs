//! The runs for other programs: a table, and a test report.

use std::collections::BTreeMap;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::campaign::directory::Manifest;
use crate::campaign::outcome::{Containment, Effect};
use crate::campaign::record::Record;
use crate::error::{Context, Result};
use crate::fault::catalogue::Fault;
use crate::fault::plan::Kind;
use crate::verdict::Invariant;

/// A line of `runs.csv`: what of a run is flat. Times are in milliseconds.
#[derive(Serialize)]
struct Row<'a> {
    run: u32,
    kind: Kind,
    class: &'a str,
    fault: Fault,
    cell: usize,
    cpu: usize,
    argument: u64,
    seed: u64,
    work_ms: u64,
    second_fault: Option<Fault>,
    second_cell: Option<usize>,
    containment: Containment,
    effect: Option<Effect>,
    violation: bool,
    reasons: String,
    first_hint_ms: Option<f64>,
    agreement_ms: Option<f64>,
    last_in_recovery_ms: Option<f64>,
    resumed_ms: Option<f64>,
    reintegrated_ms: Option<f64>,
    followed_ms: Option<f64>,
    false_alarms: Option<usize>,
    longest_pause_ms: Option<f64>,
    /// Bytes of memory that are not the control's: of the cells that were struck, of the others,
    /// and those that nobody wrote who may.
    differing_bytes_struck: Option<u64>,
    differing_bytes_others: Option<u64>,
    foreign_bytes: Option<u64>,
    ram_sha256: Option<&'a str>,
    infra: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn of(record: &'a Record) -> Self {
        let (resolved, measured) = (&record.resolved, record.measured.as_ref());
        let latencies = measured.map(|measured| measured.latencies);
        let second = resolved.then.first().map(|(strike, _)| strike);
        let violation = record.is_violation();
        let difference = record.difference.as_ref();
        let [struck, others] = [true, false].map(|is_struck| {
            let targets: Vec<usize> = resolved.targets().collect();
            difference.map(|found| {
                let cells = found.cells.iter();
                let counted = cells.filter(|(cell, _)| targets.contains(cell) == is_struck);
                counted.map(|(_, bytes)| bytes).sum()
            })
        });
        Self {
            run: record.run(),
            kind: record.kind(),
            class: &resolved.class,
            fault: resolved.first.fault,
            cell: resolved.first.cell,
            cpu: resolved.first.cpu_index,
            argument: resolved.first.argument,
            seed: resolved.first.seed,
            work_ms: resolved.work_ms,
            second_fault: second.map(|strike| strike.fault),
            second_cell: second.map(|strike| strike.cell),
            containment: record.containment,
            effect: record.effect,
            violation,
            reasons: if violation {
                record.reasons()
            } else {
                String::new()
            },
            first_hint_ms: latencies.and_then(|times| times.first_hint),
            agreement_ms: latencies.and_then(|times| times.agreement),
            last_in_recovery_ms: latencies.and_then(|times| times.last_in_recovery),
            resumed_ms: latencies.and_then(|times| times.resumed),
            reintegrated_ms: latencies.and_then(|times| times.reintegrated),
            followed_ms: measured.map(|measured| measured.followed_ms),
            false_alarms: measured.map(|measured| measured.false_alarms),
            longest_pause_ms: measured.and_then(|measured| measured.longest_pause_ms),
            differing_bytes_struck: struck,
            differing_bytes_others: others,
            foreign_bytes: difference.map(|found| found.foreign.iter().map(|one| one.bytes).sum()),
            ram_sha256: record.ram_sha256.as_deref(),
            infra: record.infra.as_deref(),
        }
    }
}

/// The runs as a table.
///
/// # Errors
/// [`crate::error::Error::Host`].
pub fn csv<'a>(records: impl Iterator<Item = &'a Record>) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let context = || "writing runs.csv".into();
    for record in records {
        let written = writer
            .serialize(Row::of(record))
            .map_err(std::io::Error::from);
        written.context(context)?;
    }
    let bytes = writer.into_inner().map_err(csv::IntoInnerError::into_error);
    let bytes: Vec<u8> = bytes.context(context)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A suite for each class, a case for each invariant.
///
/// # Errors
/// [`crate::error::Error::Host`].
pub fn junit<'a>(manifest: &Manifest, records: impl Iterator<Item = &'a Record>) -> Result<String> {
    let mut classes: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in records {
        let class = match record.kind() {
            Kind::Fault => record.resolved.class.clone(),
            Kind::Null => "null injections".into(),
            Kind::Golden => "golden runs".into(),
        };
        classes.entry(class).or_default().push(record);
    }
    let mut report = Report::new(&manifest.name);
    for (class, records) in classes {
        let mut suite = TestSuite::new(&class);
        suite.add_property(("seed", format!("{:#x}", manifest.seed).as_str()));
        let asked = Invariant::ALL.into_iter();
        for invariant in asked.filter(|invariant| invariant.is_of_the_system()) {
            suite.add_test_case(case(&class, invariant, &records));
        }
        report.add_test_suite(suite);
    }
    let text = report.to_string().map_err(std::io::Error::other);
    text.context(|| "writing junit.xml".into())
}

fn case(class: &str, invariant: Invariant, records: &[&Record]) -> TestCase {
    let judged: Vec<&&Record> = records.iter().filter(|run| run.was_carried_out()).collect();
    let reasons = |run: &&&Record| {
        let broken = run.violations.iter();
        let broken = broken.filter(|broken| broken.invariant == invariant);
        let texts: Vec<&str> = broken.map(|broken| broken.text.as_str()).collect();
        (!texts.is_empty()).then(|| format!("run {}: {}", run.run(), texts.join("; ")))
    };
    let broken: Vec<String> = judged.iter().filter_map(reasons).collect();
    let status = if judged.is_empty() {
        TestCaseStatus::skipped()
    } else if broken.is_empty() {
        TestCaseStatus::success()
    } else {
        let mut failed = TestCaseStatus::non_success(NonSuccessKind::Failure);
        failed.set_message(format!("{} of {} runs", broken.len(), judged.len()));
        failed.set_description(broken.join("\n"));
        failed
    };
    let mut case = TestCase::new(invariant.text(), status);
    case.set_classname(class);
    case
}
