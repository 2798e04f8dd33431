//! The monitor's record: the cells, how they fare, which CPUs are theirs.
//!
//! The monitor is trusted, but the record is checked all the same: before boot, and after a memory
//! fault, it may hold anything.

use std::mem::offset_of;

use cell::address::{Frame, FrameRange};
use cell::machine::{
    BackEnd, CellEntry, CellState, CpuEntry, EvidenceKind, MAGIC, MachineRecord, TEXT_BYTES,
    VERSION,
};
use cell::membership::{EPOCHS_MAX, Membership};
use cell::public::PUBLIC_SIZE;
use cell::standing::CpuState;
use cell::time::Clock;
use cell::{CELLS_MAX, CPUS_MAX, CellSet, PhysicalAddress};

use super::memory::{GuestMemory, field};
use crate::error::{Error, Result};

/// A machine record whose layout and bounds were checked.
#[derive(Clone, Debug)]
pub struct MachineView {
    base: PhysicalAddress,
    /// How the firewall is enforced.
    pub back_end: BackEnd,
    /// Regions of the cells, by number.
    pub regions: Vec<FrameRange>,
    /// How many CPUs.
    pub cpus: usize,
    /// The guest's clock.
    pub clock: Clock,
    /// Where the firewall's table lies.
    pub firewall_table: PhysicalAddress,
    /// The monitor's memory.
    pub monitor: FrameRange,
}

/// What the monitor knows of a cell at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CellStatus {
    /// How it fares.
    pub state: CellState,
    /// Its current or last life.
    pub incarnation: u32,
    /// How much evidence there was.
    pub evidence_count: u64,
    /// The newest evidence.
    pub evidence: EvidenceKind,
}

/// What the monitor knows of a CPU at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuStatus {
    /// Its number.
    pub cpu: usize,
    /// The number of its cell.
    pub cell: usize,
    /// Its local APIC's identifier, which is also QEMU's number of it.
    pub apic_id: u8,
    /// Where it is.
    pub state: CpuState,
}

impl MachineView {
    /// Reads the record at `base`; `None` while the monitor has not set it up.
    ///
    /// # Errors
    /// [`Error::Guest`] if its layout is another, or its contents make no sense.
    pub fn read(memory: &GuestMemory, base: PhysicalAddress) -> Result<Option<Self>> {
        if memory.read_u64(field(base, offset_of!(MachineRecord, magic)))? != MAGIC {
            return Ok(None);
        }
        let word = |offset| memory.read_u32(field(base, offset));
        let version = word(offset_of!(MachineRecord, version))?;
        if version != VERSION {
            return Err(nonsense(&format!("layout {version}, expected {VERSION}")));
        }
        let back_end = BackEnd::from_raw(word(offset_of!(MachineRecord, back_end))?);
        let cells = word(offset_of!(MachineRecord, cells_count))? as usize;
        let cpus = word(offset_of!(MachineRecord, cpus_count))? as usize;
        if cells == 0 || cells > CELLS_MAX || cpus == 0 || cpus > CPUS_MAX {
            return Err(nonsense(&format!("{cells} cells on {cpus} CPUs")));
        }
        let clock = field(base, offset_of!(MachineRecord, clock));
        let clock = Clock {
            start_cycles: memory.read_u64(field(clock, offset_of!(Clock, start_cycles)))?,
            cycles_per_second: memory
                .read_u64(field(clock, offset_of!(Clock, cycles_per_second)))?,
        };
        let regions: Result<Vec<FrameRange>> = (0..cells)
            .map(|cell| read_region(memory, entry_of(base, cell)))
            .collect();
        let back_end = back_end.ok_or_else(|| nonsense("an unknown back end"))?;
        Ok(Some(Self {
            base,
            back_end,
            regions: regions?,
            cpus,
            clock,
            firewall_table: PhysicalAddress(
                memory.read_u64(field(base, offset_of!(MachineRecord, firewall_table)))?,
            ),
            monitor: read_range(memory, field(base, offset_of!(MachineRecord, monitor)))?,
        }))
    }

