//! The order of everything, on the boot CPU and on the others.
//!
//! # Invariants
//! 1. The [`Monitor`] is complete before any CPU but the first runs Rust code.
//! 2. A machine that cannot be divided as asked is refused, with the reason on the serial port and
//!    in the machine record, and QEMU (if that is what it runs on) ends.

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};

use cell::address::{LARGE_PAGE_SIZE, PAGE_SIZE};
use cell::machine::{self, CellState, MachineRecord};
use cell::parameters::{Firewall, Parameters};
use cell::standing::Arrival;
use cell::{CELLS_MAX, CellId, CellSet, CpuId, Frame, FrameRange, PhysicalAddress, partition};
use firewall::machine::paging::PagingBackEnd;
use firewall::machine::svm;
use firewall::machine::vmx::{self, VmxArea, VmxPage};
use firewall::model::{FirewallTable, Homes};
use firewall::monitor::{BackEnd, CellControl, Monitor, PerCpu, STACK_BYTES, life};
use firewall::nested::{NestedTable, Size, TablePage};
use spin::Once;
use x86_64::instructions::port::Port;

use crate::image::Image;
use crate::load::{KernelLoader, Surroundings};
use crate::memory::{self, MonitorMemory};
use crate::multiboot::{Information, Module};
use crate::processors::{self, Processors};
use crate::{clock, serial, tables};

/// Physical addresses that nested tables span at least: devices lie below it.
const REACH_MIN: u64 = 4 << 30;
/// Pages of 4 KiB entries in one nested table for what other cells grant, at most: one for each
/// stretch of 2 MiB in which a cell was ever granted something, in equal shares for the others.
const LEAVES_MAX: usize = 4096;
/// Firmware stretches that cells can be shown.
const READABLE_MAX: usize = 16;

/// The machine record, which the boot CPU fills in before anybody reads it.
#[repr(transparent)]
#[derive(Debug)]
pub struct MachineSlot(UnsafeCell<MachineRecord>);

// SAFETY: written through the cell only by the boot CPU before it starts any other (invariant 1);
// later by atomics.
unsafe impl Sync for MachineSlot {}

impl MachineSlot {
    /// A slot with an empty record.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(MachineRecord::new()))
    }
}

impl Default for MachineSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// What the image knows of itself.
#[derive(Debug)]
pub struct ImageFacts {
    /// The machine record.
    pub machine: &'static MachineSlot,
    /// First byte of the image.
    pub start: PhysicalAddress,
    /// Byte after the image.
    pub end: PhysicalAddress,
    /// The page below 1 MiB at which the other CPUs start.
    pub startup_page: u8,
    /// Where the start-up code finds a CPU's stack, by APIC identifier.
    pub stacks: &'static [AtomicU64; 256],
}

static MONITOR: Once<Monitor> = Once::new();

/// Goes on where the image's entry ends, on the boot CPU.
///
/// # Safety
/// Called once, under the entry contract of the crate, with EAX and EBX of the multiboot entry.
pub unsafe fn boot_cpu(facts: &ImageFacts, magic: u32, information: u32) -> ! {
    serial::prepare();
    tables::load_descriptors();
    mask_interrupt_controllers();
    // SAFETY: passed on from the caller; nothing was written but the image's own memory.
    let information = match unsafe { Information::read(magic, information) } {
        Ok(information) => information,
        Err(error) => refuse(facts, format_args!("{error}")),
    };
    let parameters = match Parameters::parse(information.command_line()) {
        Ok(parameters) => parameters,
        Err(error) => refuse(facts, format_args!("{error}")),
    };
    // SAFETY: invariant 1: no other CPU runs yet.
    let machine = unsafe { &mut *facts.machine.0.get() };
    let builder = Builder {
        facts,
        information: &information,
        parameters,
    };
    let monitor = match builder.build(machine) {
        Ok(monitor) => MONITOR.call_once(|| monitor),
        Err(refusal) => refuse(facts, format_args!("{refusal}")),
    };
    run(monitor)
}

/// Goes on where the start-up code ends, on every other CPU, at boot and after each restart.
pub fn other_cpu(apic_id: u8) -> ! {
    tables::load_descriptors();
    let found = MONITOR.get().and_then(|monitor| {
        Some((
            monitor,
            monitor.cpus.iter().find(|it| it.apic_id == apic_id)?,
        ))
    });
    match found {
        Some((monitor, cpu)) => life::live(monitor, cpu, Arrival::Reset),
        None => firewall::machine::cpu::halt_forever(),
    }
}

