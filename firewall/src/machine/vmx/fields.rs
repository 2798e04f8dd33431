//! The fields of a control structure (VMCS), and the instructions that touch it.
//!
//! # References
//! Encodings: SDM appendix B. Meaning: 24.4 to 24.9, named at each group.

use core::arch::asm;

/// A field by its encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Field(u32);

macro_rules! fields {
    ($($(#[doc = $doc:literal])* $name:ident = $encoding:literal;)+) => {
        impl Field {
            $($(#[doc = $doc])* pub(crate) const $name: Self = Self($encoding);)+
        }

        #[cfg(test)]
        const ALL: &[Field] = &[$(Field::$name),+];
    };
}

fields! {
    /// Execution controls (24.6).
    VPID = 0x0000;
    IO_MAP_A = 0x2000;
    IO_MAP_B = 0x2002;
    REGISTER_MAP = 0x2004;
    EPT_POINTER = 0x201a;
    PIN_CONTROLS = 0x4000;
    PRIMARY_CONTROLS = 0x4002;
    EXCEPTIONS = 0x4004;
    PAGE_FAULT_MASK = 0x4006;
    PAGE_FAULT_MATCH = 0x4008;
    CR3_TARGETS = 0x400a;
    SECONDARY_CONTROLS = 0x401e;
    CR0_MASK = 0x6000;
    CR4_MASK = 0x6002;
    CR0_SHADOW = 0x6004;
    CR4_SHADOW = 0x6006;
    /// Exit and entry controls (24.7, 24.8).
    EXIT_CONTROLS = 0x400c;
    EXIT_STORES = 0x400e;
    EXIT_LOADS = 0x4010;
    ENTRY_CONTROLS = 0x4012;
    ENTRY_LOADS = 0x4014;
    ENTRY_EVENT = 0x4016;
    ENTRY_ERROR_CODE = 0x4018;
    ENTRY_LENGTH = 0x401a;
    /// What an exit tells (24.9).
    PHYSICAL_ADDRESS = 0x2400;
    INSTRUCTION_ERROR = 0x4400;
    EXIT_REASON = 0x4402;
    EXIT_EVENT = 0x4404;
    VECTORING_EVENT = 0x4408;
    VECTORING_ERROR_CODE = 0x440a;
    EXIT_LENGTH = 0x440c;
    EXIT_QUALIFICATION = 0x6400;
    /// The guest (24.4).
    GUEST_LINK = 0x2800;
    GUEST_DEBUG_CONTROL = 0x2802;
    GUEST_INTERRUPTIBILITY = 0x4824;
    GUEST_ACTIVITY = 0x4826;
    GUEST_SYSENTER_CS = 0x482a;
    GUEST_CR0 = 0x6800;
    GUEST_CR3 = 0x6802;
    GUEST_CR4 = 0x6804;
    GUEST_DR7 = 0x681a;
    GUEST_RSP = 0x681c;
    GUEST_RIP = 0x681e;
    GUEST_RFLAGS = 0x6820;
    GUEST_PENDING_DEBUG = 0x6822;
    GUEST_SYSENTER_ESP = 0x6824;
    GUEST_SYSENTER_EIP = 0x6826;
    GUEST_GDTR_LIMIT = 0x4810;
    GUEST_IDTR_LIMIT = 0x4812;
    GUEST_GDTR_BASE = 0x6816;
    GUEST_IDTR_BASE = 0x6818;
    /// The host (24.5).
    HOST_ES = 0x0c00;
    HOST_CS = 0x0c02;
    HOST_SS = 0x0c04;
    HOST_DS = 0x0c06;
    HOST_FS = 0x0c08;
    HOST_GS = 0x0c0a;
    HOST_TR = 0x0c0c;
    HOST_SYSENTER_CS = 0x4c00;
    HOST_CR0 = 0x6c00;
    HOST_CR3 = 0x6c02;
    HOST_CR4 = 0x6c04;
    HOST_FS_BASE = 0x6c06;
    HOST_GS_BASE = 0x6c08;
    HOST_TR_BASE = 0x6c0a;
    HOST_GDTR_BASE = 0x6c0c;
    HOST_IDTR_BASE = 0x6c0e;
    HOST_SYSENTER_ESP = 0x6c10;
    HOST_SYSENTER_EIP = 0x6c12;
    HOST_RSP = 0x6c14;
    HOST_RIP = 0x6c16;
}

/// The eight segment registers of a guest, in the order of their encodings (24.4.1, B.1 to B.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentRegister {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
    Ldtr,
    Tr,
}

impl SegmentRegister {
    const fn field(self, first: u32) -> Field {
        Field(first + 2 * self as u32)
    }

    pub(crate) const fn selector(self) -> Field {
        self.field(0x0800)
    }

    pub(crate) const fn limit(self) -> Field {
        self.field(0x4800)
    }

    pub(crate) const fn access_rights(self) -> Field {
        self.field(0x4814)
    }

    pub(crate) const fn base(self) -> Field {
        self.field(0x6806)
    }
}

impl Field {
    /// The encoding, for assembly.
    pub(crate) const fn encoding(self) -> u32 {
        self.0
    }
}

/// The control structure that is current on the executing CPU.
///
/// Whoever has one may read and write fields: what makes that sound is said where it is made.
#[derive(Debug)]
pub(crate) struct Current {
    region: u64,
}

impl Current {
    /// Makes the structure at `region` current.
    ///
    /// Returns `None` if the processor refuses.
    ///
    /// # Safety
    /// The executing CPU is in VMX operation and stays there while the value lives; `region` is the
    /// physical address of a page that begins with the processor's revision, used by nothing else;
    /// no guest runs on the structure but by [`super::enter::enter`].
    pub(crate) unsafe fn load(region: u64) -> Option<Self> {
        let (cleared, loaded): (u8, u8);
        // SAFETY: the caller vouches for VMX operation and for the page.
        unsafe {
            asm!(
                "vmclear [{region}]",
                "seta {cleared}",
                "vmptrld [{region}]",
                "seta {loaded}",
                region = in(reg) &raw const region,
                cleared = out(reg_byte) cleared,
                loaded = out(reg_byte) loaded,
                options(nostack),
            );
        }
        (cleared != 0 && loaded != 0).then_some(Self { region })
    }

    /// Makes the structure current no more: the processor keeps nothing of it, and no field can be
    /// reached until it is loaded again.
    pub(crate) fn unload(&mut self) {
        let region = self.region;
        // SAFETY: the processor is in VMX operation as long as `self` lives (`load`); the page is
        // the structure's own.
        unsafe { asm!("vmclear [{}]", in(reg) &raw const region, options(nostack)) };
    }

    /// Reads a field.
    #[expect(clippy::unused_self, reason = "whoever has one may read")]
    pub(crate) fn read(&self, field: Field) -> u64 {
        let value: u64;
        let is_read: u8;
        // SAFETY: a structure is current as long as `self` lives; reading it changes nothing.
        unsafe {
            asm!(
                "vmread {value}, {field}",
                "seta {is_read}",
                value = out(reg) value,
                field = in(reg) u64::from(field.0),
                is_read = out(reg_byte) is_read,
                options(nomem, nostack),
            );
        }
        assert!(is_read != 0, "{field:x?} cannot be read");
        value
    }

    /// Writes a field.
    ///
    /// # Safety
    /// With `value` in it, an entry still gives the guest no memory of the monitor's, and an exit
    /// still leads to `enter`.
    #[expect(clippy::unused_self, reason = "whoever has one may write")]
    pub(crate) unsafe fn write(&mut self, field: Field, value: u64) {
        let is_written: u8;
        // SAFETY: a structure is current as long as `self` lives; the caller vouches for the value.
        unsafe {
            asm!(
                "vmwrite {field}, {value}",
                "seta {is_written}",
                value = in(reg) value,
                field = in(reg) u64::from(field.0),
                is_written = out(reg_byte) is_written,
                options(nostack),
            );
        }
        assert!(is_written != 0, "{field:x?} cannot be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_an_encoding_of_its_own() {
        for (position, field) in ALL.iter().enumerate() {
            assert!(!ALL[..position].contains(field), "{field:x?}");
        }
    }

    /// Bits of an encoding (24.11.2): 0 is for high halves, 12 and from 15 on are reserved; type 1
    /// (bits 11:10) is what an exit tells, 2 the guest, 3 the host.
    #[test]
    fn encodings_are_well_formed() {
        for field in ALL {
            assert_eq!(field.0 & 0xffff_9001, 0, "{field:x?}");
        }
        assert_eq!(SegmentRegister::Tr.selector().0, 0x080e);
        assert_eq!(SegmentRegister::Tr.limit().0, 0x480e);
        assert_eq!(SegmentRegister::Tr.access_rights().0, 0x4822);
        assert_eq!(SegmentRegister::Tr.base().0, 0x6814);
    }
}