    /// Why the monitor did not divide the machine, if it said so in the record at `base`.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn refusal(memory: &GuestMemory, base: PhysicalAddress) -> Result<Option<String>> {
        if memory.read_u64(field(base, offset_of!(MachineRecord, magic)))? != MAGIC {
            return Ok(None);
        }
        // The length comes first.
        let text = field(base, offset_of!(MachineRecord, refusal));
        let length = memory.read_u64(text)?.min(TEXT_BYTES as u64);
        let mut bytes = vec![0; length as usize];
        memory.read(field(text, size_of::<u64>()), &mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).trim().to_string();
        Ok((!text.is_empty()).then_some(text))
    }

    /// Where the record lies.
    pub const fn record(&self) -> PhysicalAddress {
        self.base
    }

    /// The number of the CPU whose local APIC has this identifier.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn cpu_of_apic(&self, memory: &GuestMemory, apic_id: u32) -> Result<Option<usize>> {
        for number in 0..self.cpus {
            let cpu = self.cpu(memory, number)?;
            if u32::from(cpu.apic_id) == apic_id {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// How many cells.
    pub fn cells(&self) -> usize {
        self.regions.len()
    }

    /// The first address of a cell's public area.
    pub fn public(&self, cell: usize) -> PhysicalAddress {
        self.regions[cell].start.start()
    }

    /// When boot ended, in nanoseconds; 0 before.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn booted_at(&self, memory: &GuestMemory) -> Result<u64> {
        memory.read_u64(field(self.base, offset_of!(MachineRecord, booted_at)))
    }

    /// The number of the cell that owns the serial port.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn uart_owner(&self, memory: &GuestMemory) -> Result<u32> {
        memory.read_u32(field(self.base, offset_of!(MachineRecord, uart_owner)))
    }

    /// What the monitor knows of a cell.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn cell(&self, memory: &GuestMemory, cell: usize) -> Result<CellStatus> {
        let entry = entry_of(self.base, cell);
        let state = memory.read_u32(field(entry, offset_of!(CellEntry, state)))?;
        let kind = memory.read_u32(field(entry, offset_of!(CellEntry, evidence_kind)))?;
        Ok(CellStatus {
            state: CellState::from_raw(state),
            incarnation: memory.read_u32(field(entry, offset_of!(CellEntry, incarnation)))?,
            evidence_count: memory.read_u64(field(entry, offset_of!(CellEntry, evidence_count)))?,
            evidence: EvidenceKind::from_raw(kind),
        })
    }

    /// The CPUs of a cell, in ascending order.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn cpus_of(&self, memory: &GuestMemory, cell: usize) -> Result<Vec<CpuStatus>> {
        let cpus: Result<Vec<CpuStatus>> =
            (0..self.cpus).map(|cpu| self.cpu(memory, cpu)).collect();
        Ok(cpus?.into_iter().filter(|cpu| cpu.cell == cell).collect())
    }

    fn cpu(&self, memory: &GuestMemory, cpu: usize) -> Result<CpuStatus> {
        let table = field(self.base, offset_of!(MachineRecord, cpus));
        let entry = field(table, cpu * size_of::<CpuEntry>());
        let word = |offset| memory.read_u32(field(entry, offset));
        Ok(CpuStatus {
            cpu,
            cell: word(offset_of!(CpuEntry, cell))? as usize,
            apic_id: word(offset_of!(CpuEntry, apic_id))? as u8,
            state: CpuState::from_raw(word(offset_of!(CpuEntry, standing))?),
        })
    }

    /// Where the walk of a cell's nested table begins.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn nested_root(&self, memory: &GuestMemory, cell: usize) -> Result<PhysicalAddress> {
        let entry = entry_of(self.base, cell);
        let root = memory.read_u64(field(entry, offset_of!(CellEntry, nested_root)))?;
        Ok(PhysicalAddress(root))
    }

    /// The cells that the firewall's table names as writers of a frame.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn writers(&self, memory: &GuestMemory, frame: Frame) -> Result<CellSet> {
        let offset = frame.0 as usize * size_of::<u64>();
        Ok(CellSet(
            memory.read_u64(field(self.firewall_table, offset))?,
        ))
    }

    /// The newest sealed epoch and its live set.
    ///
    /// # Errors
    /// See [`GuestMemory::read`].
    pub fn live_set(&self, memory: &GuestMemory) -> Result<(u32, CellSet)> {
        let membership = field(self.base, offset_of!(MachineRecord, membership));
        let epoch = memory.read_u32(field(membership, Membership::EPOCH_OFFSET))?;
        let index = (epoch as usize).min(EPOCHS_MAX - 1);
        let live = memory.read_u64(field(membership, Membership::LIVE_OFFSET + index * 8))?;
        Ok((epoch, CellSet(live)))
    }

    /// Where the monitor's own trace ring lies.
    pub const fn monitor_trace(&self) -> PhysicalAddress {
        field(self.base, offset_of!(MachineRecord, trace))
    }
}

