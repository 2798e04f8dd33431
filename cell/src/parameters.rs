//! The boot parameters: one line of `key=value` words, for the monitor and for the runner.
//!
//! The first word of a multiboot command line is the image's name and is skipped when it has no
//! `=`. Unknown keys, repeated keys and impossible values are refused, never ignored.

use core::fmt;

use crate::handover::Settings;
use crate::id::CELLS_MAX;

/// Which back end of the firewall to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Firewall {
    /// The best that the machine has.
    Auto,
    /// AMD SVM with nested page tables.
    Npt,
    /// Intel VMX with extended page tables.
    Ept,
    /// Page tables only.
    Paging,
    /// Nothing is enforced; to measure what enforcing costs, and to see what it is for.
    Off,
}

/// Which of the dead cell's pages are discarded.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Discard {
    /// Every page that it could write, as Hive did.
    Writable = 0,
    /// Every page that it wrote, by the dirty bits of its nested tables.
    Written = 1,
}

impl Discard {
    /// Decodes a stored policy; anything unknown is the careful one.
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Written,
            _ => Self::Writable,
        }
    }
}

/// What the first CPU of a cell does when there is nothing to do.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Idle {
    /// It sleeps until an interrupt, as the others do.
    Sleep = 0,
    /// It goes on executing. Where time is instructions counted, an emulator in which all CPUs
    /// sleep has to move time by itself, and when exactly it does so may depend on its host.
    Awake = 1,
}

impl Idle {
    /// Decodes a stored choice; anything unknown sleeps.
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Awake,
            _ => Self::Sleep,
        }
    }
}

/// The boot parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// `cells=`: how many cells, 1 to 64.
    pub cells: usize,
    /// `firewall=auto|npt|ept|paging|off`.
    pub firewall: Firewall,
    /// `tick=`, `hint=`, `probe=`, `call=`, `discard=`, `workers=`, `rest=`, `idle=`, `seed=`.
    pub settings: Settings,
    /// `standstill=`: when the machine first stands still for the runner, in microseconds; 0 for
    /// never.
    pub standstill_microseconds: u64,
}

impl Parameters {
    /// What holds where the command line says nothing.
    pub const DEFAULT: Self = Self {
        cells: 4,
        firewall: Firewall::Auto,
        settings: Settings {
            tick_microseconds: 2000,
            hint_milliseconds: 8,
            probe_milliseconds: 40,
            call_milliseconds: 30,
            discard: Discard::Written as u32,
            workers: 2,
            rest_microseconds: 8000,
            idle: Idle::Sleep as u32,
            seed: 1995,
        },
        standstill_microseconds: 0,
    };

    /// The keys, their values and what they mean, for help and error texts.
    pub const KEYS: &[(&str, &str)] = &[
        ("cells", "1 to 64: how many cells"),
        (
            "firewall",
            "auto, npt, ept, paging or off: how the firewall is enforced",
        ),
        ("tick", "250 to 10000: microseconds between timer ticks"),
        (
            "hint",
            "2 to 1000: milliseconds for which a clock may stand still before it is a hint",
        ),
        (
            "probe",
            "5 to 10000: milliseconds for which a suspect may take to prove itself alive",
        ),
        ("call", "5 to 10000: milliseconds for which a call may take"),
        (
            "discard",
            "writable or written: which pages of a dead cell's grants are discarded",
        ),
        ("workers", "0 to 16: worker threads per cell"),
        (
            "rest",
            "0 to 1000000: microseconds for which a worker rests after each operation",
        ),
        (
            "idle",
            "sleep or awake: what the first CPU of a cell does when there is nothing to do",
        ),
        ("seed", "a number: seed of the workload"),
        (
            "standstill",
            "0 to 1000000000: microseconds until the machine first waits for the runner; 0: never",
        ),
    ];

    /// Parses a command line.
    ///
    /// # Errors
    /// Names the first word that is not understood, and what was expected.
    pub fn parse(line: &str) -> Result<Self, ParameterError<'_>> {
        let mut parameters = Self::DEFAULT;
        let mut seen = 0u32;
        for (position, word) in line.split_ascii_whitespace().enumerate() {
            let Some((key, value)) = word.split_once('=') else {
                if position == 0 {
                    continue;
                }
                return Err(ParameterError {
                    word,
                    problem: Problem::NotAPair,
                });
            };
            let error = |problem| ParameterError { word, problem };
            let index = Self::KEYS.iter().position(|(known, _)| *known == key);
            let index = index.ok_or(error(Problem::UnknownKey))?;
            if seen & 1 << index != 0 {
                return Err(error(Problem::Repeated));
            }
            seen |= 1 << index;
            parameters
                .set(key, value)
                .ok_or(error(Problem::BadValue(Self::KEYS[index].1)))?;
        }
        Ok(parameters)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        let settings = &mut self.settings;
        match key {
            "cells" => self.cells = number(value, 1, CELLS_MAX as u64)? as usize,
            "firewall" => {
                self.firewall = match value {
                    "auto" => Firewall::Auto,
                    "npt" => Firewall::Npt,
                    "ept" => Firewall::Ept,
                    "paging" => Firewall::Paging,
                    "off" => Firewall::Off,
                    _ => return None,
                }
            }
            "tick" => settings.tick_microseconds = number(value, 250, 10_000)? as u32,
            "hint" => settings.hint_milliseconds = number(value, 2, 1000)? as u32,
            "probe" => settings.probe_milliseconds = number(value, 5, 10_000)? as u32,
            "call" => settings.call_milliseconds = number(value, 5, 10_000)? as u32,
            "discard" => {
                settings.discard = match value {
                    "writable" => Discard::Writable,
                    "written" => Discard::Written,
                    _ => return None,
                } as u32;
            }
            "workers" => settings.workers = number(value, 0, 16)? as u32,
            "rest" => settings.rest_microseconds = number(value, 0, 1_000_000)? as u32,
            "idle" => {
                settings.idle = match value {
                    "sleep" => Idle::Sleep,
                    "awake" => Idle::Awake,
                    _ => return None,
                } as u32;
            }
            "standstill" => self.standstill_microseconds = number(value, 0, 1_000_000_000)?,
            "seed" => settings.seed = number(value, 0, u64::MAX)?,
            _ => return None,
        }
        Some(())
    }
}

