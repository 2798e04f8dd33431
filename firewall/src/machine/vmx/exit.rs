//! What an exit means.
//!
//! # References
//! SDM 24.9, 25.1, 25.2, 27.2; reasons: appendix C.

use cell::PhysicalAddress;
use cell::machine::EvidenceKind;

use crate::monitor::Denial;
use crate::monitor::exits::Exit;
use crate::monitor::hypercalls::Request;

/// Basic exit reasons (appendix C) that are told apart.
pub(super) mod reason {
    pub(crate) const EXCEPTION_OR_NMI: u32 = 0;
    pub(crate) const TRIPLE_FAULT: u32 = 2;
    pub(crate) const INIT: u32 = 3;
    pub(crate) const NMI_WINDOW: u32 = 8;
    pub(crate) const TASK_SWITCH: u32 = 9;
    pub(crate) const CPUID: u32 = 10;
    pub(crate) const GETSEC: u32 = 11;
    pub(crate) const INVD: u32 = 13;
    pub(crate) const VMCALL: u32 = 18;
    /// The first of the other instructions of VMX; they end right before CONTROL_REGISTER.
    pub(crate) const VMCLEAR: u32 = 19;
    pub(crate) const CONTROL_REGISTER: u32 = 28;
    pub(crate) const PORT: u32 = 30;
    pub(crate) const RDMSR: u32 = 31;
    pub(crate) const WRMSR: u32 = 32;
    pub(crate) const EPT_VIOLATION: u32 = 48;
    pub(crate) const EPT_MISCONFIGURATION: u32 = 49;
    pub(crate) const INVEPT: u32 = 50;
    pub(crate) const INVVPID: u32 = 53;
    pub(crate) const XSETBV: u32 = 55;
    pub(crate) const MACHINE_CHECK_AT_ENTRY: u32 = 41;
    /// Bit 31 of the whole reason: the guest was not entered.
    pub(crate) const ENTRY_FAILED: u32 = 1 << 31;
}

/// An event as the control structure names it (24.8.3, 24.9.2, 24.9.3).
pub(super) mod event {
    pub(crate) const VALID: u32 = 1 << 31;
    pub(crate) const VECTOR: u32 = 0xff;
    pub(crate) const KIND: u32 = 0b111 << 8;
    pub(crate) const KIND_NMI: u32 = 2 << 8;
    pub(crate) const KIND_EXCEPTION: u32 = 3 << 8;
    pub(crate) const HAS_ERROR_CODE: u32 = 1 << 11;
    pub(crate) const NMI_VECTOR: u32 = 2;
    pub(crate) const MACHINE_CHECK_VECTOR: u32 = 18;
    /// What an entry accepts of what an exit told: not bit 12.
    pub(crate) const DELIVERABLE: u32 = 0x8000_0fff;
}

/// Bit of an EPT violation's qualification: the access was a store (table 27-7).
const STORE: u64 = 1 << 1;

/// What the control structure and the registers say after an exit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExitRecord {
    /// The whole reason.
    pub(super) reason: u32,
    pub(super) qualification: u64,
    pub(super) physical_address: u64,
    /// The event that exited.
    pub(super) event: u32,
    /// The event whose delivery the exit interrupted.
    pub(super) vectoring: u32,
    pub(super) instruction: u64,
    /// RAX, RDI, RSI, RDX, RCX.
    pub(super) registers: [u64; 5],
}

/// Translates an exit that the back end does not see to by itself.
pub(super) fn translate(record: &ExitRecord) -> Exit {
    let instruction = record.instruction;
    let denied = |denial| Exit::Denied {
        denial,
        instruction,
    };
    let fatal = |kind, detail| Exit::Fatal {
        kind,
        detail,
        instruction,
    };
    let [rax, rdi, rsi, rdx, rcx] = record.registers;
    let refused = fatal(EvidenceKind::EntryRefused, u64::from(record.reason));
    if record.reason & reason::ENTRY_FAILED != 0 {
        return match record.reason & !reason::ENTRY_FAILED {
            reason::MACHINE_CHECK_AT_ENTRY => fatal(EvidenceKind::MachineCheck, 0),
            _ => refused,
        };
    }
    match record.reason {
        reason::VMCALL => Exit::Hypercall(Request {
            number: rax,
            arguments: [rdi, rsi, rdx, rcx],
            instruction,
        }),
        reason::EXCEPTION_OR_NMI if record.event & event::KIND == event::KIND_NMI => Exit::Nmi,
        reason::EXCEPTION_OR_NMI if record.event & event::VECTOR == event::MACHINE_CHECK_VECTOR => {
            fatal(EvidenceKind::MachineCheck, 0)
        }
        reason::EPT_VIOLATION => ept_violation(record),
        reason::EPT_MISCONFIGURATION => fatal(EvidenceKind::MonitorFault, record.physical_address),
        // Bits 31:16 of the qualification are the port (table 27-5).
        reason::PORT => denied(Denial::Port((record.qualification >> 16) as u16)),
        reason::RDMSR | reason::WRMSR => denied(Denial::Register(rcx as u32)),
        reason::TRIPLE_FAULT => fatal(EvidenceKind::Shutdown, 0),
        reason::INIT => fatal(EvidenceKind::Reset, 0),
        reason::TASK_SWITCH
        | reason::GETSEC
        | reason::INVD
        | reason::VMCLEAR..=reason::CONTROL_REGISTER
        | reason::INVEPT
        | reason::INVVPID
        | reason::XSETBV => denied(Denial::Instruction(u64::from(record.reason))),
        _ => refused,
    }
}

