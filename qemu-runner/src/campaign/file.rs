//! The campaign file: TOML, checked as a whole before anything runs.
//!
//! # Invariants
//! 1. A [`Campaign`] that was parsed can be run: every cell, CPU, fault and event in it is one that
//!    the machine has.
//! 2. Whatever the file holds, it is refused with line, key and what was expected, never with a
//!    panic.

use std::iter;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Unexpected, Visitor};
use toml::Spanned;

use super::draw::Number;
use super::validate::{self, Problem};
use super::when::{OneOrMany, Repeat, When};
use crate::experiment::Comparison;
use crate::fault::catalogue::Fault;
use crate::fault::plan::{Area, Registers};
use crate::launch::Mode;
use crate::machine::Machine;

/// The first key of every campaign file.
pub const SCHEMA: &str = "hive-campaign/1";

/// A campaign file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Campaign {
    /// Which format this is.
    pub schema: Spanned<String>,
    /// Name, purpose, and what holds for all runs.
    #[serde(rename = "campaign")]
    pub header: Header,
    /// The machine.
    #[serde(default = "default_of")]
    pub machine: Spanned<MachineKeys>,
    /// What the survivors must keep to.
    #[serde(default)]
    pub invariants: Invariants,
    /// The fault classes.
    #[serde(rename = "fault", default)]
    pub classes: Vec<Class>,
}

impl Campaign {
    /// Reads a campaign file and checks it.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let campaign: Self = toml::from_str(text).map_err(|error| Problem::of(text, &error))?;
        validate::check(text, &campaign)?;
        Ok(campaign)
    }

    /// The campaign's name.
    pub fn name(&self) -> &str {
        self.header.name.get_ref()
    }
}

/// A default stands nowhere in the file.
fn default_of<T: Default>() -> Spanned<T> {
    Spanned::new(0..0, T::default())
}

/// Name, purpose, and what holds for all runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name, of letters, digits, `-` and `_`.
    pub name: Spanned<String>,
    /// What it shows, in a sentence.
    pub purpose: Spanned<String>,
    /// The seed, if the command line gives none.
    #[serde(default = "one")]
    pub seed: u64,
    /// How many runs, if the command line says nothing.
    pub runs: Option<Spanned<u32>>,
    /// How runs are carried out.
    #[serde(default)]
    pub mode: Mode,
    /// Whether each fault's run is carried out once more without its fault, and all memory
    /// compared: only in the deterministic mode, and there if nothing is said.
    pub compare_memory: Option<Spanned<bool>>,
    /// How precise the result shall be.
    #[serde(default)]
    pub precision: Precision,
    /// How many runs are controls.
    #[serde(default = "default_of")]
    pub controls: Spanned<Controls>,
    /// Recoveries that every run, controls too, goes through before its fault. One that fails makes
    /// the run one that could not be carried out.
    #[serde(default = "default_of")]
    pub rehearsals: Spanned<u32>,
    /// How long a run may take after its fault, in milliseconds.
    #[serde(default = "bound")]
    pub bound_ms: Spanned<u64>,
}

impl Header {
    /// Whether all memory is compared.
    pub fn comparison(&self) -> Comparison {
        let asked = self.compare_memory.as_ref().map(|asked| *asked.get_ref());
        if asked.unwrap_or(self.mode == Mode::Deterministic) {
            Comparison::Control
        } else {
            Comparison::None
        }
    }
}

const fn one() -> u64 {
    1
}

fn bound() -> Spanned<u64> {
    Spanned::new(0..0, 30_000)
}

fn one_spanned() -> Spanned<u64> {
    Spanned::new(0..0, 1)
}

/// How precise the result shall be, at 95 %.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Precision {
    /// To each side, as a share.
    pub half_width: Share,
}

impl Default for Precision {
    fn default() -> Self {
        Self {
            half_width: Share(0.05),
        }
    }
}

/// A share above 0 and below 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Share(pub f64);

