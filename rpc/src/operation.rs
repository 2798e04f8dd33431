//! What a cell may ask of another, with its arguments and results.
//!
//! Arguments and results are encoded and decoded by pure functions. Decoding accepts exactly what
//! encoding gives out and refuses everything else; what names something of the receiver's comes out
//! as a claim ([`ClaimedFrame`], [`ClaimedPage`]) that the receiver must check against what it has.
//!
//! # Invariants
//! 1. No payload makes a decoder panic, and no decoded value exceeds the limits that its type
//!    states.

use cell::{Frame, FrameRange};

use crate::message::{PAYLOAD_BYTES, PAYLOAD_WORDS, Payload};

/// Frames that one request or reply can name.
pub const FRAMES_MAX: usize = PAYLOAD_WORDS;

/// Rounds that [`Compute`] may ask for; bounds the time at interrupt level.
pub const ROUNDS_MAX: u64 = 1024;

macro_rules! operations {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $class:ident, $text:literal;)+) => {
        /// What a cell may ask of another.
        #[repr(u16)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Operation { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Operation {
            /// Every operation.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Decodes an operation from a message.
            pub const fn from_raw(raw: u16) -> Option<Self> {
                match raw { $($number => Some(Self::$name),)+ _ => None }
            }

            /// Where the operation is served.
            pub const fn class(self) -> ServiceClass {
                match self { $(Self::$name => ServiceClass::$class,)+ }
            }

            /// The operation's name in output.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

operations! {
    /// Nothing; for measuring. No arguments, no results.
    Null = 1, Interrupt, "null";
    /// Gives the arguments back as results.
    Echo = 2, Interrupt, "echo";
    /// Computes what the caller can verify. Arguments: [`Compute`]. Results: one word.
    Compute = 3, Interrupt, "compute";
    /// Proves that the cell serves calls. Arguments: one word. Results: the same word.
    Ping = 4, Interrupt, "ping";
    /// Asks for a page of the receiver, to read or to write. Arguments: [`ImportPage`]. Results:
    /// [`ImportedPage`].
    ImportPage = 5, Interrupt, "import page";
    /// Gives a page of the receiver back. Arguments: [`ReleasePage`]. No results.
    ReleasePage = 6, Queued, "release page";
    /// Asks for frames of the receiver. Arguments: [`BorrowFrames`]. Results: [`FrameList`].
    BorrowFrames = 7, Interrupt, "borrow frames";
    /// Gives frames of the receiver back. Arguments: [`FrameList`]. No results.
    ReturnFrames = 8, Queued, "return frames";
    /// Writes bytes to the serial port of the receiver. Arguments: the bytes. No results.
    ConsoleWrite = 9, Queued, "console write";
    /// Asks for what the workload of the receiver computes. Arguments and results: eight words
    /// each, which both ends can compute.
    Work = 10, Interrupt, "work";
    /// Bounces a word between two public headers, for measuring. Arguments: one word, the rounds.
    /// No results.
    Bounce = 11, Queued, "bounce";
    /// Polls for a while, so that calls meet a receiver that is awake; for measuring. Arguments:
    /// one word, milliseconds. No results.
    Attend = 12, Queued, "attend";
}

/// Where an operation is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServiceClass {
    /// Tried where the message was polled; falls back to the queue when it would have to wait.
    Interrupt,
    /// By a server thread.
    Queued,
}

/// A frame that another cell named.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClaimedFrame(u64);

impl ClaimedFrame {
    /// The frame, if it lies in `region`: the memory of the cell that must be its home.
    pub const fn within(self, region: FrameRange) -> Option<Frame> {
        if region.contains(Frame(self.0)) {
            Some(Frame(self.0))
        } else {
            None
        }
    }
}

impl From<Frame> for ClaimedFrame {
    fn from(frame: Frame) -> Self {
        Self(frame.0)
    }
}

/// A page, by number among those that its home exports, that another cell named.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClaimedPage(u64);

impl ClaimedPage {
    /// Names a page of another cell.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, if there is such a page among `count`.
    pub const fn below(self, count: usize) -> Option<usize> {
        if self.0 < count as u64 {
            Some(self.0 as usize)
        } else {
            None
        }
    }
}

/// What the importer may do with a page.
#[repr(u64)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read it.
    Read = 0,
    /// Write it, too.
    Write = 1,
}

/// Arguments of [`Operation::Compute`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compute {
    /// What to begin with.
    pub seed: u64,
    /// How often to go on; at most [`ROUNDS_MAX`].
    pub rounds: u64,
}

impl Compute {
    /// The result, the same in every cell.
    pub fn result(self) -> u64 {
        (0..self.rounds.min(ROUNDS_MAX)).fold(self.seed, |state, round| {
            (state ^ round)
                .wrapping_mul(0xd134_2543_de82_ef95)
                .rotate_left(23)
                .wrapping_add(round)
        })
    }

