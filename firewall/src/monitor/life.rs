//! A CPU between lives: parked, loading, starting.
//!
//! Every CPU runs [`live`] for ever: it parks, is given to a life of its cell, runs it until it is
//! over, and parks again. A reboot is an order in the machine record that the first parked CPU of
//! the cell claims, so that the survivor who asks for it does not have to carry it out.
//!
//! # Invariants
//! 1. A life is loaded by the one CPU that claimed its incarnation, after the fence around the life
//!    before holds.
//! 2. INIT is never sent to the boot CPU (the machine would reset), nor to a CPU in a later life
//!    than the one that is over (see [`cell::standing`]).

use core::sync::atomic::Ordering;
use core::time::Duration;

use cell::machine::{CellState, EvidenceKind};
use cell::standing::{Arrival, Arrived, Condemned, CpuState};
use cell::trace::Event;
use cell::{CellId, Incarnation, Instant, PhysicalAddress};

use super::hypercalls::Reply;
use super::state::{Monitor, PerCpu, Start};
use super::{fence, reach, standstill};
use crate::hypercall::Status;
use crate::machine::cpu;
use crate::machine::lapic::{self, Command};

/// Time between INIT and start-up (Intel SDM volume 3, 8.4.4.1 asks for 10 ms; QEMU and every
/// processor since 2010 need none, and a healthy CPU never gets one).
const INIT_SPAN: Duration = Duration::from_millis(1);

/// After this long a CPU that was restarted and did not come is sent its start-up once more.
const START_UP_AGAIN: Duration = Duration::from_millis(50);

/// Runs lives on the executing CPU, which came to the monitor by `arrival`, for ever.
pub fn live(monitor: &Monitor, cpu: &PerCpu, mut arrival: Arrival) -> ! {
    monitor.back_end.enable(cpu);
    standstill::wait_while_frozen(monitor, cpu);
    loop {
        let start = wait_for_start(monitor, cpu, arrival);
        let entry = monitor.machine.cpu(cpu.id);
        entry.absolve();
        entry.standing.enter(start.incarnation);
        monitor.trace(
            cpu,
            Event::Entered,
            [cpu.id.index() as u64, cpu.cell.index() as u64],
        );
        arrival = monitor.back_end.run(monitor, cpu, start);
    }
}

/// Whether the life `incarnation` of the CPU's cell may go on.
pub(crate) fn is_alive(monitor: &Monitor, cpu: &PerCpu, incarnation: Incarnation) -> bool {
    let entry = monitor.machine.cell(cpu.cell);
    let runs = matches!(entry.state(), CellState::Booting | CellState::Live);
    runs && entry.incarnation() == incarnation
}

/// Whether the life that the CPU runs may still go on.
pub(crate) fn is_in_life(monitor: &Monitor, cpu: &PerCpu) -> bool {
    is_alive(monitor, cpu, monitor.machine.cpu(cpu.id).standing.life())
}

fn wait_for_start(monitor: &Monitor, this: &PerCpu, arrival: Arrival) -> Start {
    lapic::quiet();
    cpu::clear_machine_check();
    if arrival == Arrival::Reset {
        this.init_sent_at.store(0, Ordering::SeqCst);
    }
    let standing = &monitor.machine.cpu(this.id).standing;
    while standing.arrive(arrival) == Arrived::AwaitsReset {
        monitor.back_end.park(this);
    }
    monitor.trace(
        this,
        Event::Parked,
        [this.id.index() as u64, this.cell.index() as u64],
    );
    loop {
        fence::answer_kicks(monitor, this);
        if let Some(start) = claim_reboot(monitor, this).or_else(|| take_order(monitor, this)) {
            return start;
        }
        monitor.back_end.park(this);
        cpu::clear_machine_check();
    }
}

