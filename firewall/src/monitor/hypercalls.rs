//! Answers the cells. What each call means and who may make it is said in [`crate::hypercall`].

use core::sync::atomic::Ordering;

use cell::machine::{CellState, EvidenceKind};
use cell::membership::VoteError;
use cell::standing::CpuState;
use cell::trace::Event;
use cell::{CellId, CellSet, Epoch, Frame, FrameRange, Incarnation, PhysicalAddress};

use super::denials::{self, Denial, Judgement};
use super::state::{Monitor, PerCpu};
use super::{fence, life, reach, standstill};
use crate::grants::Refusal;
use crate::hypercall::{
    BusErrorKind, FRAMES_PER_CALL_MAX, Hypercall, Status, VECTOR_DOORBELL, VECTOR_WAKE,
};
use crate::machine::lapic::{self, Command};

/// Doorbells that a cell may ring in [`DOORBELL_WINDOW_NANOSECONDS`]; beyond that, its peers find
/// its messages at their next tick.
const DOORBELLS_PER_WINDOW: u32 = 64;
const DOORBELL_WINDOW_NANOSECONDS: u64 = 1_000_000;

/// A request, as the registers hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// RAX.
    pub number: u64,
    /// RDI, RSI, RDX, RCX.
    pub arguments: [u64; 4],
    /// The instruction that asks, for evidence.
    pub instruction: u64,
}

/// An answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// RAX.
    pub status: Status,
    /// RDX.
    pub value: u64,
}

impl From<Status> for Reply {
    fn from(status: Status) -> Self {
        Self { status, value: 0 }
    }
}

impl Reply {
    const fn ok(value: u64) -> Self {
        Self {
            status: Status::Ok,
            value,
        }
    }
}

/// What a CPU does after a hypercall.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// It goes on, with this answer.
    Return(Reply),
    /// Its life is over.
    Leave,
}

/// Answers one request of the cell that runs on `cpu`.
pub fn answer(monitor: &Monitor, cpu: &PerCpu, request: Request) -> After {
    standstill::observe(monitor, cpu);
    // A CPU that was frozen there asks for a life that may be long over.
    if !life::is_in_life(monitor, cpu) {
        return After::Leave;
    }
    monitor
        .machine
        .cpu(cpu.id)
        .hypercalls
        .fetch_add(1, Ordering::Relaxed);
    let Some(call) = Hypercall::from_raw(request.number) else {
        return After::Return(Status::Unknown.into());
    };
    if call == Hypercall::Stop {
        let [at, ..] = request.arguments;
        fence::publish(monitor, cpu, EvidenceKind::Panic, 0, at);
        return After::Leave;
    }
    let reply = dispatch(monitor, cpu, call, request.arguments);
    if reply.status == Status::Denied {
        let kind = EvidenceKind::HypercallDenied;
        fence::publish(monitor, cpu, kind, request.number, request.instruction);
    }
    After::Return(reply)
}

fn dispatch(monitor: &Monitor, cpu: &PerCpu, call: Hypercall, arguments: [u64; 4]) -> Reply {
    let [first, second, third, fourth] = arguments;
    match call {
        Hypercall::Null | Hypercall::Stop => Reply::ok(0),
        Hypercall::LapicWrite => lapic_write(first, second),
        Hypercall::Wake => wake(monitor, cpu, first),
        Hypercall::Doorbell => on_cell(monitor, first, |cell| doorbell(monitor, cpu, cell)),
        Hypercall::Grant => on_frames(monitor, cpu, arguments, |frames, cell| {
            grant(monitor, cpu, frames, cell, Incarnation(fourth as u32))
        }),
        Hypercall::Revoke => on_frames(monitor, cpu, arguments, |frames, cell| {
            reach::grants(monitor, cpu.cell, cell).revoke(frames);
            if monitor.back_end.is_enforcing() {
                fence::kick_cell(monitor, cpu, cell);
            }
            Reply::ok(0)
        }),
        Hypercall::Drained => on_cell(monitor, first, |cell| drained(monitor, cpu, cell)),
        Hypercall::Written => on_frames(monitor, cpu, arguments, |frames, cell| {
            Reply::ok(written(monitor, frames, cell))
        }),
        Hypercall::CutOff => {
            reach::cut_off(monitor, cpu);
            Reply::ok(0)
        }
        Hypercall::Quarantine => on_cell(monitor, first, |cell| quarantine(monitor, cpu, cell)),
        Hypercall::Unquarantine => on_cell(monitor, first, |cell| {
            reach::grants(monitor, cpu.cell, cell).unquarantine();
            Reply::ok(0)
        }),
        Hypercall::StartCpu => life::start_cpu(monitor, cpu, first, [second, third, fourth]),
        Hypercall::Vote => vote(monitor, cpu, first, CellSet(second)),
        Hypercall::Reboot => on_cell(monitor, first, |cell| {
            life::reboot(monitor, cpu, cell, Incarnation(second as u32))
        }),
        Hypercall::Join => join(monitor, cpu),
        Hypercall::AdoptConsole => adopt_console(monitor, cpu),
        Hypercall::ReportBusError => report_bus_error(monitor, cpu, first, second, third),
    }
}

