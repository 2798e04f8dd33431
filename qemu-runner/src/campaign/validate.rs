//! What a campaign file must keep to beyond its types, and where it does not.
//!
//! The parser knows keys and types; whether a cell exists, or a fault takes a number, depends on
//! other keys and is checked here.

use std::collections::HashSet;
use std::path::Path;

use cell::fault::InnerFault;
use toml::Spanned;

use super::draw::Number;
use super::file::{Campaign, Choice, Class, SCHEMA, StrikeKeys, Target, Then};
use super::when::{Anew, Repeat};
use crate::error::Error;
use crate::fault::catalogue::{Fault, HostFault};
use crate::fault::names;
use crate::fault::plan::{Cause, parse_operation, parse_program};
use crate::images::Images;
use crate::launch::Mode;
use crate::qemu::install::Accelerator;

/// Most runs of a campaign. So many take weeks.
pub const RUNS_MAX: i64 = 1_000_000;
/// Longest time in a file: an hour, in milliseconds.
const MILLISECONDS_MAX: u64 = 3_600_000;
/// Highest occurrence of an event that can be waited for.
const COUNT_MAX: u64 = 1_000_000;
/// Most faults of a series.
const REPEATS_MAX: u64 = 10_000;
/// Most recoveries before a fault.
const REHEARSALS_MAX: u32 = 100;

/// What is wrong with a file, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {key}: {problem}")]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The key, or the words that stand where it should be.
    pub key: String,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl Problem {
    /// What the parser says, with the key found in the text.
    pub fn of(text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start);
        Self::at(text, at, error.message())
    }

    fn at(text: &str, at: usize, problem: &str) -> Self {
        let at = (0..=at.min(text.len()))
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
        Self {
            line: text[..at].matches('\n').count() + 1,
            key: key_at(text, at),
            problem: problem.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }
}

/// The key whose value is at `at`, or that is itself at `at`; the whole line if it has none.
fn key_at(text: &str, at: usize) -> String {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let before = text[start..at].trim_end();
    if let Some(assigned) = before.strip_suffix('=') {
        let words = assigned.trim_end();
        let word = words.rsplit(|c| !is_key(c)).next().unwrap_or_default();
        if !word.is_empty() {
            return word.into();
        }
    }
    let here: String = text[at..end].chars().take_while(|&c| is_key(c)).collect();
    let after = text[at + here.len()..end].trim_start();
    if !here.is_empty() && after.starts_with('=') {
        return here;
    }
    let line = text[start..end].trim();
    if line.is_empty() {
        "end of the file".into()
    } else if line.starts_with('[') {
        line.into()
    } else {
        let short: String = line.chars().take(40).collect();
        format!("\"{short}\"")
    }
}

/// Refuses what cannot be run.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(text: &str, campaign: &Campaign) -> Result<(), Problem> {
    let check = Check { text, campaign };
    check.header()?;
    check.machine()?;
    check.classes()
}

/// Refuses a machine that QEMU cannot be with that accelerator.
///
/// # Errors
/// What is wrong, and where.
pub fn check_accelerator(
    text: &str,
    campaign: &Campaign,
    accelerator: Accelerator,
) -> Result<(), Problem> {
    let keys = campaign.machine.get_ref();
    let refused = |_| {
        let at = keys.firewall.span().start;
        let problem = "QEMU without KVM has no VMX, and only mode realtime may have KVM; expected \
                       auto, npt, paging or off, or an Intel host with nested KVM";
        Problem::at(text, at, problem)
    };
    keys.machine().check_firewall(accelerator).map_err(refused)
}

/// Refuses functions and objects that the kernel does not have: or each run that draws them would
/// fail by itself.
///
/// # Errors
/// [`Error::Usage`] with what there is instead; [`Error::Host`] if the image cannot be read.
pub fn check_names(file: (&Path, &str), campaign: &Campaign, images: &Images) -> Result<(), Error> {
    for name in names_of(campaign) {
        let (found, at) = match name {
            Name::Object(name, at) => (names::object(images, name), at),
            Name::Function(name, at) => (names::function(images, name), at),
        };
        found.map_err(|error| misnamed(file, at, error))?;
    }
    Ok(())
}

