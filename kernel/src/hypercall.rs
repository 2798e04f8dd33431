//! Hypercalls: the typed way from the kernel into the monitor.
//!
//! # References
//! `firewall::hypercall` has the convention, the rights and the meaning of every status.

use core::arch::asm;

use cell::machine::BackEnd;
use cell::{CellId, CellSet, Epoch, Frame, FrameRange, Incarnation, PhysicalAddress};
use firewall::hypercall::{BusErrorKind, FRAMES_PER_CALL_MAX, Hypercall, Status};

use crate::own::{known, own};

/// Why a hypercall did not do what was asked. Closed: one entry per [`Status`] that is not `Ok`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HypercallError {
    /// Not now; ask again.
    Busy,
    /// This cell has no right to it.
    Denied,
    /// This kernel gave an impossible argument.
    BadArgument,
    /// The other cell is not live, or not in the incarnation named.
    Stale,
    /// The epoch named is not the next one; holds the newest sealed one.
    NotNext(Epoch),
    /// The monitor ran out of something.
    Exhausted,
    /// The monitor does not know the call.
    Unknown,
}

/// Makes a hypercall. Returns RAX and RDX.
fn raw(call: Hypercall, arguments: [u64; 4]) -> (u64, u64) {
    let (mut status, mut value) = (call as u64, arguments[2]);
    macro_rules! by {
        ($instruction:literal, $($operand:tt)*) => {
            asm!(
                $instruction,
                inout("rax") status,
                in("rdi") arguments[0],
                in("rsi") arguments[1],
                inout("rdx") value,
                in("rcx") arguments[3],
                $($operand)*
            )
        };
    }
    // Before it is known, a kernel has nothing to say but that it stops: where the instruction is
    // the wrong one, an exception without a handler says it.
    match known().map_or(BackEnd::Npt, |own| own.back_end) {
        // SAFETY: behind NPT, VMMCALL enters the monitor, which changes RAX and RDX only. Memory
        // may change: no `nomem`.
        BackEnd::Npt => unsafe { by!("vmmcall", options(nostack)) },
        // SAFETY: behind EPT, VMCALL does.
        BackEnd::Ept => unsafe { by!("vmcall", options(nostack)) },
        BackEnd::Paging | BackEnd::Off => {
            // SAFETY: the monitor named this entry in the handover block; it keeps every register
            // but RAX and RDX. Without `nostack`, the call may push onto the stack and the red zone
            // is out of use.
            unsafe { by!("call {entry}", entry = in(reg) own().hypercall_entry,) }
        }
    }
    (status, value)
}

fn call(call: Hypercall, arguments: [u64; 4]) -> Result<u64, HypercallError> {
    let (status, value) = raw(call, arguments);
    match Status::from_raw(status) {
        Status::Ok => Ok(value),
        Status::Busy => Err(HypercallError::Busy),
        Status::Denied => Err(HypercallError::Denied),
        Status::BadArgument => Err(HypercallError::BadArgument),
        Status::Stale => Err(HypercallError::Stale),
        Status::NotNext => Err(HypercallError::NotNext(Epoch(value as u32))),
        Status::Exhausted => Err(HypercallError::Exhausted),
        Status::Unknown => Err(HypercallError::Unknown),
    }
}

fn number(cell: CellId) -> u64 {
    cell.index() as u64
}

/// Does nothing; for measuring.
///
/// # Errors
/// Never, of a working monitor.
pub fn null() -> Result<(), HypercallError> {
    call(Hypercall::Null, [0; 4]).map(drop)
}

/// Writes a local APIC register of this CPU.
///
/// # Errors
/// `Denied` for a register or value that is the monitor's.
pub fn lapic_write(offset: u32, value: u32) -> Result<(), HypercallError> {
    call(Hypercall::LapicWrite, [offset.into(), value.into(), 0, 0]).map(drop)
}

/// Interrupts another CPU of this cell with the wake vector.
///
/// # Errors
/// `BadArgument` if the cell has no such CPU.
pub fn wake(index: usize) -> Result<(), HypercallError> {
    call(Hypercall::Wake, [index as u64, 0, 0, 0]).map(drop)
}

/// Rings the doorbell of `cell`.
///
/// # Errors
/// `Stale` if it is not live.
pub fn doorbell(cell: CellId) -> Result<(), HypercallError> {
    call(Hypercall::Doorbell, [number(cell), 0, 0, 0]).map(drop)
}

/// Splits a range into pieces that one call may name, and stops at the first error.
fn by_pieces(
    frames: FrameRange,
    mut each: impl FnMut(u64, u64) -> Result<(), HypercallError>,
) -> Result<(), HypercallError> {
    let mut start = frames.start.0;
    while start < frames.end.0 {
        let count = (frames.end.0 - start).min(FRAMES_PER_CALL_MAX);
        each(start, count)?;
        start += count;
    }
    Ok(())
}