fn on_cell(monitor: &Monitor, raw: u64, then: impl FnOnce(CellId) -> Reply) -> Reply {
    monitor
        .cell_from_raw(raw)
        .map_or_else(|| Status::BadArgument.into(), then)
}

/// Checks frames, count and cell, and that the caller is the home; then carries on.
fn on_frames(
    monitor: &Monitor,
    cpu: &PerCpu,
    [first, count, cell, _]: [u64; 4],
    then: impl FnOnce(FrameRange, CellId) -> Reply,
) -> Reply {
    let frames = FrameRange::new(Frame(first), count).filter(|_| count <= FRAMES_PER_CALL_MAX);
    let (Some(frames), Some(cell)) = (frames, monitor.cell_from_raw(cell)) else {
        return Status::BadArgument.into();
    };
    match monitor.table.check(cpu.cell, frames, cell) {
        Ok(()) => then(frames, cell),
        Err(_) => Status::Denied.into(),
    }
}

fn lapic_write(register: u64, value: u64) -> Reply {
    if lapic::write_for_cell(register, value) {
        Reply::ok(0)
    } else {
        Status::Denied.into()
    }
}

fn wake(monitor: &Monitor, cpu: &PerCpu, index: u64) -> Reply {
    let Some(target) = monitor.cpus_of(cpu.cell).nth(index as usize) else {
        return Status::BadArgument.into();
    };
    if monitor.machine.cpu(target.id).standing.state() != CpuState::Running {
        return Status::Busy.into();
    }
    lapic::send(target.apic_id, Command::Fixed(VECTOR_WAKE));
    Reply::ok(0)
}

fn doorbell(monitor: &Monitor, cpu: &PerCpu, cell: CellId) -> Reply {
    if cell == cpu.cell {
        return Status::BadArgument.into();
    }
    if monitor.machine.cell(cell).state() != CellState::Live {
        return Status::Stale.into();
    }
    if !may_ring(monitor, cpu) {
        return Status::Busy.into();
    }
    let state = |target: &PerCpu| monitor.machine.cpu(target.id).standing.state();
    let running = |target: &&PerCpu| state(target) == CpuState::Running;
    match monitor.cpus_of(cell).find(running) {
        Some(target) => {
            lapic::send(target.apic_id, Command::Fixed(VECTOR_DOORBELL));
            Reply::ok(0)
        }
        None => Status::Busy.into(),
    }
}

/// Whether the cell has doorbells left in this window: a cell that rings without end must not drown
/// its peers.
fn may_ring(monitor: &Monitor, cpu: &PerCpu) -> bool {
    let control = monitor.control(cpu.cell);
    let now = monitor.now();
    let window = control.doorbell_window.load(Ordering::Relaxed);
    if now.0.saturating_sub(window) > DOORBELL_WINDOW_NANOSECONDS {
        control.doorbell_window.store(now.0, Ordering::Relaxed);
        control.doorbells.store(0, Ordering::Relaxed);
    }
    control.doorbells.fetch_add(1, Ordering::Relaxed) < DOORBELLS_PER_WINDOW
}

fn grant(
    monitor: &Monitor,
    cpu: &PerCpu,
    frames: FrameRange,
    writer: CellId,
    incarnation: Incarnation,
) -> Reply {
    let entry = monitor.machine.cell(writer);
    let is_live = || entry.state() == CellState::Live && entry.incarnation() == incarnation;
    if !is_live() {
        return Status::Stale.into();
    }
    let grants = reach::grants(monitor, cpu.cell, writer);
    // What the successor of either forgets before it begins, it may have forgotten before a grant
    // of this CPU.
    let is_on = || is_live() && life::is_in_life(monitor, cpu);
    match grants.grant(frames, is_on) {
        Ok(()) => Reply::ok(0),
        Err(Refusal::Over) => {
            fence::kick_cell(monitor, cpu, writer);
            Status::Stale.into()
        }
        Err(Refusal::Exhausted) => Status::Exhausted.into(),
    }
}

fn drained(monitor: &Monitor, cpu: &PerCpu, cell: CellId) -> Reply {
    // Who sealed the epoch may not have come to it.
    fence::enforce_on(monitor, cpu, cell);
    if fence::is_drained(monitor, cell) {
        Reply::ok(0)
    } else {
        Status::Busy.into()
    }
}

