//! Two campaigns side by side, class by class.

use std::path::Path;

use serde::Serialize;

use super::arguments::CompareArguments;
use super::directory;
use super::statistics::{Difference, Proportion};
use super::summary::{ClassSummary, Summary};
use crate::error::{Ending, Error, Result};
use crate::output::{Format, print_json, print_text, push_line, table};

/// A share in both campaigns.
#[derive(Debug, Serialize)]
struct Line {
    class: String,
    what: &'static str,
    first: Proportion,
    second: Proportion,
    difference: Option<Difference>,
    significant: bool,
}

type Share = fn(&ClassSummary) -> Proportion;

const SHARES: [(&str, Share); 4] = [
    ("had an effect", |class| class.manifested),
    ("detected", |class| class.detected),
    ("not contained", |class| class.escaped),
    ("came back", |class| class.reintegrated),
];

fn lines(first: &Summary, second: &Summary) -> Vec<Line> {
    let mut lines = Vec::new();
    for a in &first.classes {
        let Some(b) = second.classes.iter().find(|b| b.class == a.class) else {
            continue;
        };
        for (what, share) in SHARES {
            let difference = Difference::between(share(a), share(b));
            lines.push(Line {
                class: a.class.clone(),
                what,
                first: share(a),
                second: share(b),
                significant: difference.is_some_and(|found| found.is_significant()),
                difference,
            });
        }
    }
    lines
}

fn summary(path: &Path) -> Result<Summary> {
    let finished = directory::read(path)?;
    Ok(Summary::of(&finished.manifest, finished.records.values()))
}

/// Compares.
///
/// # Errors
/// [`Error::Usage`] if a directory holds no campaign, or the two have no class in common.
pub fn command(arguments: &CompareArguments, format: Format) -> Result<Ending> {
    let (first, second) = (summary(&arguments.first)?, summary(&arguments.second)?);
    let lines = lines(&first, &second);
    if lines.is_empty() {
        return Err(Error::Usage(
            "the two campaigns have no fault in common".into(),
        ));
    }
    match format {
        Format::Json => {
            let shown = serde_json::json!({
                "schema": "hive-campaign-compare/1",
                "first": first.name, "second": second.name, "lines": lines,
            });
            print_json(&shown)?;
        }
        Format::Text => print_text(&text([&first, &second], &lines))?,
    }
    Ok(Ending::Held)
}

fn text(campaigns: [&Summary; 2], lines: &[Line]) -> String {
    let mut text = String::new();
    for (which, campaign) in ["first: ", "second:"].into_iter().zip(campaigns) {
        let Summary {
            name, seed, setup, ..
        } = campaign;
        push_line(
            &mut text,
            format_args!(
                "{which} {name}, seed {seed:#x}, {} runs; {setup}",
                campaign.totals.runs
            ),
        );
    }
    let headings = [
        "fault",
        "share",
        "first",
        "second",
        "second less first, at 95 %",
        "",
    ];
    let mut rows = vec![headings.map(String::from).to_vec()];
    rows.extend(lines.iter().map(|line| {
        let difference = line.difference;
        vec![
            line.class.clone(),
            line.what.into(),
            line.first.text(),
            line.second.text(),
            difference.map_or_else(|| "-".into(), |found| found.text()),
            if line.significant { "differs" } else { "" }.into(),
        ]
    }));
    push_line(&mut text, format_args!("\n{}", table(&rows).trim_end()));
    text
}
