//! The summary of a campaign as text.

use std::path::Path;

use crate::campaign::statistics::{Proportion, Times};
use crate::campaign::summary::{ClassSummary, ControlSummary, Summary, ViolationLine};
use crate::output::{push_line, table};

/// The latencies that a table has room for.
const SHOWN: [&str; 4] = [
    "fault to first hint",
    "fault to last survivor in recovery",
    "fault to last survivor resumed",
    "fault to reintegrated",
];

/// The command that carries out a run again.
pub fn replay(directory: &Path, run: u32) -> String {
    format!("cargo run -- replay {} {run}", directory.display())
}

/// The summary.
pub fn text(summary: &Summary, directory: &Path) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| push_line(&mut text, arguments);
    line(format_args!("{}: {}", summary.name, summary.purpose));
    line(format_args!("{}", summary.verdict()));
    line(format_args!("{}", counts(summary)));
    line(format_args!("{}\n", summary.setup));
    line(format_args!("{}", outcomes(summary)));
    line(format_args!("{}", proportions(summary)));
    line(format_args!("{}", latencies(summary)));
    line(format_args!("{}", controls(&summary.controls)));
    text.push_str(&violations(&summary.violations, directory));
    text
}

/// How many runs, and what became of those that count for nothing.
pub fn counts(summary: &Summary) -> String {
    let totals = summary.totals;
    let worst = summary.overall.contained_at_worst;
    format!(
        "{} of {} runs, seed {:#x}: {} faults, {} not carried out, {} not injected; contained even \
         if those were not: {}",
        totals.runs,
        totals.wanted,
        summary.seed,
        totals.faults,
        totals.infra,
        totals.not_injected,
        worst.text(),
    )
}

fn with_overall(summary: &Summary) -> impl Iterator<Item = &ClassSummary> {
    let overall = (summary.classes.len() > 1).then_some(&summary.overall);
    summary.classes.iter().chain(overall)
}

fn outcomes(summary: &Summary) -> String {
    let mut rows = vec![["fault", "runs", "outcomes", "effects in its cell"].map(String::from)];
    for class in with_overall(summary) {
        let labels = class.containment.iter();
        let labels: Vec<String> = labels
            .map(|(label, count)| format!("{count} {}", label.text()))
            .collect();
        let effects: Vec<String> = class
            .effects
            .iter()
            .map(|(effect, count)| format!("{count} {}", effect.text()))
            .collect();
        rows.push([
            class.class.clone(),
            class.runs.to_string(),
            labels.join(", "),
            effects.join(", "),
        ]);
    }
    table(&rows.into_iter().map(Vec::from).collect::<Vec<_>>())
}

fn proportions(summary: &Summary) -> String {
    let headings = [
        "fault",
        "had an effect",
        "of those: detected",
        "not contained",
        "contained ones that came back",
    ];
    let mut rows = vec![headings.map(String::from).to_vec()];
    for class in with_overall(summary) {
        let shares = [
            class.manifested,
            class.detected,
            class.escaped,
            class.reintegrated,
        ];
        let mut row = vec![class.class.clone()];
        row.extend(shares.map(Proportion::text));
        rows.push(row);
    }
    table(&rows)
}

/// Median, nine tenths, worst.
pub fn times(times: &Times) -> String {
    let shown = |time: Option<f64>| time.map_or_else(|| "-".into(), |time| format!("{time:.1}"));
    let Times {
        samples,
        censored,
        median,
        p90,
        worst,
        ..
    } = *times;
    let [median, p90, worst] = [median, p90, worst].map(shown);
    if censored == 0 {
        format!("{median} / {p90} / {worst}")
    } else {
        format!("{median} / {p90} / {worst}, {censored} of {samples} not over")
    }
}

fn latencies(summary: &Summary) -> String {
    let mut rows = vec![vec!["ms: median / 90 % / worst".to_string()]];
    rows[0].extend(SHOWN.map(String::from));
    for class in with_overall(summary) {
        let find = |name: &str| {
            let found = class.latencies_ms.iter().find(|(of, _)| *of == name);
            found.map_or_else(|| "-".into(), |(_, found)| times(found))
        };
        let mut row = vec![class.class.clone()];
        row.extend(SHOWN.map(find));
        rows.push(row);
    }
    table(&rows)
}

fn controls(controls: &[ControlSummary]) -> String {
    let headings = [
        "control",
        "violated",
        "healthy cell voted out",
        "false alarms/s",
        "work/s",
        "longest pause, ms",
    ];
    let mut rows = vec![headings.map(String::from).to_vec()];
    for control in controls {
        let median = |spread: Option<crate::bench::statistics::Summary>, digits: usize| {
            spread.map_or_else(
                || "-".into(),
                |spread| format!("{:.digits$}", spread.median),
            )
        };
        let alarms = control.false_alarms_per_second;
        rows.push(vec![
            control.name().into(),
            control.violated.text(),
            control.accused.text(),
            alarms.map_or_else(|| "-".into(), |rate| format!("{rate:.2}")),
            median(control.work_per_second, 0),
            median(control.longest_pause_ms, 1),
        ]);
    }
    table(&rows)
}

fn violations(violations: &[ViolationLine], directory: &Path) -> String {
    let mut text = String::new();
    if violations.is_empty() {
        push_line(&mut text, format_args!("no run has anything against it"));
    }
    for violation in violations {
        let ViolationLine {
            run,
            class,
            containment,
            reasons,
            ..
        } = violation;
        push_line(
            &mut text,
            format_args!("run {run} ({class}): {}: {reasons}", containment.text()),
        );
        push_line(&mut text, format_args!("    {}", replay(directory, *run)));
    }
    text
}
