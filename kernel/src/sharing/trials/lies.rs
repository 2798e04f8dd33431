//! What a sick cell gets for its lies: an error with its name on it, and nothing else.

use cell::{Epoch, Frame, FrameRange, Incarnation};
use rpc::operation::{Access, FrameList, ImportedPage};

use super::machine::Machine;
use super::world::Member;
use super::{POOL, REGION, answer_of, cell_id, region};
use crate::sharing::claim::{Generation, PageIndex, Peer};
use crate::sharing::error::{Blame, SharingError};
use crate::sharing::imports::Begin;
use crate::sharing::service::list_of;

#[test]
fn what_a_sick_home_answers_is_refused() {
    let mut client = Member::boot(cell_id(0), 1);
    let home = Peer {
        cell: cell_id(1),
        incarnation: Incarnation(1),
    };
    let generation = Generation::first(home.incarnation);
    let mut answer = |page, frame| {
        let imports = &mut client.tables.imports;
        match imports.begin(home, PageIndex(page), Access::Write) {
            Ok(Begin::Ask(ask)) => {
                let answer = answer_of(frame, generation);
                imports
                    .complete(ask, answer, region(home.cell), Epoch(0))
                    .map(|_| ())
            }
            other => panic!("{other:?}"),
        }
    };
    let own_frame = Frame(region(cell_id(0)).start.0 + 0x400);
    assert_eq!(answer(0, own_frame), Err(SharingError::OutsideRegion));
    assert_eq!(answer(0, Frame(u64::MAX)), Err(SharingError::OutsideRegion));
    assert_eq!(
        answer(0, region(home.cell).start),
        Err(SharingError::OutsideRegion),
        "public area"
    );
    let good = Frame(region(home.cell).start.0 + 0x400);
    assert_eq!(answer(1, good), Ok(()));
    assert_eq!(answer(2, good), Err(SharingError::FrameTwice));

    let borrowings = &mut client.tables.borrowings;
    let mut accept = |frames: &[u64], count| {
        let frames: Vec<Frame> = frames.iter().map(|offset| Frame(good.0 + offset)).collect();
        let list = FrameList::new(&frames).expect("a list");
        borrowings
            .accept(home, count, &list, region(home.cell))
            .map(|borrowed| borrowed.count())
    };
    assert_eq!(accept(&[0, 1], 1), Err(SharingError::BadCount));
    assert_eq!(
        accept(&[0, 2], 2),
        Err(SharingError::OutsideRegion),
        "not a run"
    );
    assert_eq!(
        accept(&[1, 0], 2),
        Err(SharingError::OutsideRegion),
        "not a run"
    );
    assert_eq!(accept(&[REGION], 1), Err(SharingError::OutsideRegion));
    assert_eq!(accept(&[0, 1], 3), Ok(2), "a home may give fewer");
    assert_eq!(accept(&[1], 1), Err(SharingError::FrameTwice));
}

#[test]
fn an_answer_that_comes_after_the_death_is_not_used() {
    let mut client = Member::boot(cell_id(0), 1);
    let home = Peer {
        cell: cell_id(1),
        incarnation: Incarnation(1),
    };
    let imports = &mut client.tables.imports;
    let Ok(Begin::Ask(ask)) = imports.begin(home, PageIndex(0), Access::Read) else {
        panic!("nothing is held")
    };
    assert_eq!(imports.drop_departed(&[home]), 1);
    let frame = Frame(region(home.cell).start.0 + 0x400);
    let answer = answer_of(frame, Generation::first(home.incarnation));
    let late = imports.complete(ask, answer, region(home.cell), Epoch(1));
    assert_eq!(late, Err(SharingError::PeerGone(home.cell)));
    assert_eq!(
        imports.begin(home, PageIndex(0), Access::Read),
        Err(SharingError::PeerGone(home.cell))
    );
}

