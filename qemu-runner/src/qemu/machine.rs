//! A machine under QEMU, with the ways into it.
//!
//! qtest serves for memory and interrupts; where a QEMU has none, the gdb stub does the same at the
//! price of a short stop. Both are connected before they are needed, the gdb stub only where a
//! fault needs it, because connecting stops the machine.

use std::thread;
use std::time::{Duration, Instant};

use super::gdb::{CpuFreezer, Gdb};
use super::install::{Accelerator, Installation};
use super::process::Qemu;
use super::qmp::{MachineCheck, MachineCheckInjector, Qmp};
use super::qtest::{BusAccess, Delivery, InterruptInjector, Qtest};
use crate::emulator::Emulator;
use crate::error::{Error, Result};
use crate::fault::catalogue::{Fault, HostFault};
use crate::fault::host::Target;
use crate::fault::plan::Strike;
use crate::guest::machine::{CpuStatus, MachineView};
use crate::guest::memory::GuestMemory;
use crate::launch::Launch;

/// A host that is busy may need most of it.
const BOOT_LIMIT: Duration = Duration::from_mins(2);

/// VAL, UC, EN, ADDRV: an uncorrected error with an address.
const STATUS_UNCORRECTED: u64 = 0xb400_0000_0000_0000;
/// VAL, EN, ADDRV: a corrected error with an address.
const STATUS_CORRECTED: u64 = 0x9400_0000_0000_0000;
/// RIPV, MCIP: the instruction pointer is good, a machine check is under way.
const MCG_STATUS: u64 = 5;
/// A bank that reports memory errors.
const BANK: u32 = 4;
/// QEMU's number, and the local APIC's identifier, of the CPU that the firmware started.
const BOOT_CPU: u8 = 0;

/// A machine under QEMU.
#[derive(Debug)]
pub struct QemuMachine {
    qemu: Qemu,
    qmp: Qmp,
    started: Instant,
    qtest: Option<Qtest>,
    gdb: Option<Gdb>,
}

impl QemuMachine {
    /// Starts QEMU and waits until it answers.
    ///
    /// # Errors
    /// See [`Qemu::start`].
    pub fn start(
        launch: &Launch,
        installation: &Installation,
        accelerator: Accelerator,
    ) -> Result<Self> {
        let started = Instant::now();
        let (qemu, qmp) = Qemu::start(launch, installation, accelerator)?;
        Ok(Self {
            qemu,
            qmp,
            started,
            qtest: None,
            gdb: None,
        })
    }

    fn interrupt(&mut self, apic_id: u8, delivery: Delivery) -> Result<()> {
        match (&mut self.qtest, &mut self.gdb) {
            (Some(qtest), _) => qtest.interrupt(apic_id, delivery),
            (None, Some(gdb)) => gdb.interrupt(apic_id, delivery),
            (None, None) => Err(missing()),
        }
    }

    fn freezer(&mut self) -> Result<&mut dyn CpuFreezer> {
        match &mut self.gdb {
            Some(gdb) => Ok(gdb),
            None => Err(missing()),
        }
    }
}

impl Emulator for QemuMachine {
    fn memory(&self) -> GuestMemory {
        self.qemu.memory().clone()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn boot_limit(&self) -> Duration {
        BOOT_LIMIT
    }

    fn pass(&mut self, time: Duration) -> Result<()> {
        crate::interrupt::check()?;
        thread::sleep(time);
        Ok(())
    }

    fn divided(&mut self, _machine: &MachineView) -> Result<()> {
        Ok(())
    }

    /// QEMU stays when the guest ends the machine.
    fn down(&mut self) -> Result<Option<String>> {
        if let Some(status) = self.qemu.ended()? {
            return Err(Error::Qemu(format!("ended with {status}")));
        }
        // A connection that breaks is seen as an end of QEMU above, at the next look.
        let events = self.qmp.events().unwrap_or_default();
        let down = events.iter().find(|event| {
            matches!(
                event["event"].as_str(),
                Some("SHUTDOWN" | "RESET" | "GUEST_PANICKED")
            )
        });
        Ok(down.map(|event| format!("{} {}", event["event"], event["data"]["reason"])))
    }

    fn serial_text(&self) -> String {
        self.qemu.serial_text()
    }

    fn prepare(&mut self, strikes: &[&Strike]) -> Result<()> {
        self.qtest = self.qemu.qtest().ok();
        if self.qtest.is_none() || strikes.iter().any(|strike| needs_gdb(strike)) {
            self.gdb = Some(self.qemu.gdb()?);
        }
        Ok(())
    }

    fn bus(&mut self) -> Result<&mut dyn BusAccess> {
        match (&mut self.qtest, &mut self.gdb) {
            (Some(qtest), _) => Ok(qtest),
            (None, Some(gdb)) => Ok(gdb),
            (None, None) => Err(missing()),
        }
    }

    fn strike_cpu(
        &mut self,
        target: &Target<'_>,
        cpu: CpuStatus,
        fault: HostFault,
    ) -> Result<String> {
        let who = format!("CPU {} of cell {}", cpu.cpu, cpu.cell);
        let apic_id = cpu.apic_id;
        match fault {
            HostFault::CpuHalt if apic_id == BOOT_CPU => {
                self.freezer()?.freeze(u32::from(apic_id))?;
                Ok(format!("{who} left out of vCont for good"))
            }
            HostFault::CpuHalt => {
                self.interrupt(apic_id, Delivery::Init)?;
                Ok(format!("INIT to {who}"))
            }
            HostFault::CpuFreeze => {
                self.freezer()?.freeze(u32::from(apic_id))?;
                Ok(format!("{who} left out of vCont"))
            }
            HostFault::CpuNmi => {
                self.interrupt(apic_id, Delivery::Nmi)?;
                Ok(format!("NMI to {who}"))
            }
            _ => {
                let status = match fault {
                    HostFault::CpuMceCorrected => STATUS_CORRECTED,
                    _ => STATUS_UNCORRECTED,
                };
                self.qmp.machine_check(MachineCheck {
                    cpu: u32::from(apic_id),
                    bank: BANK,
                    status,
                    mcg_status: MCG_STATUS,
                    address: target.machine.public(cpu.cell).0,
                })?;
                Ok(format!("machine check {status:#x} at {who}"))
            }
        }
    }

    fn thaw(&mut self, apic_id: u8) -> Result<String> {
        self.freezer()?.thaw(u32::from(apic_id))?;
        Ok("goes on".into())
    }
}

fn missing() -> Error {
    Error::Channel {
        channel: "gdb stub",
        problem: "not connected".into(),
    }
}

/// Whether a fault stops CPUs: a freeze, or a halt of what may be the boot CPU.
fn needs_gdb(strike: &Strike) -> bool {
    match strike.fault {
        Fault::Host(HostFault::CpuFreeze) => true,
        Fault::Host(HostFault::CpuHalt) => strike.cell == 0 && strike.cpu_index == 0,
        _ => false,
    }
}
