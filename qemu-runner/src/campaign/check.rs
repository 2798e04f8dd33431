//! What a campaign does and needs, without running it.

use std::collections::BTreeSet;

use serde::Serialize;
use toml::Spanned;

use super::arguments::CheckArguments;
use super::file::{Campaign, Class, StrikeKeys};
use super::states::{Graph, Outline, Path};
use super::statistics::{LOOKS, runs_for_half_width, runs_for_zero_bound};
use super::validate::{self, Name};
use super::when::{Until, When};
use crate::error::{Context, Ending, Result};
use crate::experiment::Comparison;
use crate::output::{Format, print_json, print_text, push_line, table};
use crate::units::float;

/// What a run takes beside the work before its fault, in seconds of the host: the boot, the first
/// work, recovery, and the time in which nothing more may happen. An idle host takes less, a busy
/// one more.
const OVERHEAD_SECONDS: f64 = 2.0;
/// What a recovery before the fault takes beside the work after it, in seconds of the host.
const REHEARSAL_SECONDS: f64 = 1.0;

/// A campaign that was checked.
#[derive(Debug, Serialize)]
pub struct Checked {
    schema: &'static str,
    name: String,
    purpose: String,
    classes: Vec<CheckedClass>,
    golden_share: f64,
    null_share: f64,
    half_width: f64,
    runs_per_class: u64,
    runs_all_classes_together: u64,
    runs_each_class_by_itself: u64,
    runs_for_zero_bound: u64,
    #[serde(skip)]
    comparison: Comparison,
    seconds_per_run: f64,
    runs_in_file: Option<u32>,
    /// What of the kernel the file names, which is looked up when the images are built.
    names: Vec<String>,
    /// Numbers of faults at which to look, and the runs that they take.
    looks: Vec<(u64, u64)>,
    states: Graph,
}

#[derive(Debug, Serialize)]
struct CheckedClass {
    id: String,
    weight: u64,
    share: f64,
    faults: Vec<CheckedFault>,
}

#[derive(Debug, Serialize)]
struct CheckedFault {
    model: &'static str,
    cell: String,
    cpu: Option<String>,
    extras: Vec<String>,
    when: String,
}

impl CheckedFault {
    fn of(strike: StrikeKeys<'_>, when: String) -> Self {
        let target = strike.target.get_ref();
        let mut extras = Vec::new();
        if let Some((meaning, default)) = strike.model.entry().argument {
            let unit = format!(" {meaning}");
            let drawn = strike
                .argument
                .map(|argument| argument.get_ref().text(&unit));
            extras.push(drawn.unwrap_or_else(|| format!("{default}{unit}")));
        }
        if let Some(area) = strike.area {
            extras.push(format!("in its {}", area.get_ref()));
        }
        if let Some(object) = strike.object {
            extras.push(format!("in {}", object.get_ref()));
        }
        if let Some(registers) = strike.registers {
            extras.push(format!("{} registers", registers.get_ref()));
        }
        extras.extend(
            target
                .to
                .as_ref()
                .map(|to| format!("to cell: {}", to.text())),
        );
        extras.extend(target.operation.as_ref().map(|what| format!("\"{what}\"")));
        extras.extend(
            target
                .program
                .as_ref()
                .map(|name| format!("threads \"{name}\"")),
        );
        extras.extend(strike.when.get_ref().hook_text());
        if let Some(thaw) = strike.thaw_ms {
            extras.push(format!("thaws after {}", thaw.get_ref().text(" ms")));
        }
        Self {
            model: strike.model.name(),
            cell: target.cell.text(),
            cpu: strike.model.is_of_one_cpu().then(|| target.cpu.text()),
            extras,
            when,
        }
    }

    fn text(&self) -> String {
        let place = match &self.cpu {
            Some(cpu) => format!("{} in cell: {}, CPU: {cpu}", self.model, self.cell),
            None => format!("{} in cell: {}", self.model, self.cell),
        };
        let mut words = vec![place];
        words.extend(self.extras.iter().cloned());
        words.join(", ")
    }
}

