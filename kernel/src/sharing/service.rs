//! Requests about shared memory as they arrive, and the replies to them.
//!
//! The four operations take bounded time and never wait, so they can be served at interrupt level
//! as well as by a server thread.
//!
//! # Invariants
//! 1. The sender is who the transport says it is; no argument names it.
//! 2. Every request gets exactly one reply.

use cell::FrameRange;
use rpc::operation::{
    BorrowFrames, ClaimedPage, FrameList, ImportPage, ImportedPage, Operation, ReleasePage,
};
use rpc::{Payload, ReplyStatus, Request};

use super::claim::{self, PageIndex, Peer};
use super::discard::{EXPORTS_MAX, Tables};
use super::error::SharingError;
use super::firewall::{Firewall, Refusal};
use super::loans::LOAN_FRAMES_MAX;

/// What the home did with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// For the reply.
    pub status: ReplyStatus,
    /// For the reply.
    pub payload: Payload,
    /// Why it was not done. [`SharingError::blame`] tells whether the sender is to be suspected.
    pub error: Option<SharingError>,
}

impl Tables {
    /// Serves a request in which `own` is this cell's region; `None` if the operation is not about
    /// shared memory.
    pub fn serve(
        &mut self,
        request: &Request,
        own: FrameRange,
        firewall: &mut impl Firewall,
    ) -> Option<Answer> {
        let from = Peer {
            cell: request.from,
            incarnation: request.incarnation,
        };
        let outcome = match request.operation {
            Operation::ImportPage => self.serve_import(from, request.payload, firewall),
            Operation::ReleasePage => self.serve_release(from, request.payload, firewall),
            Operation::BorrowFrames => self.serve_borrow(from, request.payload, firewall),
            Operation::ReturnFrames => self.serve_return(from, request.payload, own, firewall),
            _ => return None,
        };
        Some(match outcome {
            Ok(payload) => Answer {
                status: ReplyStatus::Done,
                payload,
                error: None,
            },
            Err(error) => Answer {
                status: status_of(error),
                payload: Payload::EMPTY,
                error: Some(error),
            },
        })
    }

    fn serve_import(
        &mut self,
        client: Peer,
        payload: Payload,
        firewall: &mut impl Firewall,
    ) -> Result<Payload, SharingError> {
        let import = ImportPage::decode(payload).ok_or(SharingError::NoSuchPage)?;
        let page = page_of(import.page)?;
        let export = self.exports.export(client, page, import.access, firewall)?;
        let (frame, generation) = (export.frame.into(), export.generation.raw());
        Ok(ImportedPage { frame, generation }.encode())
    }

    fn serve_release(
        &mut self,
        client: Peer,
        payload: Payload,
        firewall: &mut impl Firewall,
    ) -> Result<Payload, SharingError> {
        let release = ReleasePage::decode(payload).ok_or(SharingError::NoSuchPage)?;
        self.exports
            .release(client, page_of(release.page)?, firewall)?;
        Ok(Payload::EMPTY)
    }

    fn serve_borrow(
        &mut self,
        borrower: Peer,
        payload: Payload,
        firewall: &mut impl Firewall,
    ) -> Result<Payload, SharingError> {
        let borrow = BorrowFrames::decode(payload).ok_or(SharingError::BadCount)?;
        let frames = self.loans.lend(borrower, borrow.count as u64, firewall)?;
        Ok(list_of(frames).encode())
    }

    fn serve_return(
        &mut self,
        borrower: Peer,
        payload: Payload,
        own: FrameRange,
        firewall: &mut impl Firewall,
    ) -> Result<Payload, SharingError> {
        let list = FrameList::decode(payload).ok_or(SharingError::BadCount)?;
        let frames = claim::run_of(&list, own)?;
        self.loans.take_back(borrower, frames, firewall)?;
        Ok(Payload::EMPTY)
    }
}

/// The list that names a run of frames of a loan.
///
/// # Panics
/// If the run is empty or longer than a loan can be: the caller's own mistake.
pub fn list_of(frames: FrameRange) -> FrameList {
    let count = frames.len() as usize;
    assert!(
        (1..=LOAN_FRAMES_MAX as usize).contains(&count),
        "no loan has that many frames"
    );
    let named = core::array::from_fn::<_, { LOAN_FRAMES_MAX as usize }, _>(|index| {
        cell::Frame(frames.start.0 + index as u64)
    });
    FrameList::new(&named[..count]).expect("a run names each frame once")
}

/// The name by which `page` of another cell is asked for.
pub const fn name_of(page: PageIndex) -> ClaimedPage {
    ClaimedPage::new(page.0 as u64)
}

fn page_of(claimed: ClaimedPage) -> Result<PageIndex, SharingError> {
    let number = claimed.below(EXPORTS_MAX).ok_or(SharingError::NoSuchPage)?;
    Ok(PageIndex(number as u32))
}

/// What a client is told of an error.
const fn status_of(error: SharingError) -> ReplyStatus {
    match error {
        SharingError::NoSuchPage
        | SharingError::NotLent
        | SharingError::BadCount
        | SharingError::OutsideRegion
        | SharingError::FrameTwice => ReplyStatus::BadArgument,
        SharingError::StaleLife
        | SharingError::PeerGone(_)
        | SharingError::StaleGeneration { .. }
        | SharingError::Refused(Refusal::Stale) => ReplyStatus::Gone,
        SharingError::OldLifeHolds
        | SharingError::Discarded
        | SharingError::InTransit
        | SharingError::Answered(_)
        | SharingError::TimedOut
        | SharingError::Refused(Refusal::Busy) => ReplyStatus::Busy,
        SharingError::QuotaExceeded
        | SharingError::TableFull
        | SharingError::OutOfFrames
        | SharingError::Refused(Refusal::Exhausted) => ReplyStatus::Exhausted,
        SharingError::Refused(Refusal::Denied) => ReplyStatus::Denied,
    }
}
