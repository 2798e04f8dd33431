//! Where a CPU is, and who may restart it.
//!
//! A CPU that does not come back to the monitor by itself is restarted by INIT, which strikes
//! whatever the CPU does by then. Several survivors may want that at once, any of them may be kept
//! from its host CPU between the decision and the INIT, and the CPU may park by itself meanwhile,
//! and begin its next life. So the state and the life are one word: a restart is a change of that
//! word which only one survivor can make, and only from the life that is over; and a CPU that parks
//! and finds itself condemned waits for the INIT that is on its way.
//!
//! # Invariants
//! 1. [`Standing::condemn`] answers [`Condemned::Now`] to one caller per life and CPU. Whoever got
//!    that answer sends the INIT, nobody else does.
//! 2. No INIT that was sent so meets a CPU in a later life.
//! 3. A CPU changes its own word but for the change to [`CpuState::Restarting`].
//!
//! # Not guaranteed
//! If the survivor that condemned a CPU dies before it sends the INIT, that CPU stays out until the
//! next life of its cell. And if its answer to the start-up of that life is still on the way when
//! the next life is ended, invariant 2 does not hold for it: that start-up would have to take as
//! long as a whole life.

#[cfg(loom)]
use crate::atomic::AtomicU64;
#[cfg(not(loom))]
use core::sync::atomic::AtomicU64;

use crate::Incarnation;
use crate::atomic::Ordering;

/// Where a CPU is.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuState {
    /// It never started.
    Absent = 0,
    /// In the monitor, waiting to be given to a life of its cell.
    Parked = 1,
    /// It runs the cell kernel.
    Running = 2,
    /// It did not come back from a life that is over: an INIT is, or will be, on its way.
    Restarting = 3,
}

impl CpuState {
    /// Decodes a stored state; anything unknown reads as absent.
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Parked,
            2 => Self::Running,
            3 => Self::Restarting,
            _ => Self::Absent,
        }
    }

    /// Whether the CPU has descriptors for an NMI: while it starts it has none, and would reset the
    /// machine.
    pub const fn takes_kicks(self) -> bool {
        matches!(self, Self::Parked | Self::Running)
    }
}

/// How a CPU came to the monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// By the start-up code, after a reset of the machine or an INIT; or by the INIT itself, where
    /// the hardware gives that to the monitor as an exit.
    Reset,
    /// Out of a life that is over.
    Return,
}

/// What a CPU that arrived does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrived {
    /// It is parked, and may be given to a life.
    Parked,
    /// It waits for the INIT that is on its way.
    AwaitsReset,
}

/// The answer to a survivor that wants a CPU restarted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condemned {
    /// The caller has to send the INIT.
    Now,
    /// Somebody else has sent it, or will.
    Before,
    /// It parked by itself, or runs a later life.
    Never,
}

/// The word: a [`CpuState`] in the lower half; in the upper half the life that the CPU runs, or
/// last ran.
#[repr(transparent)]
#[derive(Debug)]
pub struct Standing(AtomicU64);

const fn pack(state: CpuState, life: Incarnation) -> u64 {
    (life.0 as u64) << 32 | state as u64
}

const fn unpack(word: u64) -> (CpuState, Incarnation) {
    (
        CpuState::from_raw(word as u32),
        Incarnation((word >> 32) as u32),
    )
}

impl Standing {
    /// A CPU that never started.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// A CPU in `state` and `life`; loom's atomics cannot be made by a `const fn`.
    #[cfg(loom)]
    pub fn at(state: CpuState, life: Incarnation) -> Self {
        Self(AtomicU64::new(pack(state, life)))
    }

    /// The state, and the life that the CPU runs or last ran.
    pub fn get(&self) -> (CpuState, Incarnation) {
        unpack(self.0.load(Ordering::SeqCst))
    }

    /// Where the CPU is.
    pub fn state(&self) -> CpuState {
        self.get().0
    }

