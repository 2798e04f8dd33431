//! The CPUs that found nobody ready.
//!
//! # Invariants
//! 1. Only a CPU itself puts itself in, and it does so with the scheduler's table locked; so
//!    whoever makes a thread ready under that lock finds the CPU in the set, or the CPU finds the
//!    thread.
//! 2. Each time a CPU is in the set, at most one other CPU takes it out, and then wakes it: two
//!    ready threads never count on one sleeper.

use cell::CPUS_MAX;

use crate::atomic::{AtomicU64, Ordering};

/// A set of CPUs, by index within the cell.
#[derive(Debug)]
pub struct IdleSet {
    words: [AtomicU64; CPUS_MAX.div_ceil(64)],
}

impl IdleSet {
    /// Nobody.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            words: [const { AtomicU64::new(0) }; CPUS_MAX.div_ceil(64)],
        }
    }

    /// Nobody; loom's atomics cannot be made by a `const fn`.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            words: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Puts `cpu` in: it found nobody ready. The scheduler's table is locked.
    pub fn enter(&self, cpu: usize) {
        self.words[cpu / 64].fetch_or(1 << (cpu % 64), Ordering::SeqCst);
    }

    /// Takes `cpu` out: it found somebody.
    pub fn leave(&self, cpu: usize) {
        let (word, bit) = (&self.words[cpu / 64], 1 << (cpu % 64));
        // A CPU sees its own bit as it set it; most often it is not there.
        if word.load(Ordering::Relaxed) & bit != 0 {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// Takes out a CPU other than `own`, for the caller to wake.
    pub fn take_other_than(&self, own: usize) -> Option<usize> {
        for (number, word) in self.words.iter().enumerate() {
            let mut candidates = word.load(Ordering::SeqCst);
            if own / 64 == number {
                candidates &= !(1 << (own % 64));
            }
            while candidates != 0 {
                let bit = candidates & candidates.wrapping_neg();
                if word.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
                    return Some(number * 64 + bit.trailing_zeros() as usize);
                }
                candidates &= !bit;
            }
        }
        None
    }
}

#[cfg(not(loom))]
impl Default for IdleSet {
    fn default() -> Self {
        Self::new()
    }
}
