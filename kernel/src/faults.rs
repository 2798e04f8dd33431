//! Faults that this cell injects into itself when the host asks for it.
//!
//! # Protocol
//! The host fills the fault request of the public area and raises its sequence number last. Each
//! tick looks there. A request that waits for an event is armed: the event counts down as it is
//! traced, so that the fault hits in the middle of what the event tells of.
//!
//! # Invariants
//! 1. A request is carried out at most once (compare-and-exchange on the sequence number that was
//!    done last).
//! 2. A request that an earlier life of the cell left behind is not carried out.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use cell::fault::{Attributes, FaultRequest, InnerFault};
use cell::public::FAULT_OFFSET;
use cell::trace::Event;
use cell::{CellSet, Incarnation};

use crate::calls::rings;
use crate::clock::Wrong;
use crate::memory::window;
use crate::own::own;
use crate::{clock, hints, hooks, misdeeds, thread, trace};

/// What is injected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injection {
    /// The fault.
    pub fault: InnerFault,
    /// See [`InnerFault`].
    pub argument: u64,
    /// For everything that is drawn at random.
    pub seed: u64,
    /// Of what passes a hook, which are struck.
    pub attributes: Attributes,
    /// For messages: the cells that they go to; empty for all.
    pub to: CellSet,
    /// For messages: the number of their operation; 0 for all.
    pub operation: u32,
    /// For threads: their name, as [`FaultRequest::program`] has it.
    pub program: [u64; 2],
    /// For threads: so long they run first, in nanoseconds.
    pub run_time: u64,
}

/// The sequence number of the request that was carried out last.
static DONE: AtomicU32 = AtomicU32::new(0);
/// The sequence number of the request that waits for an event.
static ARMED: AtomicU32 = AtomicU32::new(0);
/// The event that it waits for; 0 for none.
static AWAITED: AtomicU32 = AtomicU32::new(0);
/// How many more of it.
static REMAINING: AtomicU64 = AtomicU64::new(0);
/// The awaited event came.
static DUE: AtomicBool = AtomicBool::new(false);

fn request() -> &'static FaultRequest {
    // SAFETY: a page of the own public area, mapped for as long as the cell lives, made of atomics
    // that any bit pattern fits; the host writes it.
    unsafe { &*window::pointer::<FaultRequest>(own().public(FAULT_OFFSET)) }
}

/// Forgets what earlier lives left behind (invariant 2). Boot CPU, once.
pub fn set_up() {
    if own().incarnation > Incarnation(1) {
        DONE.store(
            request().sequence.load(Ordering::Acquire),
            Ordering::Relaxed,
        );
    }
}

/// Asks for a fault of this cell, as the host would, with nothing said beyond its argument.
pub fn ask(fault: InnerFault, argument: u64, seed: u64) {
    let request = request();
    request.fault.store(fault as u32, Ordering::Relaxed);
    request.argument.store(argument, Ordering::Relaxed);
    request.seed.store(seed, Ordering::Relaxed);
    request.at.store(0, Ordering::Relaxed);
    request.after_event.store(0, Ordering::Relaxed);
    for word in [&request.probability, &request.interval, &request.operation] {
        word.store(0, Ordering::Relaxed);
    }
    let [first, second] = &request.program;
    for word in [
        &request.space,
        &request.to,
        first,
        second,
        &request.run_time,
    ] {
        word.store(0, Ordering::Relaxed);
    }
    request.sequence.fetch_add(1, Ordering::Release);
}

/// Looks for a request. Interrupt level.
pub fn at_tick() {
    let request = request();
    let Some((sequence, fault)) = request.pending(DONE.load(Ordering::Acquire)) else {
        return;
    };
    if clock::now().0 < request.at.load(Ordering::Relaxed) {
        return;
    }
    let awaited = request.after_event.load(Ordering::Relaxed);
    if ARMED.swap(sequence, Ordering::AcqRel) != sequence {
        // Takes the place of a request that still waited.
        AWAITED.store(0, Ordering::Release);
        DUE.store(false, Ordering::Release);
        let count = request.after_count.load(Ordering::Relaxed).max(1);
        REMAINING.store(count.into(), Ordering::Relaxed);
        AWAITED.store(awaited, Ordering::Release);
    }
    if awaited == 0 || DUE.load(Ordering::Acquire) {
        carry_out(sequence, fault);
    }
}

