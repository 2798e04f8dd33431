//! Who is ready, who sleeps, and who is next: the scheduler as a table, without a machine.
//!
//! # Invariants
//! 1. A thread is in exactly one state; it is in a queue if and only if it is `Ready`, and there
//!    once.
//! 2. A wake-up that finds its thread not blocked is kept as a token, and the thread's next block
//!    returns at once. So a wake-up between a check and a block is never lost.
//! 3. A thread never waits behind one of a lower priority.
//!
//! # Not guaranteed
//! That a wake-up was meant for the present thread of a slot, or that what it told of still holds:
//! whoever waits checks its condition again.

use cell::Instant;

/// Threads that one cell can have at once. A wait queue is one 64-bit word.
pub const THREADS_MAX: usize = 64;

/// The slot of a thread, below [`THREADS_MAX`].
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ThreadId(u8);

impl ThreadId {
    /// Checks a number; `None` if no thread can have it.
    pub const fn new(number: usize) -> Option<Self> {
        if number < THREADS_MAX {
            Some(Self(number as u8))
        } else {
            None
        }
    }

    /// The number, for indexing.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who goes first. The higher ones run until they block; equals take turns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Priority {
    /// Work that waits for everything else: the shell, measurements.
    Background = 0,
    /// The cell's workers.
    Worker = 1,
    /// Serves calls of other cells.
    Server = 2,
    /// Keeps the cell going: recovery, starting, stopping.
    Recovery = 3,
}

const PRIORITIES: usize = 4;

const NEVER: Instant = Instant(u64::MAX);

/// How a block ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wakeup {
    /// Somebody woke the thread.
    Woken,
    /// Nobody did before the deadline.
    TimedOut,
}

/// What becomes of the thread that a CPU runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// It goes on unless somebody more urgent is ready.
    Continue,
    /// It lets its equals go first.
    Yield,
    /// It waits for a wake-up, or for the instant.
    Block(Option<Instant>),
    /// It is done.
    Exit,
}

/// The state of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nobody's.
    Free,
    /// In a queue.
    Ready,
    /// On a CPU.
    Running,
    /// Waiting for a wake-up, or for the instant.
    Blocked(Option<Instant>),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    state: State,
    priority: Priority,
    name: &'static str,
    next: Option<ThreadId>,
    /// A wake-up came while the thread was not blocked.
    token: bool,
    wakeup: Wakeup,
}

const FREE: Entry = Entry {
    state: State::Free,
    priority: Priority::Background,
    name: "",
    next: None,
    token: false,
    wakeup: Wakeup::Woken,
};

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    first: Option<ThreadId>,
    last: Option<ThreadId>,
}

/// All threads of a cell.
#[derive(Debug)]
pub struct Table {
    entries: [Entry; THREADS_MAX],
    queues: [Queue; PRIORITIES],
    ready_count: usize,
    /// No blocked thread's instant comes sooner: most ticks look no further.
    earliest: Instant,
}

impl Table {
    /// No threads.
    pub const fn new() -> Self {
        Self {
            entries: [FREE; THREADS_MAX],
            queues: [const {
                Queue {
                    first: None,
                    last: None,
                }
            }; PRIORITIES],
            ready_count: 0,
            earliest: NEVER,
        }
    }

    /// Takes a slot for a thread that is blocked until its first wake-up.
    pub fn create(&mut self, name: &'static str, priority: Priority) -> Option<ThreadId> {
        let number = self
            .entries
            .iter()
            .position(|entry| entry.state == State::Free)?;
        self.entries[number] = Entry {
            state: State::Blocked(None),
            priority,
            name,
            ..FREE
        };
        ThreadId::new(number)
    }

    /// How many threads are ready.
    pub const fn ready_count(&self) -> usize {
        self.ready_count
    }

    /// The priority of a thread.
    pub const fn priority(&self, thread: ThreadId) -> Priority {
        self.entries[thread.index()].priority
    }

