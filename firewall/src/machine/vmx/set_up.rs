//! The control structure of a new life.
//!
//! A guest begins in 64-bit mode with flat data, as the entry contract of a kernel says
//! (`boot::load`), and cannot leave it: the bits of CR0 and CR4 that VMX operation fixes are the
//! monitor's, and a change of them exits (24.6.6, 25.1.3). EFER and PAT are what they are in the
//! monitor, for no cell may write them, so no entry loads them.
//!
//! What an entry checks, 26.2 and 26.3, is met by construction: each function says which part.

use x86_64::registers::control::{Cr0, Cr3, Cr4};

use super::capabilities::Plan;
use super::fields::{Current, Field, SegmentRegister};
use super::host::{CODE_SELECTOR, DATA_SELECTOR, HostAddresses, TASK_SELECTOR};
use crate::machine::permissions::SplitRegisterMap;
use crate::monitor::Start;

/// PG, WP, NE, ET, MP, PE.
pub(super) const GUEST_CR0: u64 = 0x8001_0033;
/// OSXMMEXCPT, OSFXSR, MCE, PAE.
pub(super) const GUEST_CR4: u64 = 0x0000_0660;
const RFLAGS_RESERVED: u64 = 1 << 1;
const DR7_RESET: u64 = 0x400;
/// No structure is linked (24.4.2).
const NO_LINK: u64 = u64::MAX;
const MACHINE_CHECK: u64 = 1 << 18;

/// The one identifier of a guest in use on each CPU; 0 is the host's.
const GUEST_VPID: u64 = 1;

/// Code, flat data, and what stands for a local descriptor table and a task segment (24.4.1).
mod rights {
    pub(super) const CODE_64: u64 = 0xa09b;
    pub(super) const DATA: u64 = 0xc093;
    pub(super) const BUSY_TASK: u64 = 0x008b;
    pub(super) const UNUSABLE: u64 = 1 << 16;
}

/// EPT pointer (24.6.11): the tables are cached (6), have four levels (3), record accesses and
/// stores (bit 6), which is how a discard knows what was written.
///
/// The log of written pages (28.2.5) would not help: a discard asks about frames that their home
/// names, few and rarely, while the log of each CPU takes the cell's own stores as well, exits
/// after 512 of them, and has its end in a structure that a CPU which died keeps to itself.
const EPTP_CACHED_FOUR_LEVELS: u64 = 6 | 3 << 3;
const EPTP_ACCESSED_DIRTY: u64 = 1 << 6;

static REGISTERS: SplitRegisterMap = SplitRegisterMap::new();

/// The EPT pointer for a table with this root.
pub(super) const fn ept_pointer(plan: &Plan, root: u64) -> u64 {
    let recording = if plan.keeps_dirty_bits {
        EPTP_ACCESSED_DIRTY
    } else {
        0
    };
    root | EPTP_CACHED_FOUR_LEVELS | recording
}

/// Fills `structure` for the life `start` behind the nested table of `ept_pointer`.
///
/// # Safety
/// The tables of `ept_pointer` give no monitor memory; `host` are the executing CPU's own tables.
pub(super) unsafe fn prepare(
    structure: &mut Current,
    plan: &Plan,
    host: HostAddresses,
    start: Start,
    ept_pointer: u64,
) {
    let guest = guest_state(plan, start);
    let all = controls(plan, ept_pointer)
        .into_iter()
        .chain(host_state(host))
        .chain(guest)
        .chain(segments());
    for (field, value) in all {
        // SAFETY: the caller vouches for the tables; the host's state is the monitor's own, and
        // `enter` adds stack and instruction pointer.
        unsafe { structure.write(field, value) };
    }
    if plan.has_vpid() {
        // SAFETY: an identifier of translations, other than the host's.
        unsafe { structure.write(Field::VPID, GUEST_VPID) };
    }
}

/// 24.6 to 24.8. Maps of ports are set before every entry.
fn controls(plan: &Plan, ept_pointer: u64) -> [(Field, u64); 20] {
    [
        (Field::PIN_CONTROLS, plan.pin.into()),
        (Field::PRIMARY_CONTROLS, plan.primary.into()),
        (Field::SECONDARY_CONTROLS, plan.secondary.into()),
        (Field::EXIT_CONTROLS, plan.exit.into()),
        (Field::ENTRY_CONTROLS, plan.entry.into()),
        (Field::EXIT_STORES, 0),
        (Field::EXIT_LOADS, 0),
        (Field::ENTRY_LOADS, 0),
        (Field::ENTRY_EVENT, 0),
        (Field::EXCEPTIONS, MACHINE_CHECK),
        (Field::PAGE_FAULT_MASK, 0),
        (Field::PAGE_FAULT_MATCH, 0),
        (Field::CR3_TARGETS, 0),
        (Field::REGISTER_MAP, (&raw const REGISTERS) as u64),
        (Field::EPT_POINTER, ept_pointer),
        // A cell sees the bits that VMX operation fixes as it set them, and may not change them.
        (Field::CR0_MASK, plan.cr0.ones),
        (Field::CR0_SHADOW, GUEST_CR0),
        (Field::CR4_MASK, plan.cr4.ones),
        (Field::CR4_SHADOW, GUEST_CR4),
        (Field::GUEST_LINK, NO_LINK),
    ]
}

