//! Standstills: points of the guest's time at which the whole machine stands still for the runner.
//!
//! A host that acts at a time of its own makes every run another. So the runner says here when it
//! wants to act, in the guest's time; the first CPU that is in the monitor from then on writes to a
//! port of [`PORTS`], where QEMU keeps it waiting. With one thread for all CPUs nothing is executed
//! and no time passes until the runner lets it go on. What the runner wants done it does in memory
//! meanwhile, or orders: the same CPU carries the orders out as the next thing that it does.
//!
//! # Invariants
//! 1. The runner writes the record only before the machine starts and while it stands still.
//! 2. Standstills use the two ports in turn, so that one can be made ready while the machine waits
//!    at the other.
//!
//! # Not guaranteed
//! A machine in which no CPU enters the monitor any more does not stand still for the runner.

use crate::atomic::{AtomicU64, Ordering};
use crate::id::{CPUS_MAX, CpuId};
use crate::time::Instant;

/// Where the machine waits; the first is that of the first standstill.
pub const PORTS: [u16; 2] = [0x5e0, 0x5e1];

/// Orders of one standstill.
pub const ORDERS_MAX: usize = 64;

const FROZEN_WORDS: usize = CPUS_MAX.div_ceil(64);

/// A store to physical memory, or to a local APIC as a message.
#[repr(C)]
#[derive(Debug)]
pub struct Order {
    /// Where.
    pub address: AtomicU64,
    /// What, in the low bytes.
    pub value: AtomicU64,
    /// How many bytes: 1, 2, 4 or 8.
    pub bytes: AtomicU64,
}

impl Order {
    #[cfg(not(loom))]
    const fn none() -> Self {
        Self {
            address: AtomicU64::new(0),
            value: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }
}

/// When the machine stands still next, and what is ordered.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Standstill {
    /// When, in nanoseconds of [`Instant`]; 0 for never.
    pub due: AtomicU64,
    /// How many there were.
    pub count: AtomicU64,
    /// When the newest was, in nanoseconds.
    pub at: AtomicU64,
    /// How many of `orders` are to be carried out.
    pub orders_count: AtomicU64,
    /// One bit per CPU: those that wait in the monitor until the bit is taken away.
    pub frozen: [AtomicU64; FROZEN_WORDS],
    /// What is ordered.
    pub orders: [Order; ORDERS_MAX],
    /// A place that nobody reads, for orders that take their time and change nothing.
    pub nowhere: AtomicU64,
}

impl Standstill {
    /// Never.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            due: AtomicU64::new(0),
            count: AtomicU64::new(0),
            at: AtomicU64::new(0),
            orders_count: AtomicU64::new(0),
            frozen: [const { AtomicU64::new(0) }; FROZEN_WORDS],
            orders: [const { Order::none() }; ORDERS_MAX],
            nowhere: AtomicU64::new(0),
        }
    }

    /// Whether one may be due: the one thing that a machine without a runner ever asks.
    pub fn is_wanted(&self) -> bool {
        self.due.load(Ordering::Relaxed) != 0
    }

    /// Claims the standstill that is due at `now`, if no other CPU has; says at which port.
    pub fn claim(&self, now: Instant) -> Option<u16> {
        let due = self.due.load(Ordering::SeqCst);
        if due == 0 || now.0 < due {
            return None;
        }
        let claimed = self
            .due
            .compare_exchange(due, 0, Ordering::SeqCst, Ordering::SeqCst);
        claimed.ok()?;
        self.at.store(now.0, Ordering::SeqCst);
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        Some(PORTS[(number % PORTS.len() as u64) as usize])
    }

    /// Whether a CPU shall wait.
    pub fn is_frozen(&self, cpu: CpuId) -> bool {
        let word = self.frozen[cpu.index() / 64].load(Ordering::SeqCst);
        word >> (cpu.index() % 64) & 1 != 0
    }
}

#[cfg(not(loom))]
impl Default for Standstill {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_comes_when_it_is_due_and_once() {
        let record = Standstill::new();
        assert!(!record.is_wanted());
        assert_eq!(record.claim(Instant(u64::MAX)), None);
        record.due.store(500, Ordering::SeqCst);
        assert_eq!(record.claim(Instant(499)), None);
        assert_eq!(record.claim(Instant(502)), Some(PORTS[0]));
        assert_eq!(record.at.load(Ordering::SeqCst), 502);
        assert_eq!(record.claim(Instant(503)), None);
        record.due.store(504, Ordering::SeqCst);
        assert_eq!(record.claim(Instant(505)), Some(PORTS[1]));
    }

    #[test]
    fn every_cpu_has_a_bit_of_its_own() {
        let record = Standstill::new();
        let last = CpuId::new(CPUS_MAX - 1).unwrap();
        record.frozen[FROZEN_WORDS - 1].store(1 << ((CPUS_MAX - 1) % 64), Ordering::SeqCst);
        assert!(record.is_frozen(last));
        assert!(!record.is_frozen(CpuId::BOOT));
    }
}
