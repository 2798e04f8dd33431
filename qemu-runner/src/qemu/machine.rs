//! A machine under QEMU, with the ways into it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::channels::Channels;
use super::gdb::Gdb;
use super::install::{Accelerator, Installation};
use super::pace::{Counted, Pace};
use super::process::Qemu;
use super::qmp::MachineCheck;
use super::qtest::{BusAccess, Delivery};
use super::standstill::Orders;
use crate::emulator::Emulator;
use crate::error::{Error, Result};
use crate::fault::catalogue::HostFault;
use crate::fault::host::Target;
use crate::fault::plan::{Plan, Strike};
use crate::fault::{corrupt, registers};
use crate::guest::machine::{CpuStatus, MachineView};
use crate::guest::memory::GuestMemory;
use crate::launch::{Launch, Mode};
use crate::pace::{Moment, Wait};

/// How long the machine may take until every cell serves. A host that is busy may need most of it.
pub const BOOT_LIMIT: Duration = Duration::from_mins(2);

/// VAL, UC, EN, ADDRV: an uncorrected error with an address.
const STATUS_UNCORRECTED: u64 = 0xb400_0000_0000_0000;
/// VAL, EN, ADDRV: a corrected error with an address.
const STATUS_CORRECTED: u64 = 0x9400_0000_0000_0000;
/// RIPV, MCIP: the instruction pointer is good, a machine check is under way.
const MCG_STATUS: u64 = 5;
/// Vectors that a device could use.
const VECTORS: std::ops::RangeInclusive<u8> = 0x20..=0xff;
/// Where an interrupt message is written; bits 12 to 19 name the local APIC.
const MESSAGE_ADDRESS: u64 = 0xfee0_0000;
/// A bank that reports memory errors.
const BANK: u32 = 4;
/// QEMU's number, and the local APIC's identifier, of the CPU that the firmware started.
const BOOT_CPU: u8 = 0;

/// A machine under QEMU.
#[derive(Debug)]
pub struct QemuMachine {
    qemu: Qemu,
    started: Instant,
    pace: Pace,
    channels: Channels,
}

impl QemuMachine {
    /// Starts QEMU and waits until it answers.
    ///
    /// # Errors
    /// See [`Qemu::start`].
    pub fn start(
        launch: &Launch,
        installation: &Installation,
        how: (Accelerator, Mode),
    ) -> Result<Self> {
        let started = Instant::now();
        let (mut qemu, qmp) = Qemu::start(launch, installation, how)?;
        let pace = match qemu.take_standstills() {
            Some(standstills) => {
                Pace::Deterministic(Box::new(Counted::new(standstills, qemu.process())))
            }
            None => Pace::Realtime(started),
        };
        Ok(Self {
            qemu,
            started,
            pace,
            channels: Channels::new(qmp),
        })
    }

    /// Reports an error of the cell's memory to a CPU.
    fn check_machine(
        &mut self,
        target: &Target<'_>,
        cpu: CpuStatus,
        status: u64,
    ) -> Result<String> {
        let address = target.machine.public(cpu.cell).0;
        self.channels.machine_checks().machine_check(MachineCheck {
            cpu: u32::from(cpu.apic_id),
            bank: BANK,
            status,
            mcg_status: MCG_STATUS,
            address,
        })?;
        Ok(format!("machine check {status:#x} at {}", name(cpu)))
    }

    /// Does at one moment of the guest's what takes the host a while: a memory module that failed
    /// byte by byte would go on to fail in the cell's next life.
    fn while_stopped<T>(&mut self, action: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Pace::Deterministic(_) = self.pace {
            // It stands still anyway.
            return action(self);
        }
        self.channels.qmp.execute("stop", &json!({}))?;
        let outcome = action(self);
        self.channels.qmp.execute("cont", &json!({}))?;
        outcome
    }

    /// Sends interrupts of random vectors.
    fn interrupt_at_random(&mut self, apic_id: u8, strike: &Strike) -> Result<()> {
        let mut random = ChaCha8Rng::seed_from_u64(strike.seed);
        let address = MESSAGE_ADDRESS + (u64::from(apic_id) << 12);
        for _ in 0..strike.argument {
            let vector = u32::from(random.random_range(VECTORS));
            let bus = self.channels.bus()?;
            bus.write_bus(address, &vector.to_le_bytes())?;
        }
        Ok(())
    }
}

fn name(cpu: CpuStatus) -> String {
    format!("CPU {} of cell {}", cpu.cpu, cpu.cell)
}

impl Emulator for QemuMachine {
    fn memory(&self) -> GuestMemory {
        self.qemu.memory().clone()
    }

    fn now(&self) -> Moment {
        self.pace.now()
    }

