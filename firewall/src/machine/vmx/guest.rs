//! A virtual CPU: enters, sees to the small exits itself, carries verdicts out.
//!
//! # References
//! SDM 24.8.3 (events at an entry), 26.3.1.5 (what blocks them), 26.6 (their delivery), 27.2 (what
//! an exit tells), 30.4 (numbers of refused entries).

use core::arch::x86_64::__cpuid_count;

use cell::PhysicalAddress;
use cell::machine::EvidenceKind;
use x86_64::registers::model_specific::Msr;

use super::capabilities::primary;
use super::cpuid;
use super::enter::{enter, outcome};
use super::exit::{ExitRecord, event, reason, translate};
use super::fields::{Current, Field};
use super::host::unblock_nmis;
use super::operation::Operation;
use super::set_up::{ept_pointer, prepare};
use crate::hypercall::{BUS_ERROR_CODE, VECTOR_BUS_ERROR};
use crate::machine::permissions::PortMap;
use crate::machine::registers::GuestRegisters;
use crate::machine::run::{Guest, Translations};
use crate::monitor::Start;
use crate::monitor::exits::Exit;
use crate::monitor::hypercalls::Reply;

/// Guest interruptibility (24.4.2): blocking by STI, by a load of SS, by an NMI.
const BLOCKED_BY_STI_OR_SS: u64 = 0b11;
const BLOCKED_BY_NMI: u64 = 1 << 3;
/// Qualification of an EPT violation: an `IRET` had ended the blocking by an NMI, and did not
/// complete (27.2.3).
const NMI_UNBLOCKED: u64 = 1 << 12;

/// Tells the number of a refused entry from an exit reason in evidence.
const REFUSED_BY_INSTRUCTION: u64 = 1 << 32;

/// Registers that an entry does not load and that a cell may write: STAR, LSTAR, CSTAR, SFMASK,
/// KernelGSbase.
const SYSTEM_CALL_REGISTERS: [u32; 5] = [
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0102,
];

/// The virtual CPU of one life.
#[derive(Debug)]
pub(super) struct VmxGuest<'a> {
    operation: Operation<'a>,
    ept_pointer: u64,
    /// Whether the last attempt to enter led into the guest: only then an exit's fields are new,
    /// and the event that was to be delivered is.
    was_entered: bool,
}

impl<'a> VmxGuest<'a> {
    /// The virtual CPU of the life `start` behind the nested table at `root`.
    ///
    /// # Safety
    /// The table gives no monitor memory.
    pub(super) unsafe fn new(
        mut operation: Operation<'a>,
        start: Start,
        root: PhysicalAddress,
    ) -> Self {
        let (area, plan) = (operation.area, operation.plan);
        let ept_pointer = ept_pointer(plan, root.0);
        // SAFETY: the executing CPU's own, and nobody changes it between `enable` and the next.
        let host = unsafe { (*area.host.get()).addresses() };
        // SAFETY: the caller vouches for the table; the addresses are this CPU's.
        unsafe { prepare(&mut operation.structure, plan, host, start, ept_pointer) };
        for register in SYSTEM_CALL_REGISTERS {
            // SAFETY: registers of system calls, which the monitor does not make.
            unsafe { Msr::new(register).write(0) };
        }
        operation.drop_guest_translations();
        let mut guest = Self {
            operation,
            ept_pointer,
            was_entered: false,
        };
        *guest.registers() = GuestRegisters::new();
        guest.registers().rdi = start.argument;
        guest.set_launched(0);
        guest
    }

    fn registers(&mut self) -> &mut GuestRegisters {
        // SAFETY: the executing CPU's own; the NMI handler uses another field, and `enter` is not
        // under way while `self` is borrowed here.
        unsafe { &mut (*self.operation.area.switch.get()).registers }
    }

    fn set_launched(&mut self, is_launched: u32) {
        // SAFETY: as in `registers`.
        unsafe { (*self.operation.area.switch.get()).is_launched = is_launched };
    }

    fn structure(&self) -> &Current {
        &self.operation.structure
    }

