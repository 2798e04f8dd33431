//! Bytes that somebody typed, and the adoption of a serial port whose owner died.
//!
//! The port is polled at ticks: its interrupt line would have to follow the owner.

use core::sync::atomic::{AtomicBool, Ordering};

use cell::CellId;
use cell::machine::CellState;
use cell::trace::Event;

use crate::console::{output, uart};
use crate::lock::Lock;
use crate::own::own;
use crate::thread::wait::WaitQueue;
use crate::{hypercall, trace};

/// Bytes that wait for the shell; more are dropped.
const QUEUE_BYTES: usize = 256;

#[derive(Debug)]
struct Queue {
    bytes: [u8; QUEUE_BYTES],
    length: usize,
}

static QUEUE: Lock<Queue> = Lock::new(Queue {
    bytes: [0; QUEUE_BYTES],
    length: 0,
});
static TYPED: WaitQueue = WaitQueue::new();

/// This cell has set the port up.
static IS_IN_USE: AtomicBool = AtomicBool::new(false);
/// The shell has not greeted anybody on the port yet.
static MUST_GREET: AtomicBool = AtomicBool::new(false);

/// Takes the port into use if it is this cell's. Boot CPU, once.
pub fn set_up() {
    if output::is_owner() {
        take_into_use();
    }
}

/// Polls the port on its owner; elsewhere looks whether the owner still lives. Interrupt level.
pub fn at_tick() {
    if output::is_owner() {
        take_into_use();
        receive();
    } else {
        adopt_if_orphaned();
    }
}

/// Sets the port up when this cell finds that it owns it.
fn take_into_use() {
    if !IS_IN_USE.swap(true, Ordering::AcqRel) {
        uart::set_up();
        MUST_GREET.store(true, Ordering::Release);
        TYPED.wake_all();
    }
}

fn receive() {
    let mut bytes = [0; 32];
    let count = uart::try_receive(&mut bytes);
    if count == 0 {
        return;
    }
    let mut queue = QUEUE.lock();
    for &byte in &bytes[..count] {
        let length = queue.length;
        if length < QUEUE_BYTES {
            queue.bytes[length] = byte;
            queue.length += 1;
        }
    }
    drop(queue);
    TYPED.wake_all();
}

/// Adopts the port if its owner was voted out and this is the first cell of the live set.
fn adopt_if_orphaned() {
    let own = own();
    let owner = own.machine.uart_owner.load(Ordering::Acquire) as usize;
    let is_orphaned = CellId::new(owner)
        .is_none_or(|owner| own.machine.cell(owner).state() == CellState::Expelled);
    let (_, live) = own.machine.membership.current();
    if is_orphaned && live.lowest() == Some(own.cell) && hypercall::adopt_console().is_ok() {
        trace::record(Event::ConsoleAdopted, own.cell.index() as u64, owner as u64);
    }
}

/// Waits for typed bytes, and takes up to `to.len()` of them. May return none: the port changed
/// hands.
pub fn wait(to: &mut [u8]) -> usize {
    TYPED
        .wait(None, || {
            let count = take(to);
            (count > 0 || MUST_GREET.swap(false, Ordering::AcqRel)).then_some(count)
        })
        .unwrap_or(0)
}

fn take(to: &mut [u8]) -> usize {
    let mut queue = QUEUE.lock();
    let count = to.len().min(queue.length);
    to[..count].copy_from_slice(&queue.bytes[..count]);
    let rest = queue.length;
    queue.bytes.copy_within(count..rest, 0);
    queue.length -= count;
    count
}