/// What of the kernel a file names, and where.
#[derive(Clone, Copy, Debug)]
pub enum Name<'a> {
    /// An object.
    Object(&'a str, usize),
    /// A function.
    Function(&'a str, usize),
}

/// Everything of the kernel that a file names.
pub fn names_of(campaign: &Campaign) -> impl Iterator<Item = Name<'_>> {
    let strikes = campaign.classes.iter().flat_map(Class::strikes);
    strikes.flat_map(|strike| {
        let (when, place) = (strike.when.get_ref(), strike.when.span().start);
        let struck = strike
            .object
            .map(|it| Name::Object(it.get_ref(), it.span().start));
        let watched = [&when.write, &when.access].into_iter().flatten();
        let watched = watched.map(move |name| Name::Object(name, place));
        let function = when.symbol.iter();
        let function = function.map(move |name| Name::Function(name, place));
        struck.into_iter().chain(watched).chain(function)
    })
}

/// What the kernel lacks is what the file should not name.
fn misnamed((path, text): (&Path, &str), at: usize, error: Error) -> Error {
    match error {
        Error::Guest(problem) => {
            let (path, problem) = (path.display(), Problem::at(text, at, &problem));
            Error::Usage(format!("{path}: {problem}"))
        }
        other => other,
    }
}

struct Check<'a> {
    text: &'a str,
    campaign: &'a Campaign,
}