    fn guest_time(&self) -> Option<u64> {
        self.pace.guest_time()
    }

    /// By the host's clock in any mode: a machine that never stands still has no other.
    fn overdue(&self) -> Option<Duration> {
        (self.started.elapsed() >= BOOT_LIMIT).then_some(BOOT_LIMIT)
    }

    fn begin_wait(&mut self, span: Duration) -> Result<()> {
        self.pace.begin_wait(self.qemu.memory(), span)
    }

    fn wait(&mut self, limit: Duration) -> Result<Wait> {
        self.pace.wait(self.qemu.memory(), limit)
    }

    fn divided(&mut self, machine: &MachineView) -> Result<()> {
        if let Pace::Deterministic(_) = self.pace {
            let memory = self.qemu.memory().clone();
            self.channels.order(Orders::new(memory, machine.clone()));
        }
        Ok(())
    }

    /// QEMU stays when the guest ends the machine.
    fn down(&mut self) -> Result<Option<String>> {
        if let Some(status) = self.qemu.ended()? {
            return Err(Error::Qemu(format!("ended with {status}")));
        }
        // A connection that breaks is seen as an end of QEMU above, at the next look.
        let events = self.channels.qmp.events().unwrap_or_default();
        let down = events.iter().find(|event| {
            matches!(
                event["event"].as_str(),
                Some("SHUTDOWN" | "RESET" | "GUEST_PANICKED")
            )
        });
        Ok(down.map(|event| format!("{} {}", event["event"], event["data"]["reason"])))
    }

    fn is_up(&mut self) -> Result<bool> {
        self.qemu.ended().map(|status| status.is_none())
    }

    fn serial_text(&self) -> String {
        self.qemu.serial_text()
    }

    fn prepare(&mut self, plan: &Plan) -> Result<()> {
        self.channels.connect(&self.qemu, plan)
    }

    fn bus(&mut self) -> Result<&mut dyn BusAccess> {
        self.channels.bus()
    }

    fn ordered(&self) -> Result<Vec<usize>> {
        self.channels.orders().map_or(Ok(Vec::new()), Orders::sizes)
    }

    fn order_nothing(&mut self, sizes: &[usize]) -> Result<()> {
        let orders = self.channels.orders_mut();
        orders.map_or(Ok(()), |orders| orders.add_nothing(sizes))
    }

    fn gdb(&mut self) -> Result<&mut Gdb> {
        self.channels.gdb()
    }

    fn hand_over(&mut self) -> Result<PathBuf> {
        if let Pace::Deterministic(counted) = &mut self.pace {
            counted.let_go(self.qemu.memory())?;
        }
        self.channels.qmp.execute("stop", &json!({}))?;
        self.channels.leave_gdb();
        Ok(self.qemu.directory().join("gdb"))
    }

    fn strike_cpu(
        &mut self,
        target: &Target<'_>,
        cpu: CpuStatus,
        strike: &Strike,
        fault: HostFault,
    ) -> Result<String> {
        let (who, apic_id) = (name(cpu), cpu.apic_id);
        match fault {
            HostFault::CpuHalt if apic_id == BOOT_CPU => {
                self.channels.freezer()?.freeze(u32::from(apic_id))?;
                Ok(format!("{who} left out of vCont for good"))
            }
            HostFault::CpuHalt => {
                self.channels.interrupt(apic_id, Delivery::Init)?;
                Ok(format!("INIT to {who}"))
            }
            HostFault::CpuFreeze => {
                self.channels.freezer()?.freeze(u32::from(apic_id))?;
                Ok(format!("{who} left out of vCont"))
            }
            HostFault::CpuNmi => {
                self.channels.interrupt(apic_id, Delivery::Nmi)?;
                Ok(format!("NMI to {who}"))
            }
            HostFault::RegBitflip => {
                registers::flip_bit(self.channels.gdb()?, apic_id, &who, strike)
            }
            HostFault::IrqSpurious => {
                self.interrupt_at_random(apic_id, strike)?;
                Ok(format!("{} interrupts to {who}", strike.argument))
            }
            HostFault::MemFail => self.while_stopped(|machine| {
                let filled = corrupt::fail_memory(target, strike)?;
                let check = machine.check_machine(target, cpu, STATUS_UNCORRECTED)?;
                Ok(format!("{filled}; {check}"))
            }),
            HostFault::CpuMceCorrected => self.check_machine(target, cpu, STATUS_CORRECTED),
            _ => self.check_machine(target, cpu, STATUS_UNCORRECTED),
        }
    }

    fn thaw(&mut self, apic_id: u8) -> Result<String> {
        self.channels.freezer()?.thaw(u32::from(apic_id))?;
        Ok("goes on".into())
    }
}
