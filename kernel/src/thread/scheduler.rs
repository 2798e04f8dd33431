//! The scheduler over the cell's CPUs.
//!
//! One table under one lock: a cell has few CPUs. Any thread may run on any CPU.
//!
//! # Invariants
//! 1. A thread's context is complete before the table says that it may run elsewhere: states change
//!    in [`switch_from`], on the interrupt stack, after the entry stub has saved everything.
//! 2. IST 1 points to the context of what the CPU runs whenever it leaves [`switch_from`].
//! 3. A CPU is in the idle set only if it found nobody ready, under the lock; so whoever makes a
//!    thread ready sees either the CPU in the set, or the CPU sees the thread.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use cell::Instant;

use crate::cpu::interrupts::{self, InterruptsOff};
use crate::cpu::per_cpu::{IDLE, PerCpu};
use crate::cpu::{gdt, per_cpu};
use crate::lock::Lock;
use crate::thread::context::{Context, ContextCell};
use crate::thread::idle_set::IdleSet;
use crate::thread::run_queue::{Intent, Priority, State, THREADS_MAX, Table, ThreadId, Wakeup};
use crate::{clock, hooks, hypercall, panic};

static TABLE: Lock<Table> = Lock::new(Table::new());

static CONTEXTS: [ContextCell; THREADS_MAX] = [const { ContextCell::new() }; THREADS_MAX];

/// The bounds of each thread's stack, so that an overflow is found where no guard page can be.
static STACK_BOTTOMS: [AtomicU64; THREADS_MAX] = [const { AtomicU64::new(0) }; THREADS_MAX];

static IDLE_SET: IdleSet = IdleSet::new();

/// Chooses what the CPU resumes after an interrupt over `context`. Interrupt level.
pub fn switch_from(cpu: &'static PerCpu, context: *mut Context, intent: Intent) -> *mut Context {
    let current = running(cpu);
    check_stack(current, context);
    let now = clock::now();
    let mut table = TABLE.lock();
    let intent = match current {
        Some(thread) if hooks::ends_program(thread, table.name(thread), now) => Intent::Exit,
        _ => intent,
    };
    let next = table.next(current, intent);
    if next.is_none() {
        IDLE_SET.enter(cpu.index());
    } else {
        IDLE_SET.leave(cpu.index());
    }
    drop(table);
    if next == current {
        return context;
    }
    cpu.switches.fetch_add(1, Ordering::Relaxed);
    if let Some(thread) = next {
        hooks::program_runs(thread, now);
    }
    let cell = match next {
        Some(thread) => &CONTEXTS[thread.index()],
        None => &cpu.idle,
    };
    cpu.current.store(
        next.map_or(IDLE, |thread| thread.index() as u32),
        Ordering::Relaxed,
    );
    gdt::set_context_end(cpu, cell.end());
    cell.get()
}

fn running(cpu: &PerCpu) -> Option<ThreadId> {
    ThreadId::new(cpu.current.load(Ordering::Relaxed) as usize)
}

/// Ends the cell if a thread left its stack. Behind NPT a guard page finds that earlier.
fn check_stack(current: Option<ThreadId>, context: *mut Context) {
    let Some(thread) = current else { return };
    // SAFETY: the context of what this CPU interrupted, complete, and nobody else's until the table
    // says otherwise.
    let context = unsafe { &*context };
    if context.rsp < STACK_BOTTOMS[thread.index()].load(Ordering::Relaxed) {
        panic::stack_overflow(context);
    }
}

/// The thread that runs here; `None` on the idle thread.
pub fn current() -> Option<ThreadId> {
    let _interrupts = InterruptsOff::new();
    running(per_cpu::this())
}

/// Wakes a thread. Fit for interrupt level.
pub fn wake(thread: ThreadId) {
    let woken = TABLE.lock().wake(thread);
    if let Some(priority) = woken {
        find_cpu(priority);
    }
}