fn written(monitor: &Monitor, frames: FrameRange, writer: CellId) -> u64 {
    let by_dirty_bits = monitor.back_end.keeps_dirty_bits();
    frames
        .iter()
        .enumerate()
        .filter(|&(_, frame)| {
            if by_dirty_bits {
                monitor.nested(writer).is_written(frame)
            } else {
                monitor.table.writers(frame).contains(writer)
            }
        })
        .fold(0, |bits, (position, _)| bits | 1 << position)
}

fn quarantine(monitor: &Monitor, cpu: &PerCpu, suspect: CellId) -> Reply {
    if suspect == cpu.cell {
        return Status::BadArgument.into();
    }
    fence::accuse(monitor, suspect);
    let grants = reach::grants(monitor, cpu.cell, suspect);
    if !grants.is_quarantined() {
        grants.quarantine();
        fence::kick_cell(monitor, cpu, suspect);
    }
    Reply::ok(0)
}

fn vote(monitor: &Monitor, cpu: &PerCpu, epoch: u64, proposal: CellSet) -> Reply {
    let Ok(epoch) = u32::try_from(epoch).map(Epoch) else {
        return Status::BadArgument.into();
    };
    let membership = &monitor.machine.membership;
    match membership.vote(cpu.cell, epoch, proposal, fence::discredited(monitor)) {
        Ok(Some(live)) => {
            monitor.trace(cpu, Event::Sealed, [u64::from(epoch.0), live.0]);
            fence::enforce(monitor, cpu);
            Reply::ok(live.0)
        }
        Err(VoteError::Sealed(live)) => {
            fence::enforce(monitor, cpu);
            Reply::ok(live.0)
        }
        Ok(None) => Status::Busy.into(),
        Err(VoteError::NotNext) => Reply {
            status: Status::NotNext,
            value: u64::from(membership.current().0.0),
        },
        Err(VoteError::NotLive) => Status::Denied.into(),
        Err(VoteError::Impossible) => Status::BadArgument.into(),
        Err(VoteError::Exhausted) => Status::Exhausted.into(),
    }
}

/// Seals attempted for one join before the cell is told to ask again.
const JOIN_ATTEMPTS_MAX: usize = 8;

fn join(monitor: &Monitor, cpu: &PerCpu) -> Reply {
    let entry = monitor.machine.cell(cpu.cell);
    let membership = &monitor.machine.membership;
    match entry.state() {
        CellState::Live => return Reply::ok(u64::from(membership.current().0.0)),
        CellState::Booting => {}
        _ => return Status::Denied.into(),
    }
    let (epoch, live) = membership.current();
    // The first life of a cell is in the live set from the start.
    let epoch = if live.contains(cpu.cell) {
        epoch
    } else {
        match (0..JOIN_ATTEMPTS_MAX).find_map(|_| membership.join(cpu.cell)) {
            Some((epoch, _)) => epoch,
            None => return Status::Busy.into(),
        }
    };
    let (booting, live) = (CellState::Booting as u32, CellState::Live as u32);
    let joined = entry
        .state
        .compare_exchange(booting, live, Ordering::SeqCst, Ordering::SeqCst);
    if joined.is_ok() {
        let incarnation = u64::from(entry.incarnation().0);
        monitor.trace(cpu, Event::Joined, [cpu.cell.index() as u64, incarnation]);
    }
    Reply::ok(u64::from(epoch.0))
}

fn adopt_console(monitor: &Monitor, cpu: &PerCpu) -> Reply {
    let owner = &monitor.machine.uart_owner;
    let old = owner.load(Ordering::SeqCst);
    let is_gone = |cell| {
        matches!(
            monitor.machine.cell(cell).state(),
            CellState::Expelled | CellState::Booting
        )
    };
    let free =
        old == cpu.cell.index() as u32 || monitor.cell_from_raw(u64::from(old)).is_none_or(is_gone);
    if !free {
        return Status::Denied.into();
    }
    let new = cpu.cell.index() as u32;
    match owner.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => Reply::ok(u64::from(old)),
        Err(_) => Status::Busy.into(),
    }
}

fn report_bus_error(monitor: &Monitor, cpu: &PerCpu, address: u64, rip: u64, kind: u64) -> Reply {
    if monitor.back_end.sees_bus_errors() {
        return Status::BadArgument.into();
    }
    let address = PhysicalAddress(address);
    let denial = if kind == BusErrorKind::Write as u64 {
        Denial::Write(address)
    } else {
        Denial::Read(address)
    };
    match denials::judge(monitor, cpu, denial, rip) {
        Judgement::Again => Reply::ok(0),
        Judgement::BusError(error) => Reply::ok(error.kind),
    }
}
