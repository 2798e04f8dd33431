//! The ways into a running machine, connected before they are needed.
//!
//! qtest serves for memory and interrupts; where a QEMU has none, the gdb stub does the same at the
//! price of a short stop. The gdb stub is connected only where a fault needs it, because connecting
//! stops the machine.

use super::catalogue::{Fault, HostFault};
use super::plan::{Kind, Plan, Trigger};
use crate::error::{Error, Result};
use crate::qemu::gdb::{CpuFreezer, Gdb};
use crate::qemu::process::Qemu;
use crate::qemu::qmp::{MachineCheckInjector, Qmp};
use crate::qemu::qtest::{BusAccess, Delivery, InterruptInjector, Qtest};

/// The channels of one machine.
#[derive(Debug)]
pub struct Channels {
    /// QMP.
    pub qmp: Qmp,
    qtest: Option<Qtest>,
    gdb: Option<Gdb>,
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
        Ok(Self { qmp, qtest, gdb })
    }

    /// The memory bus.
    ///
    /// # Errors
    /// [`Error::Channel`] if there is no way to it.
    pub fn bus(&mut self) -> Result<&mut dyn BusAccess> {
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
        match &mut self.gdb {
            Some(gdb) => Ok(gdb),
            None => Err(missing()),
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
