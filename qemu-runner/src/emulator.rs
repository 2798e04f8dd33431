//! What runs a machine, as the rest of the runner sees it: memory, time, and ways in.
//!
//! Everything above (experiments, watches, verdicts) is the same for every emulator. Time is where
//! they differ most: QEMU's machines run by the host's clock, whether anybody looks or not; Bochs's
//! run by their own, and only while they are let.

use std::fmt;
use std::time::Duration;

use crate::bochs::configuration;
use crate::bochs::machine::BochsMachine;
use crate::error::{Error, Result};
use crate::fault::catalogue::{Fault, HostFault};
use crate::fault::host::Target;
use crate::fault::plan::Strike;
use crate::guest::machine::{CpuStatus, MachineView};
use crate::guest::memory::GuestMemory;
use crate::launch::{Launch, Program};
use crate::observation::Watched;
use crate::qemu::machine::QemuMachine;
use crate::qemu::qtest::BusAccess;

/// A running machine. It ends when it is dropped.
pub trait Emulator: fmt::Debug {
    /// The guest's memory.
    fn memory(&self) -> GuestMemory;

    /// How long it has run, by the clock by which it is waited for.
    fn elapsed(&self) -> Duration;

    /// How long it may take to boot, by that clock.
    fn boot_limit(&self) -> Duration;

    /// Lets it run on for about `time` of that clock.
    ///
    /// # Errors
    /// [`Error::Interrupted`], and whatever keeps it from running.
    fn pass(&mut self, time: Duration) -> Result<()>;

    /// Takes note of the cells, once the monitor has divided the machine.
    ///
    /// # Errors
    /// Whatever keeps the emulator from doing so.
    fn divided(&mut self, machine: &MachineView) -> Result<()>;

    /// Whether the guest reset the machine, shut it down or broke it. Says how.
    ///
    /// # Errors
    /// If the emulator itself is gone.
    fn down(&mut self) -> Result<Option<String>>;

    /// What the guest wrote to its serial port, for people.
    fn serial_text(&self) -> String;

    /// Connects what these faults need.
    ///
    /// # Errors
    /// [`Error::Channel`] if it cannot be had.
    fn prepare(&mut self, strikes: &[&Strike]) -> Result<()>;

    /// The memory bus, by which code may be changed too.
    ///
    /// # Errors
    /// [`Error::Channel`] if there is no way to it.
    fn bus(&mut self) -> Result<&mut dyn BusAccess>;

    /// Does something to one CPU: any [`HostFault`] but those of memory. Says what.
    ///
    /// # Errors
    /// Whatever keeps it from being done.
    fn strike_cpu(
        &mut self,
        target: &Target<'_>,
        cpu: CpuStatus,
        fault: HostFault,
    ) -> Result<String>;

    /// Watches what `cell` must not write from now on, if the emulator can.
    ///
    /// # Errors
    /// Whatever keeps it from being done.
    fn watch_stores(&mut self, target: &Target<'_>, cell: usize) -> Result<()> {
        let _ = (target, cell);
        Ok(())
    }

    /// What a watch on stores saw so far, if there is one.
    fn watched(&self) -> Option<Watched> {
        None
    }

    /// Lets a frozen CPU go on. Says what became of it.
    ///
    /// # Errors
    /// Whatever keeps it from being done.
    fn thaw(&mut self, apic_id: u8) -> Result<String>;
}

/// Starts a machine.
///
/// # Errors
/// What the emulator said, if it does not start.
pub fn start(launch: &Launch) -> Result<Box<dyn Emulator>> {
    Ok(match &launch.program {
        Program::Qemu {
            installation,
            accelerator,
        } => Box::new(QemuMachine::start(launch, installation, *accelerator)?),
        Program::Bochs(installation) => Box::new(BochsMachine::start(launch, installation)?),
    })
}

impl Program {
    /// Why a fault cannot be injected, if it cannot.
    pub const fn refuses(&self, fault: Fault) -> Option<&'static str> {
        match self {
            Self::Qemu { .. } => None,
            Self::Bochs(_) => configuration::refuses(fault),
        }
    }

    /// Refuses faults that cannot be injected.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check<'a>(&self, strikes: impl IntoIterator<Item = &'a Strike>) -> Result<()> {
        for strike in strikes {
            if let Some(reason) = self.refuses(strike.fault) {
                let problem = format!("{}: {reason}; QEMU can do this", strike.fault);
                return Err(Error::Usage(problem));
            }
        }
        Ok(())
    }
}
