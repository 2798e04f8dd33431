//! What runs a machine, as the rest of the runner sees it: memory, time, and ways in.
//!
//! Everything above (experiments, watches, verdicts) is the same for every emulator. Time is where
//! they differ most: QEMU's machines run by the host's clock, whether anybody looks or not; Bochs's
//! and, in the deterministic mode, QEMU's run by their own, and only while they are let.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::bochs::configuration;
use crate::bochs::machine::BochsMachine;
use crate::bochs::process::Bochs;
use crate::error::{Error, Result};
use crate::fault::catalogue::{Fault, HostFault};
use crate::fault::host::Target;
use crate::fault::plan::{Plan, Strike};
use crate::guest::machine::{CpuStatus, MachineView};
use crate::guest::memory::GuestMemory;
use crate::launch::{Launch, Program};
use crate::observation::Watched;
use crate::pace::{Moment, Wait};
use crate::qemu::gdb::Gdb;
use crate::qemu::machine::QemuMachine;
use crate::qemu::qtest::BusAccess;

/// A running machine. It ends when it is dropped.
pub trait Emulator: fmt::Debug {
    /// The guest's memory.
    fn memory(&self) -> GuestMemory;

    /// Now, by the clock that it goes by.
    fn now(&self) -> Moment;

    /// The guest's time in nanoseconds, if it is known exactly.
    fn guest_time(&self) -> Option<u64> {
        None
    }

    /// How long it might take to boot, if that is over.
    fn overdue(&self) -> Option<Duration>;

    /// Lets it run on for about `span` of its clock.
    ///
    /// # Errors
    /// Whatever keeps it from running.
    fn begin_wait(&mut self, span: Duration) -> Result<()>;

    /// Waits for the end of the span, but not for much longer than `limit` of the host's time. A
    /// machine that was just started may be looked at once this is over.
    ///
    /// # Errors
    /// [`Error::Interrupted`], and whatever keeps it from running.
    fn wait(&mut self, limit: Duration) -> Result<Wait>;

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

    /// Whether the emulator itself is still there.
    ///
    /// # Errors
    /// [`Error::Host`].
    fn is_up(&mut self) -> Result<bool>;

    /// Connects what the faults of a plan need.
    ///
    /// # Errors
    /// [`Error::Channel`] if it cannot be had.
    fn prepare(&mut self, plan: &Plan) -> Result<()>;

    /// The memory bus, by which code may be changed too.
    ///
    /// # Errors
    /// [`Error::Channel`] if there is no way to it.
    fn bus(&mut self) -> Result<&mut dyn BusAccess>;

    /// How large the words are, in bytes each, that the machine writes by order when it goes on.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    fn ordered(&self) -> Result<Vec<usize>> {
        Ok(Vec::new())
    }

    /// Orders words of these sizes that change nothing, and take as long.
    ///
    /// # Errors
    /// See [`GuestMemory::write`].
    fn order_nothing(&mut self, _sizes: &[usize]) -> Result<()> {
        Ok(())
    }

    /// QEMU's gdb stub, which alone knows points at which CPUs stop.
    ///
    /// # Errors
    /// [`Error::Channel`] if there is none, or none is connected.
    fn gdb(&mut self) -> Result<&mut Gdb> {
        Err(missing())
    }

    /// Stops the machine and leaves its gdb stub to somebody else. Says where that is.
    ///
    /// # Errors
    /// [`Error::Channel`] if there is none.
    fn hand_over(&mut self) -> Result<PathBuf> {
        Err(missing())
    }

    /// Bochs itself, which alone shows every instruction. Its machine does not stop by itself any
    /// more: who asks sees to that.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is another.
    fn bochs(&mut self) -> Result<&mut Bochs> {
        Err(Error::Usage("only Bochs shows every instruction".into()))
    }

    /// Does something to one CPU: any [`HostFault`] but those of memory. Says what.
    ///
    /// # Errors
    /// Whatever keeps it from being done.
    fn strike_cpu(
        &mut self,
        target: &Target<'_>,
        cpu: CpuStatus,
        strike: &Strike,
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
            mode,
        } => Box::new(QemuMachine::start(
            launch,
            installation,
            (*accelerator, *mode),
        )?),
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

    /// Refuses faults that cannot be injected, and what cannot be waited for.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check(&self, plan: &Plan) -> Result<()> {
        for strike in plan.strikes() {
            if let Some(reason) = self.refuses(strike.fault) {
                let problem = format!("{}: {reason}; QEMU can do this", strike.fault);
                return Err(Error::Usage(problem));
            }
        }
        let unseen = plan.triggers().find(|trigger| trigger.needs_gdb());
        match (self, unseen) {
            (Self::Bochs(_), Some(trigger)) => Err(Error::Usage(format!(
                "a fault {}: that is seen by QEMU's gdb stub, which Bochs has not",
                trigger.cause
            ))),
            _ => Ok(()),
        }
    }
}

fn missing() -> Error {
    Error::Channel {
        channel: "gdb stub",
        problem: "this emulator has none".into(),
    }
}