fn ept_violation(record: &ExitRecord) -> Exit {
    let address = PhysicalAddress(record.physical_address);
    let instruction = record.instruction;
    if record.vectoring & event::VALID != 0 {
        // The cell's own descriptor tables or stacks are out of its reach: it cannot be told.
        return Exit::Fatal {
            kind: EvidenceKind::Shutdown,
            detail: address.0,
            instruction,
        };
    }
    let denial = if record.qualification & STORE != 0 {
        Denial::Write(address)
    } else {
        Denial::Read(address)
    };
    Exit::Denied {
        denial,
        instruction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(reason: u32) -> ExitRecord {
        ExitRecord {
            reason,
            instruction: 0x1000,
            ..ExitRecord::default()
        }
    }

    fn fatal_kind(exit: Exit) -> Option<EvidenceKind> {
        match exit {
            Exit::Fatal { kind, .. } => Some(kind),
            _ => None,
        }
    }

    #[test]
    fn a_hypercall_brings_its_arguments_in_the_order_of_the_convention() {
        let record = ExitRecord {
            registers: [1, 2, 3, 4, 5],
            ..with(reason::VMCALL)
        };
        let expected = Request {
            number: 1,
            arguments: [2, 3, 4, 5],
            instruction: 0x1000,
        };
        assert_eq!(translate(&record), Exit::Hypercall(expected));
    }

    #[test]
    fn a_read_and_a_store_that_the_tables_deny_are_told_apart() {
        let violation = |qualification| {
            translate(&ExitRecord {
                qualification,
                physical_address: 0x80_5008,
                ..with(reason::EPT_VIOLATION)
            })
        };
        let denied = |denial| Exit::Denied {
            denial,
            instruction: 0x1000,
        };
        let address = PhysicalAddress(0x80_5008);
        // As Bochs reports them: 1AAh for a store to a page that may be read.
        assert_eq!(violation(0x1aa), denied(Denial::Write(address)));
        assert_eq!(violation(0x181), denied(Denial::Read(address)));
        assert_eq!(violation(0x184), denied(Denial::Read(address)));
    }

    #[test]
    fn a_violation_while_an_event_is_delivered_ends_the_life() {
        let exit = translate(&ExitRecord {
            vectoring: event::VALID | event::KIND_EXCEPTION | 0xe,
            qualification: 0x181,
            ..with(reason::EPT_VIOLATION)
        });
        assert_eq!(fatal_kind(exit), Some(EvidenceKind::Shutdown));
    }

    #[test]
    fn a_refused_entry_is_an_exit_of_its_own() {
        let bad_guest_state = reason::ENTRY_FAILED | 0x21;
        let exit = translate(&with(bad_guest_state));
        let expected = Exit::Fatal {
            kind: EvidenceKind::EntryRefused,
            detail: u64::from(bad_guest_state),
            instruction: 0x1000,
        };
        assert_eq!(exit, expected);
        let check = translate(&with(reason::ENTRY_FAILED | reason::MACHINE_CHECK_AT_ENTRY));
        assert_eq!(fatal_kind(check), Some(EvidenceKind::MachineCheck));
    }

    #[test]
    fn a_misconfigured_table_is_the_monitors_fault() {
        let exit = translate(&with(reason::EPT_MISCONFIGURATION));
        assert_eq!(fatal_kind(exit), Some(EvidenceKind::MonitorFault));
    }

    #[test]
    fn nmi_machine_check_and_init_are_told_apart() {
        let nmi = ExitRecord {
            event: event::VALID | event::KIND_NMI | event::NMI_VECTOR,
            ..with(reason::EXCEPTION_OR_NMI)
        };
        assert_eq!(translate(&nmi), Exit::Nmi);
        let check = ExitRecord {
            event: event::VALID | event::KIND_EXCEPTION | event::MACHINE_CHECK_VECTOR,
            ..with(reason::EXCEPTION_OR_NMI)
        };
        let kind = fatal_kind(translate(&check));
        assert_eq!(kind, Some(EvidenceKind::MachineCheck));
        let init = fatal_kind(translate(&with(reason::INIT)));
        assert_eq!(init, Some(EvidenceKind::Reset));
    }

    /// No reason that the processor can give is taken for something harmless.
    #[test]
    fn only_hypercalls_and_nmis_leave_a_cell_without_blame() {
        for number in 0..128 {
            let exit = translate(&with(number));
            let is_harmless = matches!(exit, Exit::Hypercall(_) | Exit::Nmi);
            assert_eq!(is_harmless, number == reason::VMCALL, "reason {number}");
        }
    }
}
