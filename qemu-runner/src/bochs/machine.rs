//! A machine under Bochs, with the ways into it.
//!
//! Bochs cannot be told to run for so long with all CPUs at full speed and then stop at the same
//! instruction in every run. What stops it is a store to a watched address, so it is made to stop
//! whenever a cell publishes the time of a tick: every half of a millisecond, with four cells. The
//! first stop of all is where the monitor says that the machine is divided.
//!
//! # Invariants
//! 1. Memory is read and written only while the debugger has stopped the machine.
//!
//! # Not guaranteed
//! Two runs are the same as long as some cell ticks. When none does, the host's clock ends the
//! wait.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;
use std::time::{Duration, Instant};

use cell::PhysicalAddress;
use cell::machine::{self, MAGIC, MachineRecord};
use cell::public::PublicHeader;

use super::debugger::Stop;
use super::install::Installation;
use super::process::Bochs;
use super::standstill::{Standstill, stand_still};
use super::write_watch::WriteWatch;
use crate::emulator::Emulator;
use crate::error::{Error, Result};
use crate::fault::catalogue::HostFault;
use crate::fault::host::Target;
use crate::fault::plan::{Plan, Strike};
use crate::guest::machine::{CpuStatus, MachineView};
use crate::guest::memory::{GuestMemory, field};
use crate::guest::symbols::physical_address;
use crate::launch::Launch;
use crate::observation::Watched;
use crate::pace::{Moment, Wait};
use crate::qemu::qtest::BusAccess;

/// Of the machine's own time: the firmware and GRUB take 8 s, with nobody to hurry them.
const BOOT_LIMIT: Duration = Duration::from_secs(20);
/// How long Bochs may run on the host without a tick of any cell before it is stopped for a look.
pub const STALL: Duration = Duration::from_secs(5);
/// The serial port, where it is not the terminal's.
pub const SERIAL: &str = "mode=file, dev=serial.log";

/// A machine under Bochs.
#[derive(Debug)]
pub struct BochsMachine {
    bochs: Bochs,
    /// Where the monitor says that the machine is divided.
    record: PhysicalAddress,
    /// Where the cells publish their ticks.
    ticks: BTreeSet<u64>,
    still: BTreeMap<u8, Standstill>,
    write_watch: Option<WriteWatch>,
    /// The end of the span for which it is to run on.
    until: Moment,
}

impl BochsMachine {
    /// Starts Bochs.
    ///
    /// # Errors
    /// See [`Bochs::start`].
    pub fn start(launch: &Launch, installation: &Installation) -> Result<Self> {
        let bochs = Bochs::start(launch, installation, SERIAL)?;
        Self::watched(bochs, launch)
    }

    /// Takes a Bochs that stands at its first instruction.
    ///
    /// # Errors
    /// [`Error::Guest`] if the monitor is not one of this project's, [`Error::Bochs`].
    pub fn watched(mut bochs: Bochs, launch: &Launch) -> Result<Self> {
        let record = physical_address(&launch.images.monitor, machine::SYMBOL)?;
        let record = field(record, offset_of!(MachineRecord, magic));
        bochs.debugger.command("watch stop")?;
        watch(&mut bochs, record.0, size_of_val(&MAGIC) as u64)?;
        Ok(Self {
            bochs,
            record,
            ticks: BTreeSet::new(),
            still: BTreeMap::new(),
            write_watch: None,
            until: Moment::default(),
        })
    }

    /// The process.
    pub const fn bochs(&mut self) -> &mut Bochs {
        &mut self.bochs
    }

    /// Lets it run to the next stop, or for `slice` of the host's time.
    ///
    /// # Errors
    /// [`Error::Bochs`], [`Error::Interrupted`].
    pub fn step(&mut self, slice: Duration) -> Result<()> {
        self.run("c", slice)
    }

    /// Says a line to the debugger that lets the machine run, and takes note of why it stops.
    ///
    /// # Errors
    /// [`Error::Bochs`], [`Error::Interrupted`].
    pub(super) fn run(&mut self, line: &str, slice: Duration) -> Result<()> {
        let (Stop::Written { cpu, address }, _) = self.bochs.debugger.go_on(line, slice)? else {
            return Ok(());
        };
        if let Some(watch) = &mut self.write_watch {
            return watch.judge(&self.bochs.memory(), cpu, address);
        }
        if !self.bochs.process.is_found()
            && (self.record.0..self.record.0 + 8).contains(&address)
            && self.first_word()? == MAGIC
        {
            self.bochs.process.find(self.record, MAGIC)?;
            let command = format!("unwatch {:#x}", self.record.0);
            self.bochs.debugger.command(&command)?;
        }
        Ok(())
    }