    /// The life that the CPU runs, or last ran.
    pub fn life(&self) -> Incarnation {
        self.get().1
    }

    /// The CPU itself: it has come to the monitor.
    pub fn arrive(&self, arrival: Arrival) -> Arrived {
        let mut found = self.0.load(Ordering::SeqCst);
        loop {
            let (state, life) = unpack(found);
            if arrival == Arrival::Return && state == CpuState::Restarting {
                return Arrived::AwaitsReset;
            }
            match self.exchange(found, pack(CpuState::Parked, life)) {
                Ok(()) => return Arrived::Parked,
                // Somebody condemned it, which happens once per life.
                Err(newer) => found = newer,
            }
        }
    }

    /// The CPU itself: an INIT exited to the monitor, and may yet reset the CPU. Returns how it
    /// arrives if it was spared: one that was condemned has had its INIT; one that was not has met
    /// somebody else's, and can still be condemned.
    pub fn meet_init(&self) -> Arrival {
        let mut found = self.0.load(Ordering::SeqCst);
        loop {
            let (state, life) = unpack(found);
            if state == CpuState::Restarting {
                return Arrival::Reset;
            }
            match self.exchange(found, pack(CpuState::Absent, life)) {
                Ok(()) => return Arrival::Return,
                Err(newer) => found = newer,
            }
        }
    }

    /// The parked CPU itself: it enters `life`. Nobody else changes the word of a parked CPU.
    pub fn enter(&self, life: Incarnation) {
        self.0
            .store(pack(CpuState::Running, life), Ordering::SeqCst);
    }

    /// A survivor: the CPU has to be restarted if it still runs `expelled` or an earlier life.
    pub fn condemn(&self, expelled: Incarnation) -> Condemned {
        let mut found = self.0.load(Ordering::SeqCst);
        loop {
            let (state, life) = unpack(found);
            match state {
                CpuState::Parked => return Condemned::Never,
                CpuState::Running | CpuState::Absent if life > expelled => return Condemned::Never,
                CpuState::Restarting if life >= expelled => return Condemned::Before,
                CpuState::Running | CpuState::Absent | CpuState::Restarting => {}
            }
            match self.exchange(found, pack(CpuState::Restarting, expelled)) {
                Ok(()) => return Condemned::Now,
                Err(newer) => found = newer,
            }
        }
    }

    fn exchange(&self, from: u64, to: u64) -> Result<(), u64> {
        self.0
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .map(|_| ())
    }
}

#[cfg(not(loom))]
impl Default for Standing {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const FIRST: Incarnation = Incarnation(1);
    const SECOND: Incarnation = Incarnation(2);

    fn running(life: Incarnation) -> Standing {
        let standing = Standing::new();
        standing.enter(life);
        standing
    }

    #[test]
    fn one_survivor_sends_the_init() {
        let standing = running(FIRST);
        assert_eq!(standing.condemn(FIRST), Condemned::Now);
        assert_eq!(standing.condemn(FIRST), Condemned::Before);
        assert_eq!(standing.get(), (CpuState::Restarting, FIRST));
    }

    #[test]
    fn one_that_parked_or_lives_on_is_left_alone() {
        let standing = running(FIRST);
        assert_eq!(standing.arrive(Arrival::Return), Arrived::Parked);
        assert_eq!(standing.condemn(FIRST), Condemned::Never);
        standing.enter(SECOND);
        assert_eq!(standing.condemn(FIRST), Condemned::Never);
        assert_eq!(standing.get(), (CpuState::Running, SECOND));
    }

    #[test]
    fn a_condemned_cpu_waits_for_its_reset() {
        let standing = running(FIRST);
        assert_eq!(standing.condemn(FIRST), Condemned::Now);
        assert_eq!(standing.arrive(Arrival::Return), Arrived::AwaitsReset);
        assert_eq!(standing.arrive(Arrival::Reset), Arrived::Parked);
        assert_eq!(standing.get(), (CpuState::Parked, FIRST));
    }

