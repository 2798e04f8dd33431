//! Two campaigns side by side, class by class.
//!
//! Shares are compared by Newcombe's interval and by Fisher's test; times by ranks; and where both
//! campaigns drew the same faults from one seed, run by run.
//!
//! # Invariants
//! What is said to differ does so after Holm's correction for all tests of the comparison: with a
//! hundred tests, five would differ by chance. Intervals are each by themselves.

use std::path::Path;

use serde::Serialize;

use super::arguments::CompareArguments;
use super::directory::{self, Finished};
use super::record::Record;
use super::statistics::differences::chance;
use super::statistics::{Difference, Pairs, Proportion, Shift, fisher, holm};
use super::summary::{ClassSummary, Summary};
use crate::error::{Ending, Error, Result};
use crate::fault::plan::Kind;
use crate::output::{Format, print_json, print_text, push_line, table};

/// What chance may explain one time in twenty.
const RISK: f64 = 0.05;

/// How likely a difference as great is by chance.
#[derive(Clone, Copy, Debug, Serialize)]
struct Chance {
    /// In this test alone.
    alone: f64,
    /// In any of the tests made at once.
    corrected: f64,
    significant: bool,
}

impl Chance {
    /// Of one test.
    const fn of(alone: f64) -> Self {
        Self {
            alone,
            corrected: 1.0,
            significant: false,
        }
    }

    /// Corrects those of all tests that are made at once. Says how many these are.
    fn correct(tests: Vec<&mut Self>) -> usize {
        let alone: Vec<f64> = tests.iter().map(|test| test.alone).collect();
        for (test, corrected) in tests.into_iter().zip(holm(&alone)) {
            (test.corrected, test.significant) = (corrected, corrected < RISK);
        }
        alone.len()
    }
}

/// A share in both campaigns.
#[derive(Debug, Serialize)]
struct Share {
    class: String,
    what: &'static str,
    first: Proportion,
    second: Proportion,
    difference: Option<Difference>,
    /// By Fisher's test; none if nothing was counted on either side.
    chance: Option<Chance>,
}

/// A latency in both campaigns.
#[derive(Debug, Serialize)]
struct Time {
    class: String,
    what: &'static str,
    median_first_ms: Option<f64>,
    median_second_ms: Option<f64>,
    shift_ms: Shift,
    /// By Mann and Whitney's test.
    chance: Chance,
}

/// The runs that both campaigns drew alike.
#[derive(Debug, Serialize)]
struct Paired {
    class: String,
    /// How often nothing spoke against only one of the two.
    held: Pairs,
    /// Both count as the same, and the fault did the same to its cell.
    alike: Proportion,
    /// By McNemar's test; none if no pair differs.
    chance: Option<Chance>,
}

/// Two campaigns side by side.
#[derive(Debug, Serialize)]
struct Comparison {
    schema: &'static str,
    first: String,
    second: String,
    same_file: bool,
    same_images: bool,
    /// How many tests were made.
    tests: usize,
    shares: Vec<Share>,
    times: Vec<Time>,
    pairs: Vec<Paired>,
    /// Of the runs that were to do the same and tell what memory they left: left the same.
    same_memory: Option<Proportion>,
}

type OfClass = fn(&ClassSummary) -> Proportion;

/// What is said of a class of faults.
const SHARES: [(&str, OfClass); 5] = [
    ("had an effect", |class| class.manifested),
    ("detected", |class| class.detected),
    ("not contained", |class| class.escaped),
    ("survivors met wrong bytes", |class| class.silent),
    ("came back", |class| class.reintegrated),
];

type OfCampaign = fn(&Summary) -> Option<Proportion>;

/// What is said of a campaign as a whole.
const WHOLE: [(&str, OfCampaign); 4] = [
    ("a healthy cell voted out", |whole| Some(whole.accused)),
    ("memory as in the control", |whole| {
        whole.reach.memory.map(|memory| memory.same)
    }),
    ("memory of others differs", |whole| {
        whole.reach.memory.map(|memory| memory.others)
    }),
    ("foreign stores", |whole| {
        whole.reach.memory.map(|memory| memory.foreign)
    }),
];

