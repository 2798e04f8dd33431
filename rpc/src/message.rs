//! The 128-byte message: sealed by its sender, checked by its receiver.
//!
//! ```text
//! word 0   sequence number (low half), incarnation of the sender (high half)
//! word 1   number of the call
//! word 2   incarnation of the receiver (low half), operation (16 bits), status (16 bits)
//! word 3   sender, receiver, queue, length of the payload (8 bits each); 32 bits of zero
//! word 4   checksum over all other words in use
//! word 5   payload, up to 88 bytes; words beyond the length are not in use
//! ```
//! More than 88 bytes go by reference: the message names an address, which is read by careful
//! reference.
//!
//! # Invariants
//! 1. The receiver looks at copies only, and gives out nothing that it has not checked.
//! 2. A change of any bits within one word of a sealed message is always found; any other change,
//!    but for a chance of one in 2^64.
//!
//! # Not guaranteed
//! That the checksum keeps a malicious kernel out: it finds damage, not lies. What a message asks
//! for is checked against what its sender may ask.

use cell::careful::CarefulError;
use cell::{CellId, Incarnation};

use crate::call::CallNumber;
use crate::layout::{Queue, SLOT_WORDS};
use crate::operation::Operation;

/// Words before the payload.
pub const HEADER_WORDS: usize = 5;
/// Words of the largest payload.
pub const PAYLOAD_WORDS: usize = SLOT_WORDS - HEADER_WORDS;
/// Bytes of the largest payload.
pub const PAYLOAD_BYTES: usize = PAYLOAD_WORDS * 8;

const CHECKSUM_WORD: usize = 4;

/// What a message carries: up to [`PAYLOAD_BYTES`] bytes.
///
/// # Invariant
/// Bytes beyond the length are zero, so that equal payloads compare equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload {
    words: [u64; PAYLOAD_WORDS],
    length: u8,
}

impl Payload {
    /// Nothing.
    pub const EMPTY: Self = Self {
        words: [0; PAYLOAD_WORDS],
        length: 0,
    };

    /// These words.
    pub const fn from_words<const N: usize>(words: [u64; N]) -> Self {
        const { assert!(N <= PAYLOAD_WORDS) };
        let mut payload = Self::EMPTY;
        payload.words.split_at_mut(N).0.copy_from_slice(&words);
        payload.length = N as u8 * 8;
        payload
    }

    /// These bytes; `None` if they are more than [`PAYLOAD_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut payload = Self::EMPTY;
        if bytes.len() > PAYLOAD_BYTES {
            return None;
        }
        for (word, chunk) in payload.words.iter_mut().zip(bytes.chunks(8)) {
            let mut filled = [0; 8];
            filled[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(filled);
        }
        payload.length = bytes.len() as u8;
        Some(payload)
    }

    /// The payload as exactly `N` words, or `None` if its length is another one.
    pub fn to_words<const N: usize>(self) -> Option<[u64; N]> {
        self.as_words()?.try_into().ok()
    }

    /// The payload as words, or `None` if it ends within one.
    pub fn as_words(&self) -> Option<&[u64]> {
        self.length
            .is_multiple_of(8)
            .then(|| &self.words[..self.words_in_use()])
    }

    /// All bytes that the payload can have; [`Payload::len`] tells how many are in use.
    pub fn to_bytes(self) -> [u8; PAYLOAD_BYTES] {
        let mut bytes = [0; PAYLOAD_BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Bytes in use.
    pub const fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether no byte is in use.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    const fn words_in_use(&self) -> usize {
        self.len().div_ceil(8)
    }
}

macro_rules! statuses {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)+) => {
        /// How the receiver of a request answers.
        #[repr(u16)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ReplyStatus { $($(#[doc = $doc])+ $name = $number,)+ }

        impl ReplyStatus {
            /// Every status.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Decodes a status from a message.
            pub const fn from_raw(raw: u16) -> Option<Self> {
                match raw { $($number => Some(Self::$name),)+ _ => None }
            }

            /// The status's name in output.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

statuses! {
    /// Done; the payload holds the results.
    Done = 1, "done";
    /// The receiver has too much to do; try again later.
    Busy = 2, "busy";
    /// The arguments make no sense: the sender's fault.
    BadArgument = 3, "bad argument";
    /// The sender has no right to it.
    Denied = 4, "denied";
    /// What was named is gone.
    Gone = 5, "gone";
    /// The receiver has none left to give.
    Exhausted = 6, "exhausted";
}

/// A checked request from another cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Who asks.
    pub from: CellId,
    /// In which life.
    pub incarnation: Incarnation,
    /// The sender's name for the call.
    pub call: CallNumber,
    /// What is asked.
    pub operation: Operation,
    /// The arguments, not yet decoded.
    pub payload: Payload,
}

/// A checked reply from another cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Who answers.
    pub from: CellId,
    /// In which life.
    pub incarnation: Incarnation,
    /// The call that it claims to answer.
    pub call: CallNumber,
    /// The operation that it claims to answer.
    pub operation: Operation,
    /// How it ended.
    pub status: ReplyStatus,
    /// The results, not yet decoded.
    pub payload: Payload,
}

/// A message that passed every check which needs no knowledge of calls or operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// Somebody asks.
    Request(Request),
    /// Somebody answers.
    Reply(Reply),
}