/// Adds `cell`, in the life named, to the writer sets of own `frames`.
///
/// # Errors
/// `Stale`, `Denied` (not the home), `Exhausted`. Pieces of up to 64 frames before the failing one
/// stay granted.
pub fn grant(
    frames: FrameRange,
    cell: CellId,
    incarnation: Incarnation,
) -> Result<(), HypercallError> {
    by_pieces(frames, |start, count| {
        call(
            Hypercall::Grant,
            [start, count, number(cell), incarnation.0.into()],
        )
        .map(drop)
    })
}

/// Removes `cell` from the writer sets of own `frames`. They are protected once [`drained`] answers
/// `Ok`.
///
/// # Errors
/// `Denied` (not the home).
pub fn revoke(frames: FrameRange, cell: CellId) -> Result<(), HypercallError> {
    by_pieces(frames, |start, count| {
        call(Hypercall::Revoke, [start, count, number(cell), 0]).map(drop)
    })
}

/// Whether no CPU of `cell` can still write by an older right.
///
/// # Errors
/// `Busy` if not yet.
pub fn drained(cell: CellId) -> Result<(), HypercallError> {
    call(Hypercall::Drained, [number(cell), 0, 0, 0]).map(drop)
}

/// Which of `count` (at most 64) own frames from `first` a cell wrote: one bit each.
///
/// # Errors
/// `Denied` (not the home), `BadArgument` (more than 64).
pub fn written(first: Frame, count: u64, cell: CellId) -> Result<u64, HypercallError> {
    call(Hypercall::Written, [first.0, count, number(cell), 0])
}

/// Makes this cell's memory, but for its public area, unreachable for the others.
///
/// # Errors
/// Never, of a working monitor.
pub fn cut_off() -> Result<(), HypercallError> {
    call(Hypercall::CutOff, [0; 4]).map(drop)
}

/// Closes own frames to the writes of `suspect`, and accuses it.
///
/// # Errors
/// `Stale` if it is not live.
pub fn quarantine(suspect: CellId) -> Result<(), HypercallError> {
    call(Hypercall::Quarantine, [number(suspect), 0, 0, 0]).map(drop)
}

/// Ends the quarantine of `cell`.
///
/// # Errors
/// `BadArgument` if there is no such cell.
pub fn unquarantine(cell: CellId) -> Result<(), HypercallError> {
    call(Hypercall::Unquarantine, [number(cell), 0, 0, 0]).map(drop)
}

/// Starts another CPU of this cell at `entry`, with the stack pointer and the first argument given.
///
/// # Errors
/// `Busy` if the CPU is not in the monitor yet.
pub fn start_cpu(
    index: usize,
    entry: u64,
    stack_pointer: u64,
    argument: u64,
) -> Result<(), HypercallError> {
    call(
        Hypercall::StartCpu,
        [index as u64, entry, stack_pointer, argument],
    )
    .map(drop)
}

/// Votes for `live` as the live set of `epoch`. Returns the sealed set, perhaps another one.
///
/// # Errors
/// `Busy` while votes are missing, `NotNext`, `Denied` (not live), `BadArgument`,
/// `Exhausted`.
pub fn vote(epoch: Epoch, live: CellSet) -> Result<CellSet, HypercallError> {
    call(Hypercall::Vote, [epoch.0.into(), live.0, 0, 0]).map(CellSet)
}

/// Asks for the reboot of a cell whose life `expelled` was voted out.
///
/// # Errors
/// `Stale` if that is not its last life, `Busy` while its CPUs are not fenced.
pub fn reboot(cell: CellId, expelled: Incarnation) -> Result<(), HypercallError> {
    call(Hypercall::Reboot, [number(cell), expelled.0.into(), 0, 0]).map(drop)
}

/// Joins the live set. Returns the epoch of the join.
///
/// # Errors
/// `Busy` if another seal came first, `Stale` if this life is over.
pub fn join() -> Result<Epoch, HypercallError> {
    call(Hypercall::Join, [0; 4]).map(|epoch| Epoch(epoch as u32))
}

/// Stops this cell; `instruction` goes into the monitor's record.
pub fn stop(instruction: u64) {
    let _ = raw(Hypercall::Stop, [instruction, 0, 0, 0]);
}

/// Takes the serial port over.
///
/// # Errors
/// `Denied` while its owner is live.
pub fn adopt_console() -> Result<(), HypercallError> {
    call(Hypercall::AdoptConsole, [0; 4]).map(drop)
}

/// Reports a bus error that this kernel took as a page fault. Returns what the monitor says it was;
/// `None` if the tables allow the access by now.
///
/// # Errors
/// `Unknown` where the monitor saw the access itself.
pub fn report_bus_error(
    address: PhysicalAddress,
    instruction: u64,
    kind: BusErrorKind,
) -> Result<Option<BusErrorKind>, HypercallError> {
    call(
        Hypercall::ReportBusError,
        [address.0, instruction, kind as u64, 0],
    )
    .map(BusErrorKind::from_raw)
}

/// Whether this cell makes its hypercalls by an instruction.
pub fn by_instruction() -> bool {
    own().back_end.has_nested_paging()
}
