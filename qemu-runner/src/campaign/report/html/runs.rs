//! How the runs came out, how long things took, and two runs as examples.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{figure, legend, share, table};
use crate::campaign::lanes::Phase;
use crate::campaign::outcome::Containment;
use crate::campaign::record::Record;
use crate::campaign::report::charts::{self, bars, curves, strip};
use crate::campaign::report::terminal::with_overall;
use crate::campaign::statistics::Times;
use crate::campaign::summary::{ClassSummary, Summary};
use crate::error::Result;

pub(super) fn outcomes(summary: &Summary) -> Result<Markup> {
    let (outcomes, escapes) = (bars::outcomes(summary)?, bars::escapes(summary)?);
    let counted = &summary.overall.containment;
    let seen = Containment::ALL.iter().filter_map(|label| {
        let count = counted.get(label)?;
        Some((
            charts::colour(*label),
            format!("{} ({count})", label.text()),
        ))
    });
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
                td.name { (class.class) }
                td { (class.runs) }
                (share(class.manifested))
                (share(class.detected))
                (share(class.escaped))
                (share(class.reintegrated))
                td { @for (effect, count) in &class.effects { (count) " " (effect.text()) br; } }
            }
        }
    };
    Ok(html! {
        h2 { "Outcomes" }
        (figure(&outcomes))
        (legend(&seen.collect::<Vec<_>>()))
        (table(&headings, &rows))
        h2 { "Escapes" }
        (figure(&escapes))
        p.note {
            "The point is the share that was seen, the line its 95 % interval (Wilson). A fault "
            "without a line had no effect in any run."
        }
    })
}

pub(super) fn latencies(summary: &Summary) -> Result<Markup> {
    let all = &summary.overall;
    let (over_after, histograms) = (curves::over_after(all)?, curves::histograms(all)?);
    let names = curves::names(all)
        .into_iter()
        .map(|(name, colour, censored)| {
            let late = match censored {
                0 => String::new(),
                censored => format!(", {censored} not over"),
            };
            (colour, format!("{name}{late}"))
        });
    let names = legend(&names.collect::<Vec<_>>());
    Ok(html! {
        h2 { "Latencies" }
        @if let (Some(over_after), Some(histograms)) = (over_after, histograms) {
            (figure(&over_after))
            (names)
            p.note {
                "All faults that had an effect: the share of runs in which each step was over "
                "after a time (Kaplan and Meier). A tick on a curve is a run that ended before the "
                "step was over; a curve with ticks may end below all."
            }
            (figure(&histograms))
            p.note { "How many runs took how long; buckets grow by a tenth of a power of ten." }
        }
        (latency_table(summary))
        (beside_hive(summary))
    })
}

fn shown(time: Option<f64>) -> Markup {
    html! {
        td.number {
            @match time {
                Some(time) => (format!("{time:.1}")),
                None => "-",
            }
        }
    }
}

fn latency_table(summary: &Summary) -> Markup {
    let headings = [
        "ms",
        "fault",
        "n",
        "not over",
        "least",
        "median",
        "its interval",
        "90 %",
        "95 %",
        "99 %",
        "worst",
        "geometric mean",
    ];
    let row = |name: &str, class: &ClassSummary, times: &Times, first: bool| {
        html! {
            tr {
                td.name { @if first { (name) } }
                td.name { (class.class) }
                td.number { (times.samples) }
                td.number { (times.censored) }
                (shown(times.least))
                (shown(times.median))
                td.number {
                    @match times.median_interval {
                        Some(found) => (format!("{:.1} to {:.1}", found.low, found.high)),
                        None => "-",
                    }
                }
                (shown(times.p90)) (shown(times.p95)) (shown(times.p99))
                (shown(times.worst)) (shown(times.geometric_mean))
            }
        }
    };
    let names = || summary.overall.latencies_ms.iter().map(|(name, _)| *name);
    let overall = html! {
        @for name in names() {
            @if let Some((class, times)) = of_latency(summary, name).last() {
                (row(name, class, times, true))
            }
        }
    };
    let rows = html! {
        @for name in names() {
            @for (position, (class, times)) in of_latency(summary, name).enumerate() {
                (row(name, class, times, position == 0))
            }
        }
    };
    html! {
        (table(&headings, &overall))
        @if summary.classes.len() > 1 {
            details {
                summary { "The same for each fault" }
                (table(&headings, &rows))
            }
        }
    }
}

