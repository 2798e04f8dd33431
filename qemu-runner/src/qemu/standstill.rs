//! Standstills: the machine waits for the runner at points of its own time.
//!
//! What the guest does for it is said in [`cell::standstill`]. Each of its two ports is a debug
//! console of QEMU's: a byte that the guest writes goes first to a pipe that the runner reads, and
//! then to a "log", which is a pipe that the runner keeps full. So one access both tells of the
//! standstill and waits for its end; the thread that waits executes all CPUs, and holds QEMU's one
//! lock meanwhile, so that no clock goes on, no timer ends, and no other channel is answered.
//!
//! # Invariants
//! 1. The gate of the next standstill is shut before the machine goes on from this one.
//! 2. Orders and times are written while the machine stands still, never while it runs.
//!
//! # References
//! QEMU 7.2: `chardev/char.c`, where what was written is logged, by a write that blocks.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::mem::offset_of;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use cell::PhysicalAddress;
use cell::machine::MachineRecord;
use cell::standstill::{ORDERS_MAX, Order, PORTS, Standstill};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::pipe::fcntl_setpipe_size;

use super::gdb::CpuFreezer;
use super::qtest::BusAccess;
use crate::error::{Context, Error, Result};
use crate::guest::machine::MachineView;
use crate::guest::memory::{GuestMemory, field};

const CHANNEL: &str = "standstill";
/// The smallest pipe there is.
const GATE_BYTES: usize = 4096;

/// The names of the pipes of a port, in the run directory.
pub fn pipe_names(port: usize) -> [String; 2] {
    [format!("still{port}"), format!("gate{port}")]
}

/// One port: the pipe that tells of a standstill, and the one that keeps the machine there.
#[derive(Debug)]
struct Port {
    still: File,
    gate: File,
    gate_bytes: usize,
}

impl Port {
    fn create(directory: &Path, number: usize) -> Result<Self> {
        let [still, gate] = pipe_names(number).map(|name| pipe(&directory.join(name)));
        let (still, gate) = (still?, gate?);
        let gate_bytes = fcntl_setpipe_size(&gate, GATE_BYTES)
            .map_err(std::io::Error::from)
            .context(|| "sizing a pipe".into())?;
        let mut port = Self {
            still,
            gate,
            gate_bytes,
        };
        port.shut()?;
        Ok(port)
    }

    fn shut(&mut self) -> Result<()> {
        let filled = self.gate.write_all(&vec![0; self.gate_bytes]);
        filled.context(|| "filling a pipe".into())
    }

    fn open(&mut self) -> Result<()> {
        let emptied = self.gate.read_exact(&mut vec![0; self.gate_bytes]);
        emptied.context(|| "emptying a pipe".into())
    }

    /// Takes out what the machine wrote when it went on, and shuts the gate again.
    fn shut_after_use(&mut self) -> Result<()> {
        let passed = self.gate.read_exact(&mut [0]);
        passed.context(|| "emptying a pipe".into())?;
        self.shut()
    }

    /// Waits for the machine to come; `false` at the limit.
    fn wait(&mut self, limit: Duration) -> Result<bool> {
        let waiting = || "waiting for a pipe".to_string();
        let span = Timespec::try_from(limit)
            .map_err(|_| std::io::Error::from(ErrorKind::InvalidInput))
            .context(waiting)?;
        let mut events = [PollFd::new(&self.still, PollFlags::IN)];
        match poll(&mut events, Some(&span)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(false),
            Ok(_) => self
                .still
                .read_exact(&mut [0])
                .context(waiting)
                .map(|()| true),
            Err(error) => Err(std::io::Error::from(error)).context(waiting),
        }
    }
}

/// A pipe with a name, open at both ends, so that neither end ever waits for the other.
fn pipe(path: &Path) -> Result<File> {
    let making = || format!("making {}", path.display());
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(std::io::Error::from)
        .context(making)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options.open(path).context(making)
}

/// Where in the machine record a field of its standstill record lies.
const fn in_record(record: PhysicalAddress, offset: usize) -> PhysicalAddress {
    field(record, offset_of!(MachineRecord, standstill) + offset)
}

/// The standstills of one machine.
#[derive(Debug)]
pub struct Standstills {
    ports: [Port; PORTS.len()],
    record: PhysicalAddress,
    number: u64,
    at: u64,
}