/// Why something in a peer's ring was not taken for a message. The slot is passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The ring could not be read.
    Unreachable(CarefulError),
    /// The peer's index is this far from what was read last, more than its ring holds. What lay
    /// between is lost.
    RanAway(u32),
    /// A payload longer than a message holds; the length.
    Length(u8),
    /// The checksum does not fit.
    Checksum,
    /// The peer gave itself out as another cell; the number.
    Sender(u8),
    /// The message is for another cell; the number.
    Receiver(u8),
    /// A request among replies, a reply among requests, or neither; the number.
    Queue(u8),
    /// Bits that must be zero are not.
    Reserved,
    /// From or for another life; the incarnations of sender and receiver that it names.
    Stale(Incarnation, Incarnation),
    /// It was read before; the sequence number.
    Duplicate(u32),
    /// A sequence number too far from the expected one to be explained by loss.
    OutOfSequence(u32),
    /// No such operation; the number.
    UnknownOperation(u16),
    /// No such status; the number.
    UnknownStatus(u16),
}

impl Refusal {
    /// Whether the refusal is a hint about the peer. Old and repeated messages are not: they do no
    /// harm.
    pub const fn blames_peer(&self) -> bool {
        match self {
            Self::Unreachable(error) => error.blames_cell(),
            Self::Stale(..) | Self::Duplicate(_) => false,
            _ => true,
        }
    }

    /// A number for traces: which kind of refusal.
    pub const fn code(&self) -> u32 {
        match self {
            Self::Unreachable(_) => 1,
            Self::RanAway(_) => 2,
            Self::Length(_) => 3,
            Self::Checksum => 4,
            Self::Sender(_) => 5,
            Self::Receiver(_) => 6,
            Self::Queue(_) => 7,
            Self::Reserved => 8,
            Self::Stale(..) => 9,
            Self::Duplicate(_) => 10,
            Self::OutOfSequence(_) => 11,
            Self::UnknownOperation(_) => 12,
            Self::UnknownStatus(_) => 13,
        }
    }
}

/// A cell in one of its lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// The cell.
    pub cell: CellId,
    /// The life.
    pub incarnation: Incarnation,
}

/// What the sender says, before it is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Draft {
    pub(crate) queue: Queue,
    pub(crate) call: CallNumber,
    pub(crate) operation: Operation,
    /// Of replies; 0 in requests.
    pub(crate) status: u16,
    pub(crate) payload: Payload,
}

/// A message as words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sealed {
    words: [u64; SLOT_WORDS],
    in_use: usize,
}

impl Sealed {
    /// The words in use.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words[..self.in_use]
    }

    /// Flips a bit of the words in use.
    pub(crate) fn flip(&mut self, bit: u64) {
        let bit = bit as usize % (self.in_use * 64);
        self.words[bit / 64] ^= 1 << (bit % 64);
    }
}

impl Draft {
    /// Seals the message number `sequence` from `sender` to `receiver`.
    pub(crate) fn seal(&self, sequence: u32, sender: Life, receiver: Life) -> Sealed {
        let mut words = [0; SLOT_WORDS];
        words[0] = u64::from(sequence) | u64::from(sender.incarnation.0) << 32;
        words[1] = self.call.0;
        words[2] = u64::from(receiver.incarnation.0)
            | u64::from(self.operation as u16) << 32
            | u64::from(self.status) << 48;
        words[3] = u64::from_le_bytes([
            sender.cell.index() as u8,
            receiver.cell.index() as u8,
            self.queue as u8,
            self.payload.length,
            0,
            0,
            0,
            0,
        ]);
        words[HEADER_WORDS..].copy_from_slice(&self.payload.words);
        let in_use = HEADER_WORDS + self.payload.words_in_use();
        words[CHECKSUM_WORD] = checksum(&words[..in_use]);
        Sealed { words, in_use }
    }
}

