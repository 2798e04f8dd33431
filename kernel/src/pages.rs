//! Memory shared with other cells, at work: the tables of `sharing` with real frames.
//!
//! # Invariants
//! 1. The tables are reached under one lock, with interrupts off, and no call to another cell is
//!    made meanwhile.
//! 2. Every access to another cell's memory holds a pass of the gate; the recovery closes the gate.
//! 3. Pages and lent frames come out of the frame pool with uses of their own; kernel data never
//!    lies in them.

use core::time::Duration;

use cell::parameters::Discard;
use cell::{CellId, CellSet, Epoch, Frame, FrameRange, PAGE_SIZE, PhysicalAddress};
use recovery::HintReason;
use rpc::message::{Reply, ReplyStatus, Request};
use rpc::operation::{
    Access, BorrowFrames, FrameList, ImportPage, ImportedPage, Operation, ReleasePage,
};
use rpc::{Outcome, Payload};
use spin::Once;

use crate::hypercall::{self, HypercallError};
use crate::lock::Lock;
use crate::memory::frames::FrameUse;
use crate::memory::{pool, window};
use crate::own::own;
use crate::sharing::discard::Tables;
use crate::sharing::{
    Ask, Begin, Blame, Borrowed, Firewall, Gate, Import, PageIndex, Peer, RecoveryReport, Refusal,
    SharingError, service,
};
use crate::{calls, hints, thread};

/// Frames that this cell sets aside for lending.
const POOL_FRAMES: u64 = 128;

/// Releases and returns that one round of [`tend`] makes.
const REQUESTS_PER_ROUND: usize = 8;

static TABLES: Once<Lock<Tables>> = Once::new();

/// Stops accesses to other cells' memory during a recovery.
pub static GATE: Gate = Gate::new();

/// Offers `pages` pages, whose content [`fill_page`] makes, and sets frames aside for lending. Boot
/// CPU, once.
pub fn set_up(pages: usize) {
    let pool = pool::allocate_row(POOL_FRAMES, 1, FrameUse::Loaned);
    let pool = pool.expect("a new cell has frames to lend");
    let mut tables = Tables::new(own().incarnation, pool);
    for _ in 0..pages {
        let frame = pool::allocate(FrameUse::Page).expect("a new cell has frames for its pages");
        let page = tables.exports.offer(frame);
        fill_page(page.expect("a new table has room"), frame);
    }
    TABLES.call_once(|| Lock::new(tables));
}

/// Makes the content of an own page: no worker has written to it yet.
fn fill_page(_page: PageIndex, frame: Frame) {
    let start = window::pointer::<u8>(frame.start());
    // SAFETY: a frame of this cell that only the pages use, which no Rust reference points into.
    unsafe { core::ptr::write_bytes(start, 0, PAGE_SIZE as usize) };
}

fn with_tables<R>(work: impl FnOnce(&mut Tables) -> R) -> Option<R> {
    TABLES.get().map(|tables| work(&mut tables.lock()))
}

/// The monitor's firewall, by hypercalls.
struct Hypercalls;

fn refusal(error: HypercallError) -> Refusal {
    match error {
        HypercallError::Busy => Refusal::Busy,
        HypercallError::Stale => Refusal::Stale,
        HypercallError::Exhausted => Refusal::Exhausted,
        _ => Refusal::Denied,
    }
}

impl Firewall for Hypercalls {
    fn grant(&mut self, frames: FrameRange, writer: Peer) -> Result<(), Refusal> {
        hypercall::grant(frames, writer.cell, writer.incarnation).map_err(refusal)
    }

    fn revoke(&mut self, frames: FrameRange, writer: CellId) -> Result<(), Refusal> {
        hypercall::revoke(frames, writer).map_err(refusal)
    }

    fn drained(&mut self, writer: CellId) -> bool {
        hypercall::drained(writer).is_ok()
    }

    /// The monitor's table says who may write; every cell can read it.
    fn reclaim(&mut self, frames: FrameRange) -> Result<(), Refusal> {
        let table = own().machine.firewall_table;
        let is_closed = |frame: Frame| {
            let entry = PhysicalAddress(table.0 + frame.0 * size_of::<u64>() as u64);
            // SAFETY: the monitor shows the whole table to every cell, and an own frame has an
            // entry in it.
            unsafe { window::pointer::<u64>(entry).read_volatile() == 0 }
        };
        if frames.iter().all(is_closed) {
            Ok(())
        } else {
            Err(Refusal::Busy)
        }
    }