impl Share {
    fn of(class: &str, what: &'static str, [first, second]: [Proportion; 2]) -> Self {
        Self {
            class: class.into(),
            what,
            first,
            second,
            difference: Difference::between(first, second),
            chance: fisher(first, second).map(Chance::of),
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
            chance: Chance::of(shift.chance),
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
    let ended = |run: &Record| (run.containment, run.effect);
    Paired {
        class: class.into(),
        held,
        alike: Proportion::counting(pairs, |(a, b)| ended(a) == ended(b)),
        chance: held.chance().map(Chance::of),
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
    let mut shares: Vec<Share> = shares.collect();
    // Of two campaigns without a fault in common nothing is to be said.
    if !shares.is_empty() {
        let whole = |(what, share): (&'static str, OfCampaign)| {
            Some(Share::of("the campaign", what, [share(&a)?, share(&b)?]))
        };
        shares.extend(WHOLE.into_iter().filter_map(whole));
    }
    let mut times: Vec<Time> = common.iter().flat_map(|(a, b)| times(a, b)).collect();
    let names: Vec<&str> = common.iter().map(|(a, _)| a.class.as_str()).collect();
    let mut pairs = pairs(first, second, &names);
    let tests = shares.iter_mut().filter_map(|one| one.chance.as_mut());
    let tests = tests.chain(times.iter_mut().map(|one| &mut one.chance));
    let tests = tests.chain(pairs.iter_mut().filter_map(|one| one.chance.as_mut()));
    let tests = Chance::correct(tests.collect());
    let (one, other) = (&first.manifest, &second.manifest);
    Comparison {
        schema: "hive-campaign-compare/4",
        tests,
        first: headline(&a),
        second: headline(&b),
        same_file: one.file == other.file,
        same_images: (&one.monitor_sha256, &one.kernel_sha256)
            == (&other.monitor_sha256, &other.kernel_sha256),
        shares,
        times,
        pairs,
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

/// Refuses a campaign with nothing to compare.
fn has_faults(path: &Path, finished: &Finished) -> Result<()> {
    let mut runs = finished.records.values();
    let missing = if finished.records.is_empty() {
        "no run of it is finished"
    } else if runs.all(|run| run.kind() != Kind::Fault) {
        "its finished runs are controls, and none has a fault"
    } else {
        return Ok(());
    };
    let shown = path.display();
    Err(Error::Usage(format!(
        "{shown}: {missing}: nothing to compare"
    )))
}

/// Compares.
///
/// # Errors
/// [`Error::Usage`] if a directory holds no campaign or no finished run with a fault, or the two
/// have no class in common.
pub fn command(arguments: &CompareArguments, format: Format) -> Result<Ending> {
    let read = |path: &Path| {
        let finished = directory::read(path)?;
        has_faults(path, &finished)?;
        Ok(finished)
    };
    let comparison = compare(&read(&arguments.first)?, &read(&arguments.second)?);
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

/// The chance in all tests together, and whether that is a difference.
fn corrected(found: Option<Chance>) -> [String; 2] {
    match found {
        None => ["-".into(), String::new()],
        Some(found) if found.significant => [chance(found.corrected), "differs".into()],
        Some(found) => [chance(found.corrected), String::new()],
    }
}

fn alone(found: Option<Chance>) -> String {
    found.map_or_else(|| "-".into(), |found| chance(found.alone))
}

impl Comparison {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| push_line(&mut text, line);
        line(format_args!(
            "first:  {}\nsecond: {}",
            self.first, self.second
        ));
        if !self.same_file {
            line(format_args!(
                "The campaign files differ: a fault of the same name may be another, and all \
                 together may be another mixture."
            ));
        }
        if !self.same_images {
            line(format_args!(
                "The images differ: a larger one thins out the faults that matter, so compare how \
                 many failures there were, not only shares."
            ));
        }
        let tests = self.tests;
        line(format_args!(
            "{tests} tests at once: \"differs\" is what chance explains in less than {RISK} of \
             cases after Holm's correction for so many; intervals and single chances are each by \
             themselves."
        ));
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
            "corrected",
            "",
        ];
        let mut rows = vec![headings.map(String::from).to_vec()];
        rows.extend(self.shares.iter().map(|line| {
            let difference = line.difference;
            let mut row = vec![
                line.class.clone(),
                line.what.into(),
                line.first.text(),
                line.second.text(),
                difference.map_or_else(|| "-".into(), |found| found.text()),
                alone(line.chance),
            ];
            row.extend(corrected(line.chance));
            row
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
            "corrected",
            "",
        ];
        let mut rows = vec![headings.map(String::from).to_vec()];
        let shown =
            |time: Option<f64>| time.map_or_else(|| "-".into(), |time| format!("{time:.1}"));
        rows.extend(self.times.iter().map(|line| {
            let mut row = vec![
                line.class.clone(),
                line.what.into(),
                shown(line.median_first_ms),
                shown(line.median_second_ms),
                line.shift_ms.text(),
            ];
            row.extend(corrected(Some(line.chance)));
            row
        }));
        table(&rows)
    }

    fn pairs(&self) -> String {
        let headings = [
            "drawn alike in both",
            "pairs",
            "held in the first only",
            "in the second only",
            "ended alike",
            "chance (McNemar)",
            "corrected",
            "",
        ];
        let mut rows = vec![headings.map(String::from).to_vec()];
        rows.extend(self.pairs.iter().map(|one| {
            let mut row = vec![
                one.class.clone(),
                one.held.pairs.to_string(),
                one.held.first_only.to_string(),
                one.held.second_only.to_string(),
                one.alike.text(),
                alone(one.chance),
            ];
            row.extend(corrected(one.chance));
            row
        }));
        table(&rows)
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
