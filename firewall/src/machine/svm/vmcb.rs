//! The virtual machine control block.
//!
//! Layout: AMD64 Architecture Programmer's Manual (APM), volume 2, rev. 3.41, appendix B, tables
//! B-1 and B-2. Only the fields that this monitor uses have names; the rest is reserved and zero.

/// The control block of one virtual CPU: control area, then state save area.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct Vmcb {
    pub(crate) control: Control,
    pub(crate) save: Save,
}

/// The control area (table B-1).
#[repr(C)]
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the manual's own names")]
pub(crate) struct Control {
    /// +000h: intercepts of control register accesses, low half reads, high half writes.
    pub(crate) intercept_control_registers: u32,
    /// +004h
    pub(crate) intercept_debug_registers: u32,
    /// +008h
    pub(crate) intercept_exceptions: u32,
    /// +00Ch, see [`Intercept3`].
    pub(crate) intercept_3: u32,
    /// +010h, see [`Intercept4`].
    pub(crate) intercept_4: u32,
    reserved_014: [u8; 0x2c],
    /// +040h
    pub(crate) io_permissions: u64,
    /// +048h
    pub(crate) msr_permissions: u64,
    reserved_050: u64,
    /// +058h: address space number; 0 is the host's.
    pub(crate) asid: u32,
    /// +05Ch: 1 flushes the whole translation buffer at the next entry (15.16.1).
    pub(crate) tlb_control: u32,
    reserved_060: u64,
    /// +068h
    pub(crate) interrupt_shadow: u64,
    /// +070h
    pub(crate) exit_code: u64,
    /// +078h
    pub(crate) exit_info_1: u64,
    /// +080h
    pub(crate) exit_info_2: u64,
    /// +088h: the event whose delivery the exit interrupted.
    pub(crate) exit_interrupt_info: u64,
    /// +090h: bit 0 switches nested paging on.
    pub(crate) nested_control: u64,
    reserved_098: [u8; 0x10],
    /// +0A8h: the event to deliver at the next entry (15.20).
    pub(crate) event_injection: u64,
    /// +0B0h: root of the nested walk.
    pub(crate) nested_root: u64,
    reserved_0b8: [u8; 0x348],
}

/// Segment register as saved (table B-2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) selector: u16,
    /// Descriptor bits 55:52 and 47:40.
    pub(crate) attributes: u16,
    pub(crate) limit: u32,
    pub(crate) base: u64,
}

/// The state save area (table B-2); offsets are from its start at +400h.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Save {
    pub(crate) es: Segment,
    pub(crate) cs: Segment,
    pub(crate) ss: Segment,
    pub(crate) ds: Segment,
    pub(crate) fs: Segment,
    pub(crate) gs: Segment,
    pub(crate) gdtr: Segment,
    pub(crate) ldtr: Segment,
    pub(crate) idtr: Segment,
    pub(crate) tr: Segment,
    reserved_0a0: [u8; 0x2b],
    /// +0CBh
    pub(crate) cpl: u8,
    reserved_0cc: u32,
    /// +0D0h
    pub(crate) efer: u64,
    reserved_0d8: [u8; 0x70],
    /// +148h
    pub(crate) cr4: u64,
    /// +150h
    pub(crate) cr3: u64,
    /// +158h
    pub(crate) cr0: u64,
    /// +160h
    pub(crate) dr7: u64,
    /// +168h
    pub(crate) dr6: u64,
    /// +170h
    pub(crate) rflags: u64,
    /// +178h
    pub(crate) rip: u64,
    reserved_180: [u8; 0x58],
    /// +1D8h
    pub(crate) rsp: u64,
    reserved_1e0: [u8; 0x18],
    /// +1F8h
    pub(crate) rax: u64,
    reserved_200: [u8; 0x68],
    /// +268h
    pub(crate) guest_pat: u64,
    reserved_270: [u8; 0x990],
}

/// Bits of [`Control::intercept_3`] (table B-1, +00Ch).
pub(crate) struct Intercept3;

impl Intercept3 {
    pub(crate) const NMI: u32 = 1 << 1;
    pub(crate) const INIT: u32 = 1 << 3;
    pub(crate) const INVD: u32 = 1 << 22;
    pub(crate) const INVLPGA: u32 = 1 << 26;
    pub(crate) const IO: u32 = 1 << 27;
    pub(crate) const MSR: u32 = 1 << 28;
    pub(crate) const TASK_SWITCH: u32 = 1 << 29;
    pub(crate) const SHUTDOWN: u32 = 1 << 31;
}

/// Bits of [`Control::intercept_4`] (table B-1, +010h).
pub(crate) struct Intercept4;

impl Intercept4 {
    pub(crate) const VMRUN: u32 = 1 << 0;
    pub(crate) const VMMCALL: u32 = 1 << 1;
    pub(crate) const VMLOAD: u32 = 1 << 2;
    pub(crate) const VMSAVE: u32 = 1 << 3;
    pub(crate) const STGI: u32 = 1 << 4;
    pub(crate) const CLGI: u32 = 1 << 5;
    pub(crate) const SKINIT: u32 = 1 << 6;
    pub(crate) const XSETBV: u32 = 1 << 13;
}

/// Exit codes (appendix C).
pub(crate) mod exit_code {
    pub(crate) const NMI: u64 = 0x61;
    pub(crate) const INIT: u64 = 0x63;
    pub(crate) const INVD: u64 = 0x76;
    pub(crate) const INVLPGA: u64 = 0x7a;
    pub(crate) const IO: u64 = 0x7b;
    pub(crate) const MSR: u64 = 0x7c;
    pub(crate) const TASK_SWITCH: u64 = 0x7d;
    pub(crate) const SHUTDOWN: u64 = 0x7f;
    pub(crate) const VMRUN: u64 = 0x80;
    pub(crate) const VMMCALL: u64 = 0x81;
    pub(crate) const SKINIT: u64 = 0x86;
    pub(crate) const XSETBV: u64 = 0x8d;
    pub(crate) const NESTED_PAGE_FAULT: u64 = 0x400;
}

/// Event injection (15.20): valid bit, and the types that this monitor uses.
pub(crate) mod event {
    pub(crate) const VALID: u64 = 1 << 31;
    pub(crate) const TYPE_NMI: u64 = 2 << 8;
    pub(crate) const TYPE_EXCEPTION: u64 = 3 << 8;
    pub(crate) const HAS_ERROR_CODE: u64 = 1 << 11;
    pub(crate) const NMI_VECTOR: u64 = 2;
}

// The processor reads and writes this.
const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Vmcb>() == 4096);
    assert!(offset_of!(Vmcb, save) == 0x400);
    assert!(offset_of!(Control, io_permissions) == 0x40);
    assert!(offset_of!(Control, asid) == 0x58);
    assert!(offset_of!(Control, exit_code) == 0x70);
    assert!(offset_of!(Control, nested_control) == 0x90);
    assert!(offset_of!(Control, event_injection) == 0xa8);
    assert!(offset_of!(Control, nested_root) == 0xb0);
    assert!(offset_of!(Save, tr) == 0x90);
    assert!(offset_of!(Save, cpl) == 0xcb);
    assert!(offset_of!(Save, efer) == 0xd0);
    assert!(offset_of!(Save, cr4) == 0x148);
    assert!(offset_of!(Save, rip) == 0x178);
    assert!(offset_of!(Save, rsp) == 0x1d8);
    assert!(offset_of!(Save, rax) == 0x1f8);
    assert!(offset_of!(Save, guest_pat) == 0x268);
};
