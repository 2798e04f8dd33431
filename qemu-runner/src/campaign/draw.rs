//! Everything that a campaign draws at random, from its seed alone.
//!
//! A stream is ChaCha8, seeded with the SHA-256 of the campaign's name, its seed, the number of the
//! run and the purpose of the draw. Each purpose has a stream of its own, so that a campaign file
//! that gains a draw keeps all the others.
//!
//! # Invariants
//! 1. No clock and no state outside the stream enters a draw.
//! 2. Only the raw words of ChaCha8 are taken from a crate; how a word becomes a number is fixed
//!    here. So a run stays the same when the crate's own distributions change.

use cell::fault::MILLION;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use sha2::{Digest, Sha256};

use super::file::Share;
use crate::units::float;

/// Where the streams of one run come from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The campaign's name.
    pub name: &'a str,
    /// The campaign's seed.
    pub seed: u64,
    /// The number of the run.
    pub run: u32,
}

impl Source<'_> {
    /// The stream for a purpose.
    pub fn stream(&self, purpose: &str) -> Stream {
        let mut hash = Sha256::new();
        hash.update(b"hive-campaign/1");
        for text in [self.name, purpose] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.update(self.seed.to_le_bytes());
        hash.update(self.run.to_le_bytes());
        Stream(ChaCha8Rng::from_seed(hash.finalize().into()))
    }
}

/// Random numbers for one purpose in one run.
#[derive(Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// A number below `bound`, which is not 0. The high half of a product with a random word: the
    /// odds of two numbers differ by less than `bound` in 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 to less than 1, with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        float(self.0.next_u64() >> 11) / float(1 << 53)
    }

    /// One of `choices`, which are not empty.
    pub fn choose<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

/// A number in a campaign file: itself, or how to draw it. All bounds are included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Number {
    /// Always this.
    Fixed(u64),
    /// Every number of a range alike.
    Uniform(u64, u64),
    /// Every ratio alike: as likely between 1 and 10 as between 10 and 100.
    LogUniform(u64, u64),
    /// One of these.
    Choice(Vec<u64>),
    /// How many tries until one succeeds, each with so many chances in a million; from 1.
    Geometric(u32),
    /// The time until something that comes at random, so long on average.
    Exponential(u64),
}

/// Draws without an end are cut off here, at so many times their mean: one in 500 million is.
const TAIL: u64 = 20;

impl Number {
    /// Draws it.
    pub fn draw(&self, stream: &mut Stream) -> u64 {
        match self {
            Self::Fixed(value) => *value,
            Self::Uniform(low, high) => low + stream.below((high - low).saturating_add(1)),
            Self::LogUniform(low, high) => {
                let exponent = stream.unit() * (float(*high) / float(*low)).ln();
                let value = (float(*low) * exponent.exp()).round();
                #[expect(clippy::cast_sign_loss, reason = "a product of positive numbers")]
                let value = value as u64;
                value.clamp(*low, *high)
            }
            Self::Choice(choices) => *stream.choose(choices),
            Self::Geometric(chances) => {
                let fails = 1.0 - f64::from(*chances) / 1e6;
                // With certainty the quotient is no number, and the first try succeeds.
                let tries = (1.0 - stream.unit()).ln() / fails.ln();
                (1 + whole(tries.floor())).clamp(1, self.bounds().1)
            }
            Self::Exponential(mean) => {
                let drawn = -(1.0 - stream.unit()).ln() * float(*mean);
                whole(drawn.round()).min(self.bounds().1)
            }
        }
    }

    /// The least and the greatest that can be drawn.
    pub fn bounds(&self) -> (u64, u64) {
        match self {
            Self::Fixed(value) => (*value, *value),
            Self::Uniform(low, high) | Self::LogUniform(low, high) => (*low, *high),
            Self::Choice(choices) => {
                let least = choices.iter().min().copied().unwrap_or_default();
                (least, choices.iter().max().copied().unwrap_or_default())
            }
            Self::Geometric(chances) => {
                (1, (u64::from(MILLION) * TAIL).div_ceil((*chances).into()))
            }
            Self::Exponential(mean) => (0, mean.saturating_mul(TAIL)),
        }
    }