fn run(monitor: &'static Monitor) -> ! {
    let machine = monitor.machine;
    machine.membership.start(machine.all_cells());
    for cell in machine.all_cells().iter() {
        let entry = machine.cell(cell);
        entry
            .state
            .store(CellState::Expelled as u32, Ordering::SeqCst);
        entry.reboot_requested.store(1, Ordering::SeqCst);
    }
    machine.magic.store(machine::MAGIC, Ordering::SeqCst);
    let missing = processors::start_others(monitor);
    if missing > 0 {
        serial::line(format_args!(
            "{missing} CPUs did not start; their cells go on without them"
        ));
    }
    machine.booted_at.store(monitor.now().0, Ordering::SeqCst);
    life::live(monitor, &monitor.cpus[0], Arrival::Reset)
}

/// Why this machine is not divided.
#[derive(Debug)]
enum Refusal {
    Partition(partition::PartitionError),
    Processors(processors::ProcessorsError),
    Image(firewall::monitor::LoadError),
    Npt(&'static str),
    Ept(vmx::Refusal),
    MonitorMemory,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(error) => write!(f, "{error}"),
            Self::Processors(error) => write!(f, "{error}"),
            Self::Image(error) => write!(f, "{error}"),
            Self::Npt(reason) => write!(f, "firewall=npt: {reason}"),
            Self::Ept(reason) => write!(f, "firewall=ept: {reason}"),
            Self::MonitorMemory => f.write_str("too little memory for the monitor itself"),
        }
    }
}

impl From<memory::OutOfMemory> for Refusal {
    fn from(_: memory::OutOfMemory) -> Self {
        Self::MonitorMemory
    }
}

struct Builder<'a> {
    facts: &'a ImageFacts,
    information: &'a Information,
    parameters: Parameters,
}

