//! Two campaigns side by side, class by class.
//!
//! Shares are compared by Newcombe's interval, and by Fisher's test where there are few runs; times
//! by ranks; and where both campaigns drew the same faults from one seed, run by run.

use serde::Serialize;

use super::arguments::CompareArguments;
use super::directory::{self, Finished};
use super::record::Record;
use super::statistics::differences::chance;
use super::statistics::{Difference, Pairs, Proportion, Shift, fisher};
use super::summary::{ClassSummary, Summary};
use crate::error::{Ending, Error, Result};
use crate::output::{Format, print_json, print_text, push_line, table};

/// What chance may explain one time in twenty.
const RISK: f64 = 0.05;

/// A share in both campaigns.
#[derive(Debug, Serialize)]
struct Share {
    class: String,
    what: &'static str,
    first: Proportion,
    second: Proportion,
    difference: Option<Difference>,
    /// By Fisher's test, where the counts are too small for the interval.
    chance: Option<f64>,
    significant: bool,
}

/// A latency in both campaigns.
#[derive(Debug, Serialize)]
struct Time {
    class: String,
    what: &'static str,
    median_first_ms: Option<f64>,
    median_second_ms: Option<f64>,
    shift_ms: Shift,
    significant: bool,
}

/// The runs that both campaigns drew alike.
#[derive(Debug, Serialize)]
struct Paired {
    class: String,
    /// How often nothing spoke against only one of the two.
    held: Pairs,
    chance: f64,
    significant: bool,
}

/// Two campaigns side by side.
#[derive(Debug, Serialize)]
struct Comparison {
    schema: &'static str,
    first: String,
    second: String,
    same_images: bool,
    shares: Vec<Share>,
    times: Vec<Time>,
    pairs: Vec<Paired>,
    /// Of the runs that were to do the same and tell what memory they left: left the same.
    same_memory: Option<Proportion>,
}

type OfClass = fn(&ClassSummary) -> Proportion;

const SHARES: [(&str, OfClass); 4] = [
    ("had an effect", |class| class.manifested),
    ("detected", |class| class.detected),
    ("not contained", |class| class.escaped),
    ("came back", |class| class.reintegrated),
];

impl Share {
    fn of(class: &str, what: &'static str, [first, second]: [Proportion; 2]) -> Self {
        let difference = Difference::between(first, second);
        let chance = fisher(first, second);
        let by_interval = difference.is_some_and(|found| found.is_significant());
        Self {
            class: class.into(),
            what,
            first,
            second,
            difference,
            chance,
            significant: chance.map_or(by_interval, |chance| chance < RISK),
        }
    }
}

/// The classes that both have, and all together if they have the same ones.
fn in_common<'a>(
    first: &'a Summary,
    second: &'a Summary,
) -> Vec<(&'a ClassSummary, &'a ClassSummary)> {
    let other = |a: &'a ClassSummary| {
        let found = second.classes.iter().find(|b| b.class == a.class);
        found.map(|b| (a, b))
    };
    let mut common: Vec<_> = first.classes.iter().filter_map(other).collect();
    if common.len() > 1
        && [first, second]
            .iter()
            .all(|of| of.classes.len() == common.len())
    {
        common.push((&first.overall, &second.overall));
    }
    common
}

fn times(a: &ClassSummary, b: &ClassSummary) -> Vec<Time> {
    let of = |(what, first): &(&'static str, Vec<_>)| {
        let (_, second) = b.samples.iter().find(|(of, _)| of == what)?;
        let shift = Shift::between(first, second)?;
        let median = |class: &ClassSummary| {
            let mut found = class.latencies_ms.iter();
            found
                .find(|(of, _)| of == what)
                .and_then(|(_, times)| times.median)
        };
        let (median_first_ms, median_second_ms) = (median(a), median(b));
        // Nothing was measured of it on either side.
        median_first_ms.or(median_second_ms)?;
        Some(Time {
            class: a.class.clone(),
            what,
            median_first_ms,
            median_second_ms,
            significant: shift.chance < RISK,
            shift_ms: shift,
        })
    };
    a.samples.iter().filter_map(of).collect()
}

/// The finished runs of the same number that were to do the same and could be judged.
fn same_plans<'a>(
    first: &'a Finished,
    second: &'a Finished,
) -> impl Iterator<Item = (&'a Record, &'a Record)> {
    let pairs = first.records.iter();
    let pairs = pairs.filter_map(|(run, a)| Some((a, second.records.get(run)?)));
    pairs.filter(|(a, b)| {
        let valid = a.containment.is_valid() && b.containment.is_valid();
        valid && a.is_same_plan(b)
    })
}

fn paired(class: &str, pairs: &[(&Record, &Record)]) -> Paired {
    let held = pairs
        .iter()
        .map(|(a, b)| [!a.is_violation(), !b.is_violation()]);
    let held = Pairs::counting(held);
    let chance = held.chance();
    Paired {
        class: class.into(),
        held,
        chance,
        significant: chance < RISK,
    }
}

fn pairs(first: &Finished, second: &Finished, classes: &[&str]) -> Vec<Paired> {
    let all: Vec<_> = same_plans(first, second).collect();
    let of = |class: &&str| {
        let own = all
            .iter()
            .filter(|(a, _)| a.effect.is_some() && a.resolved.class == *class);
        paired(class, &own.copied().collect::<Vec<_>>())
    };
    let mut pairs: Vec<Paired> = classes.iter().map(of).collect();
    pairs.push(paired("all, controls too", &all));
    pairs.retain(|one| one.held.pairs > 0);
    pairs
}

