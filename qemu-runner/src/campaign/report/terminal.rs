//! The summary of a campaign as text.

use std::path::Path;

use crate::campaign::statistics::sizes::{LOOKS, next_look};
use crate::campaign::statistics::{Proportion, Times};
use crate::campaign::summary::controls::ControlSummary;
use crate::campaign::summary::{ClassSummary, NotCarriedOut, Summary, ViolationLine};
use crate::output::{counted, push_line, quoted, table};

/// The latencies that a table has room for.
const SHOWN: [&str; 4] = [
    "fault to first hint",
    "fault to last survivor in recovery",
    "fault to last survivor resumed",
    "fault to reintegrated",
];

/// The command that carries out a run again.
pub fn replay(directory: &Path, run: u32) -> String {
    format!("cargo run -- replay {} {run}", quoted(directory))
}

/// The summary.
pub fn text(summary: &Summary, directory: &Path) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| push_line(&mut text, arguments);
    line(format_args!("{}: {}", summary.name, summary.purpose));
    line(format_args!("{}", summary.verdict()));
    if summary.totals.runs == 0 {
        return text;
    }
    line(format_args!("{}", counts(summary)));
    line(format_args!("{}", look(summary)));
    line(format_args!("{}\n", summary.setup));
    line(format_args!("{}", outcomes(summary)));
    line(format_args!("{}", proportions(summary)));
    line(format_args!("{}", latencies(summary)));
    line(format_args!("{}", controls(&summary.controls)));
    line(format_args!("{}", probe_effect(summary)));
    line(format_args!("{}", reach(summary)));
    line(format_args!("{}", availability(summary)));
    line(format_args!("{}", checks(summary)));
    text.push_str(&violations(&summary.violations, directory));
    text.push_str(&not_carried_out(summary, directory));
    text
}

/// How many runs, and what became of those that count for nothing.
pub fn counts(summary: &Summary) -> String {
    let totals = summary.totals;
    let worst = summary.overall.contained_at_worst;
    let some = |count: usize, what: &str| match count {
        0 => String::new(),
        count => format!(", {count} {what}"),
    };
    let against = match totals.violated_without_fault {
        0 => String::new(),
        count => format!(" ({count} of these with something against them all the same)"),
    };
    let untimed = some(totals.untimed, "whose fault has no known time");
    let left_out = some(totals.left_out, "whose later fault found its target gone");
    let controls = match totals.infra_of_controls {
        0 => String::new(),
        1 => "; a control was not carried out".into(),
        count => format!("; {count} controls were not carried out"),
    };
    format!(
        "{} of {}, seed {:#x}: {}, {} not carried out, \
         {} not injected{against}{untimed}{left_out}; contained even if those not carried out \
         or not injected were not: {}{controls}",
        totals.runs,
        counted(u64::from(totals.wanted), "run"),
        summary.seed,
        counted(totals.faults as u64, "fault"),
        totals.infra - totals.infra_of_controls,
        totals.not_injected,
        worst.text(),
    )
}

/// Whether this is a number of runs at which the result may be looked at.
pub fn look(summary: &Summary) -> String {
    let faults = summary.totals.faults as u64;
    match next_look(faults) {
        _ if LOOKS.contains(&faults) => {
            format!(
                "A result at {}, one of the looks set beforehand.",
                counted(faults, "fault")
            )
        }
        Some(next) => format!(
            "A provisional result: the next look set beforehand is at {next} faults, and who stops \
             when he likes what he sees errs more often than the intervals say."
        ),
        None => "Beyond the last look set beforehand.".into(),
    }
}

