//! The other end of a measurement: bounces a word, or stays awake for a while.
//!
//! # Invariants
//! 1. Every wait here is bounded by [`PATIENCE`], whatever the other cell does.

use core::sync::atomic::Ordering;
use core::time::Duration;

use cell::CellId;
use cell::careful::CarefulReader;
use cell::public::{HEADER_OFFSET, PublicHeader};
use rpc::operation::decode_word;
use rpc::{Payload, ReplyStatus, Request};

use crate::calls::rings::{self, Polling};
use crate::clock;
use crate::memory::careful::{self, WindowMemory};
use crate::own::own;

/// How long either end waits for the other.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// Rounds that one request may ask for, and milliseconds.
const ARGUMENT_MAX: u64 = 1000;

/// Serves a request about a measurement. In a server thread.
pub(super) fn serve(request: &Request) -> (ReplyStatus, Payload) {
    let argument = decode_word(request.payload).filter(|&word| word <= ARGUMENT_MAX);
    let Some(argument) = argument else {
        return (ReplyStatus::BadArgument, Payload::EMPTY);
    };
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
    (ReplyStatus::Done, Payload::EMPTY)
}

fn attend(span: Duration) {
    let _polling = Polling::new();
    let end = clock::now() + span;
    while clock::now() < end {
        rings::poll_all();
        core::hint::spin_loop();
    }
}

/// One end of a bounced word: stores the own header's word, loads the other cell's.
#[derive(Debug)]
pub struct Bouncer {
    reader: CarefulReader<'static, WindowMemory>,
}

impl Bouncer {
    /// The end that faces `peer`; the own word starts at 0.
    pub fn new(peer: CellId) -> Self {
        own().header().bounce.store(0, Ordering::SeqCst);
        Self {
            reader: careful::reader_of_current(peer),
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
        let deadline = clock::now() + PATIENCE;
        loop {
            match self.reader.word(word) {
                Ok(found) if found == value => return true,
                Ok(_) if clock::now() < deadline => core::hint::spin_loop(),
                _ => return false,
            }
        }
    }
}