fn number(text: &str, least: u64, most: u64) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = plain.then(|| text.parse().ok())??;
    (least..=most).contains(&value).then_some(value)
}

/// What is wrong with a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// It is not `key=value`.
    NotAPair,
    /// There is no such key.
    UnknownKey,
    /// The key was given before.
    Repeated,
    /// The value does not fit; holds what was expected.
    BadValue(&'static str),
}

/// A command line that is not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParameterError<'a> {
    /// The word.
    pub word: &'a str,
    /// What is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for ParameterError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot parameter \"{}\": ", self.word)?;
        match self.problem {
            Problem::NotAPair => f.write_str("not of the form key=value"),
            Problem::Repeated => f.write_str("given twice"),
            Problem::BadValue(expected) => write!(f, "expected {expected}"),
            Problem::UnknownKey => {
                f.write_str("unknown; known are")?;
                Parameters::KEYS
                    .iter()
                    .try_for_each(|(key, _)| write!(f, " {key}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_line_gives_the_defaults() {
        assert_eq!(Parameters::parse(""), Ok(Parameters::DEFAULT));
        assert_eq!(Parameters::parse("hive-monitor"), Ok(Parameters::DEFAULT));
    }

    #[test]
    fn every_back_end_has_a_word() {
        for (word, firewall) in [
            ("auto", Firewall::Auto),
            ("npt", Firewall::Npt),
            ("ept", Firewall::Ept),
            ("paging", Firewall::Paging),
            ("off", Firewall::Off),
        ] {
            let line = std::format!("image firewall={word}");
            assert_eq!(Parameters::parse(&line).unwrap().firewall, firewall);
        }
    }

    #[test]
    fn values_are_taken() {
        let parameters = Parameters::parse("image cells=8 firewall=npt tick=1000 discard=writable");
        let parameters = parameters.unwrap();
        assert_eq!(parameters.cells, 8);
        assert_eq!(parameters.firewall, Firewall::Npt);
        assert_eq!(parameters.settings.tick_microseconds, 1000);
        assert_eq!(
            Discard::from_raw(parameters.settings.discard),
            Discard::Writable
        );
        let idle = |line| Parameters::parse(line).map(|it| Idle::from_raw(it.settings.idle));
        assert_eq!(idle("image idle=awake"), Ok(Idle::Awake));
        assert_eq!(idle("image idle=sleep"), idle("image"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |line| Parameters::parse(line).unwrap_err().to_string();
        assert_eq!(
            message("cells=0"),
            "boot parameter \"cells=0\": expected 1 to 64: how many cells"
        );
        assert!(
            message("cels=4").starts_with("boot parameter \"cels=4\": unknown; known are cells")
        );
        assert!(message("cells=2 cells=2").ends_with("given twice"));
        assert!(message("image quiet").ends_with("not of the form key=value"));
        assert!(message("cells=+4").contains("expected"));
        assert!(message("seed=99999999999999999999999").contains("expected"));
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in ".{0,200}") {
            let _ = Parameters::parse(&line);
        }

        #[test]
        fn no_pair_makes_the_parser_panic(key in "[a-z]{1,8}", value in ".{0,20}") {
            let _ = Parameters::parse(&format!("image {key}={value}"));
        }
    }

    #[test]
    fn spoilt_lines_are_refused_or_mean_what_they_say() {
        let valid: [&[u8]; 3] = [
            b"image cells=8 firewall=npt tick=1000 discard=writable seed=7",
            b"cells=64 firewall=paging",
            b"hive-monitor firewall=auto seed=18446744073709551615",
        ];
        fuzz::cases(&valid, |bytes| {
            let line = String::from_utf8_lossy(bytes);
            match Parameters::parse(&line) {
                Ok(parameters) => {
                    assert!((1..=64).contains(&parameters.cells));
                    assert!(parameters.settings.tick_microseconds > 0);
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        });
    }
}
