//! Points of the kernel where an injected fault waits and strikes some of what passes.
//!
//! Messages have a hook of their own, in `rpc`. Here are those of interrupts and of the scheduler.
//!
//! # Invariants
//! 1. Without an order a hook costs one load.
//! 2. The lock of an order is the innermost of all: nothing is called under it.
//!
//! # Not guaranteed
//! Anything about a thread that was ended: what it held stays held, what it owned is lost. Locks of
//! the kernel are no such thing, because no switch happens while one is held.

use core::sync::atomic::{AtomicBool, Ordering};

use cell::Instant;
use cell::fault::{Attributes, InnerFault, program_words};
use cell::random::Random;

use crate::faults::{self, Injection};
use crate::lock::Lock;
use crate::thread::run_queue::{THREADS_MAX, ThreadId};

/// Whom `program.kill` ends if no name is given.
const PROGRAM: [u64; 2] = program_words("worker");

/// An order that may strike what passes.
struct Hook<T> {
    is_set: AtomicBool,
    order: Lock<T>,
}

impl<T> Hook<T> {
    const fn new(order: T) -> Self {
        Self {
            is_set: AtomicBool::new(false),
            order: Lock::new(order),
        }
    }

    fn set(&self, order: T) {
        *self.order.lock() = order;
        self.is_set.store(true, Ordering::Release);
    }

    /// What an order that is set, if one is, says; `false` without one.
    fn ask(&self, question: impl FnOnce(&mut T) -> bool) -> bool {
        self.is_set.load(Ordering::Acquire) && question(&mut self.order.lock())
    }

    /// As [`Hook::ask`], for whether the fault strikes; tells so if it does.
    fn strikes(&self, fault: InnerFault, question: impl FnOnce(&mut T) -> bool) -> bool {
        let strikes = self.ask(question);
        if strikes {
            faults::struck(fault);
        }
        strikes
    }
}

/// Interrupts that are lost.
struct Losses {
    attributes: Attributes,
    random: Random,
}

static LOSSES: Hook<Losses> = Hook::new(Losses {
    attributes: Attributes::NONE,
    random: Random::new(0),
});

/// Loses interrupts from now on (`irq.lost`).
pub fn lose_interrupts(injection: Injection) {
    LOSSES.set(Losses {
        attributes: injection.attributes,
        random: Random::new(injection.seed),
    });
}

/// Whether an interrupt that was just taken is lost. Interrupt level.
pub fn loses_interrupt() -> bool {
    LOSSES.strikes(InnerFault::InterruptLost, |losses| {
        let random = losses.random.next();
        losses.attributes.strikes(1, random)
    })
}

/// Threads that are ended.
struct Kills {
    attributes: Attributes,
    random: Random,
    program: [u64; 2],
    run_time: u64,
    /// How long each thread ran since the order, in nanoseconds, and since when it runs.
    ran: [u64; THREADS_MAX],
    runs_since: [u64; THREADS_MAX],
}

impl Kills {
    const NONE: Self = Self {
        attributes: Attributes::NONE,
        random: Random::new(0),
        program: PROGRAM,
        run_time: 0,
        ran: [0; THREADS_MAX],
        runs_since: [0; THREADS_MAX],
    };

    /// Whether the thread that a CPU switches away from is ended by that.
    fn ends(&mut self, thread: ThreadId, name: &str, now: Instant) -> bool {
        let slot = thread.index();
        let since = self.runs_since[slot];
        if since != 0 {
            self.runs_since[slot] = now.0;
            self.ran[slot] = self.ran[slot].saturating_add(now.0.saturating_sub(since));
        }
        if program_words(name) != self.program || self.ran[slot] < self.run_time {
            return false;
        }
        let random = self.random.next();
        let ends = self.attributes.strikes(1, random);
        if ends {
            self.ran[slot] = 0;
        }
        ends
    }
}

static KILLS: Hook<Kills> = Hook::new(Kills::NONE);

/// Ends threads from now on (`program.kill`).
pub fn kill_programs(injection: Injection) {
    KILLS.set(Kills {
        attributes: injection.attributes,
        random: Random::new(injection.seed),
        program: match injection.program {
            [0, 0] => PROGRAM,
            named => named,
        },
        run_time: injection.run_time,
        ..Kills::NONE
    });
}

/// Whether the thread that a CPU switches away from ends here. Interrupt level.
pub fn ends_program(thread: ThreadId, name: &str, now: Instant) -> bool {
    KILLS.strikes(InnerFault::ProgramKill, |kills| {
        kills.ends(thread, name, now)
    })
}

/// Notes that a thread runs from now on. Interrupt level.
pub fn program_runs(thread: ThreadId, now: Instant) {
    KILLS.ask(|kills| {
        kills.runs_since[thread.index()] = now.0;
        true
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn kills(run_time: u64) -> Kills {
        Kills {
            attributes: Attributes::new(1),
            run_time,
            ..Kills::NONE
        }
    }

    #[test]
    fn only_the_program_that_is_meant_ends_and_only_so_often() {
        let mut kills = kills(0);
        let thread = ThreadId::new(3).unwrap();
        assert!(!kills.ends(thread, "server", Instant(1)));
        assert!(kills.ends(thread, "worker", Instant(1)));
        assert!(!kills.ends(thread, "worker", Instant(1)));
    }

    #[test]
    fn run_time_counts_while_the_thread_runs() {
        let mut kills = kills(100);
        let thread = ThreadId::new(3).unwrap();
        for (from, to, ended) in [(10, 60, false), (500, 540, false), (900, 910, true)] {
            kills.runs_since[thread.index()] = from;
            assert_eq!(kills.ends(thread, "worker", Instant(to)), ended, "at {to}");
        }
    }

    #[test]
    fn a_hook_without_an_order_strikes_nothing() {
        let hook = Hook::new(Attributes::new(1));
        assert!(!hook.ask(|order| order.strikes(1, 0)));
        hook.set(Attributes::new(1));
        assert!(hook.ask(|order| order.strikes(1, 0)));
        assert!(!hook.ask(|order| order.strikes(1, 0)));
    }
}