    /// Encodes the arguments.
    pub const fn encode(self) -> Payload {
        Payload::from_words([self.seed, self.rounds])
    }

    /// Decodes the arguments.
    pub fn decode(payload: Payload) -> Option<Self> {
        let [seed, rounds] = payload.to_words()?;
        (rounds <= ROUNDS_MAX).then_some(Self { seed, rounds })
    }
}

/// Encodes one word: arguments and results of `Ping`, results of `Compute`.
pub const fn encode_word(word: u64) -> Payload {
    Payload::from_words([word])
}

/// Decodes one word.
pub fn decode_word(payload: Payload) -> Option<u64> {
    payload.to_words().map(|[word]| word)
}

/// Arguments of [`Operation::ImportPage`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImportPage {
    /// Which page.
    pub page: ClaimedPage,
    /// What for.
    pub access: Access,
}

impl ImportPage {
    /// Encodes the arguments.
    pub const fn encode(self) -> Payload {
        Payload::from_words([self.page.0, self.access as u64])
    }

    /// Decodes the arguments.
    pub fn decode(payload: Payload) -> Option<Self> {
        let [page, access] = payload.to_words()?;
        let access = match access {
            0 => Access::Read,
            1 => Access::Write,
            _ => return None,
        };
        Some(Self {
            page: ClaimedPage(page),
            access,
        })
    }
}

/// Results of [`Operation::ImportPage`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImportedPage {
    /// Where the page lies. The importer checks that it is in the memory of the cell it asked.
    pub frame: ClaimedFrame,
    /// How often the page was discarded: whoever knew it under another number must not take it for
    /// the same.
    pub generation: u64,
}

impl ImportedPage {
    /// Encodes the results.
    pub const fn encode(self) -> Payload {
        Payload::from_words([self.frame.0, self.generation])
    }

    /// Decodes the results.
    pub fn decode(payload: Payload) -> Option<Self> {
        let [frame, generation] = payload.to_words()?;
        Some(Self {
            frame: ClaimedFrame(frame),
            generation,
        })
    }
}

/// Arguments of [`Operation::ReleasePage`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReleasePage {
    /// Which page.
    pub page: ClaimedPage,
}

impl ReleasePage {
    /// Encodes the arguments.
    pub const fn encode(self) -> Payload {
        Payload::from_words([self.page.0])
    }

    /// Decodes the arguments.
    pub fn decode(payload: Payload) -> Option<Self> {
        payload.to_words().map(|[page]| Self {
            page: ClaimedPage(page),
        })
    }
}

/// Arguments of [`Operation::BorrowFrames`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BorrowFrames {
    /// How many; 1 to [`FRAMES_MAX`]. The lender may give fewer.
    pub count: usize,
}

impl BorrowFrames {
    /// Encodes the arguments.
    pub const fn encode(self) -> Payload {
        Payload::from_words([self.count as u64])
    }

    /// Decodes the arguments.
    pub fn decode(payload: Payload) -> Option<Self> {
        let count = decode_word(payload)?;
        (1..=FRAMES_MAX as u64).contains(&count).then_some(Self {
            count: count as usize,
        })
    }
}

/// 1 to [`FRAMES_MAX`] frames, each named once. Results of [`Operation::BorrowFrames`], arguments
/// of [`Operation::ReturnFrames`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameList {
    frames: [ClaimedFrame; FRAMES_MAX],
    count: usize,
}

impl FrameList {
    /// The list of these frames; `None` if they are none, too many, or not all different.
    pub fn new(frames: &[Frame]) -> Option<Self> {
        Self::from_raw(frames.iter().map(|frame| frame.0))
    }

    /// The frames as the other cell named them.
    pub fn as_slice(&self) -> &[ClaimedFrame] {
        &self.frames[..self.count]
    }

    /// Encodes the list.
    pub fn encode(&self) -> Payload {
        let mut bytes = [0; PAYLOAD_BYTES];
        for (chunk, frame) in bytes.chunks_exact_mut(8).zip(self.as_slice()) {
            chunk.copy_from_slice(&frame.0.to_le_bytes());
        }
        Payload::from_bytes(&bytes[..self.count * 8]).unwrap_or(Payload::EMPTY)
    }

    /// Decodes a list.
    pub fn decode(payload: Payload) -> Option<Self> {
        Self::from_raw(payload.as_words()?.iter().copied())
    }