/// Counts down to the awaited event. Called for every event that this cell traces; a fault that is
/// due at once, and needs nothing, happens right here.
pub fn at_event(event: Event) {
    let awaited = AWAITED.load(Ordering::Acquire);
    if awaited == 0 || awaited != event as u32 {
        return;
    }
    if REMAINING.fetch_sub(1, Ordering::AcqRel) != 1 {
        return;
    }
    AWAITED.store(0, Ordering::Release);
    DUE.store(true, Ordering::Release);
    let pending = request().pending(DONE.load(Ordering::Acquire));
    if let Some((sequence, fault @ (InnerFault::Panic | InnerFault::InterruptsOff))) = pending
        && sequence == ARMED.load(Ordering::Acquire)
    {
        carry_out(sequence, fault);
    }
}

/// Tells that a fault which waits at a hook was found to have struck. Fit for interrupt level.
pub fn struck(fault: InnerFault) {
    static TIMES: AtomicU64 = AtomicU64::new(0);
    let times = TIMES.fetch_add(1, Ordering::Relaxed) + 1;
    if times.is_power_of_two() {
        trace::record(Event::Struck, fault as u64, times);
    }
}

fn carry_out(sequence: u32, fault: InnerFault) {
    let done = DONE.load(Ordering::Acquire);
    let is_mine = DONE.compare_exchange(done, sequence, Ordering::AcqRel, Ordering::Relaxed);
    if done == sequence || is_mine.is_err() {
        return;
    }
    DUE.store(false, Ordering::Release);
    let injection = injection(fault);
    trace::record(Event::Injected, fault as u64, injection.argument);
    inject(injection);
}

/// What the request says of a fault.
fn injection(fault: InnerFault) -> Injection {
    let request = request();
    let [first, second] = &request.program;
    let argument = request.argument.load(Ordering::Relaxed);
    Injection {
        fault,
        argument,
        seed: request.seed.load(Ordering::Relaxed),
        attributes: Attributes {
            probability: request.probability.load(Ordering::Relaxed),
            interval: request.interval.load(Ordering::Relaxed),
            space: request.space.load(Ordering::Relaxed),
            ..Attributes::new(argument.max(1))
        },
        to: CellSet(request.to.load(Ordering::Relaxed)),
        operation: request.operation.load(Ordering::Relaxed),
        program: [first, second].map(|word| word.load(Ordering::Relaxed)),
        run_time: request.run_time.load(Ordering::Relaxed),
    }
}

fn inject(injection: Injection) {
    match injection.fault {
        InnerFault::Panic => panic!("fault injection: sw.panic"),
        InnerFault::InterruptsOff => misdeeds::stop_this_cpu(),
        InnerFault::FastClock => clock::go_wrong(Wrong::Fast(injection.argument)),
        InnerFault::SlowClock => clock::go_wrong(Wrong::Slow(injection.argument)),
        InnerFault::ClockStall => clock::go_wrong(Wrong::Stalled(match injection.argument {
            0 => Duration::MAX,
            milliseconds => Duration::from_millis(milliseconds),
        })),
        InnerFault::ClockSkew => {
            clock::go_wrong(Wrong::Ahead(Duration::from_micros(injection.argument)));
        }
        InnerFault::Loop
        | InnerFault::StackOverflow
        | InnerFault::WildWrite
        | InnerFault::IpiStorm
        | InnerFault::PortReset => start(injection),
        InnerFault::CryWolf => hints::order_false_alarms(injection.argument),
        InnerFault::RpcDrop
        | InnerFault::RpcDuplicate
        | InnerFault::RpcCorrupt
        | InnerFault::RpcDelay
        | InnerFault::RpcReorder => rings::order_mischief(injection),
        InnerFault::InterruptLost => hooks::lose_interrupts(injection),
        InnerFault::ProgramKill => hooks::kill_programs(injection),
    }
}

/// Injects in threads of the highest priority: what takes long must not take the ticks with it. A
/// loop needs one thread per CPU, or the cell would go on with the others.
fn start(injection: Injection) {
    let is_loop = injection.fault == InnerFault::Loop;
    for _ in 0..if is_loop { own().cpus_count } else { 1 } {
        start_thread(injection);
    }
}

fn start_thread(injection: Injection) {
    let started = thread::spawn("fault", thread::Priority::Recovery, move || {
        misdeeds::commit(injection);
    });
    if let Err(error) = started {
        log::warn!("{}: no thread: {error:?}", injection.fault.name());
    }
}
