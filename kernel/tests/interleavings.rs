//! Gate, waiters and idle CPUs under every interleaving of two or three CPUs, explored by loom.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p kernel --test interleavings --release`, in a
//! target directory of its own lest the flag rebuild everything.
//!
//! The files under test are taken in one by one; the kernel around them is not built (see its
//! `lib.rs`). What it does under its locks is done here under loom's, with the same run queue. A
//! thread that blocks and that nobody wakes is a deadlock, which loom reports.
//!
//! # Not guaranteed
//! At most [`PREEMPTIONS`] times a CPU is stopped that could go on.

#![cfg(loom)]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "files of the kernel are used in part; a test may stop at a broken assumption"
)]

#[path = "../src/atomic.rs"]
mod atomic;
#[path = "../src/sharing/gate.rs"]
mod gate;
#[path = "../src/thread"]
mod thread {
    pub mod idle_set;
    pub mod run_queue;
    pub mod waiters;
}

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};

use atomic::{AtomicU64, Ordering};
use gate::Gate;
use thread::idle_set::IdleSet;
use thread::run_queue::{Intent, Priority, State, Table, ThreadId, Wakeup};
use thread::waiters::{Ended, Waiters};

const PREEMPTIONS: usize = 3;

fn explore(program: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(program);
}

fn spawn<T: Send + 'static>(
    shared: &Arc<T>,
    program: impl FnOnce(&T) + 'static,
) -> loom::thread::JoinHandle<()>
where
    T: Sync,
{
    let shared = Arc::clone(shared);
    loom::thread::spawn(move || program(&shared))
}

fn join<const THREADS: usize>(others: [loom::thread::JoinHandle<()>; THREADS]) {
    for other in others {
        other.join().unwrap();
    }
}

/// A gate and what lies behind it. Loom reports accesses to it that nothing keeps apart.
#[derive(Default)]
struct Guarded {
    gate: Gate,
    memory: UnsafeCell<u64>,
}

// SAFETY: the gate keeps accesses apart; that it does is what loom checks.
unsafe impl Sync for Guarded {}

impl Guarded {
    /// Reads remote memory if the gate lets it.
    fn visit(&self) -> bool {
        let Some(_pass) = self.gate.enter() else {
            return false;
        };
        // SAFETY: loom checks that nobody writes meanwhile.
        self.memory.with(|memory| unsafe { *memory });
        true
    }

    /// Discards, as a home may once the gate is closed and empty. Whether it was.
    fn discard(&self) -> bool {
        self.gate.close();
        let is_empty = self.gate.is_empty();
        if is_empty {
            // SAFETY: loom checks that nobody reads meanwhile.
            self.memory.with_mut(|memory| unsafe { *memory += 1 });
        }
        is_empty
    }
}

#[test]
fn nobody_is_behind_a_gate_that_is_closed_and_empty() {
    explore(|| {
        let guarded = Arc::new(Guarded::default());
        let visitors = [(); 2].map(|()| spawn(&guarded, |guarded| _ = guarded.visit()));
        guarded.discard();
        assert!(!guarded.visit(), "closed");
        join(visitors);
        assert!(guarded.gate.is_empty(), "every pass came back");
    });
}

#[test]
fn a_gate_that_opens_again_lets_through_and_keeps_count() {
    explore(|| {
        let guarded = Arc::new(Guarded::default());
        let visitor = spawn(&guarded, |guarded| {
            guarded.visit();
            guarded.visit();
        });
        guarded.discard();
        guarded.gate.open();
        assert!(guarded.visit());
        visitor.join().unwrap();
        assert!(guarded.visit() && guarded.gate.is_empty());
        assert!(guarded.discard(), "the count is right");
    });
}

/// Threads that take items out of a counter, each on a CPU of its own.
struct Machine {
    table: Mutex<Table>,
    changed: Condvar,
    waiters: Waiters,
    items: AtomicU64,
}

impl Machine {
    /// A machine and its running threads.
    fn new<const THREADS: usize>() -> (Arc<Self>, [ThreadId; THREADS]) {
        let mut table = Table::new();
        let threads = [(); THREADS].map(|()| {
            let thread = table.create("test", Priority::Server).unwrap();
            table.wake(thread);
            table.next(None, Intent::Continue).unwrap()
        });
        let machine = Arc::new(Self {
            table: Mutex::new(table),
            changed: Condvar::new(),
            waiters: Waiters::default(),
            items: AtomicU64::new(0),
        });
        (machine, threads)
    }

    fn block(&self, thread: ThreadId) -> Wakeup {
        let mut table = self.table.lock().unwrap();
        let mut next = table.next(Some(thread), Intent::Block(None));
        // Another thread that this CPU would go on with finds itself running on its own.
        while next != Some(thread) && state(&table, thread) != State::Running {
            if state(&table, thread) == State::Ready {
                next = table.next(None, Intent::Continue);
            } else {
                table = self.changed.wait(table).unwrap();
            }
        }
        Wakeup::Woken
    }

    fn wake(&self, thread: ThreadId) {
        self.table.lock().unwrap().wake(thread);
        self.changed.notify_all();
    }

    fn take_item(&self) -> Option<()> {
        let one_less = |items: u64| items.checked_sub(1);
        let order = Ordering::SeqCst;
        self.items.fetch_update(order, order, one_less).ok()?;
        Some(())
    }

