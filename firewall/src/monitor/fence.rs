//! Kicks, expulsion, and when a revoked right is really gone.
//!
//! A processor may hold a translation that was taken back. A **kick** is an NMI that makes a CPU
//! enter the monitor, where its translations are dropped; the CPU then stores the number of the
//! newest kick that it has seen. A CPU that does not answer, because the host took it away or
//! somebody froze it, has the NMI pending: it takes it before its next guest instruction, exits,
//! finds its life over, and parks. So for an expelled cell the fence holds once every CPU has
//! answered, or [`FENCE_SPAN`] after the NMIs were sent.
//!
//! # Not guaranteed
//! A CPU that is stopped by its host in the middle of an instruction, longer than [`FENCE_SPAN`]
//! and the suspicion before it, finishes that one instruction with its old translation. By then the
//! quarantine, which comes before any vote, has been closed to it for at least the time of the
//! probe.

use core::sync::atomic::Ordering;
use core::time::Duration;

use cell::machine::{CellState, Evidence, EvidenceKind};
use cell::standing::CpuState;
use cell::trace::Event;
use cell::{CellId, CellSet, Instant};

use super::state::{Monitor, PerCpu};
use crate::machine::lapic;

/// How long after its NMI an expelled CPU that did not answer counts as fenced.
pub const FENCE_SPAN: Duration = Duration::from_millis(2);

/// Makes every CPU of `cell` enter the monitor, but the one that asks.
pub(crate) fn kick_cell(monitor: &Monitor, asking: &PerCpu, cell: CellId) {
    for cpu in monitor.cpus_of(cell).filter(|cpu| cpu.id != asking.id) {
        kick(monitor, cpu);
    }
}

/// Makes one CPU enter the monitor, or leave its wait there.
pub(crate) fn kick(monitor: &Monitor, cpu: &PerCpu) {
    let entry = monitor.machine.cpu(cpu.id);
    entry.kicks.fetch_add(1, Ordering::SeqCst);
    if entry.standing.state().takes_kicks() {
        lapic::send(cpu.apic_id, monitor.back_end.kick_command());
    }
    cpu.kicks_sent.fetch_add(1, Ordering::SeqCst);
}

/// Called by a CPU that is in the monitor and will drop its translations before it enters a guest:
/// answers all kicks so far. Returns whether there was one that it had not answered.
pub(crate) fn answer_kicks(monitor: &Monitor, cpu: &PerCpu) -> bool {
    let entry = monitor.machine.cpu(cpu.id);
    // Sent before made: were it the other way round, one made in between could count as sent.
    let sent = cpu.kicks_sent.load(Ordering::SeqCst);
    let kicks = entry.kicks.load(Ordering::SeqCst);
    let is_new = entry.kicks_seen.swap(kicks, Ordering::SeqCst) != kicks;
    cpu.all_kicks_sent.store(sent == kicks, Ordering::Relaxed);
    if is_new {
        cpu.is_echo_possible.store(true, Ordering::Relaxed);
    }
    is_new
}

/// Notes that the guest ran and left for another reason than an NMI: what had been sent before it
/// was entered has come by now.
pub(crate) fn note_other_exit(cpu: &PerCpu) {
    if cpu.all_kicks_sent.load(Ordering::Relaxed) {
        cpu.is_echo_possible.store(false, Ordering::Relaxed);
    }
}

/// Whether nothing that was taken from `cell` before can still be used.
pub(crate) fn is_drained(monitor: &Monitor, cell: CellId) -> bool {
    let expelled = monitor.machine.cell(cell).state() == CellState::Expelled;
    let expelled_at = Instant(monitor.control(cell).expelled_at.load(Ordering::SeqCst));
    let pending_is_enough = expelled && monitor.now().since(expelled_at) >= FENCE_SPAN;
    pending_is_enough
        || monitor.cpus_of(cell).all(|cpu| {
            let entry = monitor.machine.cpu(cpu.id);
            match entry.standing.state() {
                CpuState::Absent | CpuState::Parked => true,
                // One that a later life does without has taken its INIT, or will before anything.
                CpuState::Restarting if !expelled => true,
                CpuState::Running | CpuState::Restarting => {
                    entry.kicks_seen.load(Ordering::SeqCst) == entry.kicks.load(Ordering::SeqCst)
                }
            }
        })
}

/// Stops the cell of the executing CPU if a machine check was delivered there, to the cell or,
/// between two entries, to the monitor. Returns whether there was one.
pub(crate) fn stop_by_machine_check(monitor: &Monitor, cpu: &PerCpu) -> bool {
    let is_pending = crate::machine::cpu::is_machine_check_pending();
    if is_pending {
        publish(monitor, cpu, EvidenceKind::MachineCheck, 0, 0);
    }
    is_pending
}

