//! The monitor's data, and the seams to the back end and to the loader.
//!
//! # Invariants
//! 1. [`Monitor`] is built once, by the boot CPU, before any cell runs; afterwards only atomics in
//!    it change.
//! 2. A [`PerCpu`]'s back end area is used by its own CPU only.

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use cell::machine::{self, MachineRecord};
use cell::standing::Arrival;
use cell::trace::{Event, TraceRecord};
use cell::{CellId, CpuId, FrameRange, Incarnation, Instant, PhysicalAddress};

use crate::format::Format;
use crate::hypercall::{BUS_ERROR_SLOTS, BusError, BusErrorSlots};
use crate::machine::cpu;
use crate::machine::lapic::Command;
use crate::machine::paging::PagingArea;
use crate::machine::svm::SvmArea;
use crate::machine::vmx::VmxArea;
use crate::model::FirewallTable;
use crate::monitor::denials::Retried;
use crate::monitor::expulsion::Expulsion;
use crate::nested::{Access, LargestPage, NestedTable, Rules};

/// How a CPU enters a cell's kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Which life.
    pub incarnation: Incarnation,
    /// Instruction pointer.
    pub entry: u64,
    /// Stack pointer, as after a call.
    pub stack: u64,
    /// RDI.
    pub argument: u64,
    /// Root of the kernel's own page tables.
    pub page_table_root: u64,
    /// Where the monitor leaves the details of bus errors: a `BusErrorSlots` in the cell's memory.
    pub bus_error_slots: PhysicalAddress,
}

/// Why a cell's image could not be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// The image is not an ELF file that this loader understands.
    BadImage(&'static str),
    /// Image, tables and stack do not fit the cell's region.
    TooLarge,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadImage(what) => write!(f, "kernel image: {what}"),
            Self::TooLarge => f.write_str("kernel image: does not fit the cell's memory"),
        }
    }
}

/// Puts a pristine kernel into a cell's memory.
pub trait Loader: Sync {
    /// Loads `cell` for `incarnation`, to be entered on its CPU of index `boot_cpu_index`.
    ///
    /// # Errors
    /// See [`LoadError`]; the cell's memory is then undefined.
    fn load(
        &self,
        cell: CellId,
        incarnation: Incarnation,
        boot_cpu_index: usize,
    ) -> Result<Start, LoadError>;
}

/// The hardware seam: how a CPU runs a cell and how the firewall is enforced on it. What is given
/// here holds for processors with nested paging.
pub trait BackEnd: Sync {
    /// Which one.
    fn kind(&self) -> machine::BackEnd;

    /// Whether a store needs a grant. Where it does not, grants change writer sets and no tables.
    fn is_enforcing(&self) -> bool {
        self.kind() != machine::BackEnd::Off
    }

    /// The format of its nested tables' entries.
    fn format(&self) -> &'static dyn Format;

    /// The largest page that the processors' walks of its tables know.
    fn largest_page(&self) -> LargestPage;

    /// What its tables are made by.
    fn rules(&self) -> Rules {
        Rules {
            format: self.format(),
            largest: self.largest_page(),
            ungranted: if self.is_enforcing() {
                Access::Read
            } else {
                Access::Write
            },
        }
    }

    /// Whether its tables record which frames were written.
    fn keeps_dirty_bits(&self) -> bool;

    /// Whether the monitor itself sees denied accesses, so that a kernel need not report them.
    fn sees_bus_errors(&self) -> bool {
        self.kind().has_nested_paging()
    }

    /// Where a kernel calls for a hypercall; 0 for the hypercall instruction.
    fn hypercall_entry(&self) -> u64 {
        0
    }

    /// What makes another CPU enter the monitor.
    fn kick_command(&self) -> Command {
        Command::Nmi
    }

    /// Takes from an expelled cell whatever it could still reach of the others.
    fn close(&self, monitor: &Monitor, cell: CellId) {
        monitor.nested(cell).close();
    }