/// Sees to it that somebody runs a thread that became ready.
fn find_cpu(priority: Priority) {
    let off = InterruptsOff::new();
    let cpu = per_cpu::this();
    let at_interrupt_level = cpu.interrupt_level.load(Ordering::Relaxed) != 0;
    let preempts = running(cpu).is_none_or(|thread| TABLE.lock().priority(thread) < priority);
    if preempts && at_interrupt_level {
        return; // The switch at the end of this interrupt takes it.
    }
    if let Some(index) = IDLE_SET.take_other_than(cpu.index()) {
        // A refusal would mean that the CPU is not the cell's any more; the next tick of any other
        // one takes the thread.
        let _ = hypercall::wake(index);
    } else if preempts && running(cpu).is_some() {
        drop(off);
        if interrupts::enabled() {
            give_away(Intent::Continue);
        }
    }
}

/// Wakes everybody whose instant came. Interrupt level, at each tick.
pub fn expire(now: Instant) {
    let woken = TABLE.lock().expire(now);
    // This CPU takes one at the end of the tick; each further one needs another CPU.
    for _ in 1..woken {
        let Some(index) = IDLE_SET.take_other_than(per_cpu::this().index()) else {
            break;
        };
        let _ = hypercall::wake(index);
    }
}

/// Whether somebody waits for a CPU.
pub fn is_somebody_ready() -> bool {
    load() > 0
}

/// How many threads wait for a CPU.
pub fn load() -> usize {
    TABLE.lock().ready_count()
}

/// Gives the CPU away as `intent` says; returns when the thread runs again.
pub(super) fn give_away(intent: Intent) {
    let _interrupts = InterruptsOff::new();
    let cpu = per_cpu::this();
    assert!(
        cpu.interrupt_level.load(Ordering::Relaxed) == 0,
        "interrupt level never blocks"
    );
    cpu.set_intent(intent);
    interrupts::switch();
}

/// Lets other threads of the same priority go first.
pub fn yield_now() {
    give_away(Intent::Yield);
}

/// Waits for [`wake`], or for the instant `until`. May return early: whoever waits checks its
/// condition.
///
/// # Panics
/// At interrupt level, and on an idle thread: neither may wait.
pub fn block(until: Option<Instant>) -> Wakeup {
    let thread = current().expect("an idle thread never blocks");
    if until.is_some_and(|until| until <= clock::now()) {
        yield_now();
        return Wakeup::TimedOut;
    }
    give_away(Intent::Block(until));
    TABLE.lock().wakeup(thread)
}

/// Sleeps until `until`, wake-ups or not. Ticks are the grain.
pub fn sleep_until(until: Instant) {
    while clock::now() < until {
        block(Some(until));
    }
}

/// Sleeps for `span`.
pub fn sleep(span: Duration) {
    sleep_until(clock::now() + span);
}

/// Takes a slot for a thread; it runs after [`place`] and [`wake`].
pub(super) fn create(name: &'static str, priority: Priority) -> Option<ThreadId> {
    TABLE.lock().create(name, priority)
}

/// Gives a thread that never ran its first context, and tells where its stack begins.
pub(super) fn place(thread: ThreadId, context: Context, stack_bottom: u64) {
    STACK_BOTTOMS[thread.index()].store(stack_bottom, Ordering::Relaxed);
    // SAFETY: the thread was created and never woken, so no CPU runs it and none may resume it
    // (context, invariant 1).
    unsafe { CONTEXTS[thread.index()].get().write(context) };
}

/// Calls `show` with name, priority and state of every thread.
pub fn list(mut show: impl FnMut(&'static str, Priority, State)) {
    // Shown after the lock is open again: whoever shows may need locks that come before this one.
    let mut copy = [None; THREADS_MAX];
    for (slot, thread) in copy.iter_mut().zip(TABLE.lock().list()) {
        *slot = Some(thread);
    }
    for (name, priority, state) in copy.into_iter().flatten() {
        show(name, priority, state);
    }
}