impl Standstills {
    /// Makes the pipes, for a QEMU that starts then and whose machine record will lie at `record`.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn create(directory: &Path, record: PhysicalAddress) -> Result<Self> {
        Ok(Self {
            ports: [Port::create(directory, 0)?, Port::create(directory, 1)?],
            record,
            number: 0,
            at: 0,
        })
    }

    /// The time of the newest standstill, in nanoseconds of the guest.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// Waits for the machine to stand still; `false` if it has not by `limit`.
    ///
    /// # Errors
    /// [`Error::Guest`] if the machine's own count is another.
    pub fn wait(&mut self, memory: &GuestMemory, limit: Duration) -> Result<bool> {
        let current = (self.number % 2) as usize;
        if !self.ports[current].wait(limit)? {
            return Ok(false);
        }
        if self.number > 0 {
            self.ports[1 - current].shut_after_use()?;
        }
        self.number += 1;
        let word = |offset| memory.read_u64(in_record(self.record, offset));
        let count = word(offset_of!(Standstill, count))?;
        if count != self.number {
            let number = self.number;
            return Err(Error::Guest(format!(
                "standstill {count} by the machine's count, {number} by the runner's"
            )));
        }
        self.at = word(offset_of!(Standstill, at))?;
        Ok(true)
    }

    /// Lets the machine go on until `span` from now.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn go_on(&mut self, memory: &GuestMemory, span: Duration) -> Result<()> {
        let due = self.at.saturating_add(span.as_nanos() as u64).max(1);
        let at = in_record(self.record, offset_of!(Standstill, due));
        memory.write_u64(at, due)?;
        self.ports[((self.number + 1) % 2) as usize].open()
    }
}

/// What is ordered during a standstill; the machine does it as soon as it goes on.
#[derive(Debug)]
pub struct Orders {
    memory: GuestMemory,
    machine: MachineView,
}

impl Orders {
    /// For the machine with this memory.
    pub const fn new(memory: GuestMemory, machine: MachineView) -> Self {
        Self { memory, machine }
    }

    fn field(&self, offset: usize) -> PhysicalAddress {
        in_record(self.machine.record(), offset)
    }

    /// How large the words are that are ordered, in bytes each.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn sizes(&self) -> Result<Vec<usize>> {
        let word = |offset| self.memory.read_u64(self.field(offset));
        let count = word(offset_of!(Standstill, orders_count))? as usize;
        let first = offset_of!(Standstill, orders) + offset_of!(Order, bytes);
        let size = |order: usize| Ok(word(first + order * size_of::<Order>())? as usize);
        (0..count.min(ORDERS_MAX)).map(size).collect()
    }

    /// Orders words of these sizes that change nothing, and take as long.
    ///
    /// # Errors
    /// See [`GuestMemory::write`].
    pub fn add_nothing(&mut self, sizes: &[usize]) -> Result<()> {
        let nowhere = self.field(offset_of!(Standstill, nowhere)).0;
        sizes
            .iter()
            .try_for_each(|&size| self.add(nowhere, &[0; 8][..size.min(8)]))
    }

    fn add(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let count_at = self.field(offset_of!(Standstill, orders_count));
        let count = self.memory.read_u64(count_at)?;
        if count >= ORDERS_MAX as u64 {
            let problem = format!("more than {ORDERS_MAX} words are to change at one time");
            return Err(Error::Channel {
                channel: CHANNEL,
                problem,
            });
        }
        let order = offset_of!(Standstill, orders) + count as usize * size_of::<Order>();
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        for (offset, word) in [
            (offset_of!(Order, address), address),
            (offset_of!(Order, value), u64::from_le_bytes(value)),
            (offset_of!(Order, bytes), bytes.len() as u64),
        ] {
            self.memory.write_u64(self.field(order + offset), word)?;
        }
        self.memory.write_u64(count_at, count + 1)
    }

    fn change_frozen(&self, apic_id: u32, change: impl Fn(u64, u64) -> u64) -> Result<()> {
        let cpu = self.machine.cpu_of_apic(&self.memory, apic_id)?;
        let missing = || Error::Usage(format!("no CPU has the local APIC {apic_id}"));
        let cpu = cpu.ok_or_else(missing)?;
        let at = self.field(offset_of!(Standstill, frozen) + cpu / 64 * 8);
        let word = self.memory.read_u64(at)?;
        self.memory.write_u64(at, change(word, 1 << (cpu % 64)))
    }
}

impl BusAccess for Orders {
    fn read_bus(&mut self, address: u64, buffer: &mut [u8]) -> Result<()> {
        self.memory.read(PhysicalAddress(address), buffer)
    }