fn claim_reboot(monitor: &Monitor, cpu: &PerCpu) -> Option<Start> {
    let entry = monitor.machine.cell(cpu.cell);
    let control = monitor.control(cpu.cell);
    let wanted = entry.reboot_requested.load(Ordering::SeqCst);
    let claimed = control.claimed.load(Ordering::SeqCst);
    let may_claim = wanted > claimed && entry.state() == CellState::Expelled;
    let exchange = |from, to| {
        control
            .claimed
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    };
    if !may_claim || !exchange(claimed, wanted) {
        return None;
    }
    fence::carry_out(monitor, cpu, cpu.cell);
    while !fence::is_drained(monitor, cpu.cell) {
        core::hint::spin_loop(); // at most `fence::FENCE_SPAN`
    }
    load(monitor, cpu, Incarnation(wanted))
}

fn load(monitor: &Monitor, cpu: &PerCpu, incarnation: Incarnation) -> Option<Start> {
    let entry = monitor.machine.cell(cpu.cell);
    entry.incarnation.store(incarnation.0, Ordering::SeqCst);
    entry
        .state
        .store(CellState::Booting as u32, Ordering::SeqCst);
    let loaded = match reach::start_life(monitor, cpu) {
        Ok(()) => monitor.loader.load(cpu.cell, incarnation, cpu.index).ok(),
        Err(_) => None,
    };
    let Some(start) = loaded else {
        fence::publish(monitor, cpu, EvidenceKind::EntryRefused, 0, 0);
        return None;
    };
    let control = monitor.control(cpu.cell);
    control
        .page_table_root
        .store(start.page_table_root, Ordering::SeqCst);
    control
        .bus_error_slots
        .store(start.bus_error_slots.0, Ordering::SeqCst);
    let cell = cpu.cell.index() as u64;
    monitor.trace(cpu, Event::Loaded, [cell, u64::from(incarnation.0)]);
    Some(start)
}

fn take_order(monitor: &Monitor, cpu: &PerCpu) -> Option<Start> {
    let incarnation = Incarnation(cpu.order.incarnation.swap(0, Ordering::SeqCst));
    is_alive(monitor, cpu, incarnation).then(|| Start {
        incarnation,
        entry: cpu.order.entry.load(Ordering::SeqCst),
        stack: cpu.order.stack.load(Ordering::SeqCst),
        argument: cpu.order.argument.load(Ordering::SeqCst),
        page_table_root: monitor
            .control(cpu.cell)
            .page_table_root
            .load(Ordering::SeqCst),
        bus_error_slots: PhysicalAddress(
            monitor
                .control(cpu.cell)
                .bus_error_slots
                .load(Ordering::SeqCst),
        ),
    })
}

/// Orders another CPU of the caller's cell to enter the caller's life.
pub(crate) fn start_cpu(
    monitor: &Monitor,
    cpu: &PerCpu,
    index: u64,
    [entry, stack, argument]: [u64; 3],
) -> Reply {
    let target = monitor.cpus_of(cpu.cell).nth(index as usize);
    let Some(target) = target.filter(|target| target.id != cpu.id) else {
        return Status::BadArgument.into();
    };
    match monitor.machine.cpu(target.id).standing.state() {
        CpuState::Parked => {}
        CpuState::Running => return Status::Busy.into(),
        CpuState::Absent | CpuState::Restarting => {
            start_again(monitor, target);
            return Status::Busy.into();
        }
    }
    let incarnation = monitor.machine.cpu(cpu.id).standing.life();
    target.order.entry.store(entry, Ordering::SeqCst);
    target.order.stack.store(stack, Ordering::SeqCst);
    target.order.argument.store(argument, Ordering::SeqCst);
    target
        .order
        .incarnation
        .store(incarnation.0, Ordering::SeqCst);
    fence::kick(monitor, target);
    Status::Ok.into()
}

