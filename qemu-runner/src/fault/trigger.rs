//! When a fault strikes.

use std::fmt;
use std::time::Duration;

use cell::trace::Event;
use serde::{Deserialize, Serialize};

/// What a fault waits for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nothing.
    Now,
    /// An event in the trace of any cell, or of the monitor.
    Event(#[serde(with = "event_name")] Event),
    /// The first instruction of a function, executed by a CPU of the victim.
    Symbol(String),
    /// A store of a CPU of the victim to an object of its kernel.
    Write(String),
    /// A load or a store of a CPU of the victim from or to an object of its kernel.
    Access(String),
    /// So many threads of the victim wait for a CPU.
    Load(u64),
    /// Every cell serves and works, and has done so for a while.
    Settled,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("at once"),
            Self::Event(event) => write!(f, "at {}", event.name()),
            Self::Symbol(name) => write!(f, "in {name}"),
            Self::Write(object) => write!(f, "at a store to {object}"),
            Self::Access(object) => write!(f, "at an access to {object}"),
            Self::Load(least) => write!(f, "while {least} threads wait for a CPU"),
            Self::Settled => f.write_str("once everybody works"),
        }
    }
}

/// When a fault strikes, counted from the fault before it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Trigger {
    /// What it waits for.
    pub cause: Cause,
    /// Which occurrence of it, from 1.
    pub count: u32,
    /// How long after it.
    pub delay: Duration,
}

impl Trigger {
    /// At once.
    pub const NOW: Self = Self {
        cause: Cause::Now,
        count: 1,
        delay: Duration::ZERO,
    };

    /// At the first event of a kind.
    pub const fn at(event: Event) -> Self {
        Self {
            cause: Cause::Event(event),
            ..Self::NOW
        }
    }

    /// The event that the victim's own kernel can time a fault by, from inside: it sees it in its
    /// own trace.
    pub const fn inner_event(&self) -> Option<Event> {
        match self.cause {
            Cause::Event(
                event @ (Event::EpochBegin
                | Event::Opinion
                | Event::Round
                | Event::Vote
                | Event::Decided
                | Event::RecoveryBegin
                | Event::Barrier1
                | Event::Discard
                | Event::Barrier2
                | Event::Resume),
            ) if self.delay.is_zero() => Some(event),
            _ => None,
        }
    }

    /// Whether the gdb stub is needed for it.
    pub const fn needs_gdb(&self) -> bool {
        self.cause.needs_gdb()
    }
}

impl Cause {
    /// Whether a debugger sees it, who stops the machine for that at a time of the host's.
    pub const fn needs_gdb(&self) -> bool {
        matches!(self, Self::Symbol(_) | Self::Write(_) | Self::Access(_))
    }
}

/// The event of a name.
///
/// # Errors
/// Says which there are.
pub fn parse_event(name: &str) -> Result<Event, String> {
    let found = Event::ALL
        .iter()
        .copied()
        .find(|event| event.name() == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = Event::ALL.iter().map(|event| event.name()).collect();
        format!("no event \"{name}\"; there are {}", names.join(", "))
    })
}

/// An event in files: its name.
mod event_name {
    use super::{Event, parse_event};
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature that serde asks for"
    )]
    pub(super) fn serialize<S: Serializer>(
        event: &Event,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(event.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<Event, D::Error> {
        parse_event(&String::deserialize(source)?).map_err(de::Error::custom)
    }
}

/// What was seen since the last look.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Records of the awaited event since the fault before.
    pub events: u32,
    /// Breakpoints and watchpoints that CPUs of the victim met.
    pub hits: u32,
    /// How many threads of the victim wait for a CPU.
    pub load: u64,
    /// Whether everybody works.
    pub is_settled: bool,
}

/// How often a cause was there so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    count: u32,
    /// It was there at the last look: a state that lasts counts once.
    lasts: bool,
}

impl Progress {
    /// Takes in what was seen; whether the cause has been there as often as the trigger says.
    pub fn advance(&mut self, trigger: &Trigger, seen: Seen) -> bool {
        let state = match trigger.cause {
            Cause::Load(least) => seen.load >= least,
            Cause::Settled => seen.is_settled,
            Cause::Now => true,
            Cause::Event(_) | Cause::Symbol(_) | Cause::Write(_) | Cause::Access(_) => false,
        };
        let rises = u32::from(state && !self.lasts);
        self.lasts = state;
        let more = match trigger.cause {
            Cause::Event(_) => seen.events,
            Cause::Symbol(_) | Cause::Write(_) | Cause::Access(_) => seen.hits,
            _ => rises,
        };
        self.count = self.count.saturating_add(more);
        self.count >= trigger.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Seen = Seen {
        events: 0,
        hits: 0,
        load: 0,
        is_settled: false,
    };

    fn trigger(cause: Cause, count: u32) -> Trigger {
        Trigger {
            cause,
            count,
            ..Trigger::NOW
        }
    }

    #[test]
    fn occurrences_are_counted_over_several_looks() {
        let third = trigger(Cause::Event(Event::Hint), 3);
        let two = Seen {
            events: 2,
            ..NOTHING
        };
        let mut progress = Progress::default();
        assert!(!progress.advance(&third, two));
        assert!(!progress.advance(&third, NOTHING));
        assert!(progress.advance(&third, two));
        assert!(Progress::default().advance(&Trigger::NOW, NOTHING));
    }

    #[test]
    fn a_load_that_lasts_counts_once() {
        let twice = trigger(Cause::Load(3), 2);
        let loads = [2, 3, 4, 2, 3];
        let mut progress = Progress::default();
        let seen = loads.map(|load| progress.advance(&twice, Seen { load, ..NOTHING }));
        assert_eq!(seen, [false, false, false, false, true]);
    }

    #[test]
    fn only_what_a_kernel_traces_itself_is_timed_inside() {
        assert_eq!(
            Trigger::at(Event::Barrier1).inner_event(),
            Some(Event::Barrier1)
        );
        assert_eq!(Trigger::at(Event::Reboot).inner_event(), None);
        let late = Trigger {
            delay: Duration::from_micros(1),
            ..Trigger::at(Event::Barrier1)
        };
        assert_eq!(late.inner_event(), None);
    }

    #[test]
    fn a_trigger_survives_its_file() {
        for cause in [
            Cause::Now,
            Cause::Event(Event::Vote),
            Cause::Symbol("kernel::trace::record".into()),
            Cause::Load(3),
            Cause::Settled,
        ] {
            let trigger = trigger(cause, 2);
            let text = serde_json::to_string(&trigger).expect("it can be written");
            assert_eq!(serde_json::from_str::<Trigger>(&text).ok(), Some(trigger));
        }
    }
}