impl Builder<'_> {
    fn build(&self, machine: &'static mut MachineRecord) -> Result<Monitor, Refusal> {
        let (processors, rsdp) = processors::find().map_err(Refusal::Processors)?;
        let cells = self.parameters.cells;
        partition::check_cpus(cells, processors.apic_ids().len()).map_err(Refusal::Partition)?;
        let image = Image::new(self.module_bytes()).map_err(Refusal::Image)?;
        let back_end = self.choose_back_end()?;
        let stretches = self.information.stretches();
        let first_free = self.facts.end.0.max(self.information.module.end.0);
        // SAFETY: the loader put nothing after image and module but information, which is copied
        // already.
        let mut memory = unsafe { MonitorMemory::new(PhysicalAddress(first_free), stretches) };
        let stretch = memory::largest(stretches);
        let reach_end = (stretch.end.start().0).max(REACH_MIN);
        tables::map_up_to(PhysicalAddress(reach_end), &mut memory)?;
        let writers = memory.slice(stretch.end.index(), |_| AtomicU64::new(0))?;
        let nested = nested_tables(cells, stretch, reach_end, back_end, &mut memory)?;
        let cpus_count = processors.apic_ids().len();
        let stacks = memory.stacks(cpus_count, STACK_BYTES)?;
        let pages: &'static [VmxPage] = memory.slice(2 * cpus_count, |_| VmxPage::new())?;
        let areas: &'static [VmxArea] = memory.slice(cpus_count, |index| {
            VmxArea::new(&pages[2 * index], &pages[2 * index + 1])
        })?;
        let cpus = memory.slice(cpus_count, |index| {
            per_cpu(index, cells, &processors, stacks, &areas[index])
        })?;
        let controls = memory.slice(cells, |_| CellControl::default())?;
        let readable = memory.slice(READABLE_MAX, |_| FrameRange::default())?;
        let homes = memory.slice(1, |_| Homes::new([FrameRange::default(); CELLS_MAX]))?;
        let loaders = memory.slice(1, |_| None)?;
        let cells_memory = memory::cells_part(stretch, &self.taken(&memory));
        let regions = regions(cells, cells_memory).map_err(Refusal::Partition)?;
        homes[0] = Homes::new(regions);
        divide(nested, &regions);
        self.fill_record(machine, &regions, writers, back_end.kind(), cpus, &memory);
        for (entry, table) in machine.cells.iter_mut().zip(&*nested) {
            entry.nested_root = table.root();
        }
        let machine: &'static MachineRecord = machine;
        let surroundings = Surroundings {
            machine,
            nested,
            back_end: back_end.kind(),
            reach_end: PhysicalAddress(reach_end),
            hypercall_entry: back_end.hypercall_entry(),
            rsdp,
            settings: self.parameters.settings,
        };
        self.show(readable, machine, writers);
        for cpu in &*cpus {
            self.facts.stacks[cpu.apic_id as usize].store(cpu.stack_top, Ordering::SeqCst);
        }
        Ok(Monitor {
            machine,
            table: FirewallTable::new(writers, &homes[0]),
            nested,
            cpus,
            controls,
            readable,
            back_end,
            loader: loaders[0].insert(KernelLoader::new(image, &surroundings)),
            startup_page: self.facts.startup_page,
        })
    }

    /// What lies in memory and is no cell's: image, module, structures.
    fn taken(&self, memory: &MonitorMemory) -> [FrameRange; 3] {
        let (image, module) = (self.facts, self.information.module);
        let structures = image.end.max(module.end).frame();
        [
            memory::frames_between(image.start, image.end),
            memory::frames_between(module.start, module.end),
            memory.used(structures),
        ]
    }

    fn module_bytes(&self) -> &'static [u8] {
        let Module { start, end } = self.information.module;
        // SAFETY: the boot loader put the module there; the monitor's memory starts after it, the
        // cells' after that.
        unsafe { core::slice::from_raw_parts(start.0 as *const u8, (end.0 - start.0) as usize) }
    }

    fn choose_back_end(&self) -> Result<&'static dyn BackEnd, Refusal> {
        let npt: &'static dyn BackEnd = &svm::SvmBackEnd;
        let ept: &'static dyn BackEnd = &vmx::VmxBackEnd;
        match self.parameters.firewall {
            Firewall::Npt => svm::is_supported().map(|()| npt).map_err(Refusal::Npt),
            Firewall::Ept => vmx::is_supported().map(|()| ept).map_err(Refusal::Ept),
            Firewall::Auto if svm::is_supported().is_ok() => Ok(npt),
            Firewall::Auto if vmx::is_supported().is_ok() => Ok(ept),
            Firewall::Auto | Firewall::Paging => Ok(&PagingBackEnd::ENFORCING),
            Firewall::Off => Ok(&PagingBackEnd::OFF),
        }
    }

    fn fill_record(
        &self,
        machine: &mut MachineRecord,
        regions: &[FrameRange; CELLS_MAX],
        writers: &[AtomicU64],
        back_end: machine::BackEnd,
        cpus: &[PerCpu],
        memory: &MonitorMemory,
    ) {
        machine.version = machine::VERSION;
        machine.back_end = back_end as u32;
        machine.cells_count = self.parameters.cells as u32;
        machine.cpus_count = cpus.len() as u32;
        machine.clock = clock::measure();
        let first = self.parameters.standstill_microseconds * 1000;
        machine.standstill.due.store(first, Ordering::SeqCst);
        machine.frames_count = writers.len() as u64;
        machine.firewall_table = PhysicalAddress(writers.as_ptr() as u64);
        machine.monitor = memory.used(self.facts.start.frame());
        for (entry, &region) in machine.cells.iter_mut().zip(regions) {
            entry.region = region;
        }
        for cpu in cpus {
            let entry = machine.cpu(cpu.id);
            entry.cell.store(cpu.cell.index() as u32, Ordering::SeqCst);
            entry
                .apic_id
                .store(u32::from(cpu.apic_id), Ordering::SeqCst);
        }
    }

    /// Lists what every cell may read.
    fn show(&self, readable: &mut [FrameRange], machine: &MachineRecord, writers: &[AtomicU64]) {
        let own = [
            frames_of(core::slice::from_ref(machine)),
            frames_of(writers),
        ];
        let firmware = memory::firmware_tables(self.information.stretches());
        let bios = FrameRange {
            start: Frame(0xe0),
            end: Frame(0x100),
        };
        let all = own.into_iter().chain([bios]).chain(firmware);
        for (slot, frames) in readable.iter_mut().zip(all) {
            *slot = frames;
        }
    }
}

