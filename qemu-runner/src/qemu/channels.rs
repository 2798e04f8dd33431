//! The ways into a running machine, connected before they are needed.
//!
//! qtest serves for memory and interrupts; where a QEMU has none, the gdb stub does the same at the
//! price of a short stop. The gdb stub is connected only where a fault needs it, because connecting
//! stops the machine.
//!
//! In the deterministic mode the machine itself does what is ordered while it stands still
//! ([`Orders`]): every other channel acts at a time of the host's.

use super::gdb::{CpuFreezer, Gdb};
use super::process::Qemu;
use super::qmp::{MachineCheckInjector, Qmp};
use super::qtest::{BusAccess, Delivery, InterruptInjector, Qtest};
use super::standstill::Orders;
use crate::error::{Error, Result};
use crate::fault::catalogue::{Fault, HostFault};
use crate::fault::plan::{Kind, Plan, Trigger};

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
    /// Begins with the QMP connection.
    pub const fn new(qmp: Qmp) -> Self {
        Self {
            qmp,
            qtest: None,
            gdb: None,
            orders: None,
        }
    }

    /// Leaves everything but machine checks to orders: the machine stands still whenever it is
    /// changed.
    pub fn order(&mut self, orders: Orders) {
        self.orders = Some(orders);
    }

    /// Where orders are left, in the deterministic mode.
    pub const fn orders(&self) -> Option<&Orders> {
        self.orders.as_ref()
    }

    /// The same, to add some.
    pub const fn orders_mut(&mut self) -> Option<&mut Orders> {
        self.orders.as_mut()
    }

    /// Connects what the faults of a plan need.
    ///
    /// # Errors
    /// [`Error::Channel`] if neither qtest nor the gdb stub can be had.
    pub fn connect(&mut self, qemu: &Qemu, plan: &Plan) -> Result<()> {
        if self.orders.is_some() {
            return Ok(());
        }
        self.qtest = qemu.qtest().ok();
        if self.qtest.is_none() || (plan.kind != Kind::Golden && needs_gdb(plan)) {
            self.gdb = Some(qemu.gdb()?);
        }
        Ok(())
    }

    /// Leaves the gdb stub to somebody else.
    pub fn leave_gdb(&mut self) {
        self.gdb = None;
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
