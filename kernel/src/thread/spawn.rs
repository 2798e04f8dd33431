//! New threads.
//!
//! A slot keeps its stack when its thread ends: mapping and unmapping would need every CPU's
//! attention, and a slot is soon used again.

use alloc::boxed::Box;

use crate::lock::Lock;
use crate::memory::stacks::{self, Stack};
use crate::thread::context::Context;
use crate::thread::run_queue::{Intent, Priority, THREADS_MAX, ThreadId};
use crate::thread::scheduler;

/// Bytes of a thread's stack.
const STACK_BYTES: u64 = 64 << 10;

static STACKS: Lock<[Option<Stack>; THREADS_MAX]> = Lock::new([None; THREADS_MAX]);

/// Why there is no new thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpawnError {
    /// All slots are taken.
    TooMany,
    /// No memory for a stack.
    NoMemory,
}

/// What a thread runs.
type Body = Box<dyn FnOnce() + Send>;

/// Starts a thread that runs `body` and ends with it.
///
/// # Errors
/// [`SpawnError`]; nothing was started then.
pub fn spawn(
    name: &'static str,
    priority: Priority,
    body: impl FnOnce() + Send + 'static,
) -> Result<ThreadId, SpawnError> {
    let thread = scheduler::create(name, priority).ok_or(SpawnError::TooMany)?;
    let Some(stack) = stack_of(thread) else {
        // The slot stays taken: without memory for a stack there is no use for it either.
        return Err(SpawnError::NoMemory);
    };
    let body: Box<Body> = Box::new(Box::new(body));
    let argument = Box::into_raw(body).expose_provenance() as u64;
    scheduler::place(
        thread,
        Context::start(enter, argument, stack.top()),
        stack.bottom(),
    );
    scheduler::wake(thread);
    Ok(thread)
}

fn stack_of(thread: ThreadId) -> Option<Stack> {
    let kept = STACKS.lock()[thread.index()];
    if kept.is_some() {
        return kept;
    }
    let stack = stacks::allocate(STACK_BYTES)?;
    STACKS.lock()[thread.index()] = Some(stack);
    Some(stack)
}

/// Where every thread begins.
extern "C" fn enter(argument: u64) -> ! {
    let body = core::ptr::with_exposed_provenance_mut::<Body>(argument as usize);
    // SAFETY: `spawn` made the argument of a box and gave it to this thread alone, which runs this
    // function once.
    let body = unsafe { Box::from_raw(body) };
    body();
    scheduler::give_away(Intent::Exit);
    unreachable!("the slot of a thread that exited is not resumed")
}