fn same_memory(first: &Finished, second: &Finished) -> Option<Proportion> {
    let hashed = same_plans(first, second);
    let hashed = hashed.filter_map(|(a, b)| Some((a.ram_sha256.as_ref()?, b.ram_sha256.as_ref()?)));
    let same = Proportion::counting(hashed, |(a, b)| a == b);
    (same.of > 0).then_some(same)
}

fn compare(first: &Finished, second: &Finished) -> Comparison {
    let of = |finished: &Finished| Summary::of(&finished.manifest, finished.records.values());
    let (a, b) = (of(first), of(second));
    let common = in_common(&a, &b);
    let shares = common.iter().flat_map(|(a, b)| {
        SHARES.map(|(what, share)| Share::of(&a.class, what, [share(a), share(b)]))
    });
    let names: Vec<&str> = common.iter().map(|(a, _)| a.class.as_str()).collect();
    let (one, other) = (&first.manifest, &second.manifest);
    Comparison {
        schema: "hive-campaign-compare/2",
        first: headline(&a),
        second: headline(&b),
        same_images: (&one.monitor_sha256, &one.kernel_sha256)
            == (&other.monitor_sha256, &other.kernel_sha256),
        shares: shares.collect(),
        times: common.iter().flat_map(|(a, b)| times(a, b)).collect(),
        pairs: pairs(first, second, &names),
        same_memory: same_memory(first, second),
    }
}

fn headline(summary: &Summary) -> String {
    let Summary {
        name, seed, setup, ..
    } = summary;
    format!(
        "{name}, seed {seed:#x}, {} runs; {setup}",
        summary.totals.runs
    )
}

/// Compares.
///
/// # Errors
/// [`Error::Usage`] if a directory holds no campaign, or the two have no class in common.
pub fn command(arguments: &CompareArguments, format: Format) -> Result<Ending> {
    let comparison = compare(
        &directory::read(&arguments.first)?,
        &directory::read(&arguments.second)?,
    );
    if comparison.shares.is_empty() {
        return Err(Error::Usage(
            "the two campaigns have no fault in common".into(),
        ));
    }
    match format {
        Format::Json => print_json(&comparison)?,
        Format::Text => print_text(&comparison.text())?,
    }
    Ok(Ending::Held)
}

const fn mark(significant: bool) -> &'static str {
    if significant { "differs" } else { "" }
}

impl Comparison {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| push_line(&mut text, line);
        line(format_args!(
            "first:  {}\nsecond: {}",
            self.first, self.second
        ));
        if !self.same_images {
            line(format_args!(
                "The images differ: a larger one thins out the faults that matter, so compare how \
                 many failures there were, not only shares."
            ));
        }
        line(format_args!("\n{}", self.shares()));
        line(format_args!("{}", self.times()));
        if self.pairs.is_empty() {
            line(format_args!(
                "no run was drawn alike in both: nothing to pair"
            ));
        } else {
            line(format_args!("{}", self.pairs().trim_end()));
        }
        if let Some(same) = self.same_memory {
            let same = same.text();
            line(format_args!(
                "\npairs of runs that left the same memory: {same}"
            ));
        }
        text
    }

    fn shares(&self) -> String {
        let headings = [
            "fault",
            "share",
            "first",
            "second",
            "second less first, at 95 %",
            "chance (Fisher)",
            "",
        ];
        let mut rows = vec![headings.map(String::from).to_vec()];
        rows.extend(self.shares.iter().map(|line| {
            let difference = line.difference;
            vec![
                line.class.clone(),
                line.what.into(),
                line.first.text(),
                line.second.text(),
                difference.map_or_else(|| "-".into(), |found| found.text()),
                line.chance.map_or_else(|| "-".into(), chance),
                mark(line.significant).into(),
            ]
        }));
        table(&rows)
    }

    fn times(&self) -> String {
        let headings = [
            "fault",
            "median, ms",
            "first",
            "second",
            "shift, ms, at 95 % (Hodges and Lehmann; chance by Mann and Whitney)",
            "",
        ];
        let mut rows = vec![headings.map(String::from).to_vec()];
        let shown =
            |time: Option<f64>| time.map_or_else(|| "-".into(), |time| format!("{time:.1}"));
        rows.extend(self.times.iter().map(|line| {
            vec![
                line.class.clone(),
                line.what.into(),
                shown(line.median_first_ms),
                shown(line.median_second_ms),
                line.shift_ms.text(),
                mark(line.significant).into(),
            ]
        }));
        table(&rows)
    }

    fn pairs(&self) -> String {
        let headings = [
            "drawn alike in both",
            "pairs",
            "held in the first only",
            "in the second only",
            "chance (McNemar)",
            "",
        ];
        let mut rows = vec![headings.map(String::from).to_vec()];
        rows.extend(self.pairs.iter().map(|one| {
            vec![
                one.class.clone(),
                one.held.pairs.to_string(),
                one.held.first_only.to_string(),
                one.held.second_only.to_string(),
                chance(one.chance),
                mark(one.significant).into(),
            ]
        }));
        table(&rows)
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
