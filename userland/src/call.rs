//! The operation that calls another cell: a request and a reply that both ends compute.

use cell::{CellId, Incarnation};

use crate::pattern::{Pattern, Purpose, differing};

/// Words of a request and of a reply.
pub const CALL_WORDS: usize = 8;

/// Words of a request that say who asks; the rest is pattern.
const NAME_WORDS: usize = 2;
const BODY_WORDS: usize = CALL_WORDS - NAME_WORDS;

/// Makes the request of number `sequence` of a worker.
pub(crate) fn request(
    seed: u64,
    caller: CellId,
    worker: usize,
    life: Incarnation,
    sequence: u64,
) -> [u64; CALL_WORDS] {
    let name = u64::from(life.0) << 32 | (worker as u64) << 8 | caller.index() as u64;
    let mut words = [name; CALL_WORDS];
    words[1] = sequence;
    words[NAME_WORDS..].copy_from_slice(&request_body(seed, name, sequence));
    words
}

/// Answers a request that came from `caller`; `None` if its bytes are not what that cell's workers
/// send. For the kernel of `server`, at interrupt level.
pub fn answer(
    seed: u64,
    server: CellId,
    caller: CellId,
    request: &[u64; CALL_WORDS],
) -> Option<[u64; CALL_WORDS]> {
    let [name, sequence, ..] = *request;
    let from_caller = (name & 0xff) as usize == caller.index();
    let sound = request[NAME_WORDS..] == request_body(seed, name, sequence);
    (from_caller && sound).then(|| reply(seed, server, name, sequence))
}

/// How many bytes of a reply are not what `server` must answer to `request`.
pub(crate) fn check(
    seed: u64,
    server: CellId,
    request: &[u64; CALL_WORDS],
    found: &[u64; CALL_WORDS],
) -> u64 {
    differing(found, &reply(seed, server, request[0], request[1]))
}

fn request_body(seed: u64, name: u64, sequence: u64) -> [u64; BODY_WORDS] {
    Pattern::new(seed, Purpose::Request)
        .of(name)
        .of(sequence)
        .words(0)
}

fn reply(seed: u64, server: CellId, name: u64, sequence: u64) -> [u64; CALL_WORDS] {
    let server = server.index() as u64;
    Pattern::new(seed, Purpose::Reply)
        .of(server)
        .of(name)
        .of(sequence)
        .words(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_request_or_reply_is_seen() {
        let cell = |number| CellId::new(number).expect("below the limit");
        let request = request(9, cell(1), 3, Incarnation(2), 77);
        let reply = answer(9, cell(2), cell(1), &request).expect("sound");
        assert_eq!(check(9, cell(2), &request, &reply), 0);
        assert_eq!(
            answer(9, cell(2), cell(0), &request),
            None,
            "not the caller's"
        );
        for bit in 0..64 * CALL_WORDS {
            let mut spoilt = request;
            spoilt[bit / 64] ^= 1 << (bit % 64);
            assert_eq!(answer(9, cell(2), cell(1), &spoilt), None);
            let mut spoilt = reply;
            spoilt[bit / 64] ^= 1 << (bit % 64);
            assert_eq!(check(9, cell(2), &request, &spoilt), 1);
        }
        assert_ne!(
            answer(9, cell(3), cell(1), &request),
            Some(reply),
            "tells servers apart"
        );
    }
}