#[test]
fn a_sick_client_gets_nothing_by_lying() {
    let mut machine = Machine::default();
    let mut home = Member::boot(cell_id(0), 1);
    let client = Peer {
        cell: cell_id(1),
        incarnation: Incarnation(2),
    };
    let stale = Peer {
        incarnation: Incarnation(1),
        ..client
    };
    let (exports, loans) = (&mut home.tables.exports, &mut home.tables.loans);
    let missing = exports.export(client, PageIndex(99), Access::Read, &mut machine);
    assert_eq!(missing, Err(SharingError::NoSuchPage));
    assert_eq!(exports.release(client, PageIndex(0), &mut machine), Ok(()));
    assert_eq!(
        exports.export(stale, PageIndex(0), Access::Write, &mut machine),
        Err(SharingError::StaleLife)
    );
    assert_eq!(
        loans.lend(client, u64::MAX, &mut machine),
        Err(SharingError::BadCount)
    );
    assert_eq!(
        loans.lend(client, 0, &mut machine),
        Err(SharingError::BadCount)
    );
    let frames = loans
        .lend(client, 11, &mut machine)
        .expect("less than half of the pool");
    assert_eq!(
        loans.lend(client, 2, &mut machine),
        Err(SharingError::QuotaExceeded)
    );
    let other = Peer {
        cell: cell_id(2),
        incarnation: Incarnation(1),
    };
    let outside = FrameRange {
        end: Frame(frames.start.0 + POOL + 1),
        ..frames
    };
    assert_eq!(
        loans.take_back(client, outside, &mut machine),
        Err(SharingError::NotLent)
    );
    assert_eq!(
        loans.take_back(stale, frames, &mut machine),
        Err(SharingError::StaleLife)
    );
    assert_eq!(
        loans.take_back(other, frames, &mut machine),
        Ok(0),
        "not its own"
    );
    assert_eq!(loans.take_back(client, frames, &mut machine), Ok(11));
    assert_eq!(
        loans.take_back(client, frames, &mut machine),
        Ok(0),
        "twice is once"
    );
}

#[test]
fn a_late_loan_is_returned_and_not_used() {
    let mut client = Member::boot(cell_id(0), 1);
    let home = Peer {
        cell: cell_id(1),
        incarnation: Incarnation(1),
    };
    let start = Frame(region(home.cell).start.0 + 0x400);
    let frames = FrameRange {
        start,
        end: Frame(start.0 + 3),
    };
    let borrowings = &mut client.tables.borrowings;
    let list = list_of(frames);
    assert_eq!(
        borrowings.accept_late(home, &list, region(home.cell)),
        Ok(())
    );
    let again = borrowings.accept(home, 3, &list, region(home.cell));
    assert_eq!(again, Err(SharingError::InTransit));
    let request = borrowings.next_return().expect("waits to be returned");
    assert_eq!((request.home, request.frames), (home, frames));
    assert_eq!(borrowings.next_return(), None);
    borrowings.not_returned(request);
    let request = borrowings.next_return().expect("is tried again");
    borrowings.returned(request);
    assert_eq!(borrowings.next_return(), None);
}

/// The whole way of the four operations over the wire.
#[test]
fn requests_are_served_and_refused_by_the_letter() {
    use rpc::operation::{BorrowFrames, ClaimedPage, ImportPage, Operation, ReleasePage};
    use rpc::{CallNumber, Payload, ReplyStatus, Request};
    let mut machine = Machine::default();
    let mut home = Member::boot(cell_id(0), 1);
    let own = region(cell_id(0));
    let mut serve = |operation, payload| {
        let (from, incarnation, call) = (cell_id(1), Incarnation(1), CallNumber(1));
        let request = Request {
            from,
            incarnation,
            call,
            operation,
            payload,
        };
        home.tables.serve(&request, own, &mut machine)
    };
    let import = ImportPage {
        page: ClaimedPage::new(1),
        access: Access::Write,
    };
    let answer = serve(Operation::ImportPage, import.encode()).expect("about memory");
    assert_eq!(answer.status, ReplyStatus::Done);
    assert!(ImportedPage::decode(answer.payload).is_some());
    let missing = ImportPage {
        page: ClaimedPage::new(u64::MAX),
        ..import
    };
    let answer = serve(Operation::ImportPage, missing.encode()).expect("about memory");
    assert_eq!(answer.status, ReplyStatus::BadArgument);
    assert_eq!(answer.error.map(SharingError::blame), Some(Blame::Peer));
    let release = ReleasePage {
        page: ClaimedPage::new(1),
    }
    .encode();
    assert_eq!(
        serve(Operation::ReleasePage, release).map(|a| a.status),
        Some(ReplyStatus::Done)
    );
    let borrow = BorrowFrames { count: 4 }.encode();
    let answer = serve(Operation::BorrowFrames, borrow).expect("about memory");
    assert_eq!(answer.status, ReplyStatus::Done);
    let back = serve(Operation::ReturnFrames, answer.payload).expect("about memory");
    assert_eq!(back.status, ReplyStatus::Done);
    for operation in [
        Operation::ImportPage,
        Operation::BorrowFrames,
        Operation::ReturnFrames,
    ] {
        let answer = serve(operation, Payload::EMPTY).expect("about memory");
        assert_eq!(answer.status, ReplyStatus::BadArgument);
    }
    assert_eq!(serve(Operation::Null, Payload::EMPTY), None);
}