/// Publishes evidence against the cell of `cpu`; if it is fatal, stops the cell.
pub(crate) fn publish(monitor: &Monitor, cpu: &PerCpu, kind: EvidenceKind, address: u64, rip: u64) {
    let entry = monitor.machine.cell(cpu.cell);
    if kind.is_fatal() {
        stop(monitor, cpu);
    }
    entry.publish_evidence(Evidence {
        kind,
        incarnation: entry.incarnation(),
        address,
        instruction: rip,
        at: monitor.now(),
    });
    let what = (kind as u64) << 32 | cpu.cell.index() as u64;
    monitor.trace(cpu, Event::Evidence, [what, address]);
}

fn stop(monitor: &Monitor, cpu: &PerCpu) {
    let entry = monitor.machine.cell(cpu.cell);
    for alive in [CellState::Live, CellState::Booting] {
        let stopped = CellState::Stopped as u32;
        let _ =
            entry
                .state
                .compare_exchange(alive as u32, stopped, Ordering::SeqCst, Ordering::SeqCst);
    }
    kick_cell(monitor, cpu, cpu.cell);
}

/// Carries out the newest seal: every cell outside the live set is expelled and fenced. Idempotent;
/// every survivor calls it, so that the death of one in the middle leaves nothing undone.
pub(crate) fn enforce(monitor: &Monitor, cpu: &PerCpu) {
    for cell in monitor.machine.all_cells().iter() {
        let entry = monitor.machine.cell(cell);
        // State before live set: a cell becomes `Live` only after the seal that admits it.
        let state = entry.state();
        let (_, live) = monitor.machine.membership.current();
        let is_over = matches!(state, CellState::Live | CellState::Stopped);
        if is_over && !live.contains(cell) {
            expel(monitor, cpu, cell, state);
        }
    }
}

/// Ends a life that was voted out, or that never joined.
pub(crate) fn expel(monitor: &Monitor, cpu: &PerCpu, cell: CellId, from: CellState) {
    let entry = monitor.machine.cell(cell);
    monitor
        .control(cell)
        .expelled_at
        .store(monitor.now().0, Ordering::SeqCst);
    let expelled = CellState::Expelled as u32;
    let first = entry
        .state
        .compare_exchange(from as u32, expelled, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok();
    if first {
        monitor.back_end.close(monitor, cell);
        kick_cell(monitor, cpu, cell);
        let incarnation = u64::from(entry.incarnation().0);
        monitor.trace(cpu, Event::Expelled, [cell.index() as u64, incarnation]);
    }
}

/// The live cells that the monitor itself holds something against: stopped, or standing still since
/// they were accused.
pub(crate) fn discredited(monitor: &Monitor) -> CellSet {
    let now = monitor.now();
    let (_, live) = monitor.machine.membership.current();
    live.iter()
        .filter(|&cell| {
            let stopped = monitor.machine.cell(cell).state() == CellState::Stopped;
            stopped
                || monitor
                    .cpus_of(cell)
                    .any(|cpu| stands_still(monitor, cpu, now))
        })
        .collect()
}

fn stands_still(monitor: &Monitor, cpu: &PerCpu, now: Instant) -> bool {
    let entry = monitor.machine.cpu(cpu.id);
    // A CPU that is not in its cell's kernel (it never came, or came back late) proves nothing
    // either way.
    entry.standing.state() == CpuState::Running && entry.stands_still(clock_word(monitor, cpu), now)
}

/// Notes an accusation against every running CPU of `suspect`.
pub(crate) fn accuse(monitor: &Monitor, suspect: CellId) {
    let now = monitor.now();
    for cpu in monitor.cpus_of(suspect) {
        monitor
            .machine
            .cpu(cpu.id)
            .accuse(clock_word(monitor, cpu), now);
    }
}

/// The clock word that the CPU's kernel publishes.
fn clock_word(monitor: &Monitor, cpu: &PerCpu) -> u64 {
    let header = cell::public::part(
        monitor.machine.cell(cpu.cell).region.start.start(),
        cell::public::HEADER_OFFSET,
    );
    // SAFETY: the public header lies at the start of every region (boot checked that a region holds
    // it), in identity-mapped RAM; the words are atomics, whatever the cell writes there.
    let header = unsafe { &*(header.0 as *const cell::public::PublicHeader) };
    header.clock_words[cpu.index].load(Ordering::SeqCst)
}