impl Checked {
    /// Looks at a campaign.
    pub fn of(campaign: &Campaign) -> Self {
        let weights = campaign.classes.iter().map(|class| *class.weight.get_ref());
        let total: u64 = weights.clone().sum();
        let least = weights.min().unwrap_or(1);
        let controls = campaign.header.controls.get_ref();
        let faults = 1.0 - controls.golden.0 - controls.null.0;
        let half_width = campaign.header.precision.half_width.0;
        let runs_per_class = runs_for_half_width(half_width);
        let in_all = |share: f64| whole(float(runs_per_class) / share);
        let checked = |class| checked(class, total);
        let classes: Vec<CheckedClass> = campaign.classes.iter().map(checked).collect();
        Self {
            looks: LOOKS.map(|look| (look, whole(float(look) / faults))).into(),
            names: names(campaign),
            states: Graph::of(&outline(campaign, &classes)),
            schema: "hive-campaign-check/1",
            name: campaign.name().into(),
            purpose: campaign.header.purpose.get_ref().clone(),
            classes,
            golden_share: controls.golden.0,
            null_share: controls.null.0,
            half_width,
            runs_per_class,
            runs_all_classes_together: in_all(faults),
            runs_each_class_by_itself: in_all(faults * float(least) / float(total)),
            runs_for_zero_bound: whole(float(runs_for_zero_bound(half_width)) / faults),
            comparison: campaign.header.comparison(),
            seconds_per_run: seconds_per_run(campaign, total),
            runs_in_file: campaign.header.runs.as_ref().map(|runs| *runs.get_ref()),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |arguments: std::fmt::Arguments<'_>| push_line(&mut text, arguments);
        line(format_args!("{}: {}\n", self.name, self.purpose));
        let mut rows = vec![["fault", "weight", "share", "what", "when"].map(String::from)];
        for class in &self.classes {
            for (position, fault) in class.faults.iter().enumerate() {
                let first = |text: String| if position == 0 { text } else { String::new() };
                rows.push([
                    first(class.id.clone()),
                    first(class.weight.to_string()),
                    first(format!("{:.1} %", class.share * 100.0)),
                    fault.text(),
                    fault.when.clone(),
                ]);
            }
        }
        let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
        line(format_args!("{}", table(&rows)));
        line(format_args!(
            "controls: {:.1} % golden runs, {:.1} % null injections\n",
            self.golden_share * 100.0,
            self.null_share * 100.0
        ));
        if self.comparison == Comparison::Control {
            line(format_args!(
                "each run with a fault is carried out twice, and all memory compared\n"
            ));
        }
        if !self.names.is_empty() {
            let names = self.names.join(", ");
            line(format_args!(
                "looked up in the kernel only when the campaign is run: {names}\n"
            ));
        }
        line(format_args!("{}", self.needs()));
        line(format_args!("{}", self.states.text().trim_end()));
        text
    }

    fn needs(&self) -> String {
        let width = self.half_width * 100.0;
        let row = |what: String, runs: u64| {
            vec![
                what,
                runs.to_string(),
                clock(float(runs) * self.seconds_per_run),
            ]
        };
        let mut rows = vec![["", "runs", "about"].map(String::from).to_vec()];
        rows.push(row(
            format!("every share of all faults known to {width:.1} points to each side"),
            self.runs_all_classes_together,
        ));
        rows.push(row(
            "the same for each fault by itself".into(),
            self.runs_each_class_by_itself,
        ));
        rows.push(row(
            format!("at most {width:.1} % escapes shown, if none is seen and all have an effect"),
            self.runs_for_zero_bound,
        ));
        for (position, &(faults, runs)) in self.looks.iter().enumerate() {
            let position = position + 1;
            rows.push(row(format!("look {position}, at {faults} faults"), runs));
        }
        if let Some(runs) = self.runs_in_file {
            rows.push(row("as the file says".into(), u64::from(runs)));
        }
        table(&rows)
    }
}

/// The objects and functions of the kernel, each once.
fn names(campaign: &Campaign) -> Vec<String> {
    let names = validate::names_of(campaign).map(|name| match name {
        Name::Object(name, _) | Name::Function(name, _) => name.to_owned(),
    });
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn outline(campaign: &Campaign, classes: &[CheckedClass]) -> Outline {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let controls = campaign.header.controls.get_ref();
    let fault = |fault: &CheckedFault| (fault.when.clone(), fault.text());
    let path = |class: &CheckedClass| Path {
        class: class.id.clone(),
        share: percent(class.share),
        faults: class.faults.iter().map(fault).collect(),
    };
    Outline {
        rehearsals: *campaign.header.rehearsals.get_ref(),
        bound_ms: *campaign.header.bound_ms.get_ref(),
        controls: [controls.golden.0, controls.null.0].map(percent),
        classes: classes.iter().map(path).collect(),
    }
}

/// The next whole number of runs.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of runs, which is positive and far below 2^53"
)]
fn whole(runs: f64) -> u64 {
    runs.ceil() as u64
}

