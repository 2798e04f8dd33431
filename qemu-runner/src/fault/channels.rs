//! The ways into a running machine, connected before they are needed.
//!
//! qtest serves for memory and interrupts; where a QEMU has none, the gdb stub does the same at the
//! price of a short stop. The gdb stub is connected only where a fault needs it, because connecting
//! stops the machine.
//!
//! In the deterministic mode the machine itself does what is ordered while it stands still
//! ([`Orders`]): every other channel acts at a time of the host's.

use super::catalogue::{Fault, HostFault};
use super::plan::{Kind, Plan, Trigger};
use crate::error::{Error, Result};
use crate::qemu::gdb::{CpuFreezer, Gdb};
use crate::qemu::process::Qemu;
use crate::qemu::qmp::{MachineCheckInjector, Qmp};
use crate::qemu::qtest::{BusAccess, Delivery, InterruptInjector, Qtest};
use crate::qemu::standstill::Orders;

/// The channels of one machine.
#[derive(Debug)]
pub struct Channels {
    /// QMP.
    pub qmp: Qmp,
    qtest: Option<Qtest>,
    gdb: Option<Gdb>,
    /// In the deterministic mode, in place of the others.
    orders: Option<Orders>,
}

impl Channels {
    /// Takes the QMP connection and connects what else the faults of a plan need.
    ///
    /// # Errors
    /// [`Error::Channel`] if neither qtest nor the gdb stub can be had.
    pub fn connect(qemu: &Qemu, qmp: Qmp, plan: &Plan) -> Result<Self> {
        let qtest = qemu.qtest().ok();
        let needed = qtest.is_none() || (plan.kind != Kind::Golden && needs_gdb(plan));
        let gdb = if needed { Some(qemu.gdb()?) } else { None };
        Ok(Self {
            qmp,
            qtest,
            gdb,
            orders: None,
        })
    }

    /// The channels of a machine that stands still whenever they are used.
    pub const fn deterministic(qmp: Qmp, orders: Orders) -> Self {
        Self {
            qmp,
            qtest: None,
            gdb: None,
            orders: Some(orders),
        }
    }

    /// The memory bus.
    ///
    /// # Errors
    /// [`Error::Channel`] if there is no way to it.
    pub fn bus(&mut self) -> Result<&mut dyn BusAccess> {
        if let Some(orders) = &mut self.orders {
            return Ok(orders);
        }
        match (&mut self.qtest, &mut self.gdb) {
            (Some(qtest), _) => Ok(qtest),
            (None, Some(gdb)) => Ok(gdb),
            (None, None) => Err(missing()),
        }
    }

    /// Sends an interrupt to one CPU.
    ///
    /// # Errors
    /// [`Error::Channel`].
    pub fn interrupt(&mut self, apic_id: u8, delivery: Delivery) -> Result<()> {
        if let Some(orders) = &mut self.orders {
            return orders.interrupt(apic_id, delivery);
        }
        match (&mut self.qtest, &mut self.gdb) {
            (Some(qtest), _) => qtest.interrupt(apic_id, delivery),
            (None, Some(gdb)) => gdb.interrupt(apic_id, delivery),
            (None, None) => Err(missing()),
        }
    }

    /// What freezes CPUs.
    ///
    /// # Errors
    /// [`Error::Channel`] if it was not connected.
    pub fn freezer(&mut self) -> Result<&mut dyn CpuFreezer> {
        match (&mut self.orders, &mut self.gdb) {
            (Some(orders), _) => Ok(orders),
            (None, Some(gdb)) => Ok(gdb),
            (None, None) => Err(missing()),
        }
    }

    /// The gdb stub.
    ///
    /// # Errors
    /// [`Error::Channel`] if it was not connected.
    pub fn gdb(&mut self) -> Result<&mut Gdb> {
        self.gdb.as_mut().ok_or_else(missing)
    }

    /// What raises machine checks.
    pub fn machine_checks(&mut self) -> &mut dyn MachineCheckInjector {
        &mut self.qmp
    }
}

/// Whether a fault can strike while the machine stands still: what it needs is a change of memory
/// or a message to a local APIC, and not QEMU's own part.
pub const fn is_deterministic(fault: Fault) -> bool {
    match fault {
        Fault::Inner(_) => true,
        Fault::Host(fault) => matches!(
            fault,
            HostFault::CpuHalt
                | HostFault::CpuFreeze
                | HostFault::CpuNmi
                | HostFault::MemBitflip
                | HostFault::MemPointer
        ),
    }
}

fn missing() -> Error {
    Error::Channel {
        channel: "gdb stub",
        problem: "not connected".into(),
    }
}

/// Whether a fault stops CPUs: a freeze, a halt of what may be the boot CPU, a register, a
/// breakpoint.
fn needs_gdb(plan: &Plan) -> bool {
    let by_fault = plan.strikes().any(|strike| match strike.fault {
        Fault::Host(HostFault::CpuFreeze | HostFault::RegBitflip) => true,
        Fault::Host(HostFault::CpuHalt) => strike.cell == 0 && strike.cpu_index == 0,
        _ => false,
    });
    by_fault || plan.triggers().any(Trigger::needs_gdb)
}
