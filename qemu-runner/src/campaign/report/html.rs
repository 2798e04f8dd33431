//! The report as one page that needs nothing else.
//!
//! It is read with no script and no network, in a light and in a dark window, and on paper.

use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::charts;
use super::terminal::{counts, replay, times};
use crate::bench::statistics::Summary as Spread;
use crate::campaign::outcome::Containment;
use crate::campaign::statistics::Proportion;
use crate::campaign::summary::{ClassSummary, ControlSummary, Summary, ViolationLine};
use crate::error::{Ending, Result};

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #fcfcfb; --text: #1d2126; --soft: #5d6670;
        --line: #d9dde1; --good: #2e8b74; --bad: #c0392b; --raised: #f2f4f5; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16191d; --text: #e4e7ea; --soft: #98a2ac; --line: #343a41;
          --good: #4cb796; --bad: #ef6f5e; --raised: #1f242a; } }
body { background: var(--ground); color: var(--text); margin: 2rem auto; padding: 0 1.2rem;
       max-width: 64rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.purpose { color: var(--soft); margin-top: 0; }
p.verdict { font-size: 1.15rem; padding: .7rem 1rem; background: var(--raised);
            border-left: .35rem solid var(--good); }
p.verdict.bad { border-color: var(--bad); } p.note { color: var(--soft); font-size: .9rem; }
table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
         border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } td.hit { color: var(--bad); font-weight: 600; }
div.wide { overflow-x: auto; } code { font: .85rem ui-monospace, monospace; }
figure { margin: .8rem 0; } figure svg { max-width: 100%; height: auto; }
figure text { fill: var(--text); }
figure [stroke='#000000'] { stroke: var(--text); }
ul.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem;
            font-size: .85rem; }
ul.legend svg { width: .8rem; height: .8rem; margin-right: .4rem; }
@media print { body { max-width: none; } }
";

/// The page.
///
/// # Errors
/// [`crate::error::Error::Host`] if a chart cannot be drawn.
pub fn page(summary: &Summary, directory: &Path) -> Result<String> {
    let outcomes = charts::outcomes(summary)?;
    let escapes = charts::escapes(summary)?;
    let latencies = charts::latencies(&summary.overall)?;
    let bad = summary.ending() == Ending::Violated;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Campaign " (summary.name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (summary.name) }
                p.purpose { (summary.purpose) }
                p.verdict.bad[bad] { (summary.verdict()) }
                p { (counts(summary)) ". " (summary.setup) "." }
                h2 { "Outcomes" }
                (figure(&outcomes))
                (legend(summary))
                (proportions(summary))
                h2 { "Escapes" }
                (figure(&escapes))
                h2 { "Latencies" }
                @if let Some(chart) = latencies {
                    (figure(&chart))
                    p.note {
                        "All faults that had an effect. A curve that ends below 100 % has runs in "
                        "which the step was not over at the end (Kaplan and Meier)."
                    }
                }
                (latency_table(summary))
                h2 { "Who was affected" }
                (propagation(summary))
                h2 { "Controls" }
                (controls(&summary.controls))
                h2 { "What speaks against runs" }
                (violations(&summary.violations, directory))
                p.note {
                    "Intervals are Wilson's at 95 %; where none or all of the runs are meant, the "
                    "bound is one-sided at 95 %. Faults were drawn by the weights of the campaign "
                    "file. The same campaign again: the file is in manifest.json, with the seed "
                    code { (format!("{:#x}", summary.seed)) } "."
                }
            }
        }
    };
    Ok(page.into_string())
}

fn figure(svg: &str) -> Markup {
    html! { figure { (PreEscaped(svg)) } }
}

fn with_overall(summary: &Summary) -> impl Iterator<Item = &ClassSummary> {
    let overall = (summary.classes.len() > 1).then_some(&summary.overall);
    summary.classes.iter().chain(overall)
}

fn legend(summary: &Summary) -> Markup {
    let seen = |label: &&Containment| summary.overall.containment.contains_key(label);
    html! {
        ul.legend {
            @for label in Containment::ALL.iter().filter(seen) {
                @let colour = charts::colour(*label);
                @let fill = format!("rgb({},{},{})", colour.0, colour.1, colour.2);
                li {
                    svg viewBox="0 0 10 10" { rect width="10" height="10" fill=(fill) {} }
                    (label.text()) " (" (summary.overall.containment[label]) ")"
                }
            }
        }
    }
}