    /// The name of a thread.
    pub const fn name(&self, thread: ThreadId) -> &'static str {
        self.entries[thread.index()].name
    }

    /// How the last block of a thread ended.
    pub const fn wakeup(&self, thread: ThreadId) -> Wakeup {
        self.entries[thread.index()].wakeup
    }

    /// Name, priority and state of every thread.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, Priority, State)> {
        let used = self
            .entries
            .iter()
            .filter(|entry| entry.state != State::Free);
        used.map(|entry| (entry.name, entry.priority, entry.state))
    }

    /// Wakes a thread; its priority if it became ready by that.
    pub fn wake(&mut self, thread: ThreadId) -> Option<Priority> {
        match self.entries[thread.index()].state {
            State::Blocked(_) => {
                self.unblock(thread, Wakeup::Woken);
                Some(self.priority(thread))
            }
            State::Ready | State::Running => {
                self.entries[thread.index()].token = true;
                None
            }
            State::Free => None,
        }
    }

    /// Wakes every thread whose instant came; how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        if now < self.earliest {
            return 0;
        }
        let mut woken = 0;
        self.earliest = NEVER;
        for thread in (0..THREADS_MAX).filter_map(ThreadId::new) {
            match self.entries[thread.index()].state {
                State::Blocked(Some(until)) if until <= now => {
                    self.unblock(thread, Wakeup::TimedOut);
                    woken += 1;
                }
                State::Blocked(Some(until)) => self.earliest = self.earliest.min(until),
                _ => {}
            }
        }
        woken
    }

    /// Decides what a CPU runs next, after what `current` asks for. `None`: nobody is ready.
    pub fn next(&mut self, current: Option<ThreadId>, intent: Intent) -> Option<ThreadId> {
        let Some(thread) = current else {
            return self.take();
        };
        match intent {
            Intent::Continue => match self.most_urgent() {
                Some(urgent) if urgent > self.priority(thread) => {
                    // It did not use up its turn, so it is the first of its equals to go on.
                    self.put_first(thread);
                    self.take()
                }
                _ => Some(thread),
            },
            Intent::Yield => match self.most_urgent() {
                Some(urgent) if urgent >= self.priority(thread) => {
                    self.put_last(thread);
                    self.take()
                }
                _ => Some(thread),
            },
            Intent::Block(until) => self.block(thread, until),
            Intent::Exit => {
                self.entries[thread.index()] = FREE;
                self.take()
            }
        }
    }

    fn block(&mut self, thread: ThreadId, until: Option<Instant>) -> Option<ThreadId> {
        let entry = &mut self.entries[thread.index()];
        if entry.token {
            entry.token = false;
            entry.wakeup = Wakeup::Woken;
            return Some(thread);
        }
        entry.state = State::Blocked(until);
        self.earliest = self.earliest.min(until.unwrap_or(NEVER));
        self.take()
    }

    fn unblock(&mut self, thread: ThreadId, wakeup: Wakeup) {
        self.entries[thread.index()].wakeup = wakeup;
        self.put_last(thread);
    }

    fn most_urgent(&self) -> Option<Priority> {
        const DESCENDING: [Priority; PRIORITIES] = [
            Priority::Recovery,
            Priority::Server,
            Priority::Worker,
            Priority::Background,
        ];
        DESCENDING
            .into_iter()
            .find(|&priority| self.queues[priority as usize].first.is_some())
    }

    fn put_last(&mut self, thread: ThreadId) {
        let entry = &mut self.entries[thread.index()];
        entry.state = State::Ready;
        entry.next = None;
        let queue = &mut self.queues[entry.priority as usize];
        match queue.last.replace(thread) {
            Some(last) => self.entries[last.index()].next = Some(thread),
            None => queue.first = Some(thread),
        }
        self.ready_count += 1;
    }

    fn put_first(&mut self, thread: ThreadId) {
        let entry = &mut self.entries[thread.index()];
        entry.state = State::Ready;
        let queue = &mut self.queues[entry.priority as usize];
        entry.next = queue.first.replace(thread);
        if queue.last.is_none() {
            queue.last = Some(thread);
        }
        self.ready_count += 1;
    }

    fn take(&mut self) -> Option<ThreadId> {
        let queue = &mut self.queues[self.most_urgent()? as usize];
        let thread = queue.first?;
        let entry = &mut self.entries[thread.index()];
        queue.first = entry.next.take();
        if queue.first.is_none() {
            queue.last = None;
        }
        entry.state = State::Running;
        self.ready_count -= 1;
        Some(thread)
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ready(table: &mut Table, priority: Priority) -> ThreadId {
        let thread = table.create("test", priority).unwrap();
        assert_eq!(table.wake(thread), Some(priority));
        thread
    }

    #[test]
    fn equals_take_turns() {
        let mut table = Table::new();
        let first = ready(&mut table, Priority::Worker);
        let second = ready(&mut table, Priority::Worker);
        assert_eq!(table.next(None, Intent::Continue), Some(first));
        assert_eq!(
            table.next(Some(first), Intent::Continue),
            Some(first),
            "not its equals' turn"
        );
        assert_eq!(table.next(Some(first), Intent::Yield), Some(second));
        assert_eq!(table.next(Some(second), Intent::Yield), Some(first));
    }

    #[test]
    fn the_more_urgent_goes_first_and_the_interrupted_goes_on_next() {
        let mut table = Table::new();
        let worker = ready(&mut table, Priority::Worker);
        assert_eq!(table.next(None, Intent::Continue), Some(worker));
        let other = ready(&mut table, Priority::Worker);
        let server = ready(&mut table, Priority::Server);
        assert_eq!(table.next(Some(worker), Intent::Continue), Some(server));
        assert_eq!(
            table.next(Some(server), Intent::Exit),
            Some(worker),
            "it had not used its turn"
        );
        assert_eq!(table.next(Some(worker), Intent::Yield), Some(other));
    }

    #[test]
    fn a_wakeup_before_the_block_is_not_lost() {
        let mut table = Table::new();
        let thread = ready(&mut table, Priority::Worker);
        table.next(None, Intent::Continue);
        assert_eq!(table.wake(thread), None);
        assert_eq!(table.next(Some(thread), Intent::Block(None)), Some(thread));
        assert_eq!(table.wakeup(thread), Wakeup::Woken);
        assert_eq!(
            table.next(Some(thread), Intent::Block(None)),
            None,
            "one token, one wake-up"
        );
    }

    #[test]
    fn sleepers_wake_at_their_instant() {
        let mut table = Table::new();
        let thread = ready(&mut table, Priority::Worker);
        table.next(None, Intent::Continue);
        table.next(Some(thread), Intent::Block(Some(Instant(100))));
        assert_eq!(table.expire(Instant(99)), 0);
        assert_eq!(table.expire(Instant(100)), 1);
        assert_eq!(table.next(None, Intent::Continue), Some(thread));
        assert_eq!(table.wakeup(thread), Wakeup::TimedOut);
    }

    #[test]
    fn slots_run_out_and_come_back() {
        let mut table = Table::new();
        for _ in 0..THREADS_MAX {
            ready(&mut table, Priority::Worker);
        }
        assert_eq!(table.create("one more", Priority::Worker), None);
        let thread = table.next(None, Intent::Continue);
        table.next(thread, Intent::Exit);
        assert!(table.create("one more", Priority::Worker).is_some());
    }

    proptest! {
        /// Invariants 1 and 3 over arbitrary histories of two CPUs.
        #[test]
        fn queues_and_states_agree(steps in prop::collection::vec((0u8..6, 0usize..8), 0..200)) {
            let mut table = Table::new();
            let mut running = [None, None];
            for (step, number) in steps {
                let cpu = number % 2;
                let thread = ThreadId::new(number).unwrap();
                match step {
                    0 => drop(table.create("t", [Priority::Worker, Priority::Server][cpu])),
                    1 => drop(table.wake(thread)),
                    2 => running[cpu] = table.next(running[cpu], Intent::Continue),
                    3 => running[cpu] = table.next(running[cpu], Intent::Yield),
                    4 => running[cpu] = table.next(running[cpu], Intent::Block(Some(Instant(5)))),
                    _ => drop(table.expire(Instant(number as u64))),
                }
                let states = || table.entries.iter().map(|entry| entry.state);
                let count = |wanted: fn(&State) -> bool| states().filter(wanted).count();
                prop_assert_eq!(count(|state| *state == State::Ready), table.ready_count());
                let on_cpus = running.iter().flatten().count();
                prop_assert_eq!(count(|state| *state == State::Running), on_cpus);
                prop_assert!(running[0].is_none() || running[0] != running[1]);
                let mut queued = 0;
                for queue in table.queues {
                    let mut at = queue.first;
                    while let Some(thread) = at {
                        prop_assert_eq!(table.entries[thread.index()].state, State::Ready);
                        queued += 1;
                        prop_assert!(queued <= table.ready_count());
                        at = table.entries[thread.index()].next;
                    }
                }
                prop_assert_eq!(queued, table.ready_count());
            }
        }
    }
}
