//! How far faults reached, how much of the time things were there, and what was checked.

use maud::{Markup, html};

use super::{share, table};
use crate::campaign::report::terminal::{percent_of_time, programs};
use crate::campaign::summary::Summary;
use crate::campaign::summary::availability::Availability;

pub(super) fn reach(summary: &Summary) -> Markup {
    let matrix = &summary.reach.matrix;
    let mut cells: Vec<usize> = matrix.iter().map(|one| one.from).collect();
    cells.dedup();
    let names: Vec<String> = cells
        .iter()
        .map(|cell| format!("reached cell {cell}"))
        .collect();
    let mut headings = vec!["single faults in"];
    headings.extend(names.iter().map(String::as_str));
    let find = |from: usize, to: usize| {
        let mut pairs = matrix.iter();
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
    let counted = html! {
        @for (cells, runs) in &summary.reach.cells_affected {
            tr { td { (cells) } td { (runs) } }
        }
    };
    html! {
        h2 { "Who was affected" }
        (table(&headings, &rows))
        (table(&["cells that failed or were affected", "runs with one fault"], &counted))
        p {
            "Of the runs in which a cell failed or was affected, more than one was: "
            (summary.reach.correlated.text()) "."
        }
        @if let Some(memory) = summary.reach.memory { p { (memory.text()) } }
    }
}

pub(super) fn availability(summary: &Summary) -> Markup {
    let Some(found) = &summary.availability else {
        return html! {};
    };
    let work = found.work_text();
    let work = work.unwrap_or_else(|| "no controls to compare with".into());
    let shares = [
        ("machine: some cell lived", found.machine),
        ("cell: it lived", found.cell),
        ("service: its programs worked", found.service),
    ];
    let rows = html! {
        @for (what, share) in shares { tr { td { (what) } td.number { (percent_of_time(share)) } } }
        tr { td { "work done by a run" } td { (work) } }
        tr { td { "runs that did less than two thirds" } (share(found.slow)) }
    };
    html! {
        h2 { "Availability" }
        p.note {
            (format!("Over {:.1} s of the guest's time after faults, ", found.seconds))
            "one or two faults in each run: for comparing campaigns, not for years."
        }
        (table(&["of that time", ""], &rows))
        (states(found))
        (model(found))
    }
}

fn states(found: &Availability) -> Markup {
    let states = html! {
        @for one in &found.states {
            tr {
                td { (one.state.text()) }
                td.number { (percent_of_time(one.share)) }
                td.number { (one.visits) }
                td.number { @if let Some(time) = one.mean_ms { (format!("{time:.1}")) } }
                td.number {
                    @match one.steady {
                        Some(share) => (percent_of_time(share)),
                        None => "-",
                    }
                }
            }
        }
    };
    let transitions = html! {
        @for one in &found.transitions {
            tr {
                td { (one.from.text()) " to " (one.to.text()) }
                td.number { (one.count) }
                td.number { (format!("{:.3}", one.per_second)) }
            }
        }
    };
    let headings = [
        "state of a cell",
        "share of time",
        "visits",
        "mean visit, ms",
        "model: in the long run",
    ];
    html! {
        (table(&headings, &states))
        (table(&["transition", "times", "per second in the first"], &transitions))
        p.note {
            "The long run is that of a Markov chain with the measured rates, the injected faults "
            "among them; there is none where a cell never came back. A model: visits are taken to "
            "end at a constant rate."
        }
    }
}

fn model(found: &Availability) -> Markup {
    let rows = html! {
        @for one in &found.model {
            tr {
                td { "once " (one.mttf) }
                td.number { (percent_of_time(one.cell)) }
                td.number { (percent_of_time(one.service)) }
            }
        }
    };
    html! {
        @if let (Some(repair), Some(held)) = (found.mttr_ms, found.held_ms) {
            (table(&["model: each cell fails", "a cell lives", "its programs work"], &rows))
            p.note {
                (format!("A model, not a measurement: MTTF / (MTTF + MTTR) with {repair:.1} ms "))
                (format!("from a failure until the cell serves again (mean of the {} repaired ",
                         found.repaired))
                (format!("of {} failures) and {held:.1} ms for which each failure holds up ",
                         found.failures))
                "every other cell; cells that fail independently of each other, and always come "
                "back."
            }
        }
    }
}

pub(super) fn checks(summary: &Summary) -> Markup {
    let rows = html! {
        @for check in &summary.checks {
            tr {
                td { (check.invariant.text()) }
                td.hit[check.broken.count > 0] { (check.broken.text()) }
            }
        }
    };
    html! {
        h2 { "What was checked" }
        (table(&["in every run, controls too", "did not hold in"], &rows))
        p { (programs(summary)) }
        @if let Some(same) = summary.determinism {
            p {
                "Pairs of runs that were to do the same, and left the same memory: " (same.text())
                "."
            }
        }
    }
}
