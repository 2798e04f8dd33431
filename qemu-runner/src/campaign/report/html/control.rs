//! Runs without a fault, and the effect of the tool itself.

use maud::{Markup, html};

use super::{share, table};
use crate::bench::statistics::Summary as Spread;
use crate::campaign::summary::Summary;

fn spread(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".into(),
        |found| {
            format!(
                "{:.1} ({:.1} to {:.1})",
                found.median, found.least, found.greatest
            )
        },
    )
}

pub(super) fn controls(summary: &Summary) -> Markup {
    let headings = [
        "control",
        "violated",
        "healthy cell voted out",
        "false alarms, nobody expelled",
        "false alarms/s",
        "work/s",
    ];
    let rows = html! {
        @for control in &summary.controls {
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
            }
        }
    };
    let effects = html! {
        @for effect in &summary.probe_effect {
            tr {
                td { (effect.what) }
                td { (spread(effect.golden)) }
                td { (spread(effect.null)) }
                td { (effect.shift.map_or_else(|| "-".into(), |shift| shift.text())) }
            }
        }
    };
    let effect_headings = [
        "effect of the tool",
        "golden run",
        "null injection",
        "null less golden",
    ];
    html! {
        h2 { "Controls" }
        (table(&headings, &rows))
        (table(&effect_headings, &effects))
        p.note {
            "Golden runs leave the machine alone. Null injections do all that a fault's run does, "
            "but inject nothing: what differs between the two is the effect of the tool. Medians, "
            "with least and greatest; the difference is Hodges and Lehmann's with its 95 % "
            "interval (none for too few runs) and the chance of so great a difference in ranks "
            "without any effect (Mann and Whitney)."
        }
    }
}