    /// Writes a field that has no part in what the guest reaches or where an exit leads.
    fn set(&mut self, field: Field, value: impl Into<u64>) {
        debug_assert!(
            matches!(
                field,
                Field::ENTRY_EVENT
                    | Field::ENTRY_ERROR_CODE
                    | Field::ENTRY_LENGTH
                    | Field::GUEST_RIP
                    | Field::GUEST_INTERRUPTIBILITY
            ),
            "{field:x?}"
        );
        // SAFETY: by the assertion, an event for the guest or a register of the guest's.
        unsafe { self.operation.structure.write(field, value.into()) };
    }

    /// Asks for an exit as soon as the guest can take an NMI, or for none.
    fn set_nmi_window(&mut self, controls: u32) {
        let primary = self.operation.plan.primary | controls;
        let structure = &mut self.operation.structure;
        // SAFETY: the controls that the plan settled, and one more exit.
        unsafe { structure.write(Field::PRIMARY_CONTROLS, primary.into()) };
    }

    /// Enters once. An exit is left to be read from the structure.
    fn enter_once(&mut self) -> Result<(), Exit> {
        let switch = self.operation.area.switch.get();
        // SAFETY: in VMX operation with a prepared structure current (`new`), whose guest reaches
        // no monitor memory; IF is clear in the monitor; the switch is this CPU's own.
        let outcome = unsafe { enter(switch) };
        self.was_entered = outcome == outcome::EXITED;
        match outcome {
            outcome::EXITED => Ok(()),
            outcome::NMI_CAME => {
                self.operation.area.take_nmi();
                Err(Exit::Nmi)
            }
            _ => Err(self.refused(outcome)),
        }
    }

    fn refused(&self, outcome: u32) -> Exit {
        let number = if outcome == outcome::REFUSED {
            self.structure().read(Field::INSTRUCTION_ERROR)
        } else {
            0
        };
        Exit::Fatal {
            kind: EvidenceKind::EntryRefused,
            detail: REFUSED_BY_INSTRUCTION | number,
            instruction: self.structure().read(Field::GUEST_RIP),
        }
    }

    fn record(&mut self) -> ExitRecord {
        let registers = &*self.registers();
        let registers = [
            registers.rax,
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.rcx,
        ];
        let read = |field| self.structure().read(field);
        ExitRecord {
            reason: read(Field::EXIT_REASON) as u32,
            qualification: read(Field::EXIT_QUALIFICATION),
            physical_address: read(Field::PHYSICAL_ADDRESS),
            event: read(Field::EXIT_EVENT) as u32,
            vectoring: read(Field::VECTORING_EVENT) as u32,
            instruction: read(Field::GUEST_RIP),
            registers,
        }
    }

    /// Goes on behind the instruction that exited (27.2.4).
    fn skip_instruction(&mut self) {
        let length = self.structure().read(Field::EXIT_LENGTH);
        let next = self.structure().read(Field::GUEST_RIP).wrapping_add(length);
        self.set(Field::GUEST_RIP, next);
        self.change_interruptibility(0, BLOCKED_BY_STI_OR_SS);
    }

    fn change_interruptibility(&mut self, set: u64, clear: u64) {
        let old = self.structure().read(Field::GUEST_INTERRUPTIBILITY);
        let new = old & !clear | set;
        if new != old {
            self.set(Field::GUEST_INTERRUPTIBILITY, new);
        }
    }

    fn tell_of_processor(&mut self) {
        let registers = self.registers();
        let (leaf, subleaf) = (registers.rax as u32, registers.rcx as u32);
        let processor = __cpuid_count(leaf, subleaf);
        let cr4 = self.structure().read(Field::GUEST_CR4);
        let told = cpuid::answer(leaf, subleaf, processor, cr4);
        let registers = self.registers();
        registers.rax = told.eax.into();
        registers.rbx = told.ebx.into();
        registers.rcx = told.ecx.into();
        registers.rdx = told.edx.into();
        self.skip_instruction();
    }