    /// Waits for an item as the kernel's wait queue does.
    fn wait(&self, thread: ThreadId, block: impl FnMut() -> Wakeup) -> bool {
        match self.waiters.wait(thread, || self.take_item(), block) {
            Ended::Met(()) => true,
            Ended::MetForAnother(()) => {
                self.wake_one();
                true
            }
            Ended::TimedOut => false,
        }
    }

    fn wait_without_end(&self, thread: ThreadId) {
        assert!(self.wait(thread, || self.block(thread)));
    }

    fn wake_one(&self) {
        if let Some(thread) = self.waiters.take_one() {
            self.wake(thread);
        }
    }

    fn put_and_wake_one(&self) {
        self.items.fetch_add(1, Ordering::SeqCst);
        self.wake_one();
    }
}

fn state(table: &Table, thread: ThreadId) -> State {
    let (_, _, state) = table.list().nth(thread.index()).unwrap();
    state
}

#[test]
fn a_waiter_is_not_missed() {
    explore(|| {
        let (machine, [thread]) = Machine::new();
        let waiter = spawn(&machine, move |machine| machine.wait_without_end(thread));
        machine.put_and_wake_one();
        waiter.join().unwrap();
    });
}

#[test]
fn no_waiter_is_missed_when_all_are_woken() {
    explore(|| {
        let (machine, threads) = Machine::new::<2>();
        let waiters =
            threads.map(|thread| spawn(&machine, move |machine| machine.wait_without_end(thread)));
        machine.items.fetch_add(2, Ordering::SeqCst);
        machine
            .waiters
            .take_all()
            .for_each(|thread| machine.wake(thread));
        join(waiters);
    });
}

#[test]
fn no_item_is_left_while_somebody_waits_for_one() {
    explore(|| {
        let (machine, threads) = Machine::new::<2>();
        let waiters =
            threads.map(|thread| spawn(&machine, move |machine| machine.wait_without_end(thread)));
        machine.put_and_wake_one();
        machine.put_and_wake_one();
        join(waiters);
    });
}

#[test]
fn an_item_is_not_lost_with_a_waiter_whose_time_is_over() {
    explore(|| {
        let (machine, [hasty, patient]) = Machine::new();
        let other = spawn(&machine, move |machine| {
            // Its own item, if the patient one already has the first.
            if machine.wait(hasty, || Wakeup::TimedOut) {
                machine.put_and_wake_one();
            }
        });
        let waiter = spawn(&machine, move |machine| machine.wait_without_end(patient));
        machine.put_and_wake_one();
        other.join().unwrap();
        waiter.join().unwrap();
    });
}

/// A scheduler: its table, and the CPUs that found it empty.
struct Scheduler {
    table: Mutex<Table>,
    idle: IdleSet,
}

impl Scheduler {
    /// A scheduler of `THREADS` blocked threads.
    fn new<const THREADS: usize>() -> (Arc<Self>, [ThreadId; THREADS]) {
        let mut table = Table::new();
        let threads = [(); THREADS].map(|()| table.create("test", Priority::Server).unwrap());
        let scheduler = Self {
            table: Mutex::new(table),
            idle: IdleSet::new(),
        };
        (Arc::new(scheduler), threads)
    }

    /// What `cpu` does at the end of an interrupt; whether it found a thread.
    fn switch(&self, cpu: usize) -> bool {
        let mut table = self.table.lock().unwrap();
        let found = table.next(None, Intent::Continue).is_some();
        if found {
            self.idle.leave(cpu);
        } else {
            self.idle.enter(cpu);
        }
        found
    }

    /// Makes `thread` ready; the CPU that has to be told.
    fn wake(&self, own: usize, thread: ThreadId) -> Option<usize> {
        self.table.lock().unwrap().wake(thread);
        self.idle.take_other_than(own)
    }
}

#[test]
fn a_ready_thread_meets_a_cpu_that_goes_idle() {
    explore(|| {
        let (scheduler, [thread]) = Scheduler::new();
        let found = Arc::new(AtomicU64::new(0));
        let other = loom::thread::spawn({
            let (scheduler, found) = (Arc::clone(&scheduler), Arc::clone(&found));
            move || found.store(u64::from(scheduler.switch(1)), Ordering::SeqCst)
        });
        let told = scheduler.wake(0, thread);
        other.join().unwrap();
        assert!(told == Some(1) || found.load(Ordering::SeqCst) == 1);
    });
}

#[test]
fn cpus_that_come_and_go_at_once_are_both_noted() {
    explore(|| {
        let (scheduler, []) = Scheduler::new();
        let others = [1, 2].map(|cpu| spawn(&scheduler, move |it| _ = it.switch(cpu)));
        join(others);
        let leaver = spawn(&scheduler, |it| it.idle.leave(1));
        scheduler.idle.enter(3);
        leaver.join().unwrap();
        let mut told = [(); 3].map(|()| scheduler.idle.take_other_than(0));
        told.sort_unstable();
        assert_eq!(told, [None, Some(2), Some(3)]);
    });
}

#[test]
fn two_ready_threads_never_count_on_one_sleeper() {
    explore(|| {
        let (scheduler, [one, two]) = Scheduler::new();
        scheduler.switch(1);
        scheduler.switch(2);
        let told = Arc::new(AtomicU64::new(0));
        let other = loom::thread::spawn({
            let (scheduler, told) = (Arc::clone(&scheduler), Arc::clone(&told));
            move || told.store(scheduler.wake(3, one).unwrap() as u64, Ordering::SeqCst)
        });
        let mine = scheduler.wake(0, two).unwrap();
        other.join().unwrap();
        assert_ne!(mine as u64, told.load(Ordering::SeqCst));
    });
}