const fn entry_of(base: PhysicalAddress, cell: usize) -> PhysicalAddress {
    field(
        base,
        offset_of!(MachineRecord, cells) + cell * size_of::<CellEntry>(),
    )
}

fn read_region(memory: &GuestMemory, entry: PhysicalAddress) -> Result<FrameRange> {
    let range = read_range(memory, field(entry, offset_of!(CellEntry, region)))?;
    let bytes = range.len() * cell::PAGE_SIZE;
    let fits = bytes > PUBLIC_SIZE && memory.contains(range.start.start(), bytes);
    let FrameRange { start, end } = range;
    let misplaced = || {
        nonsense(&format!(
            "a region of frames {:#x} to {:#x}",
            start.0, end.0
        ))
    };
    fits.then_some(range).ok_or_else(misplaced)
}

fn read_range(memory: &GuestMemory, at: PhysicalAddress) -> Result<FrameRange> {
    let start = memory.read_u64(field(at, offset_of!(FrameRange, start)))?;
    let end = memory.read_u64(field(at, offset_of!(FrameRange, end)))?;
    let range = end
        .checked_sub(start)
        .and_then(|count| FrameRange::new(Frame(start), count));
    range.ok_or_else(|| nonsense(&format!("frames {start:#x} to {end:#x}")))
}

