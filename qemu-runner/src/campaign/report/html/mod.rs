//! The report as one page that needs nothing else.
//!
//! It is read with no script and no network, in a light and in a dark window, on a narrow one, and
//! on paper.
//!
//! | module | what it holds |
//! |---|---|
//! | [`runs`] | how the runs came out, how long things took, two runs as examples |
//! | [`whole`] | how far faults reached, how much of the time things were there, what was checked |
//! | [`control`] | runs without a fault, and the effect of the tool itself |

mod control;
mod runs;
mod whole;

use std::collections::BTreeMap;
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::style::RGBColor;

use super::terminal::{AGAIN, counts, look, replay};
use crate::campaign::record::Record;
use crate::campaign::statistics::Proportion;
use crate::campaign::summary::{NotCarriedOut, Summary, ViolationLine};
use crate::error::{Ending, Result};

const STYLE: &str = include_str!("style.css");

/// The page.
///
/// # Errors
/// [`crate::error::Error::Host`] if a chart cannot be drawn.
pub fn page(
    summary: &Summary,
    records: &BTreeMap<u32, Record>,
    directory: &Path,
) -> Result<String> {
    let sections = [
        runs::outcomes(summary)?,
        runs::latencies(summary)?,
        runs::examples(summary, records)?,
        whole::reach(summary),
        whole::availability(summary),
        whole::checks(summary),
        control::controls(summary),
        violations(&summary.violations, directory),
        not_carried_out(&summary.not_carried_out, directory),
    ];
    let bad = summary.ending() == Ending::Violated;
    let nothing = !bad && summary.ended().is_err();
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
                p.verdict.bad[bad].nothing[nothing] { (summary.verdict()) }
                p { (counts(summary)) ". " (look(summary)) }
                p.note { (summary.setup) "." }
                @for section in &sections { (section) }
                (method(summary))
            }
        }
    };
    Ok(page.into_string())
}

fn method(summary: &Summary) -> Markup {
    html! {
        h2 { "How to read this" }
        p.note {
            "Intervals of shares are Wilson's at 95 %; where none or all of the runs are meant, "
            "the bound is one-sided at 95 %. Intervals of medians are by order statistics. Runs "
            "that could not be carried out, and faults that never struck, enter no share; the line "
            "at the top counts them as failures once. Faults were drawn by the weights of the "
            "campaign file, and \"all\" is all of them as they were drawn. All times but those "
            "said to be the host's are the guest's. The same campaign again: the file is in "
            "manifest.json, with the seed " code { (format!("{:#x}", summary.seed)) } "."
        }
    }
}

fn figure(svg: &str) -> Markup {
    html! { figure { (PreEscaped(svg)) } }
}

/// What the colours of a chart mean.
fn legend(entries: &[(RGBColor, String)]) -> Markup {
    html! {
        ul.legend {
            @for (colour, text) in entries {
                @let fill = format!("rgb({},{},{})", colour.0, colour.1, colour.2);
                li {
                    svg viewBox="0 0 10 10" { rect width="10" height="10" fill=(fill) {} }
                    (text)
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

fn violations(violations: &[ViolationLine], directory: &Path) -> Markup {
    let rows = html! {
        @for violation in violations {
            tr {
                td { (violation.run) }
                td { (violation.class) }
                td {
                    (violation.containment.text())
                    @for label in &violation.also { br; (label.text()) }
                    @for flag in &violation.flags { br; (flag.text()) }
                }
                td.free { (violation.reasons) }
                td { code { (replay(directory, violation.run)) } }
            }
        }
    };
    html! {
        h2 { "What speaks against runs" }
        @if violations.is_empty() {
            p { "Nothing speaks against any run." }
        } @else {
            (table(&["run", "fault", "outcome", "what", "again"], &rows))
        }
    }
}

fn not_carried_out(runs: &[NotCarriedOut], directory: &Path) -> Markup {
    let rows = html! {
        @for NotCarriedOut { run, what, reason } in runs {
            tr {
                td { (run) }
                td { (what) }
                td.free { (reason) }
                td { code { (replay(directory, *run)) } }
            }
        }
    };
    html! {
        @if !runs.is_empty() {
            h2 { "What could not be carried out" }
            (table(&["run", "what", "why", "again"], &rows))
            p.note { (AGAIN) " the commands above." }
        }
    }
}