    fn write_bus(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let is_word = |size: usize| bytes.len() == size && address.is_multiple_of(size as u64);
        if [2, 4, 8].into_iter().any(is_word) {
            return self.add(address, bytes);
        }
        bytes
            .iter()
            .zip(address..)
            .try_for_each(|(byte, at)| self.add(at, &[*byte]))
    }
}

impl CpuFreezer for Orders {
    fn freeze(&mut self, cpu: u32) -> Result<()> {
        self.change_frozen(cpu, |word, bit| word | bit)
    }

    fn thaw(&mut self, cpu: u32) -> Result<()> {
        self.change_frozen(cpu, |word, bit| word & !bit)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::machine::tests::synthetic;
    use std::io::Write;
    use std::thread;

    const SOON: Duration = Duration::from_secs(10);

    /// A machine that stands still `count` times, each time a millisecond after it was let go on.
    fn play(directory: &Path, memory: &GuestMemory, record: PhysicalAddress, count: u64) {
        let write = |name: &str| {
            let path = directory.join(name);
            let mut pipe = OpenOptions::new().write(true).open(path).unwrap();
            pipe.write_all(&[1]).unwrap();
        };
        let word = |offset| in_record(record, offset);
        for number in 0..count {
            memory
                .write_u64(word(offset_of!(Standstill, count)), number + 1)
                .unwrap();
            let due = memory.read_u64(word(offset_of!(Standstill, due))).unwrap();
            memory
                .write_u64(word(offset_of!(Standstill, at)), due + 5)
                .unwrap();
            let [still, gate] = pipe_names((number % 2) as usize);
            write(&still);
            write(&gate);
        }
    }

    #[test]
    fn the_machine_waits_at_every_standstill_for_its_runner() {
        let directory = tempfile::tempdir().unwrap();
        let (memory, record) = synthetic();
        let mut standstills = Standstills::create(directory.path(), record).unwrap();
        let (path, guest) = (directory.path().to_path_buf(), memory.clone());
        let machine = thread::spawn(move || play(&path, &guest, record, 5));
        for number in 0..5 {
            assert!(standstills.wait(&memory, SOON).unwrap());
            assert_eq!(standstills.at(), number * 1_000_005 + 5);
            assert!(!standstills.wait(&memory, Duration::ZERO).unwrap());
            let span = Duration::from_millis(1);
            standstills.go_on(&memory, span).unwrap();
        }
        machine.join().unwrap();
        assert!(!standstills.wait(&memory, Duration::ZERO).unwrap());
    }

    #[test]
    fn words_are_ordered_whole_and_anything_else_by_the_byte() {
        let (memory, record) = synthetic();
        let machine = MachineView::read(&memory, record).unwrap().unwrap();
        let mut orders = Orders::new(memory.clone(), machine);
        orders.write_bus(0xfee0_3000, &[0, 5, 0, 0]).unwrap();
        orders.write_bus(0x1003, &[7, 8, 9]).unwrap();
        let base = offset_of!(Standstill, orders);
        let order = |number: usize| {
            let at = base + number * size_of::<Order>();
            [0, 8, 16].map(|word| memory.read_u64(in_record(record, at + word)).unwrap())
        };
        assert_eq!(order(0), [0xfee0_3000, 0x500, 4]);
        assert_eq!(order(1), [0x1003, 7, 1]);
        assert_eq!(order(3), [0x1005, 9, 1]);
        assert_eq!(orders.sizes().unwrap(), [4, 1, 1, 1]);
        let nowhere = in_record(record, offset_of!(Standstill, nowhere));
        orders.add_nothing(&[8, 1]).unwrap();
        assert_eq!([order(4), order(5)], [[nowhere.0, 0, 8], [nowhere.0, 0, 1]]);
        let rest = vec![0; 2 * ORDERS_MAX + 1];
        assert!(orders.write_bus(0x2001, &rest).is_err());
    }

    #[test]
    fn a_frozen_cpu_is_one_bit() {
        let (memory, record) = synthetic();
        let machine = MachineView::read(&memory, record).unwrap().unwrap();
        let mut orders = Orders::new(memory.clone(), machine);
        let frozen = in_record(record, offset_of!(Standstill, frozen));
        orders.freeze(3).unwrap();
        orders.freeze(1).unwrap();
        assert_eq!(memory.read_u64(frozen).unwrap(), 0b1010);
        orders.thaw(3).unwrap();
        assert_eq!(memory.read_u64(frozen).unwrap(), 0b10);
        assert!(orders.freeze(9).is_err());
    }
}