    /// What is drawn on average.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed(value) => float(*value),
            Self::Uniform(low, high) => f64::midpoint(float(*low), float(*high)),
            Self::LogUniform(low, high) if low == high => float(*low),
            Self::LogUniform(low, high) => float(high - low) / (float(*high) / float(*low)).ln(),
            Self::Choice(choices) => {
                let sum: f64 = choices.iter().map(|&value| float(value)).sum();
                sum / float(choices.len() as u64)
            }
            Self::Geometric(chances) => 1e6 / f64::from(*chances),
            Self::Exponential(mean) => float(*mean),
        }
    }

    /// In words, with its unit.
    pub fn text(&self, unit: &str) -> String {
        match self {
            Self::Fixed(value) => format!("{value}{unit}"),
            Self::Uniform(low, high) => format!("{low} to {high}{unit}"),
            Self::LogUniform(low, high) => format!("{low} to {high}{unit} (log-uniform)"),
            Self::Choice(choices) => {
                let words: Vec<String> = choices.iter().map(u64::to_string).collect();
                format!("{}{unit}", words.join(" or "))
            }
            Self::Geometric(chances) => {
                let share = f64::from(*chances) / 1e6;
                format!("1{unit} or more (geometric, {share})")
            }
            Self::Exponential(mean) => format!("{mean}{unit} on average (exponential)"),
        }
    }

    fn exponential(mean: u64) -> Result<Self, String> {
        let wrong = || "a mean of 0 leaves nothing to draw; expected 1 or more".to_owned();
        (mean > 0)
            .then_some(Self::Exponential(mean))
            .ok_or_else(wrong)
    }

    fn of(kind: &str, values: Vec<u64>) -> Result<Self, String> {
        match (kind, values.as_slice()) {
            ("choice", []) => Err("expected at least one value to choose from".into()),
            ("choice", _) => Ok(Self::Choice(values)),
            ("uniform", &[low, high]) if low <= high => Ok(Self::Uniform(low, high)),
            ("log_uniform", &[low, high]) if 0 < low && low <= high => {
                Ok(Self::LogUniform(low, high))
            }
            ("uniform", _) => Err("expected [least, greatest]".into()),
            ("log_uniform", _) => Err("expected [least, greatest], both above 0".into()),
            _ => Err(format!("no draw \"{kind}\"; expected {EXPECTED}")),
        }
    }
}

const EXPECTED: &str = "a whole number, { uniform = [least, greatest] }, \
                        { log_uniform = [least, greatest] }, { choice = [values] }, \
                        { geometric = share } or { exponential = mean }";

/// A number drawn as a fraction; 0 for what is no number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and what is drawn is cut off after it"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number::Fixed(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Number, E> {
        let negative = |_| E::custom(format!("{value} is below 0; expected {EXPECTED}"));
        u64::try_from(value).map(Number::Fixed).map_err(negative)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Number, A::Error> {
        let Some(kind) = map.next_key::<String>()? else {
            return Err(A::Error::custom(format!("expected {EXPECTED}")));
        };
        let number = match kind.as_str() {
            "geometric" => Number::Geometric(chances(map.next_value()?)),
            "exponential" => Number::exponential(map.next_value()?).map_err(A::Error::custom)?,
            _ => Number::of(&kind, map.next_value()?).map_err(A::Error::custom)?,
        };
        match map.next_key::<String>()? {
            Some(second) => Err(A::Error::custom(format!(
                "\"{second}\" beside \"{kind}\"; expected {EXPECTED}"
            ))),
            None => Ok(number),
        }
    }
}

/// A share in millionths, at least one.
fn chances(share: Share) -> u32 {
    (share.millionths() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(run: u32, purpose: &str) -> Stream {
        let (name, seed) = ("test", 7);
        Source { name, seed, run }.stream(purpose)
    }

    #[test]
    fn a_stream_depends_on_run_and_purpose_only() {
        let words = |run, purpose| {
            let mut stream = stream(run, purpose);
            [stream.below(1 << 60), stream.below(1 << 60)]
        };
        assert_eq!(words(3, "cell"), words(3, "cell"));
        assert_ne!(words(3, "cell"), words(4, "cell"));
        assert_ne!(words(3, "cell"), words(3, "time"));
    }

    /// A change here makes every recorded seed mean another campaign.
    #[test]
    fn the_first_words_are_fixed_for_ever() {
        let mut stream = stream(0, "cell");
        let words: Vec<u64> = (0..4).map(|_| stream.below(1000)).collect();
        assert_eq!(words, [389, 661, 86, 335]);
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let numbers = [
            Number::Fixed(7),
            Number::Uniform(5, 9),
            Number::Uniform(0, u64::MAX),
            Number::LogUniform(1, 50_000),
            Number::Choice(vec![2, 4, 8]),
            Number::Geometric(20_000),
            Number::Geometric(1),
            Number::Geometric(999_999),
            Number::Exponential(1),
            Number::Exponential(u64::MAX),
        ];
        for number in numbers {
            let (least, greatest) = number.bounds();
            let mut stream = stream(1, "bounds");
            for _ in 0..200 {
                let value = number.draw(&mut stream);
                assert!((least..=greatest).contains(&value), "{value} of {number:?}");
            }
        }
    }

    #[test]
    fn waiting_times_have_the_mean_that_is_asked_for() {
        for number in [Number::Geometric(50_000), Number::Exponential(1000)] {
            let mut stream = stream(1, "mean");
            let sum: u64 = (0..4000).map(|_| number.draw(&mut stream)).sum();
            let ratio = float(sum) / 4000.0 / number.mean();
            assert!((0.95..1.05).contains(&ratio), "{ratio} of {number:?}");
        }
    }

    #[test]
    fn a_small_range_is_drawn_whole() {
        let mut seen = [false; 5];
        let mut stream = stream(2, "whole");
        for _ in 0..200 {
            seen[Number::Uniform(0, 4).draw(&mut stream) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