    /// The word at the record, by the debugger: memory is not found yet.
    fn first_word(&mut self) -> Result<u64> {
        let answer = self
            .bochs
            .debugger
            .command(&format!("xp /8bx {:#x}", self.record.0))?;
        let bytes = answer.lines().flat_map(|line| line.split('\t').skip(1));
        let bytes = bytes.filter_map(|byte| u8::from_str_radix(byte.trim().get(2..)?, 16).ok());
        let bytes: Vec<u8> = bytes.collect();
        let word = bytes.as_slice().try_into().map(u64::from_le_bytes);
        word.map_err(|_| Error::Bochs(format!("xp says \"{}\"", answer.trim())))
    }
}

/// Makes a store to `length` bytes from `address` on stop the machine.
///
/// # Errors
/// [`Error::Bochs`] if the debugger has no room for it.
pub fn watch(bochs: &mut Bochs, address: u64, length: u64) -> Result<()> {
    let command = format!("watch write {address:#x} {length}");
    let answer = bochs.debugger.command(&command)?;
    if answer.contains("inserted") {
        return Ok(());
    }
    Err(Error::Bochs(format!("{command}: {}", answer.trim())))
}

impl Emulator for BochsMachine {
    fn memory(&self) -> GuestMemory {
        self.bochs.memory()
    }

    fn now(&self) -> Moment {
        Moment::after(self.bochs.elapsed())
    }

    fn overdue(&self) -> Option<Duration> {
        (self.bochs.elapsed() >= BOOT_LIMIT).then_some(BOOT_LIMIT)
    }

    fn begin_wait(&mut self, span: Duration) -> Result<()> {
        self.until = self.now() + span;
        Ok(())
    }

    fn wait(&mut self, limit: Duration) -> Result<Wait> {
        let begun = Instant::now();
        while self.now() < self.until {
            if begun.elapsed() >= limit {
                return Ok(Wait::GoesOn);
            }
            self.step(STALL)?;
        }
        Ok(Wait::Over)
    }

    fn divided(&mut self, machine: &MachineView) -> Result<()> {
        for cell in 0..machine.cells() {
            let address = field(machine.public(cell), offset_of!(PublicHeader, now)).0;
            if self.ticks.insert(address) {
                watch(&mut self.bochs, address, size_of::<u64>() as u64)?;
            }
        }
        Ok(())
    }

    fn down(&mut self) -> Result<Option<String>> {
        if let Some(status) = self.bochs.ended()? {
            return Err(Error::Bochs(format!("ended with {status}")));
        }
        Ok(self.bochs.down())
    }

    fn serial_text(&self) -> String {
        self.bochs.serial_text()
    }

    fn is_up(&mut self) -> Result<bool> {
        self.bochs.ended().map(|status| status.is_none())
    }

    fn prepare(&mut self, _plan: &Plan) -> Result<()> {
        Ok(())
    }

    fn bus(&mut self) -> Result<&mut dyn BusAccess> {
        Ok(self)
    }

    fn bochs(&mut self) -> Result<&mut Bochs> {
        for address in std::mem::take(&mut self.ticks) {
            self.bochs
                .debugger
                .command(&format!("unwatch {address:#x}"))?;
        }
        Ok(&mut self.bochs)
    }

    fn strike_cpu(
        &mut self,
        target: &Target<'_>,
        cpu: CpuStatus,
        _strike: &Strike,
        fault: HostFault,
    ) -> Result<String> {
        let who = format!("CPU {} of cell {}", cpu.cpu, cpu.cell);
        if !matches!(fault, HostFault::CpuHalt | HostFault::CpuFreeze) {
            return Err(Error::Bochs(format!("cannot do this to {who}")));
        }
        let still = stand_still(self, target, cpu)?;
        let at = still.at();
        if fault == HostFault::CpuFreeze {
            self.still.insert(cpu.apic_id, still);
        }
        Ok(format!(
            "{who} made to stand still at {at:#x}, interrupts off"
        ))
    }

    fn watch_stores(&mut self, target: &Target<'_>, cell: usize) -> Result<()> {
        let write_watch = WriteWatch::new(target, cell, self.ticks.len())?;
        for stretch in write_watch.stretches() {
            watch(&mut self.bochs, stretch.start, stretch.length)?;
        }
        self.write_watch = Some(write_watch);
        Ok(())
    }

    fn watched(&self) -> Option<Watched> {
        self.write_watch.as_ref().map(|watch| watch.seen.clone())
    }

    fn thaw(&mut self, apic_id: u8) -> Result<String> {
        let Some(still) = self.still.remove(&apic_id) else {
            return Err(Error::Bochs("that CPU was not frozen".into()));
        };
        still.end(&mut self.bochs)
    }
}

impl BusAccess for BochsMachine {
    fn read_bus(&mut self, address: u64, buffer: &mut [u8]) -> Result<()> {
        self.memory().read(PhysicalAddress(address), buffer)
    }

    /// The debugger takes one to four bytes at once, and forgets decoded code.
    fn write_bus(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        for (byte, at) in bytes.iter().zip(address..) {
            let command = format!("setpmem {at:#x} 1 {byte:#x}");
            self.bochs.debugger.command(&command)?;
        }
        Ok(())
    }
}