    #[test]
    fn one_that_never_came_is_restarted_for_every_life() {
        let standing = Standing::new();
        assert_eq!(standing.condemn(FIRST), Condemned::Now);
        assert_eq!(standing.condemn(FIRST), Condemned::Before);
        assert_eq!(standing.condemn(SECOND), Condemned::Now);
    }

    #[test]
    fn one_that_met_its_init_in_the_monitor_parks() {
        let standing = running(FIRST);
        assert_eq!(standing.condemn(FIRST), Condemned::Now);
        let arrival = standing.meet_init();
        assert_eq!(standing.condemn(FIRST), Condemned::Before);
        assert_eq!(standing.arrive(arrival), Arrived::Parked);
    }

    #[test]
    fn one_that_met_a_stray_init_is_parked_or_restarted() {
        let standing = running(FIRST);
        let arrival = standing.meet_init();
        assert_eq!(standing.state(), CpuState::Absent);
        assert_eq!(standing.arrive(arrival), Arrived::Parked);
        let struck = running(FIRST);
        let arrival = struck.meet_init();
        assert_eq!(struck.condemn(FIRST), Condemned::Now);
        assert_eq!(struck.arrive(arrival), Arrived::AwaitsReset);
    }

    #[test]
    fn an_earlier_life_that_it_still_runs_is_over_as_well() {
        assert_eq!(running(FIRST).condemn(SECOND), Condemned::Now);
    }
}

#[cfg(all(test, loom))]
mod interleavings {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicU32};
    use loom::thread;

    use super::*;

    const OVER: Incarnation = Incarnation(1);
    const NEXT: Incarnation = Incarnation(2);

    struct Machine {
        standing: Standing,
        inits: AtomicU32,
        is_requested: AtomicBool,
    }

    fn machine() -> Arc<Machine> {
        Arc::new(Machine {
            standing: Standing::at(CpuState::Running, OVER),
            inits: AtomicU32::new(0),
            is_requested: AtomicBool::new(false),
        })
    }

    /// A survivor asks for the next life and restarts the CPU if that is needed.
    fn survivor(machine: &Machine) {
        machine.is_requested.store(true, Ordering::SeqCst);
        if machine.standing.condemn(OVER) == Condemned::Now {
            machine.inits.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Comes to the monitor, by its INIT if it is condemned, and runs the next life if one is asked
    /// for by then.
    fn comes_back(machine: &Machine) {
        if machine.standing.arrive(Arrival::Return) == Arrived::AwaitsReset {
            while machine.inits.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            machine.inits.fetch_sub(1, Ordering::SeqCst);
            assert_eq!(machine.standing.arrive(Arrival::Reset), Arrived::Parked);
        }
        if machine.is_requested.load(Ordering::SeqCst) {
            machine.standing.enter(NEXT);
        }
    }

    #[test]
    fn no_init_meets_the_next_life() {
        loom::model(|| {
            let machine = machine();
            let survivors = [(); 2].map(|()| {
                let machine = Arc::clone(&machine);
                thread::spawn(move || survivor(&machine))
            });
            comes_back(&machine);
            for survivor in survivors {
                survivor.join().expect("no panic");
            }
            assert_eq!(machine.inits.load(Ordering::SeqCst), 0);
            let (state, life) = machine.standing.get();
            let is_back = state == CpuState::Parked || (state, life) == (CpuState::Running, NEXT);
            assert!(is_back, "{state:?} in {life:?}");
        });
    }

    #[test]
    fn one_that_never_comes_gets_one_init() {
        loom::model(|| {
            let machine = machine();
            let other = Arc::clone(&machine);
            let other = thread::spawn(move || survivor(&other));
            survivor(&machine);
            other.join().expect("no panic");
            assert_eq!(machine.inits.load(Ordering::SeqCst), 1);
            assert_eq!(machine.standing.state(), CpuState::Restarting);
        });
    }
}