impl Share {
    /// In millionths.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share lies between 0 and 1"
    )]
    pub const fn millionths(self) -> u64 {
        (self.0 * 1e6) as u64
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let expected = "expected a share above 0 and below 1, such as 0.05";
        let share = f64::deserialize(source).map_err(|_| D::Error::custom(expected))?;
        let inside = (1e-6..1.0).contains(&share);
        let wrong = || D::Error::custom(format!("{share} is out of range; {expected}"));
        inside.then_some(Self(share)).ok_or_else(wrong)
    }
}

/// Which share of the runs are controls.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Controls {
    /// The machine is left alone.
    pub golden: Share,
    /// Everything is as for a fault, and nothing is injected.
    pub null: Share,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            golden: Share(0.05),
            null: Share(0.1),
        }
    }
}

/// The machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MachineKeys {
    /// How many cells.
    pub cells: usize,
    /// How many CPUs.
    pub cpus: usize,
    /// How much memory, in MiB.
    pub memory_mib: u64,
    /// How the firewall is enforced.
    pub firewall: Spanned<String>,
    /// More boot parameters.
    pub append: String,
}

impl MachineKeys {
    /// The machine.
    pub fn machine(&self) -> Machine {
        Machine {
            cells: self.cells,
            cpus: self.cpus,
            memory: self.memory_mib.saturating_mul(1 << 20),
            firewall: self.firewall.get_ref().clone(),
            append: self.append.clone(),
        }
    }
}

impl Default for MachineKeys {
    fn default() -> Self {
        let machine = Machine::default();
        Self {
            cells: machine.cells,
            cpus: machine.cpus,
            memory_mib: machine.memory >> 20,
            firewall: Spanned::new(0..0, machine.firewall),
            append: machine.append,
        }
    }
}

/// What the survivors must keep to, beyond what every run is judged by.
#[derive(Clone, Copy, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Invariants {
    /// No survivor's worker may stand still for longer, in milliseconds.
    pub survivors_progress_ms: Option<u64>,
}

/// A class of faults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Its name.
    pub id: Spanned<String>,
    /// How often it is drawn, compared with the others.
    #[serde(default = "one_spanned")]
    pub weight: Spanned<u64>,
    /// The fault.
    pub model: Fault,
    /// Where it strikes.
    pub target: Spanned<Target>,
    /// For faults that take a number.
    pub argument: Option<Spanned<Number>>,
    /// For faults of memory.
    pub area: Option<Spanned<Area>>,
    /// For `cpu.freeze`: when the CPU goes on, in milliseconds of the host.
    pub thaw_ms: Option<Spanned<Number>>,
    /// For faults of memory: an object of the kernel instead of an area.
    pub object: Option<Spanned<String>>,
    /// For `reg.bitflip`: which registers.
    pub registers: Option<Spanned<Registers>>,
    /// When it strikes.
    pub when: Spanned<When>,
    /// The faults after it, each counted from the one before.
    #[serde(default)]
    pub then: OneOrMany<Then>,
    /// More faults of its kind in the same run.
    pub repeat: Option<Spanned<Repeat>>,
}

/// A fault after another.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Then {
    /// The fault.
    pub model: Fault,
    /// Where it strikes.
    pub target: Spanned<Target>,
    /// For faults that take a number.
    pub argument: Option<Spanned<Number>>,
    /// For faults of memory.
    pub area: Option<Spanned<Area>>,
    /// For `cpu.freeze`: when the CPU goes on, in milliseconds of the host.
    pub thaw_ms: Option<Spanned<Number>>,
    /// For faults of memory: an object of the kernel instead of an area.
    pub object: Option<Spanned<String>>,
    /// For `reg.bitflip`: which registers.
    pub registers: Option<Spanned<Registers>>,
    /// When it strikes.
    pub when: Spanned<When>,
}