impl Check<'_> {
    fn refuse<T>(&self, place: &Spanned<T>, problem: &str) -> Result<(), Problem> {
        Err(Problem::at(self.text, place.span().start, problem))
    }

    fn header(&self) -> Result<(), Problem> {
        let header = &self.campaign.header;
        if self.campaign.schema.get_ref() != SCHEMA {
            return self.refuse(&self.campaign.schema, &format!("expected \"{SCHEMA}\""));
        }
        self.name(&header.name)?;
        if header.purpose.get_ref().trim().is_empty() {
            return self.refuse(&header.purpose, "expected what it shows, in a sentence");
        }
        if let Some(runs) = &header.runs
            && !(1..=RUNS_MAX).contains(&i64::from(*runs.get_ref()))
        {
            return self.refuse(runs, &format!("expected 1 to {RUNS_MAX}"));
        }
        self.within(&header.bound_ms, 1, MILLISECONDS_MAX)?;
        if let Some(asked) = &header.compare_memory
            && *asked.get_ref()
            && header.mode == Mode::Realtime
        {
            let problem = "expected false, or mode = \"deterministic\": in real time no two runs \
                           are the same";
            return self.refuse(asked, problem);
        }
        if *header.rehearsals.get_ref() > REHEARSALS_MAX {
            let problem = format!("expected at most {REHEARSALS_MAX}");
            return self.refuse(&header.rehearsals, &problem);
        }
        let controls = header.controls.get_ref();
        if controls.golden.0 + controls.null.0 > 0.9 {
            let problem = "expected golden and null to be at most 0.9 together";
            return self.refuse(&header.controls, problem);
        }
        Ok(())
    }

    fn name(&self, name: &Spanned<String>) -> Result<(), Problem> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let text = name.get_ref();
        if text.is_empty() || text.len() > 64 || !text.chars().all(fits) {
            return self.refuse(name, "expected 1 to 64 letters, digits, - or _");
        }
        Ok(())
    }

    fn within(&self, value: &Spanned<u64>, least: u64, greatest: u64) -> Result<(), Problem> {
        if (least..=greatest).contains(value.get_ref()) {
            Ok(())
        } else {
            let found = value.get_ref();
            self.refuse(
                value,
                &format!("expected {least} to {greatest}, found {found}"),
            )
        }
    }

    fn number(&self, value: &Spanned<Number>, least: u64, greatest: u64) -> Result<(), Problem> {
        let (low, high) = value.get_ref().bounds();
        if low < least || high > greatest {
            let problem = format!("expected {least} to {greatest}, found {low} to {high}");
            return self.refuse(value, &problem);
        }
        Ok(())
    }

    fn machine(&self) -> Result<(), Problem> {
        let keys = &self.campaign.machine;
        match keys.get_ref().machine().check() {
            Ok(_) => Ok(()),
            Err(error) => self.refuse(keys, &error.to_string()),
        }
    }

    fn classes(&self) -> Result<(), Problem> {
        if self.campaign.classes.is_empty() {
            let end = self.text.len();
            return Err(Problem::at(
                self.text,
                end,
                "expected at least one [[fault]]",
            ));
        }
        let mut seen = HashSet::new();
        for class in &self.campaign.classes {
            self.name(&class.id)?;
            if !seen.insert(class.id.get_ref()) {
                return self.refuse(&class.id, "expected a name that no other fault has");
            }
            self.within(&class.weight, 1, 1_000_000)?;
            self.class(class)?;
        }
        Ok(())
    }

    fn class(&self, class: &Class) -> Result<(), Problem> {
        let when = class.when.get_ref();
        if when.work_ms.is_some() == when.rate_per_s.is_some() {
            let problem = "expected one of work_ms and rate_per_s";
            return self.refuse(&class.when, problem);
        }
        if class.target.get_ref().cell == Choice::RandomSurvivor {
            let problem = "only a second fault has survivors; expected cells or \"random\"";
            return self.refuse(&class.target, problem);
        }
        self.strike(class.strike())?;
        for then in &class.then.0 {
            self.then(class, then)?;
        }
        match &class.repeat {
            Some(repeat) => self.repeat(class, repeat),
            None => Ok(()),
        }
    }

    fn then(&self, class: &Class, then: &Then) -> Result<(), Problem> {
        let when = then.when.get_ref();
        if when.work_ms.is_some() || when.rate_per_s.is_some() {
            let problem = "only a first fault has work_ms or rate_per_s; expected no such key";
            return self.refuse(&then.when, problem);
        }
        if when.causes().is_empty() {
            let problem = "expected event, symbol, write, access or load";
            return self.refuse(&then.when, problem);
        }
        let cells = self.campaign.machine.get_ref().cells;
        if then.target.get_ref().cell == Choice::RandomSurvivor && class.then.0.len() >= cells {
            let problem = "nobody is left for the last of so many faults; expected fewer";
            return self.refuse(&then.target, problem);
        }
        self.strike(then.strike())
    }

    fn repeat(&self, class: &Class, repeat: &Spanned<Repeat>) -> Result<(), Problem> {
        if !class.then.0.is_empty() {
            let problem = "a fault that is repeated has no second one; expected no such key";
            return self.refuse(repeat, problem);
        }
        let chained =
            |other: &&Class| !other.then.0.is_empty() || !other.when.get_ref().causes().is_empty();
        let mut others = self.campaign.classes.iter();
        if repeat.get_ref().anew == Anew::Class
            && let Some(other) = others.find(chained)
        {
            let id = other.id.get_ref();
            let problem = format!("{id} waits for something; expected anew to be \"place\"");
            return self.refuse(repeat, &problem);
        }
        self.number(&repeat.get_ref().faults, 1, REPEATS_MAX)
    }

    /// When a fault strikes.
    fn when(&self, strike: StrikeKeys<'_>) -> Result<(), Problem> {
        let when = strike.when.get_ref();
        let causes = when.causes().len();
        if causes > 1 {
            let problem = "expected one of event, symbol, write, access and load";
            return self.refuse(strike.when, problem);
        }
        let is_deterministic = self.campaign.header.mode == Mode::Deterministic;
        if is_deterministic && when.causes().iter().any(Cause::needs_gdb) {
            let problem =
                "symbol, write and access go by the time of the host; expected mode realtime";
            return self.refuse(strike.when, problem);
        }
        let name = strike.model.name();
        if causes == 0 && (when.count.is_some() || when.delay_us.is_some()) {
            let problem = "count and delay_us go with event, symbol, write, access or load";
            return self.refuse(strike.when, problem);
        }
        let of_hook = [&when.interval, &when.times, &when.space];
        let is_hook = strike.model.is_hook();
        if !is_hook && (when.probability.is_some() || of_hook.iter().any(|it| it.is_some())) {
            let problem = format!(
                "{name} waits at no hook; expected no probability, interval, times or space"
            );
            return self.refuse(strike.when, &problem);
        }
        if let (Some(times), Some(_)) = (&when.times, strike.argument) {
            return self.refuse(times, "expected only one of argument and times");
        }
        if let Some(run) = &when.run_ms
            && strike.model != Fault::Inner(InnerFault::ProgramKill)
        {
            return self.refuse(run, &format!("{name} ends no thread; expected no such key"));
        }
        for (number, least, greatest) in [
            (&when.work_ms, 0, MILLISECONDS_MAX),
            (&when.count, 1, COUNT_MAX),
            (&when.delay_us, 0, MILLISECONDS_MAX * 1000),
            (&when.interval, 1, COUNT_MAX),
            (&when.times, 1, u64::MAX),
            (&when.space, 0, u64::MAX),
            (&when.run_ms, 0, MILLISECONDS_MAX),
        ] {
            if let Some(number) = number {
                self.number(number, least, greatest)?;
            }
        }
        Ok(())
    }

    /// What a target has beside cell and CPU.
    fn passers(&self, strike: StrikeKeys<'_>) -> Result<(), Problem> {
        let target = strike.target.get_ref();
        let name = strike.model.name();
        let of_messages = target.to.is_some() || target.operation.is_some();
        if of_messages && !strike.model.is_of_messages() {
            let problem = format!("{name} is no fault of messages; expected no to or operation");
            return self.refuse(strike.target, &problem);
        }
        if target.program.is_some() && strike.model != Fault::Inner(InnerFault::ProgramKill) {
            let problem = format!("{name} ends no thread; expected no program");
            return self.refuse(strike.target, &problem);
        }
        if let Some(Err(problem)) = target.program.as_deref().map(parse_program) {
            return self.refuse(strike.target, &problem);
        }
        let operation = target.operation.as_deref().map(parse_operation);
        if let Some(Err(problem)) = operation {
            return self.refuse(strike.target, &problem);
        }
        let cells = self.campaign.machine.get_ref().cells;
        self.exists(strike.target, "cell", target.to.as_ref(), cells)?;
        let may_be = |cell: &usize| match &target.cell {
            Choice::Of(numbers) => numbers.contains(cell),
            Choice::Random | Choice::RandomSurvivor => true,
        };
        let is_alone = |cell: &usize| match &target.to {
            Some(Choice::Of(numbers)) => numbers.iter().all(|number| number == cell),
            Some(Choice::Random | Choice::RandomSurvivor) => cells < 2,
            None => false,
        };
        match (0..cells).filter(may_be).find(is_alone) {
            Some(cell) => {
                let problem = format!("cell {cell} sends itself nothing; expected another in to");
                self.refuse(strike.target, &problem)
            }
            None => Ok(()),
        }
    }

    fn exists(
        &self,
        target: &Spanned<Target>,
        what: &str,
        choice: Option<&Choice>,
        count: usize,
    ) -> Result<(), Problem> {
        if let Some(Choice::Of(numbers)) = choice
            && let Some(number) = numbers.iter().find(|&&number| number >= count)
        {
            let last = count - 1;
            let problem = format!("there is no {what} {number}; expected 0 to {last}");
            return self.refuse(target, &problem);
        }
        Ok(())
    }

    fn strike(&self, strike: StrikeKeys<'_>) -> Result<(), Problem> {
        let machine = self.campaign.machine.get_ref();
        let target = strike.target.get_ref();
        // Every cell has at least this many: the machine was checked before.
        let cpus = machine.cpus / machine.cells;
        self.exists(strike.target, "cell", Some(&target.cell), machine.cells)?;
        self.exists(strike.target, "CPU", Some(&target.cpu), cpus)?;
        self.when(strike)?;
        self.passers(strike)?;
        if target.cpu == Choice::RandomSurvivor {
            return self.refuse(strike.target, "expected cpu to be numbers or \"random\"");
        }
        if target.cell == Choice::RandomSurvivor && machine.cells < 2 {
            return self.refuse(strike.target, "expected a machine of two cells at least");
        }
        self.extras(strike)
    }

    /// Keys that only some faults have.
    fn extras(&self, strike: StrikeKeys<'_>) -> Result<(), Problem> {
        let name = strike.model.name();
        let header = &self.campaign.header;
        if header.mode == Mode::Deterministic && !strike.model.is_deterministic() {
            let problem = format!("{name} strikes at a time of the host's; expected mode realtime");
            return self.refuse(strike.target, &problem);
        }
        if !strike.model.is_of_one_cpu() && strike.target.get_ref().cpu != Choice::default() {
            let problem = format!("{name} is no fault of one CPU; expected no key cpu");
            return self.refuse(strike.target, &problem);
        }
        if let Some(argument) = strike.argument {
            if strike.model.entry().argument.is_none() {
                let problem = format!("{name} takes no number; expected no such key");
                return self.refuse(argument, &problem);
            }
            let taken = strike.model.arguments();
            self.number(argument, *taken.start(), *taken.end())?;
        }
        if let Some(area) = strike.area
            && !strike.model.has_area()
        {
            let problem = format!("{name} is no fault of memory; expected no such key");
            return self.refuse(area, &problem);
        }
        if let Some(object) = strike.object {
            if !strike.model.has_object() {
                let problem = format!("{name} is no fault of memory; expected no such key");
                return self.refuse(object, &problem);
            }
            if strike.area.is_some() {
                return self.refuse(object, "expected only one of area and object");
            }
        }
        if let Some(registers) = strike.registers
            && strike.model != Fault::Host(HostFault::RegBitflip)
        {
            let problem = format!("{name} is no fault of registers; expected no such key");
            return self.refuse(registers, &problem);
        }
        if let Some(thaw) = strike.thaw_ms {
            if strike.model != Fault::Host(HostFault::CpuFreeze) {
                let problem = format!("{name} does not thaw; expected no such key");
                return self.refuse(thaw, &problem);
            }
            self.number(thaw, 1, MILLISECONDS_MAX)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
