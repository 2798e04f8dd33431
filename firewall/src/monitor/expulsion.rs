//! Since when the CPUs of an expelled life are kicked.
//!
//! # Invariants
//! 1. What is said of a life is said once, after every one of its CPUs was kicked: who was kept
//!    from its host CPU in the middle of it changes nothing when it goes on in a later life.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use cell::{Incarnation, Instant};

/// Bits of the time, in microseconds; the life, without its upper half, lies above. Epochs end long
/// before a cell has lived 65,536 times.
const TIME_BITS: u32 = 48;

/// The life that was expelled last, and when its CPUs had been kicked.
#[derive(Debug, Default)]
pub struct Expulsion(AtomicU64);

impl Expulsion {
    /// When every CPU of `life` had been kicked to end it; `None` if that is not done.
    pub fn at(&self, life: Incarnation) -> Option<Instant> {
        let word = self.0.load(Ordering::SeqCst);
        let microseconds = word & ((1 << TIME_BITS) - 1);
        let is_about_it = word != 0 && word >> TIME_BITS == number(life);
        is_about_it.then(|| Instant(0) + Duration::from_micros(microseconds))
    }

    /// Notes that by `now` every CPU of `life` has been kicked to end it. Whether nobody had noted
    /// that before.
    pub fn note(&self, life: Incarnation, now: Instant) -> bool {
        let microseconds = now.0.div_ceil(1000) & ((1 << TIME_BITS) - 1);
        let word = number(life) << TIME_BITS | microseconds;
        let is_news = |old: u64| (old >> TIME_BITS < number(life)).then_some(word);
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_news)
            .is_ok()
    }
}

const fn number(life: Incarnation) -> u64 {
    (life.0 & 0xffff) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Incarnation = Incarnation(1);
    const SECOND: Incarnation = Incarnation(2);

    #[test]
    fn nothing_is_said_of_a_life_before_its_cpus_are_kicked() {
        let expulsion = Expulsion::default();
        assert_eq!(expulsion.at(Incarnation(0)), None);
        assert_eq!(expulsion.at(FIRST), None);
        assert!(expulsion.note(FIRST, Instant(5_000_000)));
        assert_eq!(expulsion.at(FIRST), Some(Instant(5_000_000)));
        assert_eq!(expulsion.at(SECOND), None, "its CPUs were not kicked yet");
    }

    #[test]
    fn the_first_word_about_a_life_stands() {
        let expulsion = Expulsion::default();
        assert!(expulsion.note(FIRST, Instant(5_000_000)));
        assert!(!expulsion.note(FIRST, Instant(9_000_000)));
        assert_eq!(expulsion.at(FIRST), Some(Instant(5_000_000)));
        assert!(expulsion.note(SECOND, Instant(7_000_000)));
        assert!(
            !expulsion.note(FIRST, Instant(9_000_000)),
            "it is long over"
        );
        assert_eq!(expulsion.at(SECOND), Some(Instant(7_000_000)));
    }

    #[test]
    fn a_time_is_never_too_early() {
        let expulsion = Expulsion::default();
        assert!(expulsion.note(FIRST, Instant(1)));
        assert_eq!(expulsion.at(FIRST), Some(Instant(1000)));
    }
}