    fn from_raw(raw: impl ExactSizeIterator<Item = u64>) -> Option<Self> {
        let count = raw.len();
        if count == 0 || count > FRAMES_MAX {
            return None;
        }
        let mut list = Self {
            frames: [ClaimedFrame(0); FRAMES_MAX],
            count: 0,
        };
        for frame in raw.map(ClaimedFrame) {
            if list.as_slice().contains(&frame) {
                return None;
            }
            list.frames[list.count] = frame;
            list.count += 1;
        }
        Some(list)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_operation_decodes_to_itself() {
        for &operation in Operation::ALL {
            assert_eq!(Operation::from_raw(operation as u16), Some(operation));
        }
        assert_eq!(
            Operation::from_raw(0),
            None,
            "a message of zeros asks for nothing"
        );
    }

    #[test]
    fn claims_are_checked_against_what_there_is() {
        let region = FrameRange {
            start: Frame(10),
            end: Frame(20),
        };
        assert_eq!(ClaimedFrame(19).within(region), Some(Frame(19)));
        assert_eq!(ClaimedFrame(20).within(region), None);
        assert_eq!(ClaimedFrame(u64::MAX).within(region), None);
        assert_eq!(ClaimedPage(3).below(4), Some(3));
        assert_eq!(ClaimedPage(4).below(4), None);
    }

    #[test]
    fn lists_name_each_frame_once() {
        assert_eq!(FrameList::new(&[]), None);
        assert_eq!(FrameList::new(&[Frame(1), Frame(2), Frame(1)]), None);
        let many: Vec<Frame> = (0..12).map(Frame).collect();
        assert_eq!(FrameList::new(&many), None);
        assert_eq!(
            FrameList::new(&many[..11]).map(|list| list.as_slice().len()),
            Some(11)
        );
    }

    #[test]
    fn computing_takes_bounded_time_and_depends_on_both_arguments() {
        let result = |seed, rounds| Compute { seed, rounds }.result();
        assert_eq!(result(5, u64::MAX), result(5, ROUNDS_MAX));
        assert_ne!(result(5, 10), result(6, 10));
        assert_ne!(result(5, 10), result(5, 11));
    }

    proptest! {
        /// What a decoder accepts is exactly what its encoder gives out.
        #[test]
        fn decoders_accept_no_second_form(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..=PAYLOAD_BYTES),
                prop::collection::vec(prop::sample::select(vec![0u8, 1, 2]), 0..=PAYLOAD_BYTES),
            ],
        ) {
            let payload = Payload::from_bytes(&bytes).unwrap();
            let forms = [
                Compute::decode(payload).map(Compute::encode),
                decode_word(payload).map(encode_word),
                ImportPage::decode(payload).map(ImportPage::encode),
                ImportedPage::decode(payload).map(ImportedPage::encode),
                ReleasePage::decode(payload).map(ReleasePage::encode),
                BorrowFrames::decode(payload).map(BorrowFrames::encode),
                FrameList::decode(payload).map(|list| list.encode()),
            ];
            for form in forms.into_iter().flatten() {
                prop_assert_eq!(form, payload);
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(
            word: u64,
            rounds in 0..=ROUNDS_MAX,
            count in 1..=FRAMES_MAX,
        ) {
            let compute = Compute { seed: word, rounds };
            prop_assert_eq!(Compute::decode(compute.encode()), Some(compute));
            prop_assert_eq!(decode_word(encode_word(word)), Some(word));
            let import = ImportPage { page: ClaimedPage::new(word), access: Access::Write };
            prop_assert_eq!(ImportPage::decode(import.encode()), Some(import));
            let imported = ImportedPage { frame: ClaimedFrame(word), generation: rounds };
            prop_assert_eq!(ImportedPage::decode(imported.encode()), Some(imported));
            let release = ReleasePage { page: ClaimedPage::new(word) };
            prop_assert_eq!(ReleasePage::decode(release.encode()), Some(release));
            let borrow = BorrowFrames { count };
            prop_assert_eq!(BorrowFrames::decode(borrow.encode()), Some(borrow));
            let frames = (rounds..rounds + count as u64).map(Frame);
            let list = FrameList::new(&frames.collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(FrameList::decode(list.encode()), Some(list));
        }
    }

    #[test]
    fn spoilt_payloads_are_refused_or_decode_to_what_they_are() {
        let frames: Vec<Frame> = (0x1000..0x100b).map(Frame).collect();
        let import = ImportPage {
            page: ClaimedPage::new(3),
            access: Access::Write,
        };
        let valid = [
            Compute { seed: 1, rounds: 9 }.encode(),
            import.encode(),
            BorrowFrames { count: FRAMES_MAX }.encode(),
            FrameList::new(&frames).unwrap().encode(),
        ];
        let valid = valid.map(|payload| payload.to_bytes()[..payload.len()].to_vec());
        let valid = valid.each_ref().map(Vec::as_slice);
        fuzz::cases(&valid, |bytes| {
            let Some(payload) = Payload::from_bytes(bytes) else {
                return;
            };
            let forms = [
                Compute::decode(payload).map(Compute::encode),
                ImportPage::decode(payload).map(ImportPage::encode),
                BorrowFrames::decode(payload).map(BorrowFrames::encode),
                FrameList::decode(payload).map(|list| list.encode()),
            ];
            for form in forms.into_iter().flatten() {
                assert_eq!(form, payload);
            }
            assert!(BorrowFrames::decode(payload).is_none_or(|it| it.count <= FRAMES_MAX));
        });
    }
}
