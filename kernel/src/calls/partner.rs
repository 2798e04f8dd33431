//! The other end of a measurement: bounces a word, or stays awake for a while.
//!
//! # Invariants
//! 1. A request, or one end of a bounced word, takes at most [`PATIENCE`], whatever the other cell
//!    does.
//! 2. One request is served at a time, and it makes room for threads that wait for a CPU: other
//!    cells keep neither all server threads nor a CPU busy by asking.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use cell::careful::CarefulReader;
use cell::public::{HEADER_OFFSET, PublicHeader};
use cell::{CellId, Instant};
use rpc::operation::decode_word;
use rpc::{Payload, ReplyStatus, Request};

use crate::calls::rings::{self, Polling};
use crate::clock;
use crate::memory::careful::{self, WindowMemory};
use crate::own::own;
use crate::thread::{self, scheduler};

/// How long either end waits for the other.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// Rounds that one request may ask for, and milliseconds.
const ARGUMENT_MAX: u64 = PATIENCE.as_millis() as u64;

/// For how long a request makes room for threads that wait for a CPU.
const REST: Duration = Duration::from_millis(2);
/// Looks at what is awaited between two looks at who waits for a CPU.
const LOOKS: u32 = 64;

/// Whether a request is being served.
static IS_SERVING: AtomicBool = AtomicBool::new(false);

/// Serves a request about a measurement. In a server thread.
pub(super) fn serve(request: &Request) -> (ReplyStatus, Payload) {
    let argument = decode_word(request.payload).filter(|&word| word <= ARGUMENT_MAX);
    let Some(argument) = argument else {
        return (ReplyStatus::BadArgument, Payload::EMPTY);
    };
    if IS_SERVING.swap(true, Ordering::Acquire) {
        return (ReplyStatus::Busy, Payload::EMPTY);
    }
    carry_out(request, argument);
    IS_SERVING.store(false, Ordering::Release);
    (ReplyStatus::Done, Payload::EMPTY)
}

fn carry_out(request: &Request, argument: u64) {
    if request.operation == rpc::Operation::Attend {
        attend(Duration::from_millis(argument));
    } else {
        let end = Bouncer::new(request.from);
        for round in 0..argument {
            if !end.wait_for(2 * round + 1) {
                break;
            }
            end.store(2 * round + 2);
        }
    }
}

fn attend(span: Duration) {
    let end = clock::now() + span;
    while clock::now() < end {
        poll_until(end);
        make_room();
    }
}

/// Polls until `end`, or until somebody waits for a CPU.
fn poll_until(end: Instant) {
    let _polling = Polling::new();
    while clock::now() < end && !scheduler::is_somebody_ready() {
        for _ in 0..LOOKS {
            rings::poll_all();
            core::hint::spin_loop();
        }
    }
}

/// Rests if somebody waits for a CPU.
fn make_room() {
    if scheduler::is_somebody_ready() {
        thread::sleep(REST);
    }
}

/// One end of a bounced word: stores the own header's word, loads the other cell's.
#[derive(Debug)]
pub struct Bouncer {
    reader: CarefulReader<'static, WindowMemory>,
    deadline: Instant,
}

impl Bouncer {
    /// The end that faces `peer`; the own word starts at 0.
    pub fn new(peer: CellId) -> Self {
        own().header().bounce.store(0, Ordering::SeqCst);
        Self {
            reader: careful::reader_of_current(peer),
            deadline: clock::now() + PATIENCE,
        }
    }

    /// Shows `value` to the other end.
    pub fn store(&self, value: u64) {
        own().header().bounce.store(value, Ordering::SeqCst);
    }

    /// Spins until the other end shows `value`. Whether it came in time.
    pub fn wait_for(&self, value: u64) -> bool {
        const OFFSET: u64 = HEADER_OFFSET + core::mem::offset_of!(PublicHeader, bounce) as u64;
        let word = self.reader.public(OFFSET);
        loop {
            for _ in 0..LOOKS {
                match self.reader.word(word) {
                    Ok(found) if found == value => return true,
                    Ok(_) if clock::now() < self.deadline => core::hint::spin_loop(),
                    _ => return false,
                }
            }
            make_room();
        }
    }
}
