//! Messages that are sealed, damaged and opened.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::missing_errors_doc,
    reason = "helpers of tests, used next to where they are"
)]

use super::*;
use crate::testing::life;
use proptest::prelude::*;

fn expectation(queue: Queue) -> Expectation {
    Expectation {
        queue,
        sender: life(1, 5),
        receiver: life(2, 9),
    }
}

fn draft(queue: Queue, bytes: &[u8]) -> Draft {
    let status = if queue == Queue::Replies {
        ReplyStatus::Done as u16
    } else {
        0
    };
    let payload = Payload::from_bytes(bytes).unwrap();
    Draft {
        queue,
        call: CallNumber(77),
        operation: Operation::Echo,
        status,
        payload,
    }
}

/// Opens what lies in a slot.
fn open(words: &[u64], queue: Queue) -> Result<(u32, Message), Refusal> {
    expectation(queue).open(&mut |first, to| {
        to.copy_from_slice(&words[first..first + to.len()]);
        Ok(())
    })
}

/// A slot that holds a message, after older content.
fn slot(message: &Sealed) -> [u64; SLOT_WORDS] {
    let mut words = [u64::MAX; SLOT_WORDS];
    words[..message.words().len()].copy_from_slice(message.words());
    words
}

/// Changes words and makes the checksum fit again, as a sick kernel could.
fn forge(mut message: Sealed, change: impl FnOnce(&mut [u64; SLOT_WORDS])) -> [u64; SLOT_WORDS] {
    change(&mut message.words);
    message.words[CHECKSUM_WORD] = checksum(message.words());
    slot(&message)
}

#[test]
fn what_is_sealed_is_opened() {
    let request = draft(Queue::Requests, b"hello").seal(3, life(1, 5), life(2, 9));
    let (sequence, message) = open(&slot(&request), Queue::Requests).unwrap();
    let Message::Request(request) = message else {
        panic!("a request")
    };
    assert_eq!((sequence, request.call), (3, CallNumber(77)));
    assert_eq!(
        (request.from, request.incarnation),
        (life(1, 5).cell, Incarnation(5))
    );
    assert_eq!(
        &request.payload.to_bytes()[..request.payload.len()],
        b"hello"
    );
    let reply = draft(Queue::Replies, &[7; 88]).seal(4, life(1, 5), life(2, 9));
    let (_, message) = open(&slot(&reply), Queue::Replies).unwrap();
    assert!(matches!(
        message,
        Message::Reply(Reply {
            status: ReplyStatus::Done,
            ..
        })
    ));
}

#[test]
fn a_short_message_fits_one_cache_line() {
    let compute = crate::operation::Compute { seed: 1, rounds: 2 }.encode();
    let message = Draft {
        payload: compute,
        ..draft(Queue::Requests, &[])
    };
    assert!(message.seal(0, life(1, 5), life(2, 9)).words().len() * 8 <= 64);
}

#[test]
fn each_lie_has_its_own_refusal() {
    let sealed = draft(Queue::Requests, b"abc").seal(0, life(1, 5), life(2, 9));
    let refusal = |change: fn(&mut [u64; SLOT_WORDS])| {
        open(&forge(sealed, change), Queue::Requests).unwrap_err()
    };
    assert_eq!(refusal(|words| words[3] ^= 2), Refusal::Sender(3));
    assert_eq!(refusal(|words| words[3] ^= 1 << 8), Refusal::Receiver(3));
    assert_eq!(refusal(|words| words[3] ^= 1 << 16), Refusal::Queue(1));
    assert_eq!(refusal(|words| words[3] |= 89 << 24), Refusal::Length(91));
    assert_eq!(refusal(|words| words[3] ^= 1 << 63), Refusal::Reserved);
    assert_eq!(refusal(|words| words[5] ^= 1 << 24), Refusal::Reserved);
    let stale = Refusal::Stale(Incarnation(4), Incarnation(9));
    assert_eq!(refusal(|words| words[0] ^= 1 << 32), stale);
    let stale = Refusal::Stale(Incarnation(5), Incarnation(8));
    assert_eq!(refusal(|words| words[2] ^= 1), stale);
    assert_eq!(
        refusal(|words| words[2] ^= 1 << 47),
        Refusal::UnknownOperation(0x8002)
    );
    assert_eq!(
        refusal(|words| words[2] ^= 1 << 48),
        Refusal::UnknownStatus(1)
    );
    let reply = draft(Queue::Replies, b"").seal(0, life(1, 5), life(2, 9));
    let forged = forge(reply, |words| words[2] ^= 1 << 63);
    assert_eq!(
        open(&forged, Queue::Replies),
        Err(Refusal::UnknownStatus(0x8001))
    );
}