fn checked(class: &Class, total: u64) -> CheckedClass {
    let when = |when: &When| when.text();
    let mut first = when(class.when.get_ref());
    if let Some(repeat) = class.repeat.as_ref().map(Spanned::get_ref) {
        let (faults, rate) = (
            repeat.faults.get_ref().text(""),
            repeat.rate_per_s.get_ref().0,
        );
        first = format!("{first}; up to {faults} of them, {rate} per second");
    }
    let mut faults = vec![CheckedFault::of(class.strike(), first)];
    for then in &class.then.0 {
        faults.push(CheckedFault::of(then.strike(), when(then.when.get_ref())));
    }
    let weight = *class.weight.get_ref();
    CheckedClass {
        id: class.id.get_ref().clone(),
        weight,
        share: float(weight) / float(total),
        faults,
    }
}

fn seconds_per_run(campaign: &Campaign, total: u64) -> f64 {
    let rehearsals = f64::from(*campaign.header.rehearsals.get_ref());
    let of = |class: &Class| {
        let work = class.when.get_ref().mean_work_ms() / 1e3;
        let beforehand = rehearsals * (work + REHEARSAL_SECONDS);
        let more = class
            .repeat
            .as_ref()
            .map(Spanned::get_ref)
            .map_or(0.0, |repeat| {
                let settles = if repeat.until == Until::Bound {
                    REHEARSAL_SECONDS
                } else {
                    0.0
                };
                let between = 1.0 / repeat.rate_per_s.get_ref().0 + settles;
                (repeat.faults.get_ref().mean() - 1.0).max(0.0) * between
            });
        float(*class.weight.get_ref()) * (work + beforehand + more)
    };
    let work: f64 = campaign.classes.iter().map(of).sum();
    let once = OVERHEAD_SECONDS + work / float(total);
    match campaign.header.comparison() {
        Comparison::Control => 2.0 * once,
        Comparison::None => once,
    }
}

fn clock(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

/// Checks a campaign file.
///
/// # Errors
/// [`crate::error::Error::Usage`] with what is wrong and where.
pub fn command(arguments: &CheckArguments, format: Format) -> Result<Ending> {
    let (_, campaign) = super::load(&arguments.file)?;
    let checked = Checked::of(&campaign);
    if let Some(path) = &arguments.states {
        let written = std::fs::write(path, checked.states.svg()?);
        written.argument(|| format!("--states: writing {}", path.display()))?;
    }
    match format {
        Format::Json => print_json(&checked)?,
        Format::Text => print_text(&checked.text())?,
    }
    Ok(Ending::Held)
}