/// The classes, and all of them together where that is not the same.
pub fn with_overall(summary: &Summary) -> impl Iterator<Item = &ClassSummary> {
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
        "dead ones that came back",
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

fn probe_effect(summary: &Summary) -> String {
    let headings = ["effect of the tool", "golden", "null", "null less golden"];
    let mut rows = vec![headings.map(String::from).to_vec()];
    let median = |spread: Option<crate::bench::statistics::Summary>| {
        spread.map_or_else(|| "-".into(), |spread| format!("{:.1}", spread.median))
    };
    for effect in &summary.probe_effect {
        rows.push(vec![
            effect.what.into(),
            median(effect.golden),
            median(effect.null),
            effect
                .shift
                .map_or_else(|| "-".into(), |shift| shift.text()),
        ]);
    }
    table(&rows)
}

fn reach(summary: &Summary) -> String {
    let reached = summary.reach.cells_affected.iter();
    let reached: Vec<String> = reached
        .map(|(cells, &runs)| format!("{cells} in {}", counted(runs, "run")))
        .collect();
    let memory = summary.reach.memory;
    let memory = memory.map_or_else(String::new, |memory| memory.text() + "\n");
    format!(
        "cells that failed or were affected by one fault: {}; more than one, where any: {}\n\
         {memory}",
        reached.join(", "),
        summary.reach.correlated.text()
    )
}

/// The most digits that a share of time is given with.
const DIGITS_MAX: usize = 9;

/// A share of time with as many digits as it takes to tell it from all of it.
pub fn percent_of_time(share: f64) -> String {
    let percent = share * 100.0;
    if share >= 1.0 {
        return "all that was seen".into();
    }
    let shown = |digits: usize| format!("{percent:.digits$}");
    let told = |digits: &usize| shown(*digits) != format!("{:.*}", *digits, 100.0);
    let digits = (1..DIGITS_MAX).find(told).unwrap_or(DIGITS_MAX);
    format!("{} %", shown(digits))
}

fn availability(summary: &Summary) -> String {
    let Some(found) = &summary.availability else {
        return "availability: nothing measured\n".into();
    };
    let repair = found
        .mttr_ms
        .map_or_else(|| "-".into(), |time| format!("{time:.1} ms"));
    let mut text = format!(
        "availability after faults, over {:.1} s: machine {}, cell {}, service {}; \
         {}, {} of them repaired in their run, after {repair} on average\n",
        found.seconds,
        percent_of_time(found.machine),
        percent_of_time(found.cell),
        percent_of_time(found.service),
        counted(found.failures as u64, "failure"),
        found.repaired,
    );
    text.push('\n');
    if found.model.is_empty() {
        push_line(
            &mut text,
            format_args!("no model of longer times: no failure was repaired in its run"),
        );
        return text;
    }
    let headings = [
        "model, not measured: each cell fails",
        "a cell lives",
        "its programs work",
    ];
    let mut rows = vec![headings.map(String::from).to_vec()];
    rows.extend(found.model.iter().map(|one| {
        let [cell, service] = [one.cell, one.service].map(percent_of_time);
        vec![format!("once {}", one.mttf), cell, service]
    }));
    text.push_str(&table(&rows));
    text
}

fn checks(summary: &Summary) -> String {
    let mut rows = vec![
        ["checked in every run", "did not hold in"]
            .map(String::from)
            .to_vec(),
    ];
    for check in &summary.checks {
        rows.push(vec![check.invariant.text().into(), check.broken.text()]);
    }
    let mut text = table(&rows);
    push_line(&mut text, format_args!("{}", programs(summary)));
    if let Some(same) = summary.determinism {
        let same = same.text();
        push_line(
            &mut text,
            format_args!("pairs of runs that left the same memory: {same}"),
        );
    }
    text
}

/// What became of the workers.
pub fn programs(summary: &Summary) -> String {
    let programs = summary.programs;
    format!(
        "{} verified byte by byte. {} died, {} of them with a cell that a fault was injected into. \
         Survivors lost {} with cells that died, {} with cells that lived.",
        counted(programs.verified, "operation"),
        counted(programs.died, "worker"),
        programs.due,
        counted(programs.lost_with_the_dead, "operation"),
        programs.lost_with_the_living,
    )
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

/// How a run that could not be carried out is carried out after all.
pub const AGAIN: &str = "A fault that could not be carried out counts as a failure in the worst \
                         case, and --resume does not try it again: who repeats what failed \
                         chooses what counts. To see what such a run does, without counting it:";

fn not_carried_out(summary: &Summary, directory: &Path) -> String {
    let mut text = String::new();
    for NotCarriedOut { run, what, reason } in &summary.not_carried_out {
        push_line(
            &mut text,
            format_args!("run {run} ({what}) could not be carried out: {reason}"),
        );
    }
    if let Some(first) = summary.not_carried_out.first() {
        let again = replay(directory, first.run);
        push_line(&mut text, format_args!("{AGAIN}\n    {again}"));
    }
    text
}