#[test]
fn a_slot_of_zeros_is_no_message() {
    assert_eq!(
        open(&[0; SLOT_WORDS], Queue::Requests),
        Err(Refusal::Checksum)
    );
}

#[test]
fn old_and_repeated_messages_blame_nobody() {
    assert!(!Refusal::Stale(Incarnation(1), Incarnation(2)).blames_peer());
    assert!(!Refusal::Duplicate(1).blames_peer());
    assert!(Refusal::Checksum.blames_peer());
}

/// With the checksum mended, as a sick kernel could: what lies behind it is what is tried.
#[test]
fn spoilt_messages_are_refused_or_from_their_sender_to_their_receiver() {
    let request = draft(Queue::Requests, b"0123456789abcdef").seal(1, life(1, 5), life(2, 9));
    let reply = draft(Queue::Replies, b"01234567").seal(2, life(1, 5), life(2, 9));
    let valid = [request, reply].map(|sealed| fuzz::bytes(&slot(&sealed)));
    fuzz::cases(&[&valid[0], &valid[1]], |bytes| {
        let mut words = fuzz::words(bytes);
        words.resize(SLOT_WORDS, 0);
        let length = (words[3] >> 24 & 0xff) as usize;
        if length <= PAYLOAD_BYTES {
            let in_use = HEADER_WORDS + length.div_ceil(8);
            words[CHECKSUM_WORD] = checksum(&words[..in_use]);
        }
        for queue in [Queue::Requests, Queue::Replies] {
            let Ok((_, message)) = open(&words, queue) else {
                continue;
            };
            assert_eq!(
                matches!(message, Message::Reply(_)),
                queue == Queue::Replies
            );
            let payload = match message {
                Message::Request(request) => request.payload,
                Message::Reply(reply) => reply.payload,
            };
            assert!(payload.len() == length && length <= PAYLOAD_BYTES);
        }
    });
}

proptest! {
    #[test]
    fn any_flipped_bit_is_found(bytes in prop::collection::vec(any::<u8>(), 0..=88), bit: u64) {
        let mut message = draft(Queue::Requests, &bytes).seal(1, life(1, 5), life(2, 9));
        message.flip(bit);
        let refusal = open(&slot(&message), Queue::Requests).unwrap_err();
        prop_assert!(matches!(refusal, Refusal::Checksum | Refusal::Length(_)), "{:?}", refusal);
    }

    #[test]
    fn any_change_within_one_word_is_found(word in 0usize..8, value: u64, bytes: [u8; 24]) {
        let sealed = draft(Queue::Requests, &bytes).seal(1, life(1, 5), life(2, 9));
        let mut words = slot(&sealed);
        prop_assume!(words[word] != value);
        words[word] = value;
        prop_assert!(open(&words, Queue::Requests).is_err());
    }

    #[test]
    fn no_slot_makes_the_receiver_panic(words: [u64; SLOT_WORDS], length in 0u8..=90) {
        let _ = open(&words, Queue::Requests);
        let mut words = words;
        words[3] = words[3] & !(0xff << 24) | u64::from(length) << 24;
        if length as usize <= PAYLOAD_BYTES {
            let in_use = HEADER_WORDS + (length as usize).div_ceil(8);
            words[CHECKSUM_WORD] = checksum(&words[..in_use]);
        }
        let _ = open(&words, Queue::Replies);
    }

    #[test]
    fn payloads_keep_their_bytes(bytes in prop::collection::vec(any::<u8>(), 0..=100)) {
        let payload = Payload::from_bytes(&bytes);
        prop_assert_eq!(payload.is_some(), bytes.len() <= PAYLOAD_BYTES);
        if let Some(payload) = payload {
            prop_assert_eq!(&payload.to_bytes()[..payload.len()], &bytes[..]);
            prop_assert_eq!(payload.as_words().is_some(), bytes.len().is_multiple_of(8));
        }
    }
}