    fn written(&mut self, frames: FrameRange, writer: CellId) -> bool {
        hypercall::written(frames.start, frames.len(), writer) != Ok(0)
    }
}

/// Serves a request about shared memory. Fit for interrupt level.
pub fn serve(request: &Request) -> (ReplyStatus, Payload) {
    let region = own().region;
    let answer = with_tables(|tables| tables.serve(request, region, &mut Hypercalls)).flatten();
    let Some(answer) = answer else {
        return (ReplyStatus::BadArgument, Payload::EMPTY);
    };
    if answer
        .error
        .is_some_and(|error| error.blame() == Blame::Peer)
    {
        hints::raise(request.from, HintReason::MessageInvalid);
    }
    (answer.status, answer.payload)
}

/// The life of a cell that can be asked now.
fn peer(cell: CellId) -> Result<Peer, SharingError> {
    let machine = own().machine;
    if !machine.membership.current().1.contains(cell) {
        return Err(SharingError::PeerGone(cell));
    }
    let incarnation = machine.cell(cell).incarnation();
    Ok(Peer { cell, incarnation })
}

fn region_of(home: Peer) -> FrameRange {
    own().machine.cell(home.cell).region
}

fn epoch() -> Epoch {
    own().machine.membership.current().0
}

/// What a call that was not done means.
fn failure(home: CellId, outcome: Outcome) -> SharingError {
    match outcome {
        Outcome::PeerGone => SharingError::PeerGone(home),
        Outcome::TimedOut | Outcome::Refused => SharingError::TimedOut,
        Outcome::Reply(status, _) => SharingError::Answered(status),
    }
}

/// Imports a page of another cell. For threads.
///
/// # Errors
/// See [`SharingError`].
pub fn import(home: CellId, page: PageIndex, access: Access) -> Result<Import, SharingError> {
    let home = peer(home)?;
    let begun = with_tables(|tables| tables.imports.begin(home, page, access));
    match begun.ok_or(SharingError::TableFull)?? {
        Begin::Held(import) => Ok(import),
        Begin::Ask(ask) => ask_home(ask, |tables, ask, answer, epoch| {
            tables.imports.complete(ask, answer, region_of(home), epoch)
        }),
    }
}

/// Asks a home about a page, and ends the request with `end`.
fn ask_home<T>(
    ask: Ask,
    end: impl FnOnce(&mut Tables, Ask, ImportedPage, Epoch) -> Result<T, SharingError>,
) -> Result<T, SharingError> {
    let epoch = epoch();
    let request = ImportPage {
        page: service::name_of(ask.page),
        access: ask.access,
    };
    let outcome = calls::call(ask.home.cell, Operation::ImportPage, request.encode());
    let answer = match outcome {
        Outcome::Reply(ReplyStatus::Done, payload) => ImportedPage::decode(payload),
        _ => None,
    };
    let ended = with_tables(|tables| {
        if let Some(answer) = answer {
            return end(tables, ask, answer, epoch);
        }
        let error = failure(ask.home.cell, outcome);
        Err(tables.imports.abandon(ask, error))
    });
    ended.expect("an import was begun with tables")
}

/// Runs `access` on the frame of an import, with the gate's pass. For threads.
///
/// # Errors
/// See [`SharingError`]; `Refused(Busy)` while a recovery holds work.
pub fn with_import<T>(
    import: &Import,
    access: impl FnOnce(PhysicalAddress) -> T,
) -> Result<T, SharingError> {
    use crate::sharing::Use;

    let mut access = Some(access);
    for _ in 0..2 {
        let pass = GATE.enter().ok_or(SharingError::Refused(Refusal::Busy))?;
        let usable = with_tables(|tables| tables.imports.usable(import, epoch()));
        match usable.ok_or(SharingError::TableFull)?? {
            Use::Ready(frame) => {
                let access = access.take().expect("used once");
                let value = access(frame.start());
                drop(pass);
                return Ok(value);
            }
            Use::Confirm(ask) => {
                drop(pass);
                let home = ask.home;
                ask_home(ask, |tables, ask, answer, epoch| {
                    tables.imports.confirm(ask, answer, region_of(home), epoch)
                })?;
            }
        }
    }
    Err(SharingError::InTransit)
}

/// Gives an import back.
pub fn release(import: Import) {
    with_tables(|tables| tables.imports.release(import));
}