fn nonsense(what: &str) -> Error {
    Error::Guest(format!("the machine record makes no sense: {what}"))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::guest::memory::tests::memory;

    const BASE: PhysicalAddress = PhysicalAddress(0x10_0000);

    impl MachineView {
        /// As the monitor does when it boots.
        pub(crate) fn set_nested_root(
            &self,
            memory: &GuestMemory,
            cell: usize,
            root: PhysicalAddress,
        ) {
            let entry = entry_of(self.base, cell);
            let at = field(entry, offset_of!(CellEntry, nested_root));
            memory.write_u64(at, root.0).unwrap();
        }
    }

    /// Two cells of 8 MiB with two CPUs each, at 16 MiB and 24 MiB; the monitor's memory ends at
    /// 4 MiB.
    pub(crate) fn synthetic() -> (GuestMemory, PhysicalAddress) {
        let memory = memory(64 << 20);
        let put = |offset, value| memory.write_u32(field(BASE, offset), value).unwrap();
        put(offset_of!(MachineRecord, version), VERSION);
        put(offset_of!(MachineRecord, back_end), BackEnd::Npt as u32);
        put(offset_of!(MachineRecord, cells_count), 2);
        put(offset_of!(MachineRecord, cpus_count), 4);
        let monitor = field(BASE, offset_of!(MachineRecord, monitor));
        memory.write_u64(monitor, 0x100).unwrap();
        memory.write_u64(field(monitor, 8), 0x400).unwrap();
        for cell in 0..2 {
            let region = field(entry_of(BASE, cell), offset_of!(CellEntry, region));
            let start = 0x1000 + 0x800 * cell as u64;
            memory.write_u64(region, start).unwrap();
            memory.write_u64(field(region, 8), start + 0x800).unwrap();
            let state = field(entry_of(BASE, cell), offset_of!(CellEntry, state));
            memory.write_u32(state, CellState::Live as u32).unwrap();
            memory.write_u32(field(state, 4), 1).unwrap();
        }
        for cpu in 0..4u32 {
            let entry = offset_of!(MachineRecord, cpus) + cpu as usize * size_of::<CpuEntry>();
            put(entry + offset_of!(CpuEntry, cell), cpu / 2);
            put(entry + offset_of!(CpuEntry, apic_id), cpu);
            put(
                entry + offset_of!(CpuEntry, standing),
                CpuState::Running as u32,
            );
        }
        memory
            .write_u64(field(BASE, offset_of!(MachineRecord, magic)), MAGIC)
            .unwrap();
        (memory, BASE)
    }

    #[test]
    fn a_record_is_read_as_written() {
        let (memory, base) = synthetic();
        let view = MachineView::read(&memory, base).unwrap().unwrap();
        assert_eq!(
            (view.cells(), view.cpus, view.back_end),
            (2, 4, BackEnd::Npt)
        );
        assert_eq!(view.public(1), PhysicalAddress(24 << 20));
        assert_eq!(view.cell(&memory, 1).unwrap().state, CellState::Live);
        let cpus = view.cpus_of(&memory, 1).unwrap();
        assert_eq!(cpus.iter().map(|cpu| cpu.cpu).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn a_refusal_is_read_as_written() {
        let (memory, base) = synthetic();
        assert_eq!(MachineView::refusal(&memory, base).unwrap(), None);
        let text = field(base, offset_of!(MachineRecord, refusal));
        memory.write_u64(text, 6).unwrap();
        memory.write(field(text, 8), b"no CPU").unwrap();
        let refusal = MachineView::refusal(&memory, base).unwrap();
        assert_eq!(refusal.as_deref(), Some("no CPU"));
    }

    #[test]
    fn nothing_is_read_before_the_magic() {
        let memory = memory(4 << 20);
        assert!(MachineView::refusal(&memory, BASE).unwrap().is_none());
        assert!(MachineView::read(&memory, BASE).unwrap().is_none());
    }

    #[test]
    fn regions_outside_memory_are_refused() {
        let (memory, base) = synthetic();
        let region = field(entry_of(base, 1), offset_of!(CellEntry, region));
        for end in [0, 0x1801, u64::MAX, 1 << 30] {
            memory.write_u64(field(region, 8), end).unwrap();
            assert!(MachineView::read(&memory, base).is_err());
        }
    }

    #[test]
    fn spoilt_records_are_refused_or_describe_a_machine_in_bounds() {
        let (memory, base) = synthetic();
        let mut valid = vec![0; offset_of!(MachineRecord, cells) + 2 * size_of::<CellEntry>()];
        memory.read(base, &mut valid).unwrap();
        let length = valid.len();
        fuzz::cases(&[&valid], |bytes| {
            let mut bytes = bytes.to_vec();
            bytes.resize(length, 0);
            memory.write(base, &bytes).unwrap();
            let Ok(Some(view)) = MachineView::read(&memory, base) else {
                return;
            };
            assert!((1..=CELLS_MAX).contains(&view.cells()) && view.cpus <= CPUS_MAX);
            for cell in 0..view.cells() {
                assert!(memory.contains(view.public(cell), PUBLIC_SIZE));
                view.cell(&memory, cell).unwrap();
            }
            assert!(view.cpus_of(&memory, 0).unwrap().len() <= view.cpus);
            let _ = view.live_set(&memory).unwrap();
        });
    }
}
