//! Runs lives under SVM: sets the control block up, enters, translates exits, carries verdicts out.
//!
//! # Invariants
//! 1. A VMCB and its registers are used by their own CPU only.
//! 2. GIF is clear from [`SvmBackEnd::enable`] on, except inside `enter` and `park`.

use core::arch::naked_asm;

use cell::PhysicalAddress;
use cell::machine::{self, EvidenceKind};
use cell::standing::Arrival;
use x86_64::registers::model_specific::{Efer, EferFlags, Msr};

use super::enter::{enter, load_rest};
use super::vmcb::{Intercept3, Intercept4, Segment, Vmcb, event, exit_code};
use crate::format::{Format, X86};
use crate::hypercall::{BUS_ERROR_CODE, VECTOR_BUS_ERROR};
use crate::machine::cpu;
use crate::machine::permissions::{PairedRegisterMap, PortMap};
use crate::machine::registers::GuestRegisters;
use crate::machine::run::{self, Guest, Translations};
use crate::monitor::exits::Exit;
use crate::monitor::hypercalls::{Reply, Request};
use crate::monitor::{BackEnd, Denial, Monitor, PerCpu, Start};
use crate::nested::LargestPage;

const MSR_VM_CR: u32 = 0xc001_0114;
const MSR_HOST_SAVE: u32 = 0xc001_0117;
/// VM_CR: SVM is switched off by the firmware (15.30.1).
const VM_CR_DISABLED: u64 = 1 << 4;

/// The one address space number in use; the translation buffer is flushed where it matters.
const GUEST_ASID: u32 = 1;
const FLUSH_ALL: u32 = 1;
const VMMCALL_BYTES: u64 = 3;

/// PG, WP, NE, ET, MP, PE.
const GUEST_CR0: u64 = 0x8001_0033;
/// OSXMMEXCPT, OSFXSR, MCE, PAE.
const GUEST_CR4: u64 = 0x0000_0660;
/// SVME, NXE, LMA, LME.
const GUEST_EFER: u64 = 0x1d00;
/// The reset value (APM volume 2, 7.8.2).
const GUEST_PAT: u64 = 0x0007_0406_0007_0406;
const RFLAGS_RESERVED: u64 = 1 << 1;

static REGISTERS: PairedRegisterMap = PairedRegisterMap::new();

/// The pages that SVM needs for one CPU.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct SvmArea {
    vmcb: Vmcb,
    host_save: [u8; 4096],
    registers: GuestRegisters,
}

impl SvmArea {
    /// All zero but for the FP state.
    pub(crate) const fn new() -> Self {
        Self {
            // SAFETY: the structure is plain integers and arrays of them, for which zero is valid.
            vmcb: unsafe { core::mem::zeroed() },
            host_save: [0; 4096],
            registers: GuestRegisters::new(),
        }
    }
}

/// The NPT back end.
#[derive(Debug)]
pub struct SvmBackEnd;

/// Whether the executing CPU has SVM with nested paging, and why not.
///
/// # Errors
/// Says what is missing.
pub fn is_supported() -> Result<(), &'static str> {
    let extended = core::arch::x86_64::__cpuid(0x8000_0000).eax;
    let has_svm =
        extended >= 0x8000_000a && core::arch::x86_64::__cpuid(0x8000_0001).ecx & 1 << 2 != 0;
    if !has_svm {
        return Err("the processor has no SVM");
    }
    if core::arch::x86_64::__cpuid(0x8000_000a).edx & 1 == 0 {
        return Err("the processor has SVM without nested paging");
    }
    // SAFETY: CPUID shows SVM, which brings this register (15.30.1); reading it changes nothing.
    let control = unsafe { Msr::new(MSR_VM_CR).read() };
    if control & VM_CR_DISABLED != 0 {
        return Err("the firmware has switched SVM off");
    }
    Ok(())
}

impl BackEnd for SvmBackEnd {
    fn kind(&self) -> machine::BackEnd {
        machine::BackEnd::Npt
    }

