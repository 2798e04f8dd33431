//! The report of one injection, as text and as one JSON object.

use serde_json::{Value, json};

use crate::commands::Setup;
use crate::fault::plan::{Plan, Strike};
use crate::latency::Latencies;
use crate::observation::{End, Observation, Watched};
use crate::output::{push_line, table};
use crate::timeline::{self, Line};
use crate::units::{float, milliseconds};
use crate::verdict::Verdict;

/// The report as one JSON object.
pub fn json(
    setup: &Setup,
    plan: &Plan,
    run: &Observation,
    verdict: &Verdict,
    latencies: &Latencies,
    lines: &[Line],
) -> Value {
    let injected: Vec<Value> = run
        .injected
        .iter()
        .map(|one| {
            json!({ "fault": one.fault, "cell": one.cell, "at_ns": one.at,
                    "expectation": one.expectation, "detail": one.detail })
        })
        .collect();
    let epitaphs: Vec<Value> = run
        .epitaphs
        .iter()
        .map(|((cell, life), text)| json!({ "cell": cell, "incarnation": life, "text": text }))
        .collect();
    json!({
        "schema": "hive-inject/1",
        "setup": setup,
        "plan": { "strikes": plan.strikes().collect::<Vec<_>>(), "at_ms": milliseconds(plan.at) },
        "boot_ms": milliseconds(run.boot_time),
        "injected": injected,
        "held": verdict.held,
        "outcome": verdict.outcome,
        "verdict": verdict,
        "latencies_ms": latencies,
        "live_set": run.live_set.iter().map(cell::CellId::index).collect::<Vec<_>>(),
        "end": end_text(run, verdict),
        "ram_sha256": run.ram_sha256,
        "memory_difference": run.difference,
        "epitaphs": epitaphs,
        "false_alarms": run.false_alarms(),
        "write_watch": run.watched,
        "records_lost": run.records_lost,
        "timeline": lines,
    })
}

/// The report as text.
pub fn text(
    setup: &Setup,
    plan: &Plan,
    run: &Observation,
    verdict: &Verdict,
    latencies: &Latencies,
    lines: &[Line],
) -> String {
    let mut text = format!("{}\n", setup.text());
    text.push_str(&strikes(plan, run));
    text.push_str(&timeline::text(lines));
    for ((cell, life), words) in &run.epitaphs {
        let words = epitaph(words);
        push_line(
            &mut text,
            format_args!("\nepitaph of cell {cell}, life {life}: {words}"),
        );
    }
    let times = latencies.named().into_iter().filter_map(|(name, time)| {
        time.map(|time| vec![name.to_string(), format!("{time:>8.1} ms")])
    });
    push_line(
        &mut text,
        format_args!("\n{}", table(&times.collect::<Vec<_>>())),
    );
    text.push_str(&cells(verdict));
    text.push_str(&ending(run, verdict));
    text
}

/// An epitaph, with what the words of the stack are: old ones lie between those in use.
fn epitaph(words: &str) -> String {
    match words.split_once("; stack: ") {
        Some((reason, stack)) => {
            format!("{reason}\n  possible return addresses on the stack, not a call chain: {stack}")
        }
        None => words.into(),
    }
}

fn strikes(plan: &Plan, run: &Observation) -> String {
    let strike = |strike: &Strike| {
        let Strike {
            fault, cell, seed, ..
        } = strike;
        format!("{fault} in cell {cell} (seed {seed})")
    };
    let strikes: Vec<String> = plan.strikes().map(strike).collect();
    let boot = milliseconds(run.boot_time);
    format!("{}; booted in {boot} ms\n\n", strikes.join(", then "))
}

fn ending(run: &Observation, verdict: &Verdict) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| push_line(&mut text, arguments);
    line(format_args!(
        "\nlive set at the end: {}; {}",
        run.live_set,
        end_text(run, verdict)
    ));
    let alarms = run.false_alarms();
    if alarms > 0 {
        line(format_args!(
            "attempts that ended in a false alarm, seen by all cells: {alarms}"
        ));
    }
    if run.records_lost > 0 {
        line(format_args!("{} trace records were lost", run.records_lost));
    }
    if let Some(watched) = &run.watched {
        line(format_args!("{}", watched_text(watched)));
    }
    if let Some(difference) = &run.difference {
        line(format_args!("{}", difference.text()));
    }
    let contained = if verdict.contained {
        "contained"
    } else {
        "NOT contained"
    };
    let held = if verdict.held { "held" } else { "VIOLATED" };
    line(format_args!(
        "verdict: {held}, {contained} ({})",
        verdict.outcome.text()
    ));
    for violation in &verdict.violations {
        line(format_args!("  - {}", violation.text()));
    }
    for one in run.undone().filter(|one| one.fault.is_hook()) {
        let fault = one.fault;
        line(format_args!(
            "{fault} waited to the end and never struck: no message, program or interrupt came \
             that it was meant for"
        ));
    }
    for cell in &verdict.out_of_work {
        line(format_args!(
            "cell {cell} serves calls, and its own programs do no work any more: the fault ended \
             them, for which nobody expels it"
        ));
    }
    text
}

fn watched_text(watched: &Watched) -> String {
    let Watched {
        stretches,
        bytes,
        own,
        granted,
        strays_count,
        ..
    } = watched;
    let mib = bytes >> 20;
    format!(
        "write watch on {stretches} stretches of memory, {mib} MiB, that the faulty cell must not \
         write: {strays_count} stores that nothing allowed, {granted} under a grant, {own} by the \
         home itself"
    )
}

fn cells(verdict: &Verdict) -> String {
    let headings = [
        "cell",
        "life",
        "work verified",
        "lost (with cell)",
        "wrong bytes",
        "longest pause",
    ];
    let mut rows = vec![headings.map(String::from).to_vec()];
    rows.extend(verdict.cells.iter().map(|cell| {
        let [before, after] = cell.incarnations;
        let life = if before == after {
            after.to_string()
        } else {
            format!("{before} -> {after}")
        };
        let with = |(with, &lost): (usize, &u64)| (lost > 0).then(|| format!("{lost} ({with})"));
        let lost: Vec<String> = cell.lost_with.iter().enumerate().filter_map(with).collect();
        vec![
            cell.cell.to_string(),
            life,
            cell.verified.to_string(),
            if lost.is_empty() {
                cell.lost.to_string()
            } else {
                lost.join(" ")
            },
            cell.wrong.to_string(),
            cell.longest_pause_us.map_or_else(
                || "-".into(),
                |pause| format!("{:.1} ms", float(pause) / 1e3),
            ),
        ]
    }));
    table(&rows)
}

fn end_text(run: &Observation, verdict: &Verdict) -> String {
    let works = if verdict.out_of_work.is_empty() {
        "every cell serves and works"
    } else {
        "every cell serves"
    };
    match &run.end {
        End::Settled => works.into(),
        End::Quiet => format!("nobody died, {works}"),
        End::Bound => "not settled when the time was over".into(),
        End::SystemDown(how) => format!("the machine went down: {how}"),
        End::Silence => "no CPU works any more".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_of_an_epitaph_is_called_what_it_is() {
        assert_eq!(epitaph("panicked"), "panicked");
        let text = epitaph("panicked; stack: one two");
        assert!(text.starts_with("panicked\n"), "{text}");
        assert!(text.ends_with("not a call chain: one two"), "{text}");
    }
}
