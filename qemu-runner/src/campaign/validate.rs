//! What a campaign file must keep to beyond its types, and where it does not.
//!
//! The parser knows keys and types; whether a cell exists, or a fault takes a number, depends on
//! other keys and is checked here.

use std::collections::HashSet;

use toml::Spanned;

use super::draw::Number;
use super::file::{Campaign, Choice, Class, SCHEMA, StrikeKeys};
use crate::fault::catalogue::{Fault, HostFault};
use crate::fault::channels::is_deterministic;
use crate::qemu::command::Mode;

/// Longest time in a file: an hour, in milliseconds.
const MILLISECONDS_MAX: u64 = 3_600_000;
/// Highest occurrence of an event that can be waited for.
const COUNT_MAX: u64 = 1_000_000;
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
        self.within(&header.bound_ms, 1, MILLISECONDS_MAX)?;
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
        self.number(&class.when.work_ms, 0, MILLISECONDS_MAX)?;
        if class.target.get_ref().cell == Choice::RandomSurvivor {
            let problem = "only a second fault has survivors; expected cells or \"random\"";
            return self.refuse(&class.target, problem);
        }
        self.strike(class.strike())?;
        if let Some(then) = &class.then {
            self.strike(then.strike())?;
            if let Some(count) = &then.when.count {
                self.number(count, 1, COUNT_MAX)?;
            }
            if let Some(delay) = &then.when.delay_us {
                self.number(delay, 0, MILLISECONDS_MAX * 1000)?;
            }
        }
        Ok(())
    }

    fn strike(&self, strike: StrikeKeys<'_>) -> Result<(), Problem> {
        let machine = self.campaign.machine.get_ref();
        let target = strike.target.get_ref();
        // Every cell has at least this many: the machine was checked before.
        let cpus = machine.cpus / machine.cells;
        for (what, choice, count) in [
            ("cell", &target.cell, machine.cells),
            ("CPU", &target.cpu, cpus),
        ] {
            if let Choice::Of(numbers) = choice
                && let Some(number) = numbers.iter().find(|&&number| number >= count)
            {
                let last = count - 1;
                let problem = format!("there is no {what} {number}; expected 0 to {last}");
                return self.refuse(strike.target, &problem);
            }
        }
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
        if header.mode == Mode::Deterministic && !is_deterministic(strike.model) {
            let problem = format!("{name} strikes at a time of the host's; expected mode realtime");
            return self.refuse(strike.target, &problem);
        }
        if !strike.model.is_of_one_cpu() && strike.target.get_ref().cpu != Choice::default() {
            let problem = format!("{name} is no fault of one CPU; expected no key cpu");
            return self.refuse(strike.target, &problem);
        }
        if let Some(argument) = strike.argument
            && strike.model.entry().argument.is_none()
        {
            let problem = format!("{name} takes no number; expected no such key");
            return self.refuse(argument, &problem);
        }
        let memory = [HostFault::MemBitflip, HostFault::MemPointer].map(Fault::Host);
        if let Some(area) = strike.area
            && !memory.contains(&strike.model)
        {
            let problem = format!("{name} is no fault of memory; expected no such key");
            return self.refuse(area, &problem);
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
