//! The thread that carries this cell's console text to the owner of the serial port.

use core::time::Duration;

use cell::CellId;
use core::sync::atomic::Ordering;
use rpc::{Operation, Outcome, Payload, ReplyStatus};

use crate::calls::outgoing;
use crate::console::output;
use crate::console::remote::{self, Piece};
use crate::own::own;
use crate::thread;

/// How long the thread waits before it offers a piece again that the owner did not take.
const RETRY: Duration = Duration::from_millis(50);
/// How often it does before it drops the piece: the text is for people, and may be about why nobody
/// answers.
const TRIES_MAX: u32 = 40;

/// Runs the thread.
pub fn run() -> ! {
    let mut piece = Piece::FIRST;
    loop {
        remote::wait(&mut piece);
        carry(&piece);
    }
}

/// Offers one piece to whoever owns the port. A call that timed out may have been carried out; the
/// owner knows a piece that it has shown by its number.
fn carry(piece: &Piece) {
    let payload = Payload::from_bytes(piece.message()).expect("a piece fits into a message");
    for _ in 0..TRIES_MAX {
        if output::is_owner() {
            output::write(piece.text());
            return;
        }
        let owner = CellId::new(own().machine.uart_owner.load(Ordering::Acquire) as usize);
        let outcome = owner.map(|owner| outgoing::call(owner, Operation::ConsoleWrite, payload));
        if let Some(Outcome::Reply(ReplyStatus::Done, _)) = outcome {
            return;
        }
        thread::sleep(RETRY);
    }
}
