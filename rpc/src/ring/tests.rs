//! Rings between an honest end and one that is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::missing_errors_doc,
    reason = "helpers of tests, used next to where they are"
)]

use super::*;
use crate::message::Message;
use crate::testing::{CellMemory, life, null_request};
use proptest::prelude::*;

const QUEUE: Queue = Queue::Requests;

/// Cell 1 produces for cell 2.
struct Pair {
    producer: Producer,
    consumer: Consumer,
    from: CellMemory,
    to: CellMemory,
    statistics: ReceiveStatistics,
}

impl Pair {
    fn new() -> Self {
        Self::with_sessions(3, 3)
    }

    /// A producer that knows the consumer as life `known`, while the consumer is in life `actual`.
    fn with_sessions(known: u32, actual: u32) -> Self {
        let (producer, consumer) = (life(1, 5), life(2, actual));
        let pair = Self {
            producer: Producer::new(QUEUE, producer.incarnation, Incarnation(known)),
            consumer: Consumer::new(QUEUE, consumer, producer),
            from: CellMemory::new(3),
            to: CellMemory::new(3),
            statistics: ReceiveStatistics::default(),
        };
        pair.producer.restore(&pair.from.lanes[2]);
        pair.consumer.restore(&pair.to.lanes[1]);
        pair
    }

    fn push(&mut self, call: u64) -> Result<(), SendError> {
        self.producer.reserve(&self.to.lane_for(1))?;
        let sequence = self.producer.next_sequence();
        self.push_numbered(sequence, call);
        Ok(())
    }

    fn push_numbered(&mut self, sequence: u32, call: u64) {
        let message = null_request(call).seal(sequence, life(1, 5), life(2, 3));
        self.producer.push(&self.from.lanes[2], &message);
    }

    fn next(&mut self) -> Option<Result<u64, Refusal>> {
        let remote = self.from.lane_for(2);
        let result = self
            .consumer
            .next(&self.to.lanes[1], &remote, &mut self.statistics)?;
        Some(result.map(|message| match message {
            Message::Request(request) => request.call.0,
            Message::Reply(reply) => reply.call.0,
        }))
    }

    fn drain(&mut self) -> Vec<u64> {
        core::iter::from_fn(|| self.next())
            .filter_map(Result::ok)
            .collect()
    }
}

#[test]
fn messages_arrive_once_and_in_order_over_many_turns() {
    let mut pair = Pair::new();
    for call in 0..u64::from(SLOTS) * 5 {
        pair.push(call).unwrap();
        if call % 3 == 0 {
            let expected: Vec<u64> = (call.saturating_sub(2)..=call).collect();
            assert_eq!(pair.drain(), expected);
        }
    }
}

#[test]
fn a_full_ring_refuses_until_the_consumer_moves() {
    let mut pair = Pair::new();
    for call in 0..u64::from(SLOTS) {
        pair.push(call).unwrap();
    }
    assert_eq!(pair.push(99), Err(SendError::Full));
    assert_eq!(pair.next(), Some(Ok(0)));
    assert_eq!(pair.push(99), Ok(()));
    assert_eq!(pair.drain().last(), Some(&99));
    assert_eq!(pair.statistics.received, u64::from(SLOTS) + 1);
}

#[test]
fn positions_and_sequence_numbers_wrap() {
    let mut pair = Pair::new();
    let start = u32::MAX - 2;
    (
        pair.producer.position,
        pair.producer.consumed,
        pair.producer.sequence,
    ) = (start, start, start);
    (pair.consumer.position, pair.consumer.sequence) = (start, start);
    for call in 0..6 {
        pair.push(call).unwrap();
    }
    assert_eq!(pair.drain(), [0, 1, 2, 3, 4, 5]);
    assert_eq!((pair.statistics.lost, pair.producer.position), (0, 3));
}

#[test]
fn a_message_that_was_never_put_in_shows_as_lost() {
    let mut pair = Pair::new();
    pair.push(0).unwrap();
    pair.producer.next_sequence();
    pair.producer.next_sequence();
    pair.push(3).unwrap();
    assert_eq!(pair.drain(), [0, 3]);
    assert_eq!(pair.statistics.lost, 2);
}

#[test]
fn a_message_that_was_put_in_twice_arrives_once() {
    let mut pair = Pair::new();
    pair.push(0).unwrap();
    pair.push_numbered(0, 0);
    pair.push(1).unwrap();
    assert_eq!(pair.next(), Some(Ok(0)));
    assert_eq!(pair.next(), Some(Err(Refusal::Duplicate(0))));
    assert_eq!(pair.next(), Some(Ok(1)));
    assert_eq!(pair.statistics.duplicates, 1);
}

#[test]
fn a_damaged_message_is_passed_over() {
    let mut pair = Pair::new();
    for call in 0..3 {
        pair.push(call).unwrap();
    }
    pair.from.lanes[2].fill(QUEUE, 1, &[12345]);
    assert_eq!(pair.next(), Some(Ok(0)));
    assert_eq!(pair.next(), Some(Err(Refusal::Checksum)));
    assert_eq!(pair.next(), Some(Ok(2)));
    assert_eq!(pair.next(), None);
    assert_eq!((pair.statistics.refused, pair.statistics.lost), (1, 1));
}

