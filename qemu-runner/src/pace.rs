//! The time of a run, by the clock that its machine goes by.

use std::ops::Add;
use std::time::Duration;

/// A moment of a run, since its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Moment(Duration);

impl Moment {
    /// So long after the start.
    pub const fn after(span: Duration) -> Self {
        Self(span)
    }

    /// The time from `earlier` to this moment; zero if `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The time since the start, in nanoseconds.
    pub const fn nanoseconds(self) -> u128 {
        self.0.as_nanos()
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0 + span)
    }
}

/// How a wait goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Its time has come.
    Over,
    /// The machine still runs.
    GoesOn,
}
