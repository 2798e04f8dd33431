//! The way into the guest and back, for VMX; NMIs; waiting.
//!
//! # Entry
//! True on entry: VMX operation, a control structure is current, RFLAGS.IF clear, identity-mapped
//! stack of this CPU. Phases: (1) save the host's callee-saved registers and tell the structure
//! where an exit leads; (2) load the guest's FP state and general registers; (3) turn back if an
//! NMI was noted, else `VMLAUNCH` or `VMRESUME`; (4) save the guest's registers and FP state; (5)
//! restore the host.
//!
//! The processor loads RSP, RIP, RFLAGS, CS, SS, DS, ES, FS, GS, TR, CR0, CR3, CR4, GDTR, IDTR and
//! DR7 of the host (27.5). **Not** saved: DR0 to DR3 and CR2, which the monitor does not use; EFER
//! and PAT, which are the same on both sides, for no cell may write them. The x87 registers and the
//! system call registers stay the guest's all the while.
//!
//! # NMIs
//! [`host_nmi`] notes an NMI in [`Switch::nmi_seen`]. One that comes before the look at it in phase
//! (3) is found there; one that comes from there on, up to the entry itself, makes the handler
//! change the address to which it returns: the entry is given up. [`wait_for_nmi`] is protected in
//! the same way. After the entry, an NMI exits.

use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::AtomicU32;

use super::fields::Field;
use crate::machine::registers::{
    GuestRegisters, load_guest, restore_host, save_guest, save_host, switch_asm,
};

/// What `enter` and the NMI handler work on.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) registers: GuestRegisters,
    /// 1 once the control structure was launched.
    pub(crate) is_launched: u32,
    /// 1 once an NMI came to the monitor.
    pub(crate) nmi_seen: AtomicU32,
}

impl Switch {
    pub(crate) const fn new() -> Self {
        Self {
            registers: GuestRegisters::new(),
            is_launched: 0,
            nmi_seen: AtomicU32::new(0),
        }
    }
}

/// How `enter` ended.
pub(crate) mod outcome {
    /// The guest exited, or the processor refused its state; the structure says why.
    pub(crate) const EXITED: u32 = 0;
    /// The processor refused the structure, or there is none (VMfailInvalid).
    pub(crate) const NO_STRUCTURE: u32 = 1;
    /// The processor refused the controls or the host's state (VMfailValid).
    pub(crate) const REFUSED: u32 = 2;
    /// The guest was not entered, for an NMI had come.
    pub(crate) const NMI_CAME: u32 = 3;
}

/// Runs the guest of the current control structure until it exits; see [`outcome`].
///
/// # Safety
/// The entry conditions of the module header hold; the structure's guest cannot reach monitor
/// memory; `switch` is valid for reads and writes and, but for `nmi_seen`, used by nobody else
/// meanwhile.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn enter(switch: *mut Switch) -> u32 {
    switch_asm!({
        // (1)
        save_host!(),
        "push rdi",
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp",
        "mov eax, {host_rip}",
        "lea rcx, [rip + vmx_exit]",
        "vmwrite rax, rcx",
        // (2)
        "mov rsi, rdi",
        load_guest!(),
        "mov rax, [rsi + {rax}]",
        // (3) moves do not change flags
        ".globl vmx_entry_start",
        "vmx_entry_start:",
        "cmp dword ptr [rsi + {nmi_seen}], 0",
        "jne vmx_entry_given_up",
        "cmp dword ptr [rsi + {is_launched}], 0",
        "mov rsi, [rsi + {rsi}]",
        "je 2f",
        "vmresume",
        "jmp 3f",
        "2:",
        "vmlaunch",
        ".globl vmx_entry_end",
        "vmx_entry_end:",
        // VMfail: CF for no structure, ZF for one that was refused (30.2)
        "3:",
        "mov eax, {refused}",
        "mov ecx, {no_structure}",
        "cmovc eax, ecx",
        "jmp 4f",
        ".globl vmx_entry_given_up",
        "vmx_entry_given_up:",
        "mov eax, {nmi_came}",
        "4:",
        "ldmxcsr [rip + 6f]",
        "pop rdi",
        "jmp 5f",
        ".balign 4",
        "6: .long {mxcsr}",
        // (4) the pointer to the registers is on top of the stack; put the guest's RDI there
        // instead
        "vmx_exit:",
        "xchg rdi, [rsp]",
        "mov [rdi + {rax}], rax",
        save_guest!(),
        "mov eax, {exited}",
        // (5)
        "5:",
        restore_host!(),
        "ret",
    }
        rax = const offset_of!(GuestRegisters, rax),
        nmi_seen = const offset_of!(Switch, nmi_seen),
        is_launched = const offset_of!(Switch, is_launched),
        host_rsp = const Field::HOST_RSP.encoding(),
        host_rip = const Field::HOST_RIP.encoding(),
        exited = const outcome::EXITED,
        no_structure = const outcome::NO_STRUCTURE,
        refused = const outcome::REFUSED,
        nmi_came = const outcome::NMI_CAME,
    )
}

/// Halts until an NMI came, unless one was noted already.
///
/// # Safety
/// RFLAGS.IF is clear, the CPU's own descriptor tables are loaded, and `switch` is where its NMIs
/// are noted.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn wait_for_nmi(switch: *const Switch) {
    naked_asm!(
        ".globl vmx_wait_start",
        "vmx_wait_start:",
        "cmp dword ptr [rdi + {nmi_seen}], 0",
        "jne 2f",
        "hlt",
        ".globl vmx_wait_end",
        "vmx_wait_end:",
        "2:",
        "ret",
        nmi_seen = const offset_of!(Switch, nmi_seen),
    )
}

/// The host's NMI handler: notes the NMI, and turns back a CPU that is about to enter or to halt.
///
/// The word above its stack, where the processor began to push five words, leads to the [`Switch`].
///
/// # Safety
/// Entered by the processor only, on that stack.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn host_nmi() {
    naked_asm!(
        "push rax",
        "push rcx",
        "mov rax, [rsp + 7 * 8]",
        "mov dword ptr [rax + {nmi_seen}], 1",
        "mov rax, [rsp + 2 * 8]",
        "lea rcx, [rip + vmx_entry_start]",
        "cmp rax, rcx",
        "jb 2f",
        "lea rcx, [rip + vmx_entry_end]",
        "cmp rax, rcx",
        "lea rcx, [rip + vmx_entry_given_up]",
        "jb 3f",
        "2:",
        "lea rcx, [rip + vmx_wait_start]",
        "cmp rax, rcx",
        "jb 4f",
        "lea rcx, [rip + vmx_wait_end]",
        "cmp rax, rcx",
        "jae 4f",
        "3:",
        "mov [rsp + 2 * 8], rcx",
        "4:",
        "pop rcx",
        "pop rax",
        "iretq",
        nmi_seen = const offset_of!(Switch, nmi_seen),
    )
}