/// The whole frames that hold `values`, rounded outwards: the neighbours there are the monitor's
/// own constants.
fn frames_of<T>(values: &[T]) -> FrameRange {
    let range = values.as_ptr_range();
    let address = |pointer: *const T| PhysicalAddress(pointer as u64);
    memory::frames_between(address(range.start), address(range.end))
}

/// A table for each cell, which does not know yet where the others' memory lies.
fn nested_tables(
    cells: usize,
    stretch: FrameRange,
    reach_end: u64,
    back_end: &dyn BackEnd,
    memory: &mut MonitorMemory,
) -> Result<&'static mut [NestedTable], memory::OutOfMemory> {
    let homes = cells - 1;
    let region = stretch.len() * PAGE_SIZE / cells as u64;
    let stretches = (region / LARGE_PAGE_SIZE) as usize + 1;
    let size = Size {
        end: PhysicalAddress(reach_end).frame(),
        homes,
        stretches_each: stretches.min(LEAVES_MAX / homes.max(1)),
        edges: 2 * READABLE_MAX + 1,
    };
    let (count, leaves) = (size.pages(), size.leaves());
    let pages: &'static [TablePage] = memory.slice(cells * count, |_| TablePage::new())?;
    let owners: &'static [AtomicU64] = memory.slice(cells * leaves, |_| AtomicU64::new(0))?;
    let rules = back_end.rules();
    memory.slice(cells, |cell| {
        let pages = &pages[cell * count..(cell + 1) * count];
        let owners = &owners[cell * leaves..(cell + 1) * leaves];
        NestedTable::new(size, pages, owners, rules)
    })
}

/// Tells each table where the memory of the cells is that it is not of.
fn divide(tables: &mut [NestedTable], regions: &[FrameRange; CELLS_MAX]) {
    let cells = tables.len();
    for (own, table) in tables.iter_mut().enumerate() {
        let others = (0..cells).filter(|&cell| cell != own);
        table.divide(others.map(|cell| regions[cell]));
    }
}

fn per_cpu(
    index: usize,
    cells: usize,
    processors: &Processors,
    stacks: PhysicalAddress,
    vmx: &'static VmxArea,
) -> PerCpu {
    let count = processors.apic_ids().len();
    let cell = CellSet::first(cells)
        .iter()
        .find(|&cell| partition::cpus_of(cell, cells, count).contains(&index))
        .expect("the shares cover all CPUs");
    let id = CpuId::new(index).expect("the list is no longer than the limit");
    let start = partition::cpus_of(cell, cells, count).start;
    let stack_top = stacks.0 + (index as u64 + 1) * STACK_BYTES as u64;
    PerCpu::new(
        id,
        cell,
        index - start,
        processors.apic_ids()[index],
        stack_top,
        vmx,
    )
}

fn regions(
    cells: usize,
    memory: FrameRange,
) -> Result<[FrameRange; CELLS_MAX], partition::PartitionError> {
    let mut regions = [FrameRange::default(); CELLS_MAX];
    for (index, region) in regions.iter_mut().enumerate().take(cells) {
        let cell = CellId::new(index).expect("below the limit");
        *region = partition::region_of(cell, cells, memory)?;
    }
    Ok(regions)
}

/// The firmware leaves the interval timer running on the old controller: masked, or the first
/// enabled interrupt would be one that nobody expects.
fn mask_interrupt_controllers() {
    for port in [0x21, 0xa1] {
        // SAFETY: writes the mask register of an interrupt controller; no memory is touched.
        unsafe { Port::<u8>::new(port).write(0xff) };
    }
}

/// Says why, and ends the machine (invariant 2).
fn refuse(facts: &ImageFacts, reason: fmt::Arguments<'_>) -> ! {
    serial::line(format_args!("not started: {reason}"));
    // SAFETY: invariant 1: no other CPU runs.
    let machine = unsafe { &mut *facts.machine.0.get() };
    let _ = write!(machine.refusal.writer(), "{reason}");
    machine.magic.store(machine::MAGIC, Ordering::SeqCst);
    // SAFETY: QEMU's exit device, if there is one, ends QEMU; elsewhere the port is unused.
    unsafe { Port::<u32>::new(machine::EXIT_PORT).write(machine::EXIT_REFUSED) };
    firewall::machine::cpu::halt_forever()
}
