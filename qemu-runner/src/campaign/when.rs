//! When the faults of a campaign file strike, and how often.

use cell::trace::Event;
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::draw::Number;
use crate::fault::plan::{Cause, parse_event};
use crate::units::float;

/// When a fault strikes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// For a first fault: how long the cells work before it, in milliseconds of the host.
    pub work_ms: Option<Spanned<Number>>,
    /// For a first fault, instead: at which rate such faults arrive, by Poisson.
    pub rate_per_s: Option<Spanned<Rate>>,
    /// The event that it waits for.
    #[serde(default, deserialize_with = "event")]
    pub event: Option<Event>,
    /// The function of the kernel that it waits for.
    pub symbol: Option<String>,
    /// The object of the kernel to which a store is waited for.
    pub write: Option<String>,
    /// The object of the kernel to which a load or store is waited for.
    pub access: Option<String>,
    /// So many threads of the cell that wait for a CPU.
    pub load: Option<u64>,
    /// Which occurrence of that.
    pub count: Option<Spanned<Number>>,
    /// How long after it, in microseconds of the host.
    pub delay_us: Option<Spanned<Number>>,
    /// For a fault at a hook: how likely each that passes is struck.
    pub probability: Option<Spanned<Certainty>>,
    /// For a fault at a hook: only every so manieth is.
    pub interval: Option<Spanned<Number>>,
    /// For a fault at a hook: how many are at most.
    pub times: Option<Spanned<Number>>,
    /// For a fault at a hook: so much goes by first.
    pub space: Option<Spanned<Number>>,
    /// For `program.kill`: so long the thread runs first, in milliseconds of the guest.
    pub run_ms: Option<Spanned<Number>>,
}

impl When {
    /// What is waited for; all that are named.
    pub fn causes(&self) -> Vec<Cause> {
        let all = [
            self.event.map(Cause::Event),
            self.symbol.clone().map(Cause::Symbol),
            self.write.clone().map(Cause::Write),
            self.access.clone().map(Cause::Access),
            self.load.map(Cause::Load),
        ];
        all.into_iter().flatten().collect()
    }

    /// What is waited for: at most one thing, in a file that was checked.
    pub fn cause(&self) -> Cause {
        self.causes().pop().unwrap_or(Cause::Now)
    }

    /// What the cells work before it on average, in milliseconds.
    pub fn mean_work_ms(&self) -> f64 {
        match (&self.work_ms, &self.rate_per_s) {
            (Some(work), _) => work.get_ref().mean(),
            (None, Some(rate)) => float(rate.get_ref().mean_ms()),
            (None, None) => 0.0,
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        let mut words = Vec::new();
        if let Some(work) = &self.work_ms {
            words.push(format!("after {} of work", work.get_ref().text(" ms")));
        }
        if let Some(rate) = &self.rate_per_s {
            words.push(format!("{} per second (Poisson)", rate.get_ref().0));
        }
        let cause = self.cause();
        if cause != Cause::Now {
            let number = self.count.as_ref().map(|count| count.get_ref().text(""));
            let number = number.map_or_else(String::new, |count| format!(" number {count}"));
            words.push(format!("{cause}{number}"));
        }
        if let Some(delay) = &self.delay_us {
            words.push(format!("{} later", delay.get_ref().text(" us")));
        }
        words.join(", ")
    }

    /// What of all that passes a hook is struck, in words.
    pub fn hook_text(&self) -> Vec<String> {
        let number = |number: &Option<Spanned<Number>>, before: &str, unit: &str| {
            let number = number.as_ref()?;
            Some(format!("{before}{}", number.get_ref().text(unit)))
        };
        let probability = self.probability.as_ref();
        let all = [
            probability.map(|one| format!("with probability {}", one.get_ref().0)),
            number(&self.interval, "every so manieth: ", ""),
            number(&self.times, "at most ", " times"),
            number(&self.space, "after ", " went by"),
            number(&self.run_ms, "after it ran ", " ms"),
        ];
        all.into_iter().flatten().collect()
    }
}

fn event<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Event>, D::Error> {
    let name = String::deserialize(source)?;
    parse_event(&name).map(Some).map_err(D::Error::custom)
}

/// Faults per second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate(pub f64);

impl Rate {
    /// The time between two on average, in milliseconds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is at least one in a thousand seconds"
    )]
    pub fn mean_ms(self) -> u64 {
        ((1e3 / self.0).round() as u64).max(1)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let expected = "expected a number of faults per second from 0.001 to 1000.0";
        let rate = f64::deserialize(source).map_err(|_| D::Error::custom(expected))?;
        let inside = (1e-3..=1e3).contains(&rate);
        let wrong = || D::Error::custom(format!("{rate} is out of range; {expected}"));
        inside.then_some(Self(rate)).ok_or_else(wrong)
    }
}

/// A probability above 0, and up to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Certainty(pub f64);

impl<'de> Deserialize<'de> for Certainty {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let expected = "expected a probability above 0 and up to 1, such as 0.5";
        let share = f64::deserialize(source).map_err(|_| D::Error::custom(expected))?;
        let inside = (1e-6..=1.0).contains(&share);
        let wrong = || D::Error::custom(format!("{share} is out of range; {expected}"));
        inside.then_some(Self(share)).ok_or_else(wrong)
    }
}

/// Several faults in one run, one after the other.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// How many at most.
    pub faults: Spanned<Number>,
    /// At which rate they arrive, by Poisson.
    pub rate_per_s: Spanned<Rate>,
    /// What ends them before.
    pub until: Until,
    /// What is drawn anew for each.
    #[serde(default)]
    pub anew: Anew,
}

/// What ends a series of faults.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The first death.
    Death,
    /// The bound of the run; each fault then waits until everybody works again.
    Bound,
}

/// What is drawn anew for each fault of a series.
#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Anew {
    /// The place: bit, pointer, message; not the cell and not the class.
    #[default]
    Place,
    /// The class, the cell, the place.
    Class,
}

/// Faults that follow each other in a file: a table, or a list of them.
#[derive(Clone, Debug)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(OneOrManyVisitor(std::marker::PhantomData))
    }
}

struct OneOrManyVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a table, or a list of tables")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let one = T::deserialize(MapAccessDeserializer::new(map))?;
        Ok(OneOrMany(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany)
    }
}