#[test]
fn nonsense_sequence_numbers_do_not_silence_a_ring() {
    let mut pair = Pair::new();
    pair.push_numbered(1 << 30, 0);
    pair.push_numbered(1 << 31, 1);
    pair.push_numbered(1, 2);
    pair.push_numbered(2, 3);
    assert_eq!(pair.next(), Some(Err(Refusal::OutOfSequence(1 << 30))));
    assert_eq!(pair.next(), Some(Err(Refusal::OutOfSequence(1 << 31))));
    assert_eq!(pair.next(), Some(Err(Refusal::OutOfSequence(1))));
    assert_eq!(pair.next(), Some(Ok(3)));
}

#[test]
fn an_index_that_ran_away_is_reported_once_and_the_ring_goes_on() {
    let mut pair = Pair::new();
    pair.push(0).unwrap();
    let flipped = pair.producer.session.index(1 | 1 << 20);
    pair.from.lanes[2].produce(QUEUE, flipped);
    assert_eq!(pair.next(), Some(Err(Refusal::RanAway(1 | 1 << 20))));
    assert_eq!(pair.next(), None);
    pair.producer.restore(&pair.from.lanes[2]);
    assert!(
        matches!(pair.next(), Some(Err(Refusal::RanAway(_)))),
        "back again"
    );
    pair.push(1).unwrap();
    assert_eq!(pair.next(), Some(Ok(1)));
    assert_eq!(pair.statistics.ran_away, 2);
}

#[test]
fn an_index_just_beyond_the_ring_has_run_away_too() {
    let mut pair = Pair::new();
    let session = pair.producer.session;
    pair.from.lanes[2].produce(QUEUE, session.index(SLOTS + 1));
    assert_eq!(pair.next(), Some(Err(Refusal::RanAway(SLOTS + 1))));
    pair.from.lanes[2].produce(QUEUE, session.index(SLOTS));
    let backward = Refusal::RanAway(u32::MAX);
    assert_eq!(pair.next(), Some(Err(backward)));
}

#[test]
fn a_consumer_that_claims_the_impossible_is_reported_and_can_recover() {
    let mut pair = Pair::new();
    for call in 0..u64::from(SLOTS) {
        pair.push(call).unwrap();
    }
    let session = pair.producer.session;
    pair.to.lanes[1].consume(QUEUE, session.index(SLOTS + 1));
    assert_eq!(pair.push(99), Err(SendError::Inconsistent(SLOTS + 1)));
    pair.to.lanes[1].consume(QUEUE, session.index(0u32.wrapping_sub(1)));
    assert!(matches!(pair.push(99), Err(SendError::Inconsistent(_))));
    pair.consumer.restore(&pair.to.lanes[1]);
    assert_eq!(pair.push(99), Err(SendError::Full));
    pair.next();
    assert_eq!(pair.push(99), Ok(()));
}

#[test]
fn ends_in_different_sessions_do_not_hear_each_other() {
    let mut pair = Pair::with_sessions(3, 4);
    for call in 0..u64::from(SLOTS) {
        pair.push(call).unwrap();
    }
    assert_eq!(pair.push(99), Err(SendError::Full));
    assert_eq!(pair.next(), None);
}

#[test]
fn a_ring_that_cannot_be_read_is_an_error() {
    let mut pair = Pair::new();
    pair.push(0).unwrap();
    pair.from.cut_off = true;
    assert!(matches!(pair.next(), Some(Err(Refusal::Unreachable(_)))));
    pair.from.cut_off = false;
    assert_eq!(pair.next(), Some(Ok(0)));
    pair.to.cut_off = true;
    for call in 1..u64::from(SLOTS) {
        pair.push(call).unwrap();
    }
    assert!(matches!(pair.push(99), Err(SendError::Unreachable(_))));
}

/// What happens in a ring with a sick producer.
#[derive(Clone, Debug)]
enum Step {
    Push,
    Next,
    Index(u64),
    Word(usize, usize, u64),
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Push),
        4 => Just(Step::Next),
        1 => any::<u64>().prop_map(Step::Index),
        1 => any::<u32>().prop_map(|position| {
            Step::Index(Session::new(Incarnation(5), Incarnation(3)).index(position))
        }),
        1 => (0usize..SLOTS as usize, 0usize..16, any::<u64>())
            .prop_map(|(slot, word, value)| Step::Word(slot, word, value)),
        1 => Just(Step::Restore),
    ]
}

proptest! {
    /// Whatever the producer's memory held, once it is right again messages pass again.
    #[test]
    fn no_nonsense_wedges_a_ring(steps in prop::collection::vec(step(), 0..200)) {
        let mut pair = Pair::new();
        for step in steps {
            match step {
                Step::Push => _ = pair.push(7),
                Step::Next => _ = pair.next(),
                Step::Index(index) => pair.from.lanes[2].produce(QUEUE, index),
                Step::Restore => pair.producer.restore(&pair.from.lanes[2]),
                Step::Word(slot, word, value) => {
                    let mut words = [0; 16];
                    pair.from.lanes[2].copy_slot(QUEUE, slot, 0, &mut words);
                    words[word] = value;
                    pair.from.lanes[2].fill(QUEUE, slot, &words);
                }
            }
        }
        pair.producer.restore(&pair.from.lanes[2]);
        let mut polls = 0;
        while pair.next().is_some() {
            polls += 1;
            prop_assert!(polls <= SLOTS + 1);
        }
        for call in 1000..1010 {
            prop_assert_eq!(pair.push(call), Ok(()));
        }
        prop_assert_eq!(pair.drain(), (1000..1010).collect::<Vec<u64>>());
    }
}
