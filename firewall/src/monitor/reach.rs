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
use cell::{CellId, CellSet, Frame, FrameRange};

use super::state::Monitor;
use crate::grants::Grants;
use crate::machine::lapic::LAPIC_BASE;
use crate::nested::{Access, Exhausted};

/// Makes the nested table of `cell` afresh for a new life and opens it. Nothing that was granted
/// before is left: neither to the cell, nor by it.
///
/// # Errors
/// [`Exhausted`] if the table's pool is too small for the machine's stretches.
pub(crate) fn start_life(monitor: &Monitor, cell: CellId) -> Result<(), Exhausted> {
    forget_grants(monitor, cell);
    let nested = monitor.nested(cell);
    nested.reset();
    for other in monitor.machine.all_cells().without(cell).iter() {
        let entry = monitor.machine.cell(other);
        nested.set_range(entry.region, Access::Read)?;
        if entry.cut_off.load(Ordering::SeqCst) != 0 {
            nested.set_range(private_part(entry.region), Access::Absent)?;
        }
    }
    for &range in monitor.readable {
        nested.set_range(range, Access::Read)?;
    }
    nested.set(LAPIC_BASE.frame(), Access::Read)?;
    nested.set_range(monitor.machine.cell(cell).region, Access::Own)?;
    nested.open();
    Ok(())
}

/// Forgets what `cell` granted and what was granted to it, in writer sets and tables.
fn forget_grants(monitor: &Monitor, cell: CellId) {
    let home = monitor.machine.cell(cell).region;
    for frame in home.iter() {
        for writer in monitor.table.writers(frame).iter() {
            monitor.nested(writer).write_protect(frame);
        }
    }
    monitor.table.forget_grants_of(cell);
    for other in monitor.machine.all_cells().without(cell).iter() {
        monitor
            .table
            .revoke(monitor.machine.cell(other).region, cell);
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

/// What `home` grants to `writer`.
pub(crate) fn grants(monitor: &Monitor, home: CellId, writer: CellId) -> Grants<'_> {
    Grants {
        table: monitor.table,
        nested: monitor.nested(writer),
        quarantined_by: &monitor.machine.cell(writer).quarantined_by,
        home,
        writer,
    }
}

/// Makes the private part of `home` unreachable for every other cell.
///
/// # Errors
/// [`Exhausted`] if a table cannot be split; the other tables are done.
pub(crate) fn cut_off(monitor: &Monitor, home: CellId) -> Result<(), Exhausted> {
    let entry = monitor.machine.cell(home);
    entry.cut_off.store(1, Ordering::SeqCst);
    monitor.table.forget_grants_of(home);
    let mut outcome = Ok(());
    for other in monitor.machine.all_cells().without(home).iter() {
        let done = monitor
            .nested(other)
            .set_range(private_part(entry.region), Access::Absent);
        outcome = outcome.and(done);
    }
    outcome
}

fn private_part(region: FrameRange) -> FrameRange {
    FrameRange {
        start: Frame(region.start.0 + PUBLIC_SIZE / PAGE_SIZE),
        end: region.end,
    }
}