    /// Prepares the executing CPU, after each reset of it.
    fn enable(&self, cpu: &PerCpu);

    /// Runs one life on the executing CPU until it is over; returns how the CPU then arrives in the
    /// monitor.
    fn run(&self, monitor: &Monitor, cpu: &PerCpu, start: Start) -> Arrival;

    /// Waits in the monitor until the executing CPU is kicked.
    fn park(&self, cpu: &PerCpu);
}

/// Words about a cell that only the monitor needs.
#[derive(Debug, Default)]
pub struct CellControl {
    /// The newest life that some CPU claimed to load.
    pub claimed: AtomicU32,
    /// Which life was expelled last, and since when its CPUs are kicked.
    pub expulsion: Expulsion,
    /// Root of the running kernel's own page tables.
    pub page_table_root: AtomicU64,
    /// See [`Start::bus_error_slots`]; 0 before the first life.
    pub bus_error_slots: AtomicU64,
    /// Start of the window in which doorbells are counted, in nanoseconds.
    pub doorbell_window: AtomicU64,
    /// Doorbells that the cell rang in the window.
    pub doorbells: AtomicU32,
}

/// An order to a parked CPU: enter this life. Written by one CPU of the same cell at a time (the
/// kernel orders them).
#[derive(Debug, Default)]
pub struct StartOrder {
    /// The life; 0 for no order. Stored last.
    pub incarnation: AtomicU32,
    /// See [`Start::entry`].
    pub entry: AtomicU64,
    /// See [`Start::stack`].
    pub stack: AtomicU64,
    /// See [`Start::argument`].
    pub argument: AtomicU64,
}

/// Bytes of a CPU's stack in the monitor.
pub const STACK_BYTES: usize = 64 << 10;

/// What belongs to one CPU.
#[repr(C, align(4096))]
pub struct PerCpu {
    /// The CPU.
    pub id: CpuId,
    /// Its cell.
    pub cell: CellId,
    /// Its index within the cell.
    pub index: usize,
    /// Its local APIC's identifier.
    pub apic_id: u8,
    /// Whether the CPU is the one that the firmware started: INIT to it would reset the machine.
    pub is_boot_cpu: bool,
    /// The order to start, if any.
    pub order: StartOrder,
    /// When an INIT was sent to make the CPU come back, in nanoseconds; 0 for none under way.
    pub init_sent_at: AtomicU64,
    /// Kicks of this CPU whose NMI was sent.
    pub kicks_sent: AtomicU64,
    /// Whether every kick so far had been sent when the CPU last looked: what was sent by then
    /// comes before the next guest instruction.
    pub all_kicks_sent: AtomicBool,
    /// Whether an NMI may still come that belongs to a kick which was answered already.
    pub is_echo_possible: AtomicBool,
    /// Whether the CPU was last entered with the serial port open to it.
    pub had_uart: AtomicBool,
    /// What it tried again last after a denial.
    pub retried: Retried,
    /// The SVM back end's own.
    pub(crate) area: UnsafeCell<SvmArea>,
    /// The EPT back end's own: apart, for the block is made on a small stack.
    pub(crate) vmx: &'static VmxArea,
    /// The paging back end's own.
    pub(crate) paging: PagingArea,
    /// The top of the stack that the CPU uses in the monitor, 16-byte aligned.
    pub stack_top: u64,
}

// SAFETY: `area` and the descriptor registers in `paging` are used by their own CPU only (invariant
// 2); everything else is immutable or atomic, or `Sync` by itself.
unsafe impl Sync for PerCpu {}

impl fmt::Debug for PerCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpu")
            .field("id", &self.id)
            .field("cell", &self.cell)
            .finish_non_exhaustive()
    }
}

