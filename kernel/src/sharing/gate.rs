//! The gate that every access to another cell's memory passes, closed during recovery.
//!
//! Barrier 1 means that no access of a survivor to remote memory is under way; only then may homes
//! discard and revoke. A thread takes a [`Pass`] for each access, which is a short copy; the
//! recovery closes the gate and waits until it is [`Gate::is_empty`].
//!
//! # Invariants
//! 1. After `close` no pass is given until `open`. Both are one atomic step together with the
//!    count.
//! 2. The count is the number of passes that exist (dropping a pass is the only way back).
//!
//! # Not guaranteed
//! A thread that is preempted with a pass keeps the gate from being empty; the waiter bounds its
//! wait and lets the scheduler run. A thread must not sleep with a pass.
//!
//! # References
//! Hive, CACM 1996: remote mappings are removed before the first barrier.

use crate::atomic::{AtomicU32, Ordering};

const CLOSED: u32 = 1 << 31;

/// The gate.
#[derive(Debug, Default)]
pub struct Gate {
    /// The top bit says closed; the rest counts passes.
    state: AtomicU32,
}

/// The right to access other cells' memory until dropped.
#[must_use = "the access is only safe while the pass exists"]
#[derive(Debug)]
pub struct Pass<'a> {
    gate: &'a Gate,
}

impl Gate {
    /// An open gate.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            state: AtomicU32::new(0),
        }
    }

    /// Lets a thread through; `None` if the gate is closed.
    pub fn enter(&self) -> Option<Pass<'_>> {
        let add = |state| (state & CLOSED == 0).then_some(state + 1);
        let entered = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        // Not `then_some`: it would make, and drop, a pass that was never given.
        entered.is_ok().then(|| Pass { gate: self })
    }

    /// Gives no more passes.
    pub fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::SeqCst);
    }

    /// Gives passes again.
    pub fn open(&self) {
        self.state.fetch_and(!CLOSED, Ordering::SeqCst);
    }

    /// Whether no pass is out.
    pub fn is_empty(&self) -> bool {
        self.state.load(Ordering::SeqCst) & !CLOSED == 0
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.state.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_closed_gate_empties_and_stays_empty() {
        let gate = Gate::new();
        let pass = gate.enter().expect("open");
        gate.close();
        gate.close();
        assert!(!gate.is_empty());
        assert!(gate.enter().is_none());
        drop(pass);
        assert!(gate.is_empty());
        gate.open();
        assert!(gate.enter().is_some());
    }

    #[test]
    fn nobody_is_inside_a_gate_that_was_closed_and_empty() {
        let gate = Gate::new();
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Some(_pass) = gate.enter() {
                            inside.fetch_add(1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
            for _ in 0..200 {
                gate.close();
                while !gate.is_empty() {
                    std::thread::yield_now();
                }
                assert_eq!(inside.load(Ordering::SeqCst), 0);
                gate.open();
            }
        });
    }
}
