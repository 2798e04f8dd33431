//! Calls that end in every way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::testing::cell;
use cell::Incarnation;

fn begin(table: &mut CallTable, peer: usize, deadline: u64) -> Call {
    table
        .begin(
            cell(peer),
            Operation::Null,
            Instant(deadline),
            Waiter(deadline),
        )
        .unwrap()
}

fn reply(call: CallNumber, from: usize) -> Reply {
    Reply {
        from: cell(from),
        incarnation: Incarnation(1),
        call,
        operation: Operation::Null,
        status: ReplyStatus::Done,
        payload: Payload::EMPTY,
    }
}

const DONE: Outcome = Outcome::Reply(ReplyStatus::Done, Payload::EMPTY);

#[test]
fn a_reply_ends_its_call_once() {
    let mut table = CallTable::new();
    let call = begin(&mut table, 1, 50);
    let number = call.number();
    let call = table.take(call).unwrap_err();
    assert_eq!(
        table.complete(&reply(number, 1)),
        Completion::Ended(Waiter(50))
    );
    assert_eq!(table.complete(&reply(number, 1)), Completion::Late);
    table.expire(Instant(100), |_| panic!("it has ended"));
    assert_eq!(table.take(call), Ok(DONE));
    assert_eq!(table.complete(&reply(number, 1)), Completion::Late);
    let again = begin(&mut table, 1, 60);
    assert_ne!(again.number(), number);
    assert_eq!(table.complete(&reply(number, 1)), Completion::Late);
    table.abandon(again);
    assert_eq!(
        (table.statistics().replies, table.statistics().late),
        (1, 3)
    );
}

#[test]
fn a_deadline_ends_every_call_that_has_it() {
    let mut table = CallTable::new();
    let (first, second, later) = (
        begin(&mut table, 1, 10),
        begin(&mut table, 2, 10),
        begin(&mut table, 1, 11),
    );
    assert_eq!(table.next_deadline(), Some(Instant(10)));
    let mut ended = vec![];
    table.expire(Instant(9), |_| panic!("too early"));
    table.expire(Instant(10), |end| {
        ended.push((end.peer.index(), end.outcome));
    });
    assert_eq!(ended, [(1, Outcome::TimedOut), (2, Outcome::TimedOut)]);
    assert_eq!(table.complete(&reply(first.number(), 1)), Completion::Late);
    assert_eq!(table.take(first), Ok(Outcome::TimedOut));
    assert_eq!(table.take(second), Ok(Outcome::TimedOut));
    assert!(table.take(later).is_err());
}

#[test]
fn the_death_of_a_peer_ends_its_calls_only() {
    let mut table = CallTable::new();
    let (dead, alive) = (begin(&mut table, 1, 10), begin(&mut table, 2, 10));
    let mut woken = 0;
    table.peer_gone(cell(1), |end| {
        assert_eq!((end.call, end.outcome), (dead.number(), Outcome::PeerGone));
        woken += 1;
    });
    table.peer_gone(cell(1), |_| panic!("twice"));
    assert_eq!(woken, 1);
    assert_eq!(table.take(dead), Ok(Outcome::PeerGone));
    assert!(table.take(alive).is_err());
}

#[test]
fn replies_that_fit_no_call_blame_their_sender() {
    let mut table = CallTable::new();
    let call = begin(&mut table, 1, 10);
    assert_eq!(
        table.complete(&reply(call.number(), 2)),
        Completion::Mismatched
    );
    let other = Reply {
        operation: Operation::Echo,
        ..reply(call.number(), 1)
    };
    assert_eq!(table.complete(&other), Completion::Mismatched);
    assert_eq!(
        table.complete(&reply(CallNumber(u64::MAX), 1)),
        Completion::Mismatched
    );
    assert!(table.take(call).is_err(), "it waits on");
}

#[test]
fn the_table_is_bounded_for_the_cell_and_for_each_peer() {
    let mut table = CallTable::new();
    let mut calls = vec![];
    for peer in [1, 2] {
        for _ in 0..CALLS_PER_PEER_MAX {
            calls.push(begin(&mut table, peer, 10));
        }
        let full = table.begin(cell(peer), Operation::Null, Instant(10), Waiter(0));
        assert_eq!(full, Err(TableFull::Peer));
    }
    let full = table.begin(cell(3), Operation::Null, Instant(10), Waiter(0));
    assert_eq!(full, Err(TableFull::Cell));
    table.abandon(calls.pop().unwrap());
    assert!(
        table
            .begin(cell(3), Operation::Null, Instant(10), Waiter(0))
            .is_ok()
    );
}