/// What first and later faults have in common.
#[derive(Clone, Copy, Debug)]
pub struct StrikeKeys<'a> {
    /// The fault.
    pub model: Fault,
    /// Where it strikes.
    pub target: &'a Spanned<Target>,
    /// For faults that take a number.
    pub argument: Option<&'a Spanned<Number>>,
    /// For faults of memory.
    pub area: Option<&'a Spanned<Area>>,
    /// For `cpu.freeze`: when the CPU goes on.
    pub thaw_ms: Option<&'a Spanned<Number>>,
    /// For faults of memory: an object of the kernel instead of an area.
    pub object: Option<&'a Spanned<String>>,
    /// For `reg.bitflip`: which registers.
    pub registers: Option<&'a Spanned<Registers>>,
    /// When it strikes.
    pub when: &'a Spanned<When>,
}

impl Class {
    /// What strikes first.
    pub const fn strike(&self) -> StrikeKeys<'_> {
        StrikeKeys {
            model: self.model,
            target: &self.target,
            argument: self.argument.as_ref(),
            area: self.area.as_ref(),
            thaw_ms: self.thaw_ms.as_ref(),
            object: self.object.as_ref(),
            registers: self.registers.as_ref(),
            when: &self.when,
        }
    }

    /// All that strikes, in order.
    pub fn strikes(&self) -> impl Iterator<Item = StrikeKeys<'_>> {
        let later = self.then.0.iter().map(Then::strike);
        iter::once(self.strike()).chain(later)
    }
}

impl Then {
    /// What strikes.
    pub const fn strike(&self) -> StrikeKeys<'_> {
        StrikeKeys {
            model: self.model,
            target: &self.target,
            argument: self.argument.as_ref(),
            area: self.area.as_ref(),
            thaw_ms: self.thaw_ms.as_ref(),
            object: self.object.as_ref(),
            registers: self.registers.as_ref(),
            when: &self.when,
        }
    }
}

/// Where a fault strikes.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The cell.
    pub cell: Choice,
    /// Which of its CPUs, for faults of one CPU.
    #[serde(default)]
    pub cpu: Choice,
    /// For faults of messages: the cell that they go to.
    pub to: Option<Choice>,
    /// For faults of messages: what they ask for or answer.
    pub operation: Option<String>,
    /// For `program.kill`: the name of the threads.
    pub program: Option<String>,
}

/// One of several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// One of these.
    Of(Vec<usize>),
    /// Any.
    Random,
    /// Any cell but that of the first fault.
    RandomSurvivor,
}

impl Default for Choice {
    fn default() -> Self {
        Self::Of(vec![0])
    }
}

impl Choice {
    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::Of(numbers) => {
                let words: Vec<String> = numbers.iter().map(usize::to_string).collect();
                words.join(" or ")
            }
            Self::Random => "random".into(),
            Self::RandomSurvivor => "random survivor".into(),
        }
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(ChoiceVisitor)
    }
}

struct ChoiceVisitor;

impl<'de> Visitor<'de> for ChoiceVisitor {
    type Value = Choice;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number, a list of numbers, \"random\" or \"random_survivor\"")
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Choice, E> {
        let refused = |_| E::invalid_value(Unexpected::Unsigned(value), &self);
        let number = usize::try_from(value).map_err(refused)?;
        Ok(Choice::Of(vec![number]))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Choice, E> {
        let refused = |_| E::invalid_value(Unexpected::Signed(value), &self);
        let number = usize::try_from(value).map_err(refused)?;
        Ok(Choice::Of(vec![number]))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Choice, E> {
        match value {
            "random" => Ok(Choice::Random),
            "random_survivor" => Ok(Choice::RandomSurvivor),
            _ => Err(E::invalid_value(Unexpected::Str(value), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Choice, A::Error> {
        let mut numbers = Vec::new();
        while let Some(number) = list.next_element()? {
            numbers.push(number);
        }
        if numbers.is_empty() {
            return Err(A::Error::invalid_length(0, &self));
        }
        Ok(Choice::Of(numbers))
    }
}