    /// An `IRET` that faulted has not ended the blocking by an NMI after all (27.2.3).
    fn block_nmis_again(&mut self) {
        let reason = self.structure().read(Field::EXIT_REASON) as u32;
        let qualification = self.structure().read(Field::EXIT_QUALIFICATION);
        if reason == reason::EPT_VIOLATION && qualification & NMI_UNBLOCKED != 0 {
            self.change_interruptibility(BLOCKED_BY_NMI, 0);
        }
    }

    /// Delivers again the event whose delivery the exit interrupted; returns whether there was one.
    fn deliver_again(&mut self) -> bool {
        let vectoring = self.structure().read(Field::VECTORING_EVENT) as u32;
        if vectoring & event::VALID == 0 {
            return false;
        }
        if vectoring & event::KIND == event::KIND_NMI {
            // An entry that delivers an NMI wants it unblocked (26.3.1.5).
            self.change_interruptibility(0, BLOCKED_BY_NMI);
        }
        let error_code = self.structure().read(Field::VECTORING_ERROR_CODE);
        let length = self.structure().read(Field::EXIT_LENGTH);
        self.set(Field::ENTRY_EVENT, vectoring & event::DELIVERABLE);
        self.set(Field::ENTRY_ERROR_CODE, error_code);
        // Looked at for events that an instruction raised, whose length it is (24.8.3).
        self.set(Field::ENTRY_LENGTH, length);
        true
    }

    fn inject_nmi(&mut self) {
        let nmi = event::VALID | event::KIND_NMI | event::NMI_VECTOR;
        self.set(Field::ENTRY_EVENT, nmi);
    }
}

impl Guest for VmxGuest<'_> {
    fn open_ports(&mut self, map: &'static PortMap) {
        const PAGE: u64 = 4096;
        let first = core::ptr::from_ref(map) as u64;
        for (field, address) in [(Field::IO_MAP_A, first), (Field::IO_MAP_B, first + PAGE)] {
            // SAFETY: a map of ports lets the guest reach ports only, and `PortMap` those that are
            // its to use.
            unsafe { self.operation.structure.write(field, address) };
        }
    }

    fn enter(&mut self, translations: Translations) -> Exit {
        if translations == Translations::Drop {
            self.operation.drop_translations(self.ept_pointer);
        }
        loop {
            if let Err(exit) = self.enter_once() {
                return exit;
            }
            let record = self.record();
            if record.reason & reason::ENTRY_FAILED == 0 {
                self.set_launched(1);
            }
            match record.reason {
                reason::CPUID => self.tell_of_processor(),
                reason::NMI_WINDOW => {
                    self.set_nmi_window(0);
                    self.inject_nmi();
                }
                _ => {
                    let exit = translate(&record);
                    if exit == Exit::Nmi {
                        unblock_nmis();
                    }
                    return exit;
                }
            }
        }
    }

    fn resume(&mut self) {
        if self.was_entered && !self.deliver_again() {
            self.block_nmis_again();
        }
    }

    fn give_answer(&mut self, reply: Reply) {
        let registers = self.registers();
        registers.rax = reply.status as u64;
        registers.rdx = reply.value;
        self.skip_instruction();
    }

    fn give_bus_error(&mut self) {
        self.block_nmis_again();
        self.change_interruptibility(0, BLOCKED_BY_STI_OR_SS);
        let exception = event::VALID
            | event::KIND_EXCEPTION
            | event::HAS_ERROR_CODE
            | u32::from(VECTOR_BUS_ERROR);
        self.set(Field::ENTRY_ERROR_CODE, BUS_ERROR_CODE);
        self.set(Field::ENTRY_EVENT, exception);
    }

    fn give_nmi(&mut self) {
        let blocking = BLOCKED_BY_STI_OR_SS | BLOCKED_BY_NMI;
        let is_blocked = self.structure().read(Field::GUEST_INTERRUPTIBILITY) & blocking != 0;
        let is_delivering = !self.was_entered || self.deliver_again();
        if is_blocked || is_delivering {
            // One event at a time, and no NMI before its time: at the next instruction that can be
            // interrupted by one.
            self.set_nmi_window(primary::NMI_WINDOW_EXITING);
        } else {
            self.inject_nmi();
        }
    }
}