/// Asks for the next life of an expelled cell. `Ok` once a CPU of it is on the way, or all that can
/// be done was done.
pub(crate) fn reboot(
    monitor: &Monitor,
    cpu: &PerCpu,
    cell: CellId,
    expelled: Incarnation,
) -> Reply {
    let entry = monitor.machine.cell(cell);
    let (_, live) = monitor.machine.membership.current();
    if !live.contains(cpu.cell) {
        return Status::Denied.into();
    }
    if live.contains(cell) || entry.incarnation() != expelled {
        return Status::Stale.into();
    }
    let state = entry.state();
    if state != CellState::Expelled {
        // A life that never joined and is given up: it hangs in its boot, or died there.
        fence::expel(monitor, cpu, cell, state);
    }
    let wanted = expelled.next().0;
    if entry.reboot_requested.fetch_max(wanted, Ordering::SeqCst) < wanted {
        cell_event(monitor, cpu, cell, wanted);
        fence::kick_cell(monitor, cpu, cell);
    }
    let mut under_way = true;
    for target in monitor.cpus_of(cell) {
        under_way &= bring_back(monitor, cpu, target, expelled);
    }
    if under_way {
        Status::Ok.into()
    } else {
        Status::Busy.into()
    }
}

/// Sends the start-up once more to a CPU that never came. One that its host held still when it was
/// restarted has taken the INIT since, and lost the start-up, which means nothing before an INIT;
/// one that runs ignores it.
fn start_again(monitor: &Monitor, target: &PerCpu) {
    let now = monitor.now();
    let sent_at = target.init_sent_at.load(Ordering::SeqCst);
    if sent_at == 0 || target.is_boot_cpu || now.since(Instant(sent_at)) < START_UP_AGAIN {
        return;
    }
    let mine =
        target
            .init_sent_at
            .compare_exchange(sent_at, now.0, Ordering::SeqCst, Ordering::SeqCst);
    if mine.is_ok() {
        lapic::send(target.apic_id, Command::StartUp(monitor.startup_page));
    }
}

fn cell_event(monitor: &Monitor, cpu: &PerCpu, cell: CellId, incarnation: u32) {
    monitor.trace(
        cpu,
        Event::Reboot,
        [cell.index() as u64, u64::from(incarnation)],
    );
}

/// Restarts a CPU that is not in the monitor: INIT at the first call, start-up at a later one. No
/// kick sends an NMI to it until it is parked. Returns whether there is nothing left to do for it.
fn bring_back(monitor: &Monitor, cpu: &PerCpu, target: &PerCpu, expelled: Incarnation) -> bool {
    if target.is_boot_cpu {
        return true;
    }
    match monitor.machine.cpu(target.id).standing.condemn(expelled) {
        Condemned::Never => true,
        Condemned::Now => {
            lapic::send(target.apic_id, Command::Init);
            let sent_at = monitor.now().0.max(1);
            target.init_sent_at.store(sent_at, Ordering::SeqCst);
            false
        }
        Condemned::Before => start_up(monitor, cpu, target),
    }
}

/// Notes that an INIT struck the executing CPU, and may be about to reset it: no NMI may be sent to
/// it until it is parked. One that waits for its start-up keeps an NMI pending (Bochs 2.7), and
/// would take it in the start-up code. Returns how it arrives if the INIT spared it.
pub(crate) fn expect_reset(monitor: &Monitor, cpu: &PerCpu) -> Arrival {
    monitor.machine.cpu(cpu.id).standing.meet_init()
}

/// Sends the start-up to a CPU whose INIT was sent long enough ago.
fn start_up(monitor: &Monitor, cpu: &PerCpu, target: &PerCpu) -> bool {
    let sent_at = target.init_sent_at.load(Ordering::SeqCst);
    if sent_at == 0 || monitor.now().since(Instant(sent_at)) < INIT_SPAN {
        return false;
    }
    lapic::send(target.apic_id, Command::StartUp(monitor.startup_page));
    monitor.trace(
        cpu,
        Event::Restarted,
        [target.id.index() as u64, target.cell.index() as u64],
    );
    true
}