/// 24.5: what holds now on this CPU, and its own tables. No selector may be null but those of
/// segments without use (26.2.3).
fn host_state(host: HostAddresses) -> [(Field, u64); 18] {
    [
        (Field::HOST_CR0, Cr0::read_raw()),
        (Field::HOST_CR3, Cr3::read().0.start_address().as_u64()),
        (Field::HOST_CR4, Cr4::read_raw()),
        (Field::HOST_CS, CODE_SELECTOR.into()),
        (Field::HOST_SS, DATA_SELECTOR.into()),
        (Field::HOST_DS, DATA_SELECTOR.into()),
        (Field::HOST_ES, DATA_SELECTOR.into()),
        (Field::HOST_FS, DATA_SELECTOR.into()),
        (Field::HOST_GS, DATA_SELECTOR.into()),
        (Field::HOST_TR, TASK_SELECTOR.into()),
        (Field::HOST_FS_BASE, 0),
        (Field::HOST_GS_BASE, 0),
        (Field::HOST_TR_BASE, host.task),
        (Field::HOST_GDTR_BASE, host.descriptors),
        (Field::HOST_IDTR_BASE, host.gates),
        (Field::HOST_SYSENTER_CS, 0),
        (Field::HOST_SYSENTER_ESP, 0),
        (Field::HOST_SYSENTER_EIP, 0),
    ]
}

/// 24.4. The fixed bits make CR0 and CR4 what 26.3.1.1 wants.
fn guest_state(plan: &Plan, start: Start) -> [(Field, u64); 18] {
    [
        (Field::GUEST_CR0, GUEST_CR0 | plan.cr0.ones),
        (Field::GUEST_CR3, start.page_table_root),
        (Field::GUEST_CR4, GUEST_CR4 | plan.cr4.ones),
        (Field::GUEST_DR7, DR7_RESET),
        (Field::GUEST_RSP, start.stack),
        (Field::GUEST_RIP, start.entry),
        (Field::GUEST_RFLAGS, RFLAGS_RESERVED),
        (Field::GUEST_DEBUG_CONTROL, 0),
        (Field::GUEST_PENDING_DEBUG, 0),
        (Field::GUEST_INTERRUPTIBILITY, 0),
        (Field::GUEST_ACTIVITY, 0),
        (Field::GUEST_SYSENTER_CS, 0),
        (Field::GUEST_SYSENTER_ESP, 0),
        (Field::GUEST_SYSENTER_EIP, 0),
        (Field::GUEST_GDTR_BASE, 0),
        (Field::GUEST_GDTR_LIMIT, 0),
        (Field::GUEST_IDTR_BASE, 0),
        (Field::GUEST_IDTR_LIMIT, 0),
    ]
}

/// Segments as 26.3.1.2 wants them in 64-bit mode.
fn segments() -> impl Iterator<Item = (Field, u64)> {
    use SegmentRegister::{Cs, Ds, Es, Fs, Gs, Ldtr, Ss, Tr};
    const ALL: u64 = u32::MAX as u64;
    let data = |register| (register, u64::from(DATA_SELECTOR), rights::DATA, ALL);
    let code = (Cs, u64::from(CODE_SELECTOR), rights::CODE_64, ALL);
    let no_table = (Ldtr, 0, rights::UNUSABLE, 0);
    // The kernel replaces it.
    let task = (Tr, 0, rights::BUSY_TASK, 0xffff);
    let rows = [
        code,
        data(Ss),
        data(Ds),
        data(Es),
        data(Fs),
        data(Gs),
        no_table,
        task,
    ];
    rows.into_iter()
        .flat_map(|(register, selector, rights, limit)| {
            [
                (register.selector(), selector),
                (register.access_rights(), rights),
                (register.limit(), limit),
                (register.base(), 0),
            ]
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::vmx::capabilities::{Fixed, InveptKind};
    use crate::nested::LargestPage;
    use cell::{Incarnation, PhysicalAddress};

    const PLAN: Plan = Plan {
        revision: 1,
        pin: 0,
        primary: 0,
        secondary: 0,
        exit: 0,
        entry: 0,
        cr0: Fixed {
            ones: 0x8000_0021,
            allowed: u64::MAX,
        },
        cr4: Fixed {
            ones: 0x2000,
            allowed: u64::MAX,
        },
        keeps_dirty_bits: true,
        largest_page: LargestPage::Gibibyte,
        invept: InveptKind::Single,
    };

    const START: Start = Start {
        incarnation: Incarnation(1),
        entry: 0xffff_ffff_8000_1000,
        stack: 0x9000,
        argument: 0,
        page_table_root: 0x7000,
        bus_error_slots: PhysicalAddress(0),
    };

    #[test]
    fn the_ept_pointer_says_how_the_tables_are() {
        assert_eq!(ept_pointer(&PLAN, 0x5000), 0x505e);
        let silent = Plan {
            keeps_dirty_bits: false,
            ..PLAN
        };
        assert_eq!(ept_pointer(&silent, 0x5000), 0x501e);
    }

    #[test]
    fn no_field_is_set_twice() {
        let all: Vec<_> = controls(&PLAN, 0x505e)
            .into_iter()
            .chain(guest_state(&PLAN, START))
            .chain(segments())
            .collect();
        for (position, (field, _)) in all.iter().enumerate() {
            let mut before = all[..position].iter();
            assert!(before.all(|(other, _)| other != field), "{field:x?}");
        }
    }

    /// The bits that VMX operation fixes are set, the monitor's, and seen by the cell as it would
    /// see them without a monitor.
    #[test]
    fn a_cell_neither_sees_nor_changes_the_fixed_bits() {
        let value = |wanted| {
            let mut all = controls(&PLAN, 0)
                .into_iter()
                .chain(guest_state(&PLAN, START));
            all.find(|(field, _)| *field == wanted).expect("set").1
        };
        assert_eq!(value(Field::GUEST_CR4), GUEST_CR4 | 0x2000);
        assert_eq!(value(Field::CR4_SHADOW), GUEST_CR4);
        assert_eq!(value(Field::CR4_MASK), 0x2000);
        assert_eq!(
            value(Field::CR0_MASK) & value(Field::GUEST_CR0),
            0x8000_0021
        );
    }
}