    fn format(&self) -> &'static dyn Format {
        &X86
    }

    fn largest_page(&self) -> LargestPage {
        cpu::largest_page()
    }

    fn keeps_dirty_bits(&self) -> bool {
        true
    }

    fn enable(&self, cpu: &PerCpu) {
        let area = cpu.area.get();
        // SAFETY: boot chose this back end after `is_supported`; SVME adds instructions and changes
        // nothing else.
        unsafe { Efer::update(|flags| flags.insert(EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE)) };
        // SAFETY: only the address is taken, of this CPU's own area (invariant 1).
        let host_save = unsafe { &raw const (*area).host_save } as u64;
        // SAFETY: the page is this CPU's own, aligned, identity-mapped, and used for nothing else
        // (15.30.4).
        unsafe { Msr::new(MSR_HOST_SAVE).write(host_save) };
        // SAFETY: SVME is set; from here on NMIs wait for `enter` and `park` (invariant 2).
        unsafe { core::arch::asm!("clgi", options(nomem, nostack)) };
    }

    fn run(&self, monitor: &Monitor, cpu: &PerCpu, start: Start) -> Arrival {
        // SAFETY: the area is this CPU's own (invariant 1), and `run` is entered once at a time on
        // it.
        let area = unsafe { &mut *cpu.area.get() };
        prepare(monitor, cpu, area, start);
        // SAFETY: GIF and IF are clear (invariant 2), and `prepare` made the VMCB.
        unsafe { load_rest((&raw const area.vmcb) as u64) };
        run::run(monitor, cpu, start, area)
    }

    fn park(&self, _cpu: &PerCpu) {
        // SAFETY: GIF is clear (invariant 2) and the host's IDT is loaded; see `wait_for_nmi`.
        unsafe { wait_for_nmi() };
    }
}

/// Opens GIF and halts until an NMI came, which the host's handler dismisses.
///
/// An NMI that was pending is taken right after `STGI`, before the `HLT`: the handler,
/// [`host_nmi`], then finds the address of the `HLT` as its return address and steps over it. A
/// function of its own, so that no red zone is in use.
///
/// # Safety
/// GIF is clear, RFLAGS.IF is clear, and the host's IDT is loaded with that handler.
#[unsafe(naked)]
unsafe extern "sysv64" fn wait_for_nmi() {
    naked_asm!("stgi", "hlt", "clgi", "ret")
}

/// The host's NMI handler: dismisses the NMI, and steps over the `HLT` of `wait_for_nmi` if that
/// comes next. The fixed length of `STGI` (3 bytes) gives its address, that of `HLT` (1 byte) the
/// step.
///
/// # Safety
/// Entered by the processor only, in the monitor.
#[unsafe(naked)]
pub unsafe extern "C" fn host_nmi() {
    naked_asm!(
        "push rax",
        "lea rax, [rip + {wait} + 3]",
        "cmp rax, [rsp + 8]",
        "jne 2f",
        "inc qword ptr [rsp + 8]",
        "2:",
        "pop rax",
        "iretq",
        wait = sym wait_for_nmi,
    )
}

fn prepare(monitor: &Monitor, cpu: &PerCpu, area: &mut SvmArea, start: Start) {
    // SAFETY: as in `SvmArea::new`.
    area.vmcb = unsafe { core::mem::zeroed() };
    area.registers = GuestRegisters::new();
    area.registers.rdi = start.argument;
    let control = &mut area.vmcb.control;
    control.intercept_3 = Intercept3::NMI
        | Intercept3::INIT
        | Intercept3::INVD
        | Intercept3::INVLPGA
        | Intercept3::IO
        | Intercept3::MSR
        | Intercept3::TASK_SWITCH
        | Intercept3::SHUTDOWN;
    control.intercept_4 = Intercept4::VMRUN
        | Intercept4::VMMCALL
        | Intercept4::VMLOAD
        | Intercept4::VMSAVE
        | Intercept4::STGI
        | Intercept4::CLGI
        | Intercept4::SKINIT
        | Intercept4::XSETBV;
    control.msr_permissions = (&raw const REGISTERS) as u64;
    control.asid = GUEST_ASID;
    control.nested_control = 1;
    control.nested_root = monitor.nested(cpu.cell).root().0;
    prepare_registers(area, start);
}

/// 64-bit code and flat data, as the entry contract of a kernel says (`boot::load`).
fn prepare_registers(area: &mut SvmArea, start: Start) {
    let code = Segment {
        selector: 0x08,
        attributes: 0x0a9b,
        limit: u32::MAX,
        base: 0,
    };
    let data = Segment {
        selector: 0x10,
        attributes: 0x0c93,
        limit: u32::MAX,
        base: 0,
    };
    let save = &mut area.vmcb.save;
    save.cs = code;
    (save.ss, save.ds, save.es, save.fs, save.gs) = (data, data, data, data, data);
    // An unusable LDT, and a task segment that the kernel replaces.
    save.ldtr = Segment {
        selector: 0,
        attributes: 0x0082,
        limit: 0,
        base: 0,
    };
    save.tr = Segment {
        selector: 0,
        attributes: 0x008b,
        limit: 0xffff,
        base: 0,
    };
    save.efer = GUEST_EFER;
    save.cr0 = GUEST_CR0;
    save.cr3 = start.page_table_root;
    save.cr4 = GUEST_CR4;
    save.dr6 = 0xffff_0ff0;
    save.dr7 = 0x400;
    save.guest_pat = GUEST_PAT;
    save.rflags = RFLAGS_RESERVED;
    save.rip = start.entry;
    save.rsp = start.stack;
}