impl PerCpu {
    /// The block of CPU `id`, at position `index` among the CPUs of `cell`. No other CPU has `vmx`.
    pub const fn new(
        id: CpuId,
        cell: CellId,
        index: usize,
        apic_id: u8,
        stack_top: u64,
        vmx: &'static VmxArea,
    ) -> Self {
        Self {
            id,
            cell,
            index,
            apic_id,
            is_boot_cpu: id.index() == CpuId::BOOT.index(),
            order: StartOrder {
                incarnation: AtomicU32::new(0),
                entry: AtomicU64::new(0),
                stack: AtomicU64::new(0),
                argument: AtomicU64::new(0),
            },
            init_sent_at: AtomicU64::new(0),
            kicks_sent: AtomicU64::new(0),
            all_kicks_sent: AtomicBool::new(true),
            is_echo_possible: AtomicBool::new(false),
            had_uart: AtomicBool::new(false),
            retried: Retried::new(),
            area: UnsafeCell::new(SvmArea::new()),
            vmx,
            paging: PagingArea::new(),
            stack_top,
        }
    }
}

/// The monitor.
pub struct Monitor {
    /// What everybody may read.
    pub machine: &'static MachineRecord,
    /// Writer sets and homes.
    pub table: FirewallTable<'static>,
    /// One nested table per cell.
    pub nested: &'static [NestedTable],
    /// One block per CPU.
    pub cpus: &'static [PerCpu],
    /// One control block per cell.
    pub controls: &'static [CellControl],
    /// Stretches of memory that every cell may read: the machine record, the firewall table,
    /// firmware tables.
    pub readable: &'static [FrameRange],
    /// The back end in use.
    pub back_end: &'static dyn BackEnd,
    /// The loader.
    pub loader: &'static dyn Loader,
    /// The page below 1 MiB at which a CPU starts after INIT.
    pub startup_page: u8,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("cpus", &self.cpus.len())
            .finish_non_exhaustive()
    }
}

impl Monitor {
    /// The time.
    pub fn now(&self) -> Instant {
        self.machine.clock.instant(cpu::cycles())
    }

    /// The nested table of `cell`.
    pub fn nested(&self, cell: CellId) -> &NestedTable {
        &self.nested[cell.index()]
    }

    /// The control block of `cell`.
    pub fn control(&self, cell: CellId) -> &CellControl {
        &self.controls[cell.index()]
    }

    /// The CPUs of `cell`, by index within it.
    pub fn cpus_of(&self, cell: CellId) -> impl Iterator<Item = &PerCpu> {
        self.cpus.iter().filter(move |cpu| cpu.cell == cell)
    }

    /// The cell numbered `raw`, if the machine has it.
    pub fn cell_from_raw(&self, raw: u64) -> Option<CellId> {
        CellId::new(usize::try_from(raw).ok()?)
            .filter(|cell| self.machine.all_cells().contains(*cell))
    }

    /// Leaves the details of a bus error where the kernel on `cpu` finds them.
    pub(crate) fn store_bus_error(&self, cpu: &PerCpu, error: BusError) {
        let slots = self
            .control(cpu.cell)
            .bus_error_slots
            .load(Ordering::SeqCst);
        if slots == 0 || cpu.index >= BUS_ERROR_SLOTS {
            return;
        }
        // SAFETY: the loader named a page of this cell's region that holds `BusErrorSlots`;
        // identity-mapped, and the index was checked. Only this CPU's monitor instance writes the
        // slot.
        unsafe {
            let slots = slots as *mut BusErrorSlots;
            (&raw mut (*slots).slots[cpu.index]).write_volatile(error);
        }
    }

    /// Adds to the monitor's trace.
    pub fn trace(&self, cpu: &PerCpu, event: Event, arguments: [u64; 2]) {
        self.machine.trace.record(TraceRecord {
            at: self.now(),
            cell: TraceRecord::MONITOR,
            cpu: cpu.id.index() as u8,
            event: event as u16,
            arguments,
        });
    }
}