/// A table that scrolls by itself where the window is narrow.
fn table(headings: &[&str], rows: &Markup) -> Markup {
    html! {
        div.wide {
            table {
                thead { tr { @for heading in headings { th { (heading) } } } }
                tbody { (rows) }
            }
        }
    }
}

fn share(proportion: Proportion) -> Markup {
    html! { td { (proportion.text()) } }
}

fn proportions(summary: &Summary) -> Markup {
    let headings = [
        "fault",
        "runs",
        "had an effect",
        "of those: detected",
        "not contained",
        "came back",
        "effects in its cell",
    ];
    let rows = html! {
        @for class in with_overall(summary) {
            tr {
                td { (class.class) }
                td { (class.runs) }
                (share(class.manifested))
                (share(class.detected))
                (share(class.escaped))
                (share(class.reintegrated))
                td { @for (effect, count) in &class.effects { (count) " " (effect.text()) br; } }
            }
        }
    };
    table(&headings, &rows)
}

fn latency_table(summary: &Summary) -> Markup {
    let names = summary.overall.latencies_ms.iter().map(|(name, _)| *name);
    let mut headings = vec!["ms: median / 90 % / worst"];
    headings.extend(names.clone());
    let rows = html! {
        @for class in with_overall(summary) {
            tr {
                td { (class.class) }
                @for name in names.clone() {
                    @let found = class.latencies_ms.iter().find(|(of, _)| *of == name);
                    td { @if let Some((_, found)) = found { (times(found)) } @else { "-" } }
                }
            }
        }
    };
    table(&headings, &rows)
}

fn propagation(summary: &Summary) -> Markup {
    let mut cells: Vec<usize> = summary.propagation.iter().map(|one| one.from).collect();
    cells.dedup();
    let names: Vec<String> = cells
        .iter()
        .map(|cell| format!("reached cell {cell}"))
        .collect();
    let mut headings = vec!["single faults in"];
    headings.extend(names.iter().map(String::as_str));
    let find = |from: usize, to: usize| {
        let mut pairs = summary.propagation.iter();
        pairs.find(|one| one.from == from && one.to == to)
    };
    let rows = html! {
        @for &from in &cells {
            tr {
                td { "cell " (from) }
                @for &to in &cells {
                    @match find(from, to) {
                        Some(one) => {
                            td.hit[one.affected.count > 0] { (one.affected.text()) }
                        }
                        None => td { "-" },
                    }
                }
            }
        }
    };
    table(&headings, &rows)
}

fn controls(controls: &[ControlSummary]) -> Markup {
    let headings = [
        "control",
        "violated",
        "healthy cell voted out",
        "false alarms, nobody expelled",
        "false alarms/s",
        "work/s, median (least to greatest)",
        "longest pause, ms, median (least to greatest)",
    ];
    let spread = |spread: Option<Spread>| {
        spread.map_or_else(
            || "-".into(),
            |found| {
                format!(
                    "{:.1} ({:.1} to {:.1})",
                    found.median, found.least, found.greatest
                )
            },
        )
    };
    let rows = html! {
        @for control in controls {
            tr {
                td { (control.name()) }
                (share(control.violated))
                (share(control.accused))
                (share(control.alarmed))
                td {
                    @match control.false_alarms_per_second {
                        Some(rate) => (format!("{rate:.2}")),
                        None => "-",
                    }
                }
                td { (spread(control.work_per_second)) }
                td { (spread(control.longest_pause_ms)) }
            }
        }
    };
    html! {
        (table(&headings, &rows))
        p.note {
            "Golden runs leave the machine alone. Null injections do all that a fault's run does, "
            "but inject nothing: what differs between the two is the effect of the tool."
        }
    }
}

fn violations(violations: &[ViolationLine], directory: &Path) -> Markup {
    if violations.is_empty() {
        return html! { p { "Nothing speaks against any run." } };
    }
    let rows = html! {
        @for violation in violations {
            tr {
                td { (violation.run) }
                td { (violation.class) }
                td { (violation.containment.text()) }
                td { (violation.reasons) }
                td { code { (replay(directory, violation.run)) } }
            }
        }
    };
    table(&["run", "fault", "outcome", "what", "again"], &rows)
}
