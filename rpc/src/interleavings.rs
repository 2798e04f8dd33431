//! Every interleaving of two or three CPUs at a ring and its doorbell, explored by loom.
//!
//! Rings have two slots here, so that few messages go round. Nothing spins: a CPU that finds
//! nothing goes on, and what it would have met is asserted after the others have ended.

use loom::model;
use loom::sync::Arc;
use loom::thread;

use crate::atomic::Ordering;
use crate::doorbell::{Doorbell, Pollers, Recheck};
use crate::endpoint::Endpoint;
use crate::layout::Queue;
use crate::message::Message;
use crate::ring::{Consumer, Producer, ReceiveStatistics};
use crate::testing::{CellMemory, HostLocking, cell, life, null_request};
use cell::Incarnation;

const QUEUE: Queue = Queue::Requests;

/// Cell 0 sends to cell 1.
struct Pair {
    from: CellMemory,
    to: CellMemory,
    pollers: Pollers,
}

fn pair() -> Arc<Pair> {
    let pair = Pair {
        from: CellMemory::new(2),
        to: CellMemory::new(2),
        pollers: Pollers::new(),
    };
    pair.to.asleep.store(1, Ordering::SeqCst);
    Arc::new(pair)
}

fn producer(pair: &Pair) -> Producer {
    let producer = Producer::new(QUEUE, Incarnation(1), Incarnation(1));
    producer.restore(&pair.from.lanes[1]);
    producer
}

fn consumer(pair: &Pair) -> Consumer {
    let consumer = Consumer::new(QUEUE, life(1, 1), life(0, 1));
    consumer.restore(&pair.to.lanes[0]);
    consumer
}

/// Sends a request if there is room.
fn push(pair: &Pair, producer: &mut Producer, call: u64) -> bool {
    if producer.reserve(&pair.to.lane_for(0)).is_err() {
        return false;
    }
    let message = null_request(call).seal(producer.next_sequence(), life(0, 1), life(1, 1));
    producer.push(&pair.from.lanes[1], &message);
    true
}

/// Takes a request if there is one.
fn take(pair: &Pair, consumer: &mut Consumer) -> Option<u64> {
    let statistics = &mut ReceiveStatistics::default();
    let result = consumer.next(&pair.to.lanes[0], &pair.from.lane_for(1), statistics)?;
    match result.expect("an honest producer is never refused") {
        Message::Request(request) => Some(request.call.0),
        Message::Reply(_) => unreachable!("nobody replies"),
    }
}

/// Sends one request; whether the doorbell was rung.
fn send_and_ring(pair: &Pair, producer: &mut Producer) -> bool {
    assert!(push(pair, producer, 0));
    Doorbell::after_publishing(&pair.to.lane_for(0)) == Ok(Doorbell::Needed)
}

/// Polls as a CPU that then halts; whether it met a request.
fn poll_and_halt(pair: &Pair, mut poll: impl FnMut() -> bool) -> bool {
    pair.pollers.enter(&pair.to.asleep);
    let met = poll();
    met | match pair.pollers.leave(&pair.to.asleep) {
        Recheck::Needed => poll(),
        Recheck::NotNeeded => false,
    }
}

#[test]
fn a_ring_gives_out_what_was_put_in_while_slots_are_used_again() {
    model(|| {
        let pair = pair();
        let (mut producer, mut consumer) = (producer(&pair), consumer(&pair));
        let sender = thread::spawn({
            let pair = Arc::clone(&pair);
            move || {
                (0..4)
                    .filter(|&call| push(&pair, &mut producer, call))
                    .collect::<Vec<_>>()
            }
        });
        let mut taken: Vec<u64> = (0..3).filter_map(|_| take(&pair, &mut consumer)).collect();
        let pushed = sender.join().expect("no panic");
        taken.extend(core::iter::from_fn(|| take(&pair, &mut consumer)));
        assert_eq!(taken, pushed);
    });
}

#[test]
fn no_wake_up_is_lost() {
    model(|| {
        let pair = pair();
        let (mut producer, mut consumer) = (producer(&pair), consumer(&pair));
        let sender = thread::spawn({
            let pair = Arc::clone(&pair);
            move || send_and_ring(&pair, &mut producer)
        });
        let met = poll_and_halt(&pair, || take(&pair, &mut consumer).is_some());
        let rung = sender.join().expect("no panic");
        assert!(met || rung, "the receiver halted and nobody wakes it");
    });
}

#[test]
fn no_wake_up_is_lost_when_two_cpus_poll() {
    model(|| {
        let pair = pair();
        let mut producer = producer(&pair);
        // The second CPU comes and goes; it only looks whether there is something when it is the
        // last to leave.
        let other = thread::spawn({
            let pair = Arc::clone(&pair);
            move || {
                pair.pollers.enter(&pair.to.asleep);
                let is_last = pair.pollers.leave(&pair.to.asleep) == Recheck::Needed;
                is_last && pair.from.lanes[1].load_produced(QUEUE) as u32 == 1
            }
        });
        let sender = thread::spawn({
            let pair = Arc::clone(&pair);
            move || send_and_ring(&pair, &mut producer)
        });
        let mut consumer = consumer(&pair);
        let met = poll_and_halt(&pair, || take(&pair, &mut consumer).is_some());
        let met_by_other = other.join().expect("no panic");
        let rung = sender.join().expect("no panic");
        assert!(
            met || met_by_other || rung,
            "both halted and nobody wakes them"
        );
    });
}

/// Without a sender: loom forgets that a store comes after another one of its thread when a third
/// thread reads the former, late, after a fence.
#[test]
fn whoever_leaves_last_leaves_the_cell_asleep() {
    model(|| {
        let pair = pair();
        let come_and_go = |pair: &Pair| {
            pair.pollers.enter(&pair.to.asleep);
            pair.pollers.leave(&pair.to.asleep)
        };
        let other = thread::spawn({
            let pair = Arc::clone(&pair);
            move || come_and_go(&pair)
        });
        let first = come_and_go(&pair);
        let second = other.join().expect("no panic");
        assert!([first, second].contains(&Recheck::Needed));
        assert_eq!(pair.to.asleep.load(Ordering::SeqCst), 1, "asleep at last");
    });
}

#[test]
fn two_cpus_that_poll_take_each_message_once() {
    model(|| {
        let pair = pair();
        let mut producer = producer(&pair);
        // Threads of loom outlive any borrow, so what they share is leaked.
        let memory: &'static CellMemory = Box::leak(Box::new(CellMemory::new(2)));
        let endpoint: &'static Endpoint<'static, HostLocking> =
            Box::leak(Box::new(memory.endpoint(1, 1)));
        endpoint.admit(cell(0), Incarnation(1));
        assert!(push(&pair, &mut producer, 1));
        let other = thread::spawn({
            let pair = Arc::clone(&pair);
            move || poll(&pair, endpoint)
        });
        assert!(push(&pair, &mut producer, 2));
        let mut taken = vec![poll(&pair, endpoint), other.join().expect("no panic")];
        taken.extend([poll(&pair, endpoint), poll(&pair, endpoint)]);
        taken.sort_unstable();
        assert_eq!(taken, [None, None, Some(1), Some(2)]);
    });
}

/// Polls for a request, as any CPU of the receiver may.
fn poll(pair: &Pair, endpoint: &Endpoint<'_, HostLocking>) -> Option<u64> {
    match endpoint.poll(cell(0), &pair.from.lane_for(1))? {
        Ok(Message::Request(request)) => Some(request.call.0),
        other => panic!("{other:?}"),
    }
}
