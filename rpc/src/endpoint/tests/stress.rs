//! Two cells with two CPUs each, as host threads.

use super::*;
use std::thread;

const CALLS: u64 = 20_000;

/// Polls once and sends what is due; gives back the calls that were answered.
fn serve_once(
    endpoint: &Endpoint<'_, HostLocking>,
    peer: usize,
    remote: &impl RemoteLane,
) -> Option<u64> {
    match endpoint
        .poll(cell(peer), remote)?
        .expect("nobody is sick here")
    {
        Message::Reply(reply) => {
            assert_eq!(reply.payload.to_words(), Some([reply.call.0 * 3]));
            Some(reply.call.0)
        }
        Message::Request(request) => {
            let answer = (ReplyStatus::Done, Payload::from_words([request.call.0 * 3]));
            while endpoint
                .send_reply(&request, answer, Instant(0), remote)
                .is_err()
            {
                thread::yield_now();
            }
            None
        }
    }
}

/// One CPU of cell `own`: it calls, serves, and sums up the calls whose answers it met.
fn work(
    endpoint: &Endpoint<'_, HostLocking>,
    peer: usize,
    remote: &impl RemoteLane,
    answered: &AtomicU64,
    calls: core::ops::Range<u64>,
) -> u64 {
    let mut sum = 0;
    let mut next = calls.start;
    let goal = CALLS * 2;
    while answered.load(Ordering::SeqCst) < goal {
        if next < calls.end && send_null(endpoint, peer, next, remote).is_ok() {
            next += 1;
        }
        match serve_once(endpoint, peer, remote) {
            Some(call) => {
                sum += call;
                answered.fetch_add(1, Ordering::SeqCst);
            }
            None => thread::yield_now(),
        }
    }
    sum
}

#[test]
fn two_cells_of_two_cpus_lose_nothing_and_take_nothing_twice() {
    let memory = [CellMemory::new(2), CellMemory::new(2)];
    let endpoints = [memory[0].endpoint(0, 1), memory[1].endpoint(1, 1)];
    admit_each_other([&endpoints[0], &endpoints[1]]);
    let answered = AtomicU64::new(0);
    let half = CALLS / 2;
    let sum: u64 = thread::scope(|scope| {
        let cpus = [
            (0, 0..half),
            (0, half..CALLS),
            (1, 0..half),
            (1, half..CALLS),
        ];
        let threads = cpus.map(|(own, calls)| {
            let (endpoint, peer) = (&endpoints[own], 1 - own);
            let (remote, answered) = (memory[peer].lane_for(own), &answered);
            scope.spawn(move || work(endpoint, peer, &remote, answered, calls))
        });
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    });
    assert_eq!(sum, 2 * (0..CALLS).sum::<u64>());
    for (own, endpoint) in endpoints.iter().enumerate() {
        let received = endpoint.statistics(cell(1 - own)).received;
        let nothing_else = received.lost + received.duplicates + received.refused;
        assert_eq!(
            (received.received, nothing_else + received.ran_away),
            (2 * CALLS, 0)
        );
    }
}