/// The event whose delivery an exit interrupted has to be delivered again (15.7.2).
fn pending_event(area: &SvmArea) -> u64 {
    let info = area.vmcb.control.exit_interrupt_info;
    if info & event::VALID == 0 { 0 } else { info }
}

fn translate(area: &SvmArea) -> Exit {
    let control = &area.vmcb.control;
    let save = &area.vmcb.save;
    let instruction = save.rip;
    let denied = |denial| Exit::Denied {
        denial,
        instruction,
    };
    let fatal = |kind, detail| Exit::Fatal {
        kind,
        detail,
        instruction,
    };
    match control.exit_code {
        exit_code::VMMCALL => Exit::Hypercall(Request {
            number: save.rax,
            arguments: [
                area.registers.rdi,
                area.registers.rsi,
                area.registers.rdx,
                area.registers.rcx,
            ],
            instruction,
        }),
        exit_code::NMI => Exit::Nmi,
        exit_code::NESTED_PAGE_FAULT => nested_page_fault(area),
        // EXITINFO1 bits 31:16 are the port (15.10.2).
        exit_code::IO => denied(Denial::Port((control.exit_info_1 >> 16) as u16)),
        exit_code::MSR => denied(Denial::Register(area.registers.rcx as u32)),
        exit_code::SHUTDOWN => fatal(EvidenceKind::Shutdown, 0),
        exit_code::INIT => fatal(EvidenceKind::Reset, 0),
        code @ (exit_code::INVD
        | exit_code::INVLPGA
        | exit_code::TASK_SWITCH
        | exit_code::VMRUN..=exit_code::SKINIT
        | exit_code::XSETBV) => denied(Denial::Instruction(code)),
        code => fatal(EvidenceKind::EntryRefused, code),
    }
}

/// EXITINFO1 is a page fault error code (bit 1: store, bit 3: a reserved bit is set in the tables),
/// EXITINFO2 the guest-physical address (15.25.6).
fn nested_page_fault(area: &SvmArea) -> Exit {
    const STORE: u64 = 1 << 1;
    const RESERVED: u64 = 1 << 3;
    let control = &area.vmcb.control;
    let address = PhysicalAddress(control.exit_info_2);
    let instruction = area.vmcb.save.rip;
    let fatal = |kind| Exit::Fatal {
        kind,
        detail: address.0,
        instruction,
    };
    if control.exit_info_1 & RESERVED != 0 {
        return fatal(EvidenceKind::MonitorFault);
    }
    if control.exit_interrupt_info & event::VALID != 0 {
        // The cell's own descriptor tables or stacks are out of its reach: it cannot be told.
        return fatal(EvidenceKind::Shutdown);
    }
    let denial = if control.exit_info_1 & STORE != 0 {
        Denial::Write(address)
    } else {
        Denial::Read(address)
    };
    Exit::Denied {
        denial,
        instruction,
    }
}

impl Guest for SvmArea {
    fn open_ports(&mut self, map: &'static PortMap) {
        self.vmcb.control.io_permissions = core::ptr::from_ref(map) as u64;
    }

    fn enter(&mut self, translations: Translations) -> Exit {
        self.vmcb.control.tlb_control = match translations {
            Translations::Keep => 0,
            Translations::Drop => FLUSH_ALL,
        };
        // SAFETY: GIF and IF are clear (invariant 2); `prepare` made the VMCB, whose nested table
        // gives the guest no monitor memory; the registers are beside it in the same area.
        unsafe { enter((&raw const self.vmcb) as u64, &raw mut self.registers) };
        translate(self)
    }

    fn resume(&mut self) {
        self.vmcb.control.event_injection = pending_event(self);
    }

    fn give_answer(&mut self, reply: Reply) {
        self.vmcb.save.rax = reply.status as u64;
        self.registers.rdx = reply.value;
        self.vmcb.save.rip += VMMCALL_BYTES;
        self.vmcb.control.event_injection = 0;
    }

    fn give_bus_error(&mut self) {
        self.vmcb.control.event_injection = event::VALID
            | event::TYPE_EXCEPTION
            | event::HAS_ERROR_CODE
            | u64::from(VECTOR_BUS_ERROR)
            | u64::from(BUS_ERROR_CODE) << 32;
    }

    fn give_nmi(&mut self) {
        self.vmcb.control.event_injection = event::VALID | event::TYPE_NMI | event::NMI_VECTOR;
    }
}
