//! Endpoints of two cells in one address space.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::layout::SLOTS;
use crate::testing::{CellMemory, HostLocking, cell, send_null};
use cell::CellSet;
use cell::careful::CarefulError;
use cell::fault::{Attributes, InnerFault};
use core::time::Duration;

fn admit_each_other(endpoints: [&Endpoint<'_, HostLocking>; 2]) {
    endpoints[0].admit(cell(1), endpoints[1].own.incarnation);
    endpoints[1].admit(cell(0), endpoints[0].own.incarnation);
}

/// Takes requests from cell 0 until there are none.
fn calls_from_0(endpoint: &Endpoint<'_, HostLocking>, remote: &impl RemoteLane) -> Vec<u64> {
    core::iter::from_fn(|| endpoint.poll(cell(0), remote))
        .filter_map(|result| match result {
            Ok(Message::Request(request)) => Some(request.call.0),
            _ => None,
        })
        .collect()
}

#[test]
fn a_request_is_answered() {
    let memory = [CellMemory::new(2), CellMemory::new(2)];
    let (caller, server) = (memory[0].endpoint(0, 1), memory[1].endpoint(1, 1));
    let (to_server, to_caller) = (memory[1].lane_for(0), memory[0].lane_for(1));
    admit_each_other([&caller, &server]);
    assert_eq!(
        send_null(&caller, 1, 42, &to_server),
        Ok(Doorbell::NotNeeded)
    );
    assert!(server.has_message(cell(0), &to_caller));
    let Some(Ok(Message::Request(request))) = server.poll(cell(0), &to_caller) else {
        panic!("a request")
    };
    let answer = (ReplyStatus::Done, Payload::from_words([9]));
    memory[0].asleep.store(1, Ordering::Relaxed);
    let doorbell = server.send_reply(&request, answer, Instant(0), &to_caller);
    assert_eq!(doorbell, Ok(Doorbell::Needed));
    let Some(Ok(Message::Reply(reply))) = caller.poll(cell(1), &to_server) else {
        panic!("a reply")
    };
    assert_eq!(
        (reply.call, reply.status),
        (CallNumber(42), ReplyStatus::Done)
    );
    assert_eq!(reply.payload.to_words(), Some([9]));
    assert_eq!(caller.poll(cell(1), &to_server), None);
    assert!(!server.has_message(cell(0), &to_caller));
    let statistics = server.statistics(cell(0));
    assert_eq!((statistics.received.received, statistics.sent.sent), (1, 1));
}

#[test]
fn strangers_are_neither_heard_nor_addressed() {
    let memory = [CellMemory::new(2), CellMemory::new(2)];
    let (caller, server) = (memory[0].endpoint(0, 1), memory[1].endpoint(1, 1));
    let remote = memory[1].lane_for(0);
    assert_eq!(
        send_null(&caller, 1, 0, &remote),
        Err(SendError::NotAdmitted)
    );
    assert_eq!(
        send_null(&caller, 9, 0, &remote),
        Err(SendError::NotAdmitted)
    );
    caller.admit(cell(1), Incarnation(1));
    assert!(send_null(&caller, 1, 0, &remote).is_ok());
    assert_eq!(server.poll(cell(0), &memory[0].lane_for(1)), None);
    server.admit(cell(0), Incarnation(1));
    assert_eq!(
        calls_from_0(&server, &memory[0].lane_for(1)),
        [0],
        "it was not lost"
    );
}

#[test]
fn a_cell_that_is_forgotten_and_admitted_again_goes_on_where_it_was() {
    let memory = [CellMemory::new(2), CellMemory::new(2)];
    let (caller, server) = (memory[0].endpoint(0, 1), memory[1].endpoint(1, 1));
    let (to_server, to_caller) = (memory[1].lane_for(0), memory[0].lane_for(1));
    admit_each_other([&caller, &server]);
    _ = send_null(&caller, 1, 1, &to_server).unwrap();
    assert_eq!(calls_from_0(&server, &to_caller), [1]);
    caller.forget(cell(1));
    server.forget(cell(0));
    assert_eq!(
        send_null(&caller, 1, 2, &to_server),
        Err(SendError::NotAdmitted)
    );
    assert!(!server.has_message(cell(0), &to_caller));
    admit_each_other([&caller, &server]);
    _ = send_null(&caller, 1, 3, &to_server).unwrap();
    assert_eq!(calls_from_0(&server, &to_caller), [3]);
    caller.forget(cell(1));
    caller.admit(cell(1), Incarnation(1));
    _ = send_null(&caller, 1, 4, &to_server).unwrap();
    assert_eq!(
        calls_from_0(&server, &to_caller),
        [4],
        "one side alone, too"
    );
    let received = server.statistics(cell(0)).received;
    let nothing_else = received.lost + received.duplicates + received.ran_away;
    assert_eq!((received.received, nothing_else), (3, 0));
}

/// A lane that must not be read.
struct Untouchable;

impl RemoteLane for Untouchable {
    fn produced(&self, _: Queue) -> Result<u64, CarefulError> {
        panic!("read")
    }

    fn consumed(&self, _: Queue) -> Result<u64, CarefulError> {
        panic!("read")
    }

    fn copy_slot(&self, _: Queue, _: usize, _: usize, _: &mut [u64]) -> Result<(), CarefulError> {
        panic!("read")
    }

    fn is_asleep(&self) -> Result<bool, CarefulError> {
        panic!("read")
    }
}

#[test]
fn the_memory_of_a_forgotten_cell_is_not_read() {
    let memory = CellMemory::new(2);
    let endpoint = memory.endpoint(0, 1);
    endpoint.admit(cell(1), Incarnation(1));
    endpoint.forget(cell(1));
    assert_eq!(endpoint.poll(cell(1), &Untouchable), None);
    assert!(!endpoint.has_message(cell(1), &Untouchable));
    assert_eq!(
        send_null(&endpoint, 1, 0, &Untouchable),
        Err(SendError::NotAdmitted)
    );
    assert_eq!(
        endpoint.tend(cell(1), Instant(0), &Untouchable),
        Ok(Doorbell::NotNeeded)
    );
}

/// Cell 1 dies with messages in both directions, is rebooted, and the pair starts afresh, whoever
/// admits first.
#[test]
fn a_new_life_starts_afresh_on_both_sides() {
    for rebooted_first in [true, false] {
        let mut memory = [CellMemory::new(2), CellMemory::new(2)];
        let caller_links: Vec<_> = core::mem::take(&mut memory[0].links);
        let [caller_memory, server_memory] = memory;
        let lanes = &caller_memory.lanes;
        let caller: Endpoint<'_, HostLocking> =
            Endpoint::new(cell(0), Incarnation(1), lanes, &caller_links);
        let to_caller = caller_memory.lane_for(1);
        let old = server_memory.endpoint(1, 1);
        admit_each_other([&caller, &old]);
        for call in 0..5 {
            _ = send_null(&caller, 1, call, &server_memory.lane_for(0)).unwrap();
            _ = send_null(&old, 0, call, &to_caller).unwrap();
        }
        old.poll(cell(0), &to_caller).unwrap().unwrap();
        caller.forget(cell(1));
        let new_links = CellMemory::new(2).links;
        let new: Endpoint<'_, HostLocking> =
            Endpoint::new(cell(1), Incarnation(2), &server_memory.lanes, &new_links);
        let to_server = server_memory.lane_for(0);
        if rebooted_first {
            new.admit(cell(0), Incarnation(1));
            assert_eq!(
                new.poll(cell(0), &to_caller),
                None,
                "meant for the old life"
            );
            assert!(!new.has_message(cell(0), &to_caller));
            _ = send_null(&new, 0, 70, &to_caller).unwrap();
            caller.admit(cell(1), Incarnation(2));
        } else {
            caller.admit(cell(1), Incarnation(2));
            assert_eq!(
                caller.poll(cell(1), &to_server),
                None,
                "said by the old life"
            );
            new.admit(cell(0), Incarnation(1));
            _ = send_null(&new, 0, 70, &to_caller).unwrap();
        }
        caller.admit(cell(1), Incarnation(1));
        _ = send_null(&caller, 1, 80, &to_server).unwrap();
        assert_eq!(calls_from_0(&new, &to_caller), [80]);
        let Some(Ok(Message::Request(request))) = caller.poll(cell(1), &to_server) else {
            panic!("the request of the new life")
        };
        assert_eq!(
            (request.call, request.incarnation),
            (CallNumber(70), Incarnation(2))
        );
        let stale = Request {
            incarnation: Incarnation(1),
            ..request
        };
        let answer = (ReplyStatus::Done, Payload::EMPTY);
        let refused = caller.send_reply(&stale, answer, Instant(0), &to_server);
        assert_eq!(refused, Err(SendError::Stale));
    }
}

#[test]
fn a_flipped_bit_in_an_index_word_is_put_right_at_the_next_tick() {
    let memory = [CellMemory::new(2), CellMemory::new(2)];
    let (caller, server) = (memory[0].endpoint(0, 1), memory[1].endpoint(1, 1));
    let (to_server, to_caller) = (memory[1].lane_for(0), memory[0].lane_for(1));
    admit_each_other([&caller, &server]);
    for call in 0..u64::from(SLOTS) {
        _ = send_null(&caller, 1, call, &to_server).unwrap();
    }
    assert_eq!(calls_from_0(&server, &to_caller).len(), SLOTS as usize);
    memory[1].lanes[0].consume(Queue::Requests, 1 << 63);
    assert_eq!(send_null(&caller, 1, 99, &to_server), Err(SendError::Full));
    assert_eq!(
        server.tend(cell(0), Instant(0), &to_caller),
        Ok(Doorbell::NotNeeded)
    );
    assert!(send_null(&caller, 1, 99, &to_server).is_ok());
    memory[0].lanes[1].produce(Queue::Requests, 0);
    assert_eq!(calls_from_0(&server, &to_caller), []);
    _ = caller.tend(cell(1), Instant(0), &to_server).unwrap();
    assert_eq!(calls_from_0(&server, &to_caller), [99]);
    assert_eq!(caller.statistics(cell(1)).sent.full, 1);
}

#[test]
fn mischief_shows_at_the_receiver_as_what_it_is() {
    let memory = [CellMemory::new(2), CellMemory::new(2)];
    let (caller, server) = (memory[0].endpoint(0, 1), memory[1].endpoint(1, 1));
    let (to_server, to_caller) = (memory[1].lane_for(0), memory[0].lane_for(1));
    admit_each_other([&caller, &server]);
    let span = Duration::from_nanos(50);
    let order = |fault| {
        caller.order_mischief(MischiefOrder {
            fault,
            attributes: Attributes::new(1),
            to: CellSet::EMPTY,
            operation: None,
            span,
            seed: 1995,
        });
    };
    let send = |call| _ = send_null(&caller, 1, call, &to_server).unwrap();
    order(InnerFault::RpcDrop);
    (0..2).for_each(send);
    assert_eq!(calls_from_0(&server, &to_caller), [1]);
    order(InnerFault::RpcDuplicate);
    (2..4).for_each(send);
    assert_eq!(calls_from_0(&server, &to_caller), [2, 3]);
    order(InnerFault::RpcCorrupt);
    (4..6).for_each(send);
    assert_eq!(calls_from_0(&server, &to_caller), [5]);
    let received = server.statistics(cell(0)).received;
    assert_eq!(
        (received.lost, received.duplicates, received.refused),
        (2, 1, 1)
    );
    order(InnerFault::RpcDelay);
    (6..8).for_each(send);
    _ = caller.tend(cell(1), Instant(49), &to_server).unwrap();
    assert_eq!(calls_from_0(&server, &to_caller), [7]);
    _ = caller.tend(cell(1), Instant(50), &to_server).unwrap();
    assert_eq!(calls_from_0(&server, &to_caller), [6]);
    assert_eq!(
        server.statistics(cell(0)).received.lost,
        2,
        "late is not lost"
    );
}

#[test]
fn a_peer_that_is_cut_off_is_an_error_and_not_a_wait() {
    let mut memory = [CellMemory::new(2), CellMemory::new(2)];
    memory[1].cut_off = true;
    let caller = memory[0].endpoint(0, 1);
    caller.admit(cell(1), Incarnation(1));
    let remote = memory[1].lane_for(0);
    assert!(matches!(
        send_null(&caller, 1, 0, &remote),
        Err(SendError::Unreachable(_))
    ));
    assert!(matches!(
        caller.poll(cell(1), &remote),
        Some(Err(Refusal::Unreachable(_)))
    ));
    assert!(!caller.has_message(cell(1), &remote));
}

mod properties;
mod stress;
