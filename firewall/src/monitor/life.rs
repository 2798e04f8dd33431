//! A CPU between lives: parked, loading, starting.
//!
//! Every CPU runs [`live`] for ever: it parks, is given to a life of its cell, runs it until it is
//! over, and parks again. A reboot is an order in the machine record that the first parked CPU of
//! the cell claims, so that the survivor who asks for it does not have to carry it out.
//!
//! # Invariants
//! 1. A life is loaded by the one CPU that claimed its incarnation, after the fence around the life
//!    before holds.
//! 2. INIT is never sent to the boot CPU (the machine would reset), nor to a CPU of a live cell.

use core::sync::atomic::Ordering;
use core::time::Duration;

use cell::machine::{CellState, CpuState, EvidenceKind};
use cell::trace::Event;
use cell::{CellId, Incarnation, Instant, PhysicalAddress};

use super::hypercalls::Reply;
use super::state::{Monitor, PerCpu, Start};
use super::{fence, reach};
use crate::hypercall::Status;
use crate::machine::cpu;
use crate::machine::lapic::{self, Command};

/// Time between INIT and start-up (Intel SDM volume 3, 8.4.4.1 asks for 10 ms; QEMU and every
/// processor since 2010 need none, and a healthy CPU never gets one).
const INIT_SPAN: Duration = Duration::from_millis(1);

/// After this long a CPU that was restarted and did not come is sent its start-up once more.
const START_UP_AGAIN: Duration = Duration::from_millis(50);

/// Runs lives on the executing CPU, for ever.
pub fn live(monitor: &Monitor, cpu: &PerCpu) -> ! {
    monitor.back_end.enable(cpu);
    loop {
        let start = wait_for_start(monitor, cpu);
        let entry = monitor.machine.cpu(cpu.id);
        entry.absolve();
        entry
            .incarnation
            .store(start.incarnation.0, Ordering::SeqCst);
        entry
            .state
            .store(CpuState::Running as u32, Ordering::SeqCst);
        monitor.trace(
            cpu,
            Event::Entered,
            [cpu.id.index() as u64, cpu.cell.index() as u64],
        );
        monitor.back_end.run(monitor, cpu, start);
    }
}

/// Whether the life `incarnation` of the CPU's cell may go on.
pub(crate) fn is_alive(monitor: &Monitor, cpu: &PerCpu, incarnation: Incarnation) -> bool {
    let entry = monitor.machine.cell(cpu.cell);
    let runs = matches!(entry.state(), CellState::Booting | CellState::Live);
    runs && entry.incarnation() == incarnation
}

fn wait_for_start(monitor: &Monitor, this: &PerCpu) -> Start {
    lapic::quiet();
    cpu::clear_machine_check();
    this.init_sent_at.store(0, Ordering::SeqCst);
    let entry = monitor.machine.cpu(this.id);
    entry.state.store(CpuState::Parked as u32, Ordering::SeqCst);
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
    let loaded = match reach::start_life(monitor, cpu.cell) {
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
    match monitor.machine.cpu(target.id).state() {
        CpuState::Parked => {}
        CpuState::Running => return Status::Busy.into(),
        CpuState::Absent => {
            start_again(monitor, target);
            return Status::Busy.into();
        }
    }
    let incarnation = monitor
        .machine
        .cpu(cpu.id)
        .incarnation
        .load(Ordering::SeqCst);
    target.order.entry.store(entry, Ordering::SeqCst);
    target.order.stack.store(stack, Ordering::SeqCst);
    target.order.argument.store(argument, Ordering::SeqCst);
    target
        .order
        .incarnation
        .store(incarnation, Ordering::SeqCst);
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

/// Marks a CPU absent that still runs the life `expelled`, or never came. Until it is parked no
/// kick may send it an NMI: the start-up code has no descriptors for one, and would reset the
/// machine. `false` for one that parked, or was sooner and runs the next life by now: an INIT would
/// end that.
fn claim_for_restart(monitor: &Monitor, target: &PerCpu, expelled: Incarnation) -> bool {
    let entry = monitor.machine.cpu(target.id);
    let is_past = || entry.incarnation.load(Ordering::SeqCst) <= expelled.0;
    if entry.state() == CpuState::Absent {
        return true;
    }
    let (running, absent) = (CpuState::Running as u32, CpuState::Absent as u32);
    let claimed = is_past()
        && entry
            .state
            .compare_exchange(running, absent, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
    // It may have gone through its park between the two looks.
    if claimed && !is_past() {
        // Unless it has said something newer of itself meanwhile.
        let _ = entry
            .state
            .compare_exchange(absent, running, Ordering::SeqCst, Ordering::SeqCst);
        return false;
    }
    claimed
}

/// Marks the executing CPU absent, which an INIT may be about to reset: as in
/// [`claim_for_restart`], no NMI may be sent to it until it is parked. One that waits for its
/// start-up keeps an NMI pending (Bochs 2.7), and would take it in the start-up code.
pub(crate) fn expect_reset(monitor: &Monitor, cpu: &PerCpu) {
    let state = &monitor.machine.cpu(cpu.id).state;
    state.store(CpuState::Absent as u32, Ordering::SeqCst);
}

/// Restarts a CPU that is not in the monitor: INIT at the first call, start-up at a later one.
/// Returns whether there is nothing left to do for it.
fn bring_back(monitor: &Monitor, cpu: &PerCpu, target: &PerCpu, expelled: Incarnation) -> bool {
    if target.is_boot_cpu || monitor.machine.cpu(target.id).state() == CpuState::Parked {
        return true;
    }
    let now = monitor.now();
    let sent_at = target.init_sent_at.load(Ordering::SeqCst);
    if sent_at == 0 {
        if !claim_for_restart(monitor, target, expelled) {
            return true;
        }
        let sent = now.0.max(1);
        let first =
            target
                .init_sent_at
                .compare_exchange(0, sent, Ordering::SeqCst, Ordering::SeqCst);
        if first.is_ok() {
            lapic::send(target.apic_id, Command::Init);
        }
        return false;
    }
    if now.since(Instant(sent_at)) < INIT_SPAN {
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