fn of_latency<'a>(
    summary: &'a Summary,
    name: &'a str,
) -> impl Iterator<Item = (&'a ClassSummary, &'a Times)> {
    with_overall(summary).filter_map(move |class| {
        let mut found = class.latencies_ms.iter();
        let (_, times) = found.find(|(of, _)| *of == name)?;
        Some((class, times))
    })
}

/// Hive's table of fault injection tests (SOSP 1995): fault, tests, average and greatest latency in
/// ms until the last cell entered recovery.
const HIVE: [(&str, u32, u32, u32); 5] = [
    ("node failure during process creation", 20, 16, 21),
    ("node failure during copy-on-write search", 9, 10, 11),
    ("node failure at random", 20, 21, 45),
    ("corrupt pointer in process address map", 8, 38, 65),
    ("corrupt pointer in copy-on-write tree", 12, 401, 760),
];

/// A number that is only known to be no less, if times are censored.
fn at_least(value: f64, times: &Times) -> Markup {
    html! { td.number { @if times.censored > 0 { "at least " } (format!("{value:.1}")) } }
}

fn beside_hive(summary: &Summary) -> Markup {
    let headings = [
        "fault to last survivor in recovery",
        "runs",
        "average, ms",
        "greatest, ms",
    ];
    let rows = html! {
        @for (class, times) in of_latency(summary, headings[0]) {
            tr {
                td.name { (class.class) }
                td.number { (times.samples) }
                (at_least(times.mean, times))
                (at_least(times.greatest, times))
            }
        }
        @for (fault, tests, average, greatest) in HIVE {
            tr.of-others {
                td { "Hive 1995: " (fault) }
                td.number { (tests) }
                td.number { (average) }
                td.number { (greatest) }
            }
        }
    };
    html! {
        (table(&headings, &rows))
        p.note {
            "The last rows are the original's, on a simulated machine of four 200 MHz processors. "
            "Where a run ended too early, both are only known to be no less."
        }
    }
}

pub(super) fn examples(summary: &Summary, records: &BTreeMap<u32, Record>) -> Result<Markup> {
    let chosen = match (summary.shown.typical, summary.shown.worst) {
        (Some(typical), Some(worst)) if typical == worst => {
            vec![("The typical run, and the worst", Some(worst))]
        }
        (typical, worst) => vec![("A typical run", typical), ("The worst run", worst)],
    };
    let mut drawn = Vec::new();
    for (title, run) in chosen {
        let Some(record) = run.and_then(|run| records.get(&run)) else {
            continue;
        };
        if let Some(measured) = &record.measured
            && let Some(svg) = strip::strip(measured)?
        {
            drawn.push((title, record, svg));
        }
    }
    let phases = Phase::ALL.map(|phase| (charts::phase_colour(phase), phase.text().to_owned()));
    Ok(html! {
        @if !drawn.is_empty() {
            h2 { "What the cells were doing" }
            @for (title, record, svg) in &drawn {
                p {
                    b { (title) } ": run " (record.run()) ", " (record.resolved.text()) ", "
                    (record.containment.text())
                }
                (figure(svg))
            }
            (legend(&phases))
            p.note {
                "Typical is the run in the middle of those that were contained, by the time until "
                "work went on; the worst is that of the worst outcome and, among those, the one in "
                "which it took longest."
            }
        }
    })
}
