//! Steps the state machine of recovery.
//!
//! At each tick and doorbell of each CPU, one of them at a time. A step that changed something is
//! followed by another, a few times, so that a phase that nobody has to wait for takes no tick.
//!
//! # Invariants
//! 1. The machine is stepped under a try-lock: a CPU that finds it taken has nothing to do.
//! 2. The pulse is a thread of server priority. A kernel whose threads do not get to run is not
//!    alive, though its interrupts be served.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use cell::Epoch;
use cell::parameters::Discard;
use cell::public::{HEADER_OFFSET, PublicHeader};
use recovery::{CellRecovery, HintReason, Pace, Patience, Start, Timing};

use super::surroundings::KernelSurroundings;
use crate::cpu::timer;
use crate::lock::Lock;
use crate::memory::careful;
use crate::own::own;
use crate::thread::{self, Priority, SpawnError};
use crate::{clock, hints};

/// Steps at one tick or doorbell.
const STEPS_MAX: usize = 6;

/// What a cell that cries wolf accuses the others of.
const WOLF: HintReason = HintReason::RpcTimedOut;

static MACHINE: Lock<CellRecovery> = Lock::new(CellRecovery::new());
static PATIENCE: Lock<Patience> = Lock::new(Patience::new());

/// Raised by the pulse.
static PULSE: AtomicU64 = AtomicU64::new(0);

/// Starts the machine, after the cell joined in `joined`.
///
/// # Errors
/// As for [`thread::spawn`].
pub fn start(joined: Epoch) -> Result<(), SpawnError> {
    let own = own();
    let start = Start {
        cell: own.cell,
        incarnation: own.incarnation,
        joined,
        timing: Timing::from_settings(&own.settings),
        policy: Discard::from_raw(own.settings.discard),
    };
    thread::spawn("pulse", Priority::Server, || pulse())?;
    MACHINE.lock().start(start, &mut KernelSurroundings);
    Ok(())
}

/// Steps the machine. Interrupt level.
pub fn step() {
    let Some(mut machine) = MACHINE.try_lock() else {
        return;
    };
    cry(&mut machine);
    machine.set_timing(timing_now());
    for _ in 0..STEPS_MAX {
        if machine.step(&mut KernelSurroundings) != Pace::Advanced {
            break;
        }
    }
}

/// The spans that fit the host as it is now.
fn timing_now() -> Timing {
    let now = clock::now();
    let mut patience = PATIENCE.lock();
    patience.note(timer::take_lateness(), now);
    let stall = patience.stall(now).as_nanos() as u64;
    own().header().stall.store(stall, Ordering::Relaxed);
    patience.timing(&own().settings, stall_of_others(), now)
}

/// The longest stall that another live cell reports.
fn stall_of_others() -> Duration {
    const OFFSET: u64 = HEADER_OFFSET + core::mem::offset_of!(PublicHeader, stall) as u64;
    let (_, live) = own().machine.membership.current();
    let report = |peer| {
        let reader = careful::reader_of_current(peer);
        reader.word(reader.public(OFFSET)).unwrap_or(0)
    };
    let longest = live.without(own().cell).iter().map(report).max();
    Duration::from_nanos(longest.unwrap_or(0))
}

/// What the pulse has counted.
pub(super) fn pulse_count() -> u64 {
    PULSE.load(Ordering::Relaxed)
}

/// Beats at every second tick or so: who sleeps for a whole one is late for the next.
fn pulse() -> ! {
    let tick = Duration::from_micros(own().settings.tick_microseconds.into());
    loop {
        PULSE.fetch_add(1, Ordering::Relaxed);
        thread::sleep(tick);
    }
}

/// Accuses a healthy cell, if that fault was ordered (`sw.cry_wolf`).
fn cry(machine: &mut CellRecovery) {
    let (_, live) = machine.membership();
    if let Some(suspect) = hints::next_false_alarm(live, clock::now()) {
        machine.cry_wolf(suspect, WOLF);
    }
}
