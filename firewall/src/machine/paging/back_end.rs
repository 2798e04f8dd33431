//! Runs lives on page tables alone.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, Ordering};

use cell::CellId;
use cell::machine;
use cell::standing::Arrival;
use x86_64::registers::control::Cr3;
use x86_64::registers::model_specific::Msr;

use super::entry;
use crate::format::{Format, X86};
use crate::hypercall::VECTOR_KICK;
use crate::machine::cpu;
use crate::machine::lapic::Command;
use crate::monitor::hypercalls::{self, After, Request};
use crate::monitor::{BackEnd, Monitor, PerCpu, Start, fence, life};
use crate::nested::LargestPage;

/// What this back end keeps of one CPU.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct PagingArea {
    /// The monitor's descriptor table register, as `SGDT` stores it.
    pub(super) descriptors: UnsafeCell<[u8; 16]>,
    /// The monitor's interrupt descriptor table register.
    pub(super) interrupts: UnsafeCell<[u8; 16]>,
    monitor: AtomicPtr<Monitor>,
}

impl PagingArea {
    /// Not enabled yet.
    pub(crate) const fn new() -> Self {
        Self {
            descriptors: UnsafeCell::new([0; 16]),
            interrupts: UnsafeCell::new([0; 16]),
            monitor: AtomicPtr::new(core::ptr::null_mut()),
        }
    }
}

/// The paging back end.
#[derive(Debug)]
pub struct PagingBackEnd {
    kind: machine::BackEnd,
}

impl PagingBackEnd {
    /// Write-protects what was not granted.
    pub const ENFORCING: Self = Self {
        kind: machine::BackEnd::Paging,
    };
    /// Protects the monitor only; to measure what the firewall costs, and to see what it is for.
    pub const OFF: Self = Self {
        kind: machine::BackEnd::Off,
    };
}

impl BackEnd for PagingBackEnd {
    fn kind(&self) -> machine::BackEnd {
        self.kind
    }

    fn format(&self) -> &'static dyn Format {
        &X86
    }

    fn largest_page(&self) -> LargestPage {
        cpu::largest_page()
    }

    fn keeps_dirty_bits(&self) -> bool {
        self.is_enforcing()
    }

    fn hypercall_entry(&self) -> u64 {
        entry::hypercall as *const () as u64
    }

    fn kick_command(&self) -> Command {
        Command::Fixed(VECTOR_KICK)
    }

    fn close(&self, monitor: &Monitor, cell: CellId) {
        // The window is the kernel's stack and heap as well; taken away, it could only reset the
        // machine. What the others granted is closed.
        for home in monitor.machine.all_cells().without(cell).iter() {
            for frame in monitor.table.granted(home, cell) {
                monitor.nested(cell).write_protect(frame);
            }
        }
    }

    fn enable(&self, cpu: &PerCpu) {
        let area = &cpu.paging;
        let (descriptors, interrupts) = (area.descriptors.get(), area.interrupts.get());
        // SAFETY: both areas are this CPU's own and hold the ten bytes that are stored.
        unsafe { asm!("sgdt [{}]", "sidt [{}]", in(reg) descriptors, in(reg) interrupts) };
        let root = Cr3::read().0.start_address().as_u64();
        // SAFETY: the two registers matter only to SYSENTER, which nobody executes here (module
        // header, invariant 2).
        unsafe { Msr::new(entry::MSR_ROOT).write(root) };
        // SAFETY: as above.
        unsafe { Msr::new(entry::MSR_PER_CPU).write(core::ptr::from_ref(cpu) as u64) };
    }

    fn run(&self, monitor: &Monitor, cpu: &PerCpu, start: Start) -> Arrival {
        let address = core::ptr::from_ref(monitor).cast_mut();
        cpu.paging.monitor.store(address, Ordering::SeqCst);
        // SAFETY: the loader built the tables for this back end, with the section of `enter` in
        // them; interrupts are off (module header, invariant 1).
        unsafe {
            entry::enter(
                start.page_table_root,
                start.entry,
                start.stack,
                start.argument,
            )
        }
    }

    fn park(&self, _cpu: &PerCpu) {
        // SAFETY: the monitor's tables are loaded: this CPU came from the start or through
        // `hypercall`.
        unsafe { entry::wait() };
    }
}

/// An answer in RAX and RDX.
#[repr(C)]
pub(super) struct Registers {
    status: u64,
    value: u64,
}

/// The request as `entry::hypercall` pushed it.
#[repr(C)]
pub(super) struct PushedRequest {
    number: u64,
    arguments: [u64; 4],
    instruction: u64,
}

/// Goes on where `entry::hypercall` reached the monitor's tables and this CPU's stack.
pub(super) extern "sysv64" fn answer(cpu: &PerCpu, request: &PushedRequest) -> Registers {
    let monitor = cpu.paging.monitor.load(Ordering::SeqCst);
    // SAFETY: `run` stored the address of the one monitor, which is never dropped, before the
    // kernel ran.
    let monitor = unsafe { &*monitor };
    fence::answer_kicks(monitor, cpu);
    let life = monitor.machine.cpu(cpu.id).standing.life();
    let is_over = fence::stop_by_machine_check(monitor, cpu) || !life::is_alive(monitor, cpu, life);
    if is_over {
        life::live(monitor, cpu, Arrival::Return);
    }
    let request = Request {
        number: request.number,
        arguments: request.arguments,
        instruction: request.instruction,
    };
    match hypercalls::answer(monitor, cpu, request) {
        After::Return(reply) => Registers {
            status: reply.status as u64,
            value: reply.value,
        },
        After::Leave => life::live(monitor, cpu, Arrival::Return),
    }
}
