//! What a cell can reach: its nested table at the start of a life, and every change to it.
//!
//! | memory | access |
//! |---|---|
//! | its own region | everything |
//! | regions of the other cells | load; store where granted; nothing but the public area once cut off |
//! | machine record, firewall table, firmware tables, local APIC | load |
//! | the rest: monitor, other devices, unused addresses | nothing |
//!
//! # Not guaranteed
//! Devices that write memory by themselves (DMA) are not stopped by these tables. The machines that
//! the runner boots have none; a machine with such devices needs an IOMMU.

use core::sync::atomic::Ordering;

use cell::address::PAGE_SIZE;
use cell::public::PUBLIC_SIZE;
use cell::{CellId, CellSet, Frame, FrameRange, PhysicalAddress};

use super::fence;
use super::state::{Monitor, PerCpu};
use crate::grants::Grants;
use crate::machine::lapic::LAPIC_BASE;
use crate::nested::{Access, Exhausted};

/// Makes the nested table of the cell of `cpu` afresh for a new life and opens it. Nothing that was
/// granted before is left: neither to the cell, nor by it.
///
/// # Errors
/// [`Exhausted`] if the table has too few pages for the machine's own stretches.
pub(crate) fn start_life(monitor: &Monitor, cpu: &PerCpu) -> Result<(), Exhausted> {
    let cell = cpu.cell;
    forget_grants(monitor, cpu);
    let nested = monitor.nested(cell);
    nested.reset();
    for other in monitor.machine.all_cells().without(cell).iter() {
        let entry = monitor.machine.cell(other);
        nested.set_range(entry.region, monitor.back_end.rules().ungranted)?;
        if entry.cut_off.load(Ordering::SeqCst) != 0 {
            nested.cut_off(private_part(entry.region));
        }
    }
    for &range in monitor.readable {
        nested.set_range(range, Access::Read)?;
    }
    nested.show_device(LAPIC_BASE.frame())?;
    nested.set_range(monitor.machine.cell(cell).region, Access::Own)?;
    nested.merge(nested.frames());
    nested.open();
    Ok(())
}

/// Forgets what the cell of `cpu` granted and what was granted to it, in writer sets and tables.
fn forget_grants(monitor: &Monitor, cpu: &PerCpu) {
    let cell = cpu.cell;
    let region = monitor.machine.cell(cell).region;
    for other in monitor.machine.all_cells().without(cell).iter() {
        // Whatever the sets say: a CPU of the life before may have stopped for good between an
        // entry and its set.
        monitor.nested(other).write_protect_all(region);
    }
    revoke_all(monitor, cpu);
    for other in monitor.machine.all_cells().without(cell).iter() {
        let nested = monitor.nested(other);
        nested.merge(monitor.table.ever_granted(cell));
        let shared = monitor.table.ever_granted(other);
        monitor.table.revoke(shared, cell);
    }
    let entry = monitor.machine.cell(cell);
    entry.quarantined_by.store(0, Ordering::SeqCst);
    entry.cut_off.store(0, Ordering::SeqCst);
    for other in monitor.machine.all_cells().iter() {
        let entry = monitor.machine.cell(other);
        entry
            .quarantined_by
            .fetch_and(!CellSet::only(cell).0, Ordering::SeqCst);
    }
}

/// Takes back everything that the cell of `cpu` granted, and has the others forget it: all of them,
/// for a CPU that revoked something before may have stopped before its kicks. Nobody waits for
/// them: an NMI that is pending comes before the next instruction of a guest.
fn revoke_all(monitor: &Monitor, cpu: &PerCpu) {
    let ever_granted = monitor.table.ever_granted(cpu.cell);
    for frame in ever_granted.iter() {
        for writer in monitor.table.writers(frame).iter() {
            grants(monitor, cpu.cell, writer).revoke(FrameRange::single(frame));
        }
    }
    if ever_granted.is_empty() || !monitor.back_end.is_enforcing() {
        return;
    }
    for other in monitor.machine.all_cells().without(cpu.cell).iter() {
        fence::kick_cell(monitor, cpu, other);
    }
}

/// What `home` grants to `writer`.
pub(crate) fn grants(monitor: &Monitor, home: CellId, writer: CellId) -> Grants<'_> {
    let enforced = monitor.back_end.is_enforcing();
    Grants {
        table: monitor.table,
        nested: enforced.then(|| monitor.nested(writer)),
        quarantined_by: &monitor.machine.cell(writer).quarantined_by,
        home,
        writer,
    }
}

/// Makes the private part of the cell of `cpu` unreachable for every other cell, and takes back
/// what it granted.
pub(crate) fn cut_off(monitor: &Monitor, cpu: &PerCpu) {
    let home = cpu.cell;
    let entry = monitor.machine.cell(home);
    entry.cut_off.store(1, Ordering::SeqCst);
    revoke_all(monitor, cpu);
    for other in monitor.machine.all_cells().without(home).iter() {
        let nested = monitor.nested(other);
        nested.cut_off(private_part(entry.region));
    }
}

/// Lets `cell` load memory again whose home cut it off in an earlier life, and store to what was
/// granted of it since. Not at once for everybody when the home begins a new life, for the tables
/// of cells that begin theirs at the same time are in the making; so when it is missed. Returns
/// whether that was the matter.
pub(crate) fn reopen(monitor: &Monitor, cell: CellId, frame: Frame) -> bool {
    let Some(home) = monitor.table.homes().of(frame) else {
        return false;
    };
    let nested = monitor.nested(cell);
    let is_cut_off = || is_cut_off(monitor, cell, frame.start());
    if home == cell || is_cut_off() {
        return false;
    }
    let was_missing = nested.reopen(frame);
    if is_cut_off() {
        // The home did so again in between, and may have passed this entry before it was opened.
        nested.cut_off(private_part(monitor.machine.cell(home).region));
    }
    was_missing
}

/// Whether `address` lies in memory that its home, another cell, cut off.
pub(crate) fn is_cut_off(monitor: &Monitor, cell: CellId, address: PhysicalAddress) -> bool {
    let is_over = |home| monitor.machine.cell(home).cut_off.load(Ordering::SeqCst) != 0;
    let home = monitor.table.homes().of(address.frame());
    home.is_some_and(|home| home != cell && is_over(home))
}

fn private_part(region: FrameRange) -> FrameRange {
    FrameRange {
        start: Frame(region.start.0 + PUBLIC_SIZE / PAGE_SIZE),
        end: region.end,
    }
}