/// Reads words of the slot at hand: the first word, and where to.
pub(crate) type CopyWords<'a> = dyn FnMut(usize, &mut [u64]) -> Result<(), CarefulError> + 'a;

/// Who may be the sender and the receiver of a message in a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expectation {
    pub(crate) queue: Queue,
    pub(crate) sender: Life,
    pub(crate) receiver: Life,
}

impl Expectation {
    /// Copies a message, checks it and gives it out with its sequence number, which is left to the
    /// ring to check.
    ///
    /// # Errors
    /// See [`Refusal`]; never `RanAway`, `Duplicate` or `OutOfSequence`.
    pub(crate) fn open(&self, copy: &mut CopyWords<'_>) -> Result<(u32, Message), Refusal> {
        let mut words = [0; SLOT_WORDS];
        copy(0, &mut words[..HEADER_WORDS]).map_err(Refusal::Unreachable)?;
        let [sender, receiver, queue, length, reserved @ ..] = words[3].to_le_bytes();
        if length as usize > PAYLOAD_BYTES {
            return Err(Refusal::Length(length));
        }
        let in_use = HEADER_WORDS + (length as usize).div_ceil(8);
        copy(HEADER_WORDS, &mut words[HEADER_WORDS..in_use]).map_err(Refusal::Unreachable)?;
        if checksum(&words[..in_use]) != words[CHECKSUM_WORD] {
            return Err(Refusal::Checksum);
        }
        if sender as usize != self.sender.cell.index() {
            return Err(Refusal::Sender(sender));
        }
        if receiver as usize != self.receiver.cell.index() {
            return Err(Refusal::Receiver(receiver));
        }
        if queue != self.queue as u8 {
            return Err(Refusal::Queue(queue));
        }
        let lives = (
            Incarnation((words[0] >> 32) as u32),
            Incarnation(words[2] as u32),
        );
        if lives != (self.sender.incarnation, self.receiver.incarnation) {
            return Err(Refusal::Stale(lives.0, lives.1));
        }
        if reserved != [0; 4] || !tail_is_zero(&words[HEADER_WORDS..], length) {
            return Err(Refusal::Reserved);
        }
        let mut payload = Payload {
            words: [0; PAYLOAD_WORDS],
            length,
        };
        payload.words.copy_from_slice(&words[HEADER_WORDS..]);
        let status = (words[2] >> 48) as u16;
        let operation = (words[2] >> 32) as u16;
        let message = self.message(CallNumber(words[1]), operation, status, payload)?;
        Ok((words[0] as u32, message))
    }

    /// # Errors
    /// `UnknownOperation`, `UnknownStatus`.
    fn message(
        &self,
        call: CallNumber,
        operation: u16,
        status: u16,
        payload: Payload,
    ) -> Result<Message, Refusal> {
        let Life {
            cell: from,
            incarnation,
        } = self.sender;
        let operation =
            Operation::from_raw(operation).ok_or(Refusal::UnknownOperation(operation))?;
        let unknown = Refusal::UnknownStatus(status);
        match self.queue {
            Queue::Requests if status == 0 => Ok(Message::Request(Request {
                from,
                incarnation,
                call,
                operation,
                payload,
            })),
            Queue::Requests => Err(unknown),
            Queue::Replies => {
                let status = ReplyStatus::from_raw(status).ok_or(unknown)?;
                Ok(Message::Reply(Reply {
                    from,
                    incarnation,
                    call,
                    operation,
                    status,
                    payload,
                }))
            }
        }
    }
}

/// Whether the bytes of the last word in use beyond `length` are zero, as [`Payload`] demands.
fn tail_is_zero(payload: &[u64], length: u8) -> bool {
    let (full, rest) = (length as usize / 8, length as u32 % 8);
    rest == 0 || payload[full] >> (rest * 8) == 0
}

/// The checksum of the words of a message. Each step is a bijection of the state for a given word,
/// and of the word for a given state; so a change within one word always changes the result
/// (invariant 2). The start keeps a slot of zeros from being a message.
fn checksum(words: &[u64]) -> u64 {
    const START: u64 = 0x243f_6a88_85a3_08d3;
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |state: u64, &word: &u64| (state ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let (before, rest) = words.split_at(CHECKSUM_WORD);
    rest[1..].iter().fold(before.iter().fold(START, step), step)
}

#[cfg(all(test, not(loom)))]
mod tests;