/// Runs `access` on an own page; also tells the generation of its content.
///
/// # Errors
/// `NoSuchPage`, `Discarded`.
pub fn with_own<T>(
    page: PageIndex,
    access: impl FnOnce(PhysicalAddress) -> T,
) -> Result<(T, u64), SharingError> {
    let export = with_tables(|tables| tables.exports.own(page));
    let export = export.ok_or(SharingError::NoSuchPage)??;
    Ok((access(export.frame.start()), export.generation.raw()))
}

/// Borrows frames of another cell. For threads.
///
/// # Errors
/// See [`SharingError`].
pub fn borrow(home: CellId, count: usize) -> Result<Borrowed, SharingError> {
    let home = peer(home)?;
    with_tables(|tables| tables.borrowings.may_borrow(home, count as u64))
        .ok_or(SharingError::TableFull)??;
    let request = BorrowFrames { count };
    let outcome = calls::call(home.cell, Operation::BorrowFrames, request.encode());
    let list = match outcome {
        Outcome::Reply(ReplyStatus::Done, payload) => FrameList::decode(payload),
        _ => None,
    };
    let list = list.ok_or_else(|| failure(home.cell, outcome))?;
    let accept = |tables: &mut Tables| {
        let region = region_of(home);
        tables.borrowings.accept(home, count as u64, &list, region)
    };
    with_tables(accept).ok_or(SharingError::TableFull)?
}

/// A reply that came after its call had ended. Frames that it lends are given back.
pub fn reply_came_late(reply: &Reply) {
    if reply.operation != Operation::BorrowFrames || reply.status != ReplyStatus::Done {
        return;
    }
    let Some(list) = FrameList::decode(reply.payload) else {
        return;
    };
    let home = Peer {
        cell: reply.from,
        incarnation: reply.incarnation,
    };
    with_tables(|tables| tables.borrowings.accept_late(home, &list, region_of(home)));
}

/// Runs `access` on one borrowed frame, with the gate's pass. For threads.
///
/// # Errors
/// `PeerGone`, `BadCount`; `Refused(Busy)` while a recovery holds work.
pub fn with_borrowed<T>(
    borrowed: &Borrowed,
    index: u64,
    access: impl FnOnce(PhysicalAddress) -> T,
) -> Result<T, SharingError> {
    let _pass = GATE.enter().ok_or(SharingError::Refused(Refusal::Busy))?;
    let frame = with_tables(|tables| tables.borrowings.frame(borrowed, index));
    Ok(access(frame.ok_or(SharingError::TableFull)??.address()))
}

/// Gives borrowed frames back.
pub fn give_back(borrowed: Borrowed) {
    with_tables(|tables| tables.borrowings.give_back(borrowed));
}

/// How often [`run`] looks for what is to be done.
const TEND_PERIOD: Duration = Duration::from_millis(4);

/// The thread that finishes what waits for a drain, and tells homes what was given back.
pub fn run() -> ! {
    loop {
        thread::sleep(TEND_PERIOD);
        tend();
    }
}

fn tend() {
    with_tables(|tables| tables.settle(&mut Hypercalls, fill_page));
    for _ in 0..REQUESTS_PER_ROUND {
        let Some(request) = with_tables(|tables| tables.imports.next_release()).flatten() else {
            break;
        };
        let release = ReleasePage {
            page: service::name_of(request.page),
        };
        let outcome = calls::call(request.home.cell, Operation::ReleasePage, release.encode());
        let is_answered = matches!(outcome, Outcome::Reply(..));
        with_tables(|tables| {
            if is_answered {
                tables.imports.released(request);
            } else {
                tables.imports.not_released(request);
            }
        });
        if !is_answered {
            break;
        }
    }
    for _ in 0..REQUESTS_PER_ROUND {
        let Some(request) = with_tables(|tables| tables.borrowings.next_return()).flatten() else {
            break;
        };
        let list = service::list_of(request.frames);
        let outcome = calls::call(request.home.cell, Operation::ReturnFrames, list.encode());
        let is_answered = matches!(outcome, Outcome::Reply(..));
        with_tables(|tables| {
            if is_answered {
                tables.borrowings.returned(request);
            } else {
                tables.borrowings.not_returned(request);
            }
        });
        if !is_answered {
            break;
        }
    }
}

/// The step of a recovery between the barriers; `None` while an access to other cells' memory is
/// still under way.
pub fn discard(dead: CellSet, lives: &[Peer], policy: Discard) -> Option<RecoveryReport> {
    if !GATE.is_empty() {
        return None;
    }
    for cell in dead.iter() {
        calls::rings::forget(cell);
    }
    with_tables(|tables| tables.recover(lives, policy, &mut Hypercalls))
}
